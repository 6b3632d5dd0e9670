"""Routes: which messages feed which stream, compiled once, run for every message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from bridge.log import get_logger
from bridge.mapping.checks import check
from bridge.mapping.coercion import COERCIONS, Coercion, from_text
from bridge.mapping.extras import compile_extras
from bridge.mapping.fields import ROOT, ROW_ID, Field, RowId, compile_column, compile_row_id, metadata_in
from bridge.mapping.formats import FormatOptions, compile_decoder
from bridge.mapping.formats.compressed import compile_decompressor
from bridge.mapping.metadata import metadata_of
from bridge.mapping.paths import Getter, compile_expression, compile_getter, is_true
from bridge.mapping.payload import elements, objects
from bridge.mapping.route import Route, sources
from bridge.mapping.sparkplug import Sparkplug
from bridge.mapping.topics import TopicTemplate, minimal_filters
from bridge.mapping.unmappable import NoReading, Unmappable
from bridge.message import DeadLetter, MqttMessage, Row
from bridge.reasons import Reason
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import Attribute, AttributeType

MAX_ROW = 720 * 1024
"""Bytes. With base64 and envelope it stays below GDN's frame limit of 1 MiB (gdn-api.md C.5)."""

MAX_ROWS_BYTES = 8 * 1024 * 1024
"""Bytes of all rows of one message."""

CACHED_TOPIC_LENGTH = 512
"""Characters. Longer topics are matched each time."""

CACHED_TOPICS = 10_000
"""Topics whose match is remembered; beyond it the memory is cleared and fills anew."""

MAX_LABEL = 100
"""Characters of what a route is called in the metrics."""

TEXT_FORMATS = ("text", "csv")
"""Formats whose values are all text: it counts as what it spells, as a topic's levels do."""

DecodeMessage = Callable[[MqttMessage], Any]

_encode = msgspec.json.Encoder().encode

log = get_logger(__name__)


class Column(NamedTuple):
    """One column made ready."""

    name: str
    type: AttributeType
    coerce: Coercion
    field: Field | None
    """None: the payload's member of the column's name."""
    is_of_topic: bool


class CompiledRoute(NamedTuple):
    """A route made ready."""

    number: int
    """Its place among the routes."""
    template: TopicTemplate
    stream: str
    decode: DecodeMessage
    each: Getter | None
    each_text: str
    when: Getter | None
    columns: tuple[Column, ...]
    blank: dict[str, Any]
    """The columns, in their order, without values."""
    of_topic: tuple[tuple[str, Coercion, Field], ...]
    """Name, coercion and field of the columns that the topic alone decides, or nothing at all."""
    of_message: tuple[Column, ...]
    """The others."""
    takes_nulls: bool
    """Whether the worker keeps rows that lack an attribute (``fail.on.missing.attribute`` false)."""
    row_id: RowId | None
    """None: nothing takes it."""
    metadata: frozenset[str]
    """What fields take beside captures and payload."""
    extras: Field | None
    is_last: bool
    """Whether a message that it takes goes to no later route."""


class _Match(NamedTuple):
    """What a topic alone decides."""

    route: CompiledRoute
    captures: dict[str, str]
    values: dict[str, Any]
    """Of the columns, in their order; None for those in ``columns``."""
    columns: tuple[Column, ...]
    """Those that the topic doesn't decide."""


class Mapper:
    """Maps messages to rows. Routes are tried in their order.

    Args:
        routes: in order of precedence.
        streams: what the worker reads, by GDN stream name.
        outbox_name: first part of the ids of rows whose route names no ``id``; never used for two outboxes.
        client: the MQTT client id, for ``$client``.
        sparkplug: the state of an earlier mapping, to be gone on with; None: made anew if a route needs it.
        births: what to make it of, as its ``changes`` gave it.

    Raises:
        ValueError: a route is wrong; ``check`` lists all that is.
    """

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        streams: Mapping[str, InputStream],
        outbox_name: str = "",
        client: str = "",
        sparkplug: Sparkplug | None = None,
        births: Mapping[str, str] | None = None,
    ) -> None:
        problems = check(routes, streams)
        if problems:
            raise ValueError("\n".join(str(problem) for problem in problems))
        self.sparkplug = sparkplug
        if sparkplug is None and any(route.format.name == "sparkplug" for route in routes):
            self.sparkplug = Sparkplug(births)
        """Its state, None if no route takes Sparkplug messages."""
        decoders = {route.format: _decoder(route.format, self.sparkplug) for route in routes}
        self.compiled_routes = [
            _compile_route(number, route, streams[route.stream], decoders[route.format], outbox_name)
            for number, route in enumerate(routes)
        ]
        self._routes = tuple(routes)
        self._made = [0] * len(routes)
        self.client = client
        self._matches: dict[str, tuple[_Match, ...]] = {}
        self.filters = minimal_filters([route.template.filter for route in self.compiled_routes])
        """Topic filters to subscribe."""
        self.version = blake2b(repr((routes, sorted(streams.items()))).encode(), digest_size=4).hexdigest()
        """Of routes and columns, for dead letters: another one may do better."""

    def map(self, message: MqttMessage, next_id: int = 0) -> list[Row] | DeadLetter:
        """The message's rows, or the dead letter it becomes; never an exception.

        No rows at all: routes took the topic, but their conditions (``when``) none of it, or it has no reading.

        ``next_id`` is the record id that the first row will get in the outbox; the others get the next ones.
        """
        try:
            return self._map(message, next_id)
        except Exception as exc:  # a bug in the mapping costs its message only (P5)
            log.exception("mapping.failed", topic=message.topic)
            return DeadLetter.of(
                message, route=None, reason=Reason.INTERNAL_ERROR.value, detail=repr(exc), mapping=self.version
            )

    def _map(self, message: MqttMessage, next_id: int) -> list[Row] | DeadLetter:
        matches = self._match(message.topic)
        match = None
        try:
            if not matches:
                if not _is_storable(message.topic):
                    raise Unmappable(Reason.BAD_TOPIC, "the topic is not UTF-8 or holds a NUL")
                raise Unmappable(Reason.NO_ROUTE, "no route takes this topic")
            if len(matches) == 1:
                match = matches[0]
                return self._rows(match, message, match.route.decode(message), next_id)
            rows: list[Row] = []
            # Routes of the same format decode a message once: with Sparkplug decoding has a memory.
            decoded: dict[DecodeMessage, Any] = {}
            for match in matches:
                decode = match.route.decode
                if decode not in decoded:
                    decoded[decode] = decode(message)
                taken = self._rows(match, message, decoded[decode], next_id + len(rows))
                rows += taken
                if taken and match.route.is_last:
                    break
        except NoReading:
            return []
        except Unmappable as exc:
            route = None if match is None else match.route.template.text
            return DeadLetter.of(message, route=route, reason=exc.reason.value, detail=str(exc), mapping=self.version)
        return rows

    def rows_made(self) -> dict[tuple[str, str], int]:
        """How many rows the routes have made, by route and stream; a route goes by its name, or else its topic."""
        made: dict[tuple[str, str], int] = {}
        for route, number in zip(self._routes, self._made, strict=True):
            label = (route.name or route.topic)[:MAX_LABEL], route.stream
            made[label] = made.get(label, 0) + number
        return made

    def _match(self, topic: str) -> tuple[_Match, ...]:
        try:
            return self._matches[topic]
        except KeyError:
            pass
        found: tuple[_Match, ...] = ()
        if _is_storable(topic):
            found = tuple(
                _of_topic(route, captures)
                for route in self.compiled_routes
                if (captures := route.template.match(topic)) is not None
            )
        if len(topic) <= CACHED_TOPIC_LENGTH:
            if len(self._matches) >= CACHED_TOPICS:
                self._matches.clear()
            self._matches[topic] = found
        return found

    def _rows(self, match: _Match, message: MqttMessage, payload: Any, next_id: int) -> list[Row]:
        """The rows that one route makes; none if its condition takes nothing."""
        route = match.route
        found = found_in(payload, route)
        if route.when is not None:
            when = route.when
            found = [element for element in found if is_true(when(element))]
        captures: dict[str, Any] = match.captures
        if route.metadata:
            captures = {**captures, **metadata_of(message, route.metadata, self.client), ROOT: payload}
        rows = []
        room = MAX_ROWS_BYTES
        for number, element in enumerate(found):
            try:
                row = _row(match, captures, element, next_id + number)
            except Unmappable as exc:
                where = f"element {number}, " if len(found) > 1 else ""
                raise Unmappable(exc.reason, f"{where}{exc}") from None
            room -= len(row.payload) + len(row.extras)
            if room < 0:
                raise Unmappable(Reason.TOO_LARGE, f"the message's rows have over {MAX_ROWS_BYTES} bytes together")
            rows.append(row)
        self._made[route.number] += len(rows)
        return rows


def found_in(payload: Any, route: CompiledRoute) -> list[dict[str, Any]]:
    """What of a decoded payload becomes a row each, where the route's condition takes it.

    Raises:
        Unmappable: there is nothing, or too much.
    """
    return objects(payload) if route.each is None else elements(route.each(payload), route.each_text)


def _row(match: _Match, captures: dict[str, Any], element: dict[str, Any], record_id: int) -> Row:
    route = match.route
    if route.row_id is not None:
        try:
            captures = {**captures, ROW_ID: route.row_id(element, record_id)}
        except Unmappable as exc:
            raise Unmappable(exc.reason, f"{ROW_ID}: {exc}") from None
    values = match.values.copy()
    for name, _, coerce, compiled, _ in match.columns:
        try:
            value = element.get(name) if compiled is None else compiled(captures, element)
            if value is not None:
                values[name] = coerce(value)
            elif not route.takes_nulls:
                # The worker drops a row that lacks an attribute, without a word (gdn-api.md F.6).
                raise Unmappable(Reason.MISSING_FIELD, "there is no value for it")
        except Unmappable as exc:
            raise Unmappable(exc.reason, f"column {name}: {exc}") from None
    try:
        payload = _encode(values)
    except (UnicodeEncodeError, OverflowError, ValueError) as exc:
        raise Unmappable(Reason.TYPE_MISMATCH, f"the row can't be written as JSON: {exc}") from exc
    if len(payload) > MAX_ROW:
        raise Unmappable(Reason.TOO_LARGE, f"the row has {len(payload)} bytes, at most {MAX_ROW} can be sent")
    return (
        Row(route.stream, payload)
        if route.extras is None
        else Row(route.stream, payload, route.extras(captures, element))
    )


def _of_topic(route: CompiledRoute, captures: dict[str, str]) -> _Match:
    values = route.blank.copy()
    columns = route.of_message
    unfit = set()
    for name, coerce, field in route.of_topic:
        try:
            values[name] = coerce(field(captures, {}))
        except Unmappable:  # each message says so
            unfit.add(name)
    if unfit:
        columns = tuple(column for column in route.columns if column in columns or column.name in unfit)
    return _Match(route, captures, values, columns)


def _is_storable(topic: str) -> bool:
    if topic.isascii():
        return "\0" not in topic
    try:
        topic.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in topic


# --- routes made ready ------------------------------------------------------------------------------------


def _compile_route(
    number: int, route: Route, stream: InputStream, decode: DecodeMessage, outbox_name: str
) -> CompiledRoute:
    template = TopicTemplate.parse(route.topic)
    names = frozenset(name for name in template.captures if name is not None)
    taken = set().union(*(metadata_in(source) for source in sources(route)))
    columns = tuple(_column(attribute, route, names) for attribute in stream.attributes or ())
    return CompiledRoute(
        number=number,
        template=template,
        stream=route.stream,
        decode=decode,
        each=None if route.each is None else compile_getter(route.each),
        each_text=route.each or "",
        when=None if route.when is None else compile_expression(route.when),
        columns=columns,
        blank=dict.fromkeys([column.name for column in columns]),
        of_topic=tuple((c.name, c.coerce, c.field) for c in columns if c.is_of_topic and c.field is not None),
        of_message=tuple(column for column in columns if not column.is_of_topic),
        takes_nulls=not stream.fail_on_missing,
        row_id=compile_row_id(route.id, outbox_name=outbox_name) if ROW_ID in taken else None,
        metadata=frozenset(taken - {ROW_ID}),
        extras=compile_extras(route, names),
        is_last=route.match == "first",
    )


def _decoder(options: FormatOptions, sparkplug: Sparkplug | None) -> DecodeMessage:
    if options.name == "sparkplug" and sparkplug is not None:
        state = sparkplug
        decompress = compile_decompressor(options.compression, options.max_payload)
        if decompress is None:
            return lambda message: state.decode(message.topic, message.payload, is_replay=message.is_replay)
        return lambda message: state.decode(message.topic, decompress(message.payload), is_replay=message.is_replay)
    decode = compile_decoder(options)
    return lambda message: decode(message.payload)


def _column(attribute: Attribute, route: Route, captures: frozenset[str]) -> Column:
    name, wanted = attribute.name, attribute.type
    source = route.fields.get(name, f"{{{name}}}" if name in captures else None)
    compiled = None if source is None else compile_column(source, captures=captures, wanted=wanted)
    is_of_topic = isinstance(source, int | float)
    if isinstance(source, str):
        is_of_topic = source.startswith("=") or source in [f"{{{capture}}}" for capture in captures]
    if route.format.name in TEXT_FORMATS:
        compiled = _spelled(compiled, name, wanted)
    return Column(name, wanted, COERCIONS[route.types][wanted], compiled, is_of_topic)


def _spelled(field: Field | None, name: str, wanted: AttributeType) -> Field:
    def spelled(captured: Mapping[str, Any], payload: Any) -> Any:
        value = payload.get(name) if field is None else field(captured, payload)
        return from_text(value.strip(), wanted) if type(value) is str and wanted is not AttributeType.STRING else value

    return spelled
