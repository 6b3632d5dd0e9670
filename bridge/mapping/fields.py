"""Compiles a route's ``fields``: where a column's value comes from, and how it is converted.

A number or a boolean is a constant, and so is ``=text``; ``{capture}`` is a topic level; ``$…`` is metadata of the
message; text with several ``{…}`` is a template that joins such parts; ``jmespath:`` starts an expression; anything
else is a dotted path such as ``sensors.0.temp`` or ``"a.b".c``. A table (``FieldSpec``) adds conversions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation, Overflow
from operator import itemgetter
from typing import Any

from bridge.mapping.coercion import FRACTION_TYPES, PLAIN, WHOLE_TYPES, Reading, parse_text, unless_blank
from bridge.mapping.expressions import JMESPATH, Readers, compile_expression, names_in
from bridge.mapping.numbers import WrittenNumber, number_of
from bridge.mapping.paths import compile_getter, compile_path, path_steps
from bridge.mapping.payload import kind
from bridge.mapping.registers import compile_bit, compile_registers
from bridge.mapping.times import TimeSpec, compile_time, iso8601
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason
from bridge.streamql.syntax import AttributeType

CompiledField = Callable[[Mapping[str, Any], Any], Any]
"""(context, element) -> the value; None if there is none. The context has captures and metadata by name."""

CompiledRowId = Callable[[Any, int], str]
"""(element, record id) -> the row's id."""

ROW_ID = "$id"
ROOT = "$root"
RECEIVED_AT = "$received_at"
USER = "$user"
KEY = "$key"
METADATA = {
    ROW_ID: "the row's id",
    "$topic": "the topic",
    "$client": "the bridge's client id",
    "$qos": "0, 1 or 2",
    "$retain": "whether it was retained",
    RECEIVED_AT: "when the bridge received it; no value if the clock wasn't set then",
    ROOT: "the whole payload, where each or an array makes several rows",
    USER: "MQTT 5 user properties, as $user.name",
    KEY: "the name of the member that * in each stands for; $key.1 of the first *",
}
"""Names of metadata, with their meaning. In the context they can't clash with captures: those have no dollar sign."""

_TEXT_METADATA = (ROW_ID, "$topic", "$client")

Scalar = str | int | float | bool

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAMED_PLACEHOLDER = re.compile(r"\{[$A-Za-z_][A-Za-z0-9_.]*\}")  # not "{}", nor JSON
_DECIMALS = Context(prec=40)
_LARGEST = Decimal(10) ** 300  # below the largest double, 1.8e308


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A column's source and the conversions of its value.

    They are ``registers``, ``bit``, ``map``, then ``scale`` and ``offset``; or ``registers`` and a time.
    """

    source: Scalar
    scale: float | None = None
    offset: float | None = None
    map: Mapping[str, Scalar] | None = None
    """Value by the source's value as text; ``*`` for all others."""
    default: Scalar | FieldSpec | None = None
    """Where the source has no value: this constant, or the value of another source."""
    time: str | None = None
    """The value is a time, as in ``TimeSpec``; the column gets milliseconds since the epoch or ISO 8601 text."""
    format: str | None = None
    zone: str | None = None
    dst: Mapping[str, bool] | None = None
    unset_before: str | None = None
    registers: str | None = None
    """The value is a register, or an array of registers, that holds a number of this type: ``REGISTER_TYPES``."""
    byte_order: str | None = None
    """Of the registers."""
    bit: int | None = None
    """The bit of the value that counts; 0 is the least significant."""

    @property
    def is_time(self) -> bool:
        """Whether the value is a time."""
        return self.time is not None or self.format is not None


def compile_column(
    value: Scalar | FieldSpec, *, captures: frozenset[str], column_type: AttributeType, reading: Reading = PLAIN
) -> CompiledField:
    """Compile an entry of ``fields`` for a column of this type.

    Raises:
        ValueError: it is invalid; the message says why.
    """
    if isinstance(value, FieldSpec):
        return compile_spec(value, captures=captures, column_type=column_type, reading=reading)
    return compile_field(value, captures=captures, column_type=column_type, reading=reading)


def compile_spec(
    spec: FieldSpec, *, captures: frozenset[str], column_type: AttributeType, reading: Reading = PLAIN
) -> CompiledField:
    """Compile a source with conversions for a column of this type.

    Raises:
        ValueError: it is invalid; the message says why.
    """
    compile_ = _compile_time if spec.is_time else _compile_value
    return _with_default(compile_(spec, captures, column_type, reading), spec.default, captures, column_type, reading)


def _compile_value(
    spec: FieldSpec, captures: frozenset[str], column_type: AttributeType, reading: Reading
) -> CompiledField:
    for name, option in {"zone": spec.zone, "dst": spec.dst, "unset_before": spec.unset_before}.items():
        if option is not None:
            raise ValueError(f"{name} is for a time: set time or format, too")
    is_mapped, is_scaled = spec.map is not None, spec.scale is not None or spec.offset is not None
    # The source's value is converted first, so it need not have the column's type.
    source_type = AttributeType.STRING if is_mapped else AttributeType.DOUBLE if is_scaled else column_type
    field = _compile_source(spec, captures, source_type, reading)
    if spec.bit is not None and column_type is AttributeType.BOOL and not is_mapped:
        field = _converted(field, bool)
    if spec.map is not None:
        field = _mapped(field, spec.map, reading, column_type)
    elif column_type is not AttributeType.STRING:
        field = _with_cells(field, reading)
    if is_scaled:
        if column_type not in (*WHOLE_TYPES, *FRACTION_TYPES):
            raise ValueError(f"scale and offset give a number, but the column is {column_type.value}")
        digits = reading.text if column_type in WHOLE_TYPES else repr
        field = _scaled(field, spec.scale, spec.offset, digits)
    return field


def _compile_source(
    spec: FieldSpec, captures: frozenset[str], source_type: AttributeType, reading: Reading
) -> CompiledField:
    """Compile the source, and the registers and the bit that its value is in."""
    if spec.registers is None and spec.byte_order is not None:
        raise ValueError("byte_order is for registers: set registers, too")
    if spec.registers is None and spec.bit is None:
        return compile_field(spec.source, captures=captures, column_type=source_type, reading=reading)
    field = _with_cells(compile_field(spec.source, captures=captures, column_type=AttributeType.LONG), reading)
    if spec.registers is not None:
        field = _converted(field, compile_registers(spec.registers, spec.byte_order))
    return field if spec.bit is None else _converted(field, compile_bit(spec.bit))


def compile_field(
    value: Scalar, *, captures: frozenset[str], column_type: AttributeType, reading: Reading = PLAIN
) -> CompiledField:
    """Compile a source for a column of this type.

    Raises:
        ValueError: it is invalid; the message says why.
    """
    if not isinstance(value, str):
        return lambda _context, _element: value
    if value.startswith("="):
        text = value[1:]
        return lambda _context, _element: text
    if value.startswith(JMESPATH):
        return compile_expression(value, readers(captures))
    placeholders = list(_PLACEHOLDER.finditer(value))
    if not placeholders:
        if "{" in value or "}" in value:
            raise ValueError(f"unmatched brace in {value!r}")
        return _compile_name(value, frozenset(), column_type)  # outside braces, a capture's name is a path
    if len(placeholders) == 1 and placeholders[0][0] == value:
        return _compile_name(placeholders[0][1], captures, column_type)
    if column_type is AttributeType.OBJECT:
        raise ValueError(f"{value!r} gives text, but the column is object")
    return _compile_template(value, placeholders, captures, reading)


def metadata_in(value: Scalar) -> set[str]:
    """The metadata that a source uses, by the names in ``METADATA``."""
    if isinstance(value, str) and value.startswith(JMESPATH):
        return names_in(value) & METADATA.keys()
    return {known for name in named_in(value) for known in METADATA if name == known or name.startswith(f"{known}.")}


def named_in(value: Scalar) -> list[str]:
    """What a source other than an expression reads: paths, captures and metadata."""
    if not isinstance(value, str) or value.startswith(("=", JMESPATH)):
        return []
    return [placeholder[1] for placeholder in _PLACEHOLDER.finditer(value)] or [value]


def readers(captures: Set[str]) -> Readers:
    """What an expression can read besides the element, by how it is written there."""
    metadata = {name: itemgetter(name) for name in METADATA if name not in (ROW_ID, RECEIVED_AT, KEY)}
    return {
        **{f"{{{capture}}}": itemgetter(capture) for capture in sorted(captures)},
        **metadata,
        RECEIVED_AT: _received_at,
    }


def _received_at(context: Mapping[str, Any]) -> int | None:
    """Milliseconds since the epoch."""
    return None if context[RECEIVED_AT] is None else context[RECEIVED_AT] // 10**6


def compile_row_id(path: str | None, *, outbox_name: str) -> CompiledRowId:
    """Compile a route's ``id``: the element's value at ``path``; without a path, outbox name and record id.

    Raises:
        ValueError: the path is invalid; the message says why.
    """
    if path is None:
        return lambda _element, record_id: f"{outbox_name}-{record_id}"
    get = compile_getter(path)

    def row_id(element: Any, _record_id: int) -> str:
        found = get(element)
        if type(found) is int:
            return str(found)
        if found is None or found == "":
            raise Unmappable(Reason.MISSING_FIELD, f"there is no value at {path}")
        if type(found) is not str:
            raise Unmappable(
                Reason.TYPE_MISMATCH, f"{kind(found)} ({preview(found)}) is neither text nor a whole number"
            )
        return found

    return row_id


def _of_element(get: Callable[[Any], Any]) -> CompiledField:
    return lambda _context, element: get(element)


def _compile_name(name: str, captures: frozenset[str], column_type: AttributeType) -> CompiledField:
    """Compile metadata, a capture or a path: a source without braces, or the text inside a placeholder's braces."""
    if name.startswith("$"):
        return _compile_metadata(name, column_type)
    if name in captures:
        if column_type is AttributeType.OBJECT:
            raise ValueError(f"the capture {{{name}}} is text, but the column is object")
        return lambda context, _element: parse_text(context[name], column_type)
    steps = path_steps(name)
    if len(steps) == 1:  # faster than the general path, and the usual case
        (member,) = steps
        return lambda _context, element: element.get(member)
    return _of_element(compile_path(name))


def _compile_metadata(name: str, column_type: AttributeType) -> CompiledField:
    head, _, rest = name.partition(".")
    if head == ROOT:
        return _compile_root(rest)
    if head == USER and rest:
        return _compile_user_property(name, rest, column_type)
    if head == KEY:
        return _compile_key(name, rest, column_type)
    if head not in METADATA or rest or head == USER:
        raise ValueError(
            f"unknown metadata {name}; there are: {', '.join(METADATA)}.NAME; to read a payload member of that name, "
            f"write '\"{name}\"'"
        )
    if head in _TEXT_METADATA and column_type is not AttributeType.STRING:
        raise ValueError(f"{head} is text, but the column is {column_type.value}")
    if head == RECEIVED_AT:
        if column_type is AttributeType.STRING:
            return lambda context, _element: None if context[head] is None else iso8601(context[head])
        if column_type is AttributeType.INT:
            raise ValueError(f"{head} is in milliseconds since 1970, which doesn't fit int: make the column long")
        return lambda context, _element: _received_at(context)
    return lambda context, _element: context[head]


def _compile_root(path: str) -> CompiledField:
    if not path:
        return lambda context, _element: context[ROOT]
    get = compile_path(path)
    return lambda context, _element: get(context[ROOT])


def _compile_key(name: str, position: str, column_type: AttributeType) -> CompiledField:
    index = key_position(name, position)
    return lambda context, element: parse_text(context[KEY][id(element)][index], column_type)


def key_position(name: str, position: str) -> int:
    """The index in an element's names that ``$key.POSITION`` reads; without a position it is the last.

    Raises:
        ValueError: the position is no whole number from 1.
    """
    if not position:
        return -1
    if not re.fullmatch("[1-9][0-9]?", position):
        raise ValueError(f"{name}: after {KEY} stands the number of a * in each, as in {KEY}.1")
    return int(position) - 1


def _compile_user_property(name: str, path: str, column_type: AttributeType) -> CompiledField:
    steps = path_steps(path)
    if len(steps) > 1:
        raise ValueError(f'{name}: a user property is one name; write one with a dot in quotes, as in $user."a.b"')
    (property_,) = steps
    return lambda context, _element: (
        None if (text := context[USER].get(property_)) is None else parse_text(text, column_type)
    )


def _compile_template(
    value: str, placeholders: list[re.Match[str]], captures: frozenset[str], reading: Reading
) -> CompiledField:
    as_text = reading.text
    parts: list[str | CompiledField] = []
    at = 0
    for placeholder in placeholders:
        parts.append(value[at : placeholder.start()])
        parts.append(_compile_name(placeholder[1], captures, AttributeType.STRING))
        at = placeholder.end()
    parts.append(value[at:])
    # The text between placeholders: a brace there belongs to no placeholder.
    if any(isinstance(part, str) and ("{" in part or "}" in part) for part in parts):
        raise ValueError(f"unmatched brace in {value!r}")

    def template(context: Mapping[str, Any], element: Any) -> str | None:
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            found = part(context, element)
            if found is None:  # a text without one of its parts would be misleading
                return None
            texts.append(as_text(found))
        return "".join(texts)

    return template


def _with_cells(field: CompiledField, reading: Reading) -> CompiledField:
    """The field, whose texts are read as for a column that is no string."""
    cell = reading.cell
    if cell is None:
        return field

    def read(context: Mapping[str, Any], element: Any) -> Any:
        found = field(context, element)
        return cell(found) if type(found) is str else found

    return read


# --- conversions ------------------------------------------------------------------------------------------


def _with_default(
    field: CompiledField,
    default: Scalar | FieldSpec | None,
    captures: frozenset[str],
    column_type: AttributeType,
    reading: Reading,
) -> CompiledField:
    if default is None:
        return field
    if isinstance(default, FieldSpec):
        other = compile_spec(default, captures=captures, column_type=column_type, reading=reading)

        def chained(context: Mapping[str, Any], element: Any) -> Any:
            found = field(context, element)
            return other(context, element) if found is None else found

        return chained
    if isinstance(default, str) and _looks_like_source(default):
        raise ValueError(
            f"default: {default!r} is this text, not what it names; write default = {{ source = {default!r} }}, or "
            f"{{ source = {'=' + default!r} }} for the text"
        )

    def defaulted(context: Mapping[str, Any], element: Any) -> Any:
        found = field(context, element)
        return default if found is None else found

    return defaulted


def _looks_like_source(text: str) -> bool:
    return text.startswith(JMESPATH) or text.partition(".")[0] in METADATA or bool(_NAMED_PLACEHOLDER.search(text))


def _converted(field: CompiledField, convert: Callable[[Any], Any]) -> CompiledField:
    def converted(context: Mapping[str, Any], element: Any) -> Any:
        found = field(context, element)
        return None if found is None else convert(found)

    return converted


def _mapped(
    field: CompiledField, values: Mapping[str, Scalar], reading: Reading, column_type: AttributeType
) -> CompiledField:
    as_text = reading.text
    skips_blank = column_type is not AttributeType.STRING and reading.skips_blank

    def mapped(context: Mapping[str, Any], element: Any) -> Any:
        found = field(context, element)
        if found is None:
            return None
        text = as_text(found)
        value = values.get(text, values.get("*"))
        if skips_blank and text not in values and not text.strip():
            return None
        if value is None:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(text)} is not in the field's map")
        return value

    return mapped


def _scaled(
    field: CompiledField, scale: float | None, offset: float | None, digits: Callable[[Any], str]
) -> CompiledField:
    factor = Decimal(1) if scale is None else Decimal(repr(scale))
    summand = Decimal(0) if offset is None else Decimal(repr(offset))

    def scaled(context: Mapping[str, Any], element: Any) -> Any:
        found = field(context, element)
        if found is None:
            return None
        if type(found) is str:
            text = found.strip()
            found = parse_text(text, AttributeType.DOUBLE)
            if isinstance(found, float):
                found = number_of(text)
        if type(found) not in (int, float, WrittenNumber):
            raise Unmappable(
                Reason.TYPE_MISMATCH, f"{kind(found)} ({preview(found)}) can't be scaled: it is not a number"
            )
        try:
            # In decimals: 217 times 0.1 is 21.7, not 21.700000000000003.
            number = _DECIMALS.add(_DECIMALS.multiply(Decimal(digits(found)), factor), summand)
        except InvalidOperation as exc:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(found)} can't be scaled: it is not a number") from exc
        except Overflow as exc:
            raise Unmappable(Reason.OUT_OF_RANGE, f"{preview(found)} is too large to scale") from exc
        if not number.is_finite() or abs(number) > _LARGEST:
            raise Unmappable(Reason.OUT_OF_RANGE, f"{preview(found)} is too large to scale")
        return int(number) if number == number.to_integral_value() else float(number)

    return scaled


def _compile_time(
    spec: FieldSpec, captures: frozenset[str], column_type: AttributeType, reading: Reading
) -> CompiledField:
    if spec.scale is not None or spec.offset is not None or spec.map is not None or spec.bit is not None:
        raise ValueError("a time can be combined only with registers and default, not with scale, offset, map or bit")
    if column_type not in (AttributeType.LONG, AttributeType.DOUBLE, AttributeType.STRING):
        raise ValueError(f"a time needs a long, double or string column, not {column_type.value}")
    parse = compile_time(TimeSpec(spec.time, spec.format, spec.zone, spec.dst, spec.unset_before))
    field = _compile_source(spec, captures, AttributeType.STRING, reading)
    if spec.time is not None and spec.time != "iso8601":
        field = _with_cells(field, reading)
    elif reading.skips_blank:  # a comma in a date is no decimal comma
        field = _with_cells(field, Reading(cell=unless_blank))

    def time(context: Mapping[str, Any], element: Any) -> Any:
        found = field(context, element)
        nanoseconds = None if found is None else parse(found)
        if nanoseconds is None:
            return None
        return iso8601(nanoseconds) if column_type is AttributeType.STRING else nanoseconds // 10**6

    return time
