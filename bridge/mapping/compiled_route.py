"""A route compiled once, to run for every message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from bridge.mapping.coercion import COERCIONS, ROUNDED, Coercion, Reading, as_text, parse_text, rounded_as_text
from bridge.mapping.each import Each, compile_each
from bridge.mapping.encoding import Encoding, Values
from bridge.mapping.expressions import JMESPATH, Condition, compile_condition
from bridge.mapping.extras import compile_extras
from bridge.mapping.fields import (
    ROW_ID,
    CompiledField,
    CompiledRowId,
    FieldSpec,
    Scalar,
    compile_column,
    compile_row_id,
    metadata_in,
    readers,
)
from bridge.mapping.formats import FormatOptions, compile_decoder
from bridge.mapping.formats.compressed import compile_decompressor
from bridge.mapping.formats.options import TEXT_FORMATS
from bridge.mapping.formats.substitutions import compile_cell, with_points
from bridge.mapping.formats.text import texts_of
from bridge.mapping.reports import MESSAGE, Report, compile_report
from bridge.mapping.route import Route, sources
from bridge.mapping.sharing import UNREADABLE, MessageDecoder
from bridge.mapping.sparkplug import Sparkplug
from bridge.mapping.topics import TopicTemplate
from bridge.reasons import Reason
from bridge.streamql.syntax import Attribute, AttributeType


class Column(NamedTuple):
    """A compiled column."""

    name: str
    type: AttributeType
    coerce: Coercion
    field: CompiledField | None
    """None: the element's member with the column's name."""
    is_per_topic: bool
    """Whether the value is the same for all messages on a topic."""


class CompiledRoute(NamedTuple):
    """A compiled route."""

    number: int
    """Its index among the routes."""
    template: TopicTemplate
    stream: str
    decode: MessageDecoder
    each: Each
    each_text: str
    """Empty: not configured."""
    when: Condition | None
    columns: tuple[Column, ...]
    empty_row: dict[str, Any]
    """The columns in order, all None."""
    topic_columns: tuple[tuple[str, Coercion, CompiledField], ...]
    """Name, coercion and field of the columns with ``is_per_topic``."""
    message_columns: tuple[Column, ...]
    """The other columns."""
    takes_nulls: bool
    """Whether the worker keeps rows that lack an attribute (``fail.on.missing.attribute`` is false)."""
    encode: Callable[[Values], bytes]
    """Writes a row's columns as the payload that the worker's source takes; raises Unmappable."""
    row_id: CompiledRowId | None
    """None: no field uses it."""
    metadata: frozenset[str]
    """The metadata that fields and condition use, without the row's id."""
    report: Report | None
    """Holds back rows; None: none is held back."""
    extras: CompiledField | None
    is_last: bool
    """Whether what it takes is not offered to later routes."""
    takes_all: bool
    """Whether later routes get nothing of a message that it can read."""
    passes_on: frozenset[Reason]
    """Why a message that it can't read goes on to the next route."""


def compile_route(
    number: int, route: Route, encoding: Encoding, decode: MessageDecoder, outbox_name: str, *, keeps_digits: bool
) -> CompiledRoute:
    """Compile a route. One that doesn't keep digits raises ``DigitsNeeded`` where it needs them."""
    template = TopicTemplate.parse(route.topic)
    captures = frozenset(name for name in template.captures if name is not None)
    reading = Reading(as_text if keeps_digits else rounded_as_text, compile_cell(route.format))
    condition = [] if route.when is None else [JMESPATH + route.when]
    metadata = set().union(*(metadata_in(source) for source in [*sources(route), *condition]))
    columns = tuple(_compile_column(attribute, route, captures, reading) for attribute in encoding.columns)
    return CompiledRoute(
        number=number,
        template=template,
        stream=route.stream,
        decode=decode,
        each=compile_each(route.each),
        each_text=route.each or "",
        when=None if route.when is None else _compile_when(route.when, route.format, captures),
        columns=columns,
        empty_row=dict.fromkeys([column.name for column in columns]),
        topic_columns=tuple((c.name, c.coerce, c.field) for c in columns if c.is_per_topic and c.field is not None),
        message_columns=tuple(column for column in columns if not column.is_per_topic),
        takes_nulls=encoding.takes_nulls,
        encode=encoding.encode,
        row_id=compile_row_id(route.id, outbox_name=outbox_name) if ROW_ID in metadata else None,
        metadata=frozenset(metadata - {ROW_ID}) | (frozenset() if route.every is None else {MESSAGE}),
        report=compile_report(number, route, encoding.columns, captures, reading),
        extras=_compile_extras(route, captures, reading),
        is_last=route.match == "first",
        takes_all=route.match == "first" and route.when is None and route.format.name != "sparkplug",
        passes_on=_passes_on(route),
    )


def _passes_on(route: Route) -> frozenset[Reason]:
    reasons: list[Iterable[Reason]] = [
        [Reason.EMPTY] if route.on_empty == "next" else [],
        [Reason.MISSING_FIELD] if route.on_absent == "next" else [],
        UNREADABLE if route.on_unreadable == "next" else [],
    ]
    return frozenset().union(*reasons)


def _compile_when(when: str, options: FormatOptions, captures: frozenset[str]) -> Condition:
    """The condition. It reads numbers with a decimal comma as columns do."""
    is_true = compile_condition(when, readers(captures))
    return is_true if options.decimal == "." else lambda context, element: is_true(context, with_points(element))


def _compile_extras(route: Route, captures: frozenset[str], reading: Reading) -> CompiledField | None:
    extras = compile_extras(route, captures, reading)
    if extras is None or route.format.name != "scalar":
        return extras
    return lambda context, element: extras(context, texts_of(element))


def message_decoder(
    options: FormatOptions, sparkplug: Sparkplug | None, *, keep_digits: bool = False
) -> MessageDecoder:
    """The decoder of a format. ``sparkplug`` is the state of that format; ``keep_digits``: see ``compile_decoder``."""
    if options.name == "sparkplug" and sparkplug is not None:
        state = sparkplug
        decompress = compile_decompressor(options.compression, options.max_payload)
        if decompress is None:
            return lambda message: state.decode(message.topic, message.payload, is_replay=message.is_replay)
        return lambda message: state.decode(message.topic, decompress(message.payload), is_replay=message.is_replay)
    decode = compile_decoder(options, keep_digits=keep_digits)
    return lambda message: decode(message.payload)


def _compile_column(attribute: Attribute, route: Route, captures: frozenset[str], reading: Reading) -> Column:
    name, column_type = attribute.name, attribute.type
    source = route.fields.get(name, f"{{{name}}}" if name in captures else None)
    field = None
    if source is not None:
        field = compile_column(source, captures=captures, column_type=column_type, reading=reading)
    # A template of captures would be the same for all messages too, but it may also use metadata or paths.
    is_per_topic = isinstance(source, int | float)
    if isinstance(source, str):
        is_per_topic = source.startswith("=") or source in [f"{{{capture}}}" for capture in captures]
    if column_type is not AttributeType.STRING:
        is_text = route.format.name in TEXT_FORMATS
        # A table's source has been read as a cell already, before it was converted; blank texts are none in any case.
        is_read = isinstance(source, FieldSpec) or (is_text and route.format.decimal == ".")
        field = _read_cell(field, name, column_type, None if is_read else reading.cell, is_text=is_text)
    elif route.format.name == "scalar" and _takes_text(source):
        field = _of_text(field, name)
    coercions = COERCIONS if reading.text is as_text or is_per_topic else ROUNDED
    return Column(name, column_type, coercions[route.types][column_type], field, is_per_topic)


def _takes_text(source: Scalar | FieldSpec | None) -> bool:
    """Whether the source's value reaches a string column without conversion."""
    if isinstance(source, FieldSpec):
        return source.map is None and not source.is_time and source.registers is None and _takes_text(source.source)
    return not (isinstance(source, str) and source.startswith(JMESPATH))


def _of_text(field: CompiledField | None, name: str) -> CompiledField:
    """The field, of a scalar as text."""

    def of_text(context: Mapping[str, Any], element: Any) -> Any:
        element = texts_of(element)
        return element.get(name) if field is None else field(context, element)

    return of_text


def _read_cell(
    field: CompiledField | None,
    name: str,
    column_type: AttributeType,
    cell: Callable[[str], str | None] | None,
    *,
    is_text: bool,
) -> CompiledField | None:
    """The field of a column that is no string, whose texts are read by ``cell``.

    In formats where all values are text, "21.5" is how a number is written: it is parsed in strict mode, too.
    """
    if cell is None and not is_text:
        return field

    def read(context: Mapping[str, Any], element: Any) -> Any:
        value = element.get(name) if field is None else field(context, element)
        if type(value) is not str:
            return value
        text = (value if cell is None else cell(value) or "").strip()
        if not is_text:
            return text
        return parse_text(text, column_type) if text else None

    return read
