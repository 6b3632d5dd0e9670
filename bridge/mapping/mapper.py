"""Maps messages to rows by routes, which are compiled once and run for every message."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from bridge.log import get_logger
from bridge.mapping.checks import check
from bridge.mapping.compiled_route import Column, CompiledRoute, compile_route, message_decoder
from bridge.mapping.each import Elements, Members
from bridge.mapping.encoding import compile_encoding
from bridge.mapping.fields import (
    KEY,
    ROOT,
    ROW_ID,
    CompiledRowId,
)
from bridge.mapping.formats import FormatOptions
from bridge.mapping.formats.options import JSON_FORMATS
from bridge.mapping.metadata import metadata_of
from bridge.mapping.numbers import DigitsNeeded
from bridge.mapping.reports import MESSAGE, REPORTS, Reports, Unchanged
from bridge.mapping.route import Route
from bridge.mapping.sharing import Group, MessageDecoder, Sharing
from bridge.mapping.sparkplug import DEFAULT_MAX_BYTES, Sparkplug
from bridge.mapping.topics import FilterTree, minimal_filters
from bridge.mapping.unmappable import NoReading, Unmappable
from bridge.message import DeadLetter, MqttMessage, Row, Rows
from bridge.reasons import Reason
from bridge.streamql.streams import InputStream

MAX_ROW = 720 * 1024
"""Bytes of a row. With base64 and envelope it stays below GDN's frame limit of 1 MiB (gdn-api.md C.5)."""

MAX_ROWS_BYTES = 8 * 1024 * 1024
"""Bytes of all rows of one message."""

CACHED_TOPIC_LENGTH = 512
"""Characters. Longer topics are matched each time."""

CACHED_TOPICS = 10_000
"""Topics in the match cache; when it is full it is cleared."""

MAX_LABEL = 100
"""Characters of a route's label in metrics."""

SPARKPLUG_LANE = "$sparkplug"
"""Lane of all Sparkplug messages: see ``Mapper.lanes``. No stream has a ``$`` in its name."""

log = get_logger(__name__)


class _TopicMatch(NamedTuple):
    """A route that matches a topic, with everything that is the same for all messages on the topic."""

    route: CompiledRoute
    captures: dict[str, str]
    values: dict[str, Any]
    """All columns in order; None for those in ``columns``."""
    columns: tuple[Column, ...]
    """The columns to compute for each message."""


class Mapper:
    """Maps messages to rows. Routes are tried in order.

    Args:
        routes: in order of precedence.
        streams: the streams that the worker reads, by GDN stream name.
        outbox_name: prefix of row ids for routes without ``id``; no two outboxes may have the same.
        client: the MQTT client id, for ``$client``.
        sparkplug: the state of the previous mapper, to continue with; None: created if a route needs it.
        births: birth certificates to restore a new state from, as its ``changes`` gave them.
        sparkplug_bytes: memory of a new state.

    Raises:
        ValueError: a route is invalid; ``check`` lists all problems.
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
        sparkplug_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        problems = check(routes, streams)
        if problems:
            raise ValueError("\n".join(str(problem) for problem in problems))
        self.sparkplug = sparkplug
        """The birth certificates that the format sparkplug needs; None if no route has that format."""
        if sparkplug is None and any(route.format.name == "sparkplug" for route in routes):
            self.sparkplug = Sparkplug(births, max_bytes=sparkplug_bytes)
        # One decoder for each format, so that routes with the same format share it: see _map.
        decoders = {route.format: message_decoder(route.format, self.sparkplug) for route in routes}
        self._reports = Reports()
        self._encodings = {name: compile_encoding(streams[name]) for name in {route.stream for route in routes}}
        self.compiled_routes = [
            compile_route(
                number,
                route,
                self._encodings[route.stream],
                decoders[route.format],
                outbox_name,
                keeps_digits=route.format.name not in JSON_FORMATS,
            )
            for number, route in enumerate(routes)
        ]
        self._tree = FilterTree()
        for route in self.compiled_routes:
            self._tree.add(route.template.levels, route.number)
        self._routes = tuple(routes)
        self._outbox_name = outbox_name
        self._row_counts = [0] * len(routes)
        self._stream: str | None = None  # whose rows are made; None: of all
        self._whole = self  # the mapper for the rows of all
        self._conditions = [0] * len(routes)
        self._unanswerable = [0] * len(routes)
        self.client = client
        self.streams = streams
        self._matches: dict[str, tuple[_TopicMatch, ...]] = {}
        self.filters = minimal_filters([route.template.filter for route in self.compiled_routes])
        """Topic filters to subscribe."""
        self.version = blake2b(repr((routes, sorted(streams.items()))).encode(), digest_size=4).hexdigest()
        """Hash of routes and columns. Dead letters keep it: with another version a replay may succeed."""

    def map(self, message: MqttMessage, next_id: int = 0) -> list[Row] | DeadLetter:
        """The message's rows, or the dead letter that it becomes; raises nothing.

        They are ``Rows`` if no route takes some of its elements, if the message carries no reading, or if rows are
        held back. Rows that the caller stores must be followed by ``committed`` or ``rolled_back``.

        ``next_id`` is the record id that the first row will get in the outbox; the others follow on.
        """
        try:
            return self._map(message, next_id)
        except Exception as exc:  # a bug in the mapping affects only this message
            log.exception("mapping.failed", topic=message.topic)
            self._reports.discard(message)
            return DeadLetter.of(
                message, route=None, reason=Reason.INTERNAL_ERROR.value, detail=repr(exc), mapping=self.version
            )

    def of_stream(self, stream: str) -> Mapper:
        """A mapper for a session that gets the messages of one stream: it subscribes to the stream's filters.

        Use ``map_own``. ``rows_made`` counts the rows of this stream.
        """
        mapper = copy.copy(self)
        mapper._stream, mapper._whole = stream, self
        mapper._row_counts, mapper._conditions, mapper._unanswerable = ([0] * len(self._routes) for _ in range(3))
        mapper._reports = Reports()
        own = [route.template.filter for route in self.compiled_routes if route.stream == stream]
        mapper.filters = minimal_filters(own)
        return mapper

    def map_own(self, message: MqttMessage, next_id: int = 0) -> list[Row] | DeadLetter | None:
        """What the message becomes in the session of one stream: see ``of_stream``.

        Several sessions may get the message. Each tries all routes in order and keeps the rows of its own stream. What
        becomes no row, a dead letter or what no route takes, belongs to one of them: the session of the first route
        whose topic filter matches. None: all of it belongs to other sessions.

        All of a message that no route of this stream matches is kept: it came for an earlier subscription, perhaps to
        this session alone.
        """
        assert self._stream is not None
        matching = self._tree.covering(message.topic.split("/"))
        if not any(self._routes[number].stream == self._stream for number in matching):
            return self._whole.map(message, next_id)
        mapped = self.map(message, next_id)
        if type(mapped) is list:
            return _of_stream(mapped, self._stream) or None
        is_own = not matching or self._routes[matching[0]].stream == self._stream
        if isinstance(mapped, DeadLetter):
            return mapped if is_own else None
        filtered = mapped.filtered if is_own and isinstance(mapped, Rows) else 0
        rows = _counted(_of_stream(mapped, self._stream), filtered=filtered, unchanged=_unchanged(mapped))
        return rows if rows or isinstance(rows, Rows) else None

    def _map(self, message: MqttMessage, next_id: int) -> list[Row] | DeadLetter:
        matches = self._match(message.topic)
        match = None  # a dead letter names its route
        elements: Elements | None = None
        try:
            if message.omitted:
                match = matches[0] if matches else None
                raise Unmappable(Reason.TOO_LARGE, _beyond_packet_limit(message))
            if not matches:
                raise _no_route(message.topic)
            match = matches[0]
            if len(matches) > 1 and not match.route.takes_all:
                return self._map_shared(matches, message, next_id)
            payload = match.route.decode(message)
            elements = match.route.each(payload)
            # Copied only if needed: the captures are shared by all messages on the topic.
            context = self._context(match, message, payload, elements) if match.route.metadata else match.captures
            if match.route.when is None:
                return self._rows(match, context, elements, elements, next_id)
            taken = self._taken(match.route, context, elements)
            rows = self._rows(match, context, elements, taken, next_id)
        except DigitsNeeded:
            self._keep_digits_from_now(match, message)
            return self._map(message, next_id)
        except NoReading:
            return Rows(filtered=1)
        except Unmappable as exc:
            if elements is None and match is not None and exc.reason in match.route.passes_on:
                return self._map_shared(matches[1:], message, next_id, unread=(match, exc))
            return self._dead_letter(message, match, exc)
        if len(taken) == len(elements):
            return rows
        return _counted(rows, filtered=len(elements) - len(taken), unchanged=_unchanged(rows))

    def _map_shared(
        self,
        matches: Sequence[_TopicMatch],
        message: MqttMessage,
        next_id: int,
        unread: tuple[_TopicMatch, Unmappable] | None = None,
        decoded: dict[MessageDecoder, Any] | None = None,
    ) -> list[Row] | DeadLetter:
        """The rows of a message that several routes may take.

        Args:
            matches: in order of precedence.
            message: to map.
            next_id: see ``map``.
            unread: the earlier route that could not read it, and why.
            decoded: its payload, as far as it is decoded.
        """
        rows: list[Row] = []
        unchanged = 0
        counts: list[tuple[int, int]] = []  # rows made, by route
        failed, why = unread or (None, None)
        sharing = Sharing(why, decoded)
        for match in matches:
            route = match.route
            try:
                group = sharing.offer(route, message)
                if not isinstance(group, Group):
                    failed = match if group is sharing.unreadable else failed
                    continue
                context = (
                    self._context(match, message, group.payload, group.found) if route.metadata else match.captures
                )
                taken = self._taken(route, context, group.offered)
                stored = rows if self._stream is None else _of_stream(rows, self._stream)
                made = self._rows(match, context, group.found, taken, next_id + len(stored))
            except DigitsNeeded:
                self._keep_digits_from_now(match, message)
                self._uncount(counts)
                again = self._match(message.topic)[-len(matches) :]
                return self._map_shared(again, message, next_id, unread, sharing.decoded)
            except Unmappable as exc:
                self._uncount(counts)
                return self._dead_letter(message, match, exc)
            counts.append((route.number, len(made)))
            rows += made
            unchanged += _unchanged(made)
            group.take(taken, is_last=route.is_last)
            if not group.offered:
                break
        if sharing.unreadable is not None:
            return self._dead_letter(message, failed, sharing.unreadable)
        return _counted(rows, filtered=sharing.filtered(), unchanged=unchanged)

    def _uncount(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take back rows counted by route: the message has none."""
        for number, count in counts:
            self._row_counts[number] -= count

    def _dead_letter(self, message: MqttMessage, match: _TopicMatch | None, why: Unmappable) -> DeadLetter:
        self._reports.discard(message)
        route = None if match is None else match.route.template.text
        return DeadLetter.of(message, route=route, reason=why.reason.value, detail=str(why), mapping=self.version)

    def committed(self, rejected: Collection[str]) -> None:
        """Note that all rows made so far are stored, except those for the streams ``rejected``."""
        self._reports.committed(rejected)

    def rolled_back(self) -> None:
        """Note that the rows made since the last ``committed`` are not stored."""
        self._reports.rolled_back()

    def keep_digits(self) -> None:
        """Keep all digits of numbers in all routes now, not only in those whose messages turn out to need them."""
        for format_ in {route.format for route in self._routes if route.format.name in JSON_FORMATS}:
            self._keep_digits(format_)

    def _keep_digits_from_now(self, match: _TopicMatch | None, message: MqttMessage) -> None:
        """Compile the routes of this format again; the message is then mapped again, from the start."""
        assert match is not None
        self._reports.discard(message)
        self._keep_digits(self._routes[match.route.number].format)

    def _keep_digits(self, format_: FormatOptions) -> None:
        """Compile the routes of a format again with the decoder that keeps all digits of numbers, which is slower.

        All of them: routes that share elements share the decoder.
        """
        decode = message_decoder(format_, None, keep_digits=True)
        for number, route in enumerate(self._routes):
            if route.format == format_:
                encoding = self._encodings[route.stream]
                self.compiled_routes[number] = compile_route(
                    number, route, encoding, decode, self._outbox_name, keeps_digits=True
                )
        self._matches.clear()

    def columns_of(self, row: Row) -> dict[str, Any]:
        """The columns of a row that this mapper made, whatever form the worker's source takes."""
        return self._encodings[row.stream].decode(row.payload)

    def rows_made(self) -> dict[tuple[str, str], int]:
        """How many rows the routes have made, by label and stream; the label is the route's name, or its topic."""
        return self._by_label(self._row_counts)

    def unanswerable(self) -> dict[tuple[str, str], int]:
        """For how many elements a route's condition couldn't be evaluated, by label and stream."""
        return self._by_label(self._unanswerable)

    def _by_label(self, numbers: Sequence[int]) -> dict[tuple[str, str], int]:
        counts: dict[tuple[str, str], int] = {}
        for route, number in zip(self._routes, numbers, strict=True):
            if self._stream is not None and self._stream != route.stream:
                continue
            label = _label(route), route.stream
            counts[label] = counts.get(label, 0) + number
        return counts

    def notes(self) -> tuple[str, ...]:
        """Probable mistakes that the messages have shown, as sentences."""
        return tuple(
            f"{_label(route)}: its condition (when) could be evaluated for none of {asked} elements; a member that it "
            "names is absent, or has another type"
            for route, asked, unanswerable in zip(self._routes, self._conditions, self._unanswerable, strict=True)
            if asked and asked == unanswerable and self._stream in (None, route.stream)
        )

    def lanes(self, topic: str) -> frozenset[str]:
        """What messages on the topic must keep their order for: their streams, and Sparkplug's state.

        Messages without a common lane may be mapped in any order.
        """
        routes = [match.route for match in self._match(topic)]
        sparkplug = [SPARKPLUG_LANE for route in routes if self._routes[route.number].format.name == "sparkplug"]
        return frozenset([*(route.stream for route in routes), *sparkplug])

    def _match(self, topic: str) -> tuple[_TopicMatch, ...]:
        try:
            return self._matches[topic]
        except KeyError:
            pass
        found: tuple[_TopicMatch, ...] = ()
        if _is_storable(topic):
            candidates = (self.compiled_routes[number] for number in self._tree.covering(topic.split("/")))
            found = tuple(
                _topic_match(route, captures)
                for route in candidates
                if (captures := route.template.match(topic)) is not None
            )
        # Topics that no route matches are cached too; both bounds keep invented topics from filling the memory.
        if len(topic) <= CACHED_TOPIC_LENGTH:
            if len(self._matches) >= CACHED_TOPICS:
                self._matches.clear()
            self._matches[topic] = found
        return found

    def _context(self, match: _TopicMatch, message: MqttMessage, payload: Any, elements: Elements) -> Mapping[str, Any]:
        """What the sources and the condition of a route with metadata can read besides the element."""
        route = match.route
        context: dict[str, Any] = {
            **match.captures,
            **metadata_of(message, route.metadata, self.client),
            ROOT: payload,
            MESSAGE: message,
            REPORTS: self._reports,
        }
        if isinstance(elements, Members):
            context[KEY] = elements.names
        return context

    def _taken(self, route: CompiledRoute, context: Mapping[str, Any], offered: Elements) -> Elements:
        """The elements that the route takes of those that it is offered."""
        when = route.when
        if when is None:
            return offered
        answers = [when(context, element) for element in offered]
        self._conditions[route.number] += len(answers)
        self._unanswerable[route.number] += answers.count(None)
        return [element for element, answer in zip(offered, answers, strict=True) if answer]

    def _rows(
        self, match: _TopicMatch, context: Mapping[str, Any], elements: Elements, taken: Elements, next_id: int
    ) -> list[Row]:
        """The rows that a route makes of the elements that it takes."""
        route = match.route
        rows = []
        unchanged = 0
        room = MAX_ROWS_BYTES
        for number, element in enumerate(taken):
            try:
                row = _row(match, context, element, next_id + number)
            except Unmappable as exc:
                where = f"element {_position(element, elements)}, " if len(elements) > 1 else ""
                raise Unmappable(exc.reason, f"{where}{exc}") from None
            except Unchanged:
                next_id -= 1  # the following rows get the ids before
                unchanged += self._stream in (None, route.stream)
                continue
            room -= len(row.payload) + len(row.extras)
            if room < 0:
                raise Unmappable(Reason.TOO_LARGE, f"the message's rows have more than {MAX_ROWS_BYTES} bytes in total")
            rows.append(row)
        self._row_counts[route.number] += len(rows)
        return Rows(rows, unchanged=unchanged) if unchanged else rows


def _unchanged(rows: list[Row]) -> int:
    return rows.unchanged if isinstance(rows, Rows) else 0


def _counted(rows: list[Row], *, filtered: int, unchanged: int) -> list[Row]:
    return Rows(rows, filtered=filtered, unchanged=unchanged) if filtered or unchanged else rows


def _position(element: dict[str, Any], elements: Elements) -> int:
    return next(n for n, other in enumerate(elements) if other is element)


def _of_stream(rows: Sequence[Row], stream: str) -> list[Row]:
    return [row for row in rows if row.stream == stream]


def _no_route(topic: str) -> Unmappable:
    if not _is_storable(topic):
        return Unmappable(Reason.BAD_TOPIC, "the topic is not UTF-8 or contains NUL")
    return Unmappable(Reason.NO_ROUTE, "no route matches this topic")


def _label(route: Route) -> str:
    return (route.name or route.topic)[:MAX_LABEL]


def _beyond_packet_limit(message: MqttMessage) -> str:
    kept = len(message.payload)
    return (
        f"the payload has {kept + message.omitted} bytes, too many to receive: only the first {kept} were kept. "
        "Limit the message size in the device or the broker"
    )


def _row(match: _TopicMatch, context: Mapping[str, Any], element: dict[str, Any], record_id: int) -> Row:
    route = match.route
    if route.row_id is not None:
        context = _with_row_id(context, route.row_id, element, record_id)
    values = match.values.copy()
    for name, _, coerce, field, _ in match.columns:
        try:
            value = element.get(name) if field is None else field(context, element)
            if value is not None:
                values[name] = coerce(value)
            elif not route.takes_nulls:
                # The worker silently drops a row that lacks an attribute (gdn-api.md F.6).
                raise Unmappable(Reason.MISSING_FIELD, "there is no value for it")
        except Unmappable as exc:
            raise Unmappable(exc.reason, f"column {name}: {exc}") from None
    try:
        payload = route.encode(values)
    except OverflowError as exc:
        raise _beyond_json(route, values, exc) from exc
    except ValueError as exc:
        raise Unmappable(Reason.TYPE_MISMATCH, f"the row can't be written: {exc}") from exc
    if len(payload) > MAX_ROW:
        raise Unmappable(Reason.TOO_LARGE, f"the row has {len(payload)} bytes, at most {MAX_ROW} can be sent")
    row = (
        Row(route.stream, payload)
        if route.extras is None
        else Row(route.stream, payload, route.extras(context, element))
    )
    if route.report is not None:  # last: what is no row is a dead letter, and never held back
        route.report(context, element, values)
    return row


def _with_row_id(
    context: Mapping[str, Any], row_id: CompiledRowId, element: dict[str, Any], record_id: int
) -> Mapping[str, Any]:
    try:
        return {**context, ROW_ID: row_id(element, record_id)}
    except Unmappable as exc:
        raise Unmappable(exc.reason, f"{ROW_ID}: {exc}") from None


def _beyond_json(route: CompiledRoute, values: dict[str, Any], exc: OverflowError) -> Unmappable:
    """What a number in an object column that is too large for JSON becomes."""
    for column in route.columns:
        try:
            route.encode({**route.empty_row, column.name: values[column.name]})
        except OverflowError:
            return Unmappable(Reason.OUT_OF_RANGE, f"column {column.name}: {exc}")
    return Unmappable(Reason.OUT_OF_RANGE, str(exc))


def _topic_match(route: CompiledRoute, captures: dict[str, str]) -> _TopicMatch:
    values = route.empty_row.copy()
    columns = route.message_columns
    unfit = set()  # columns whose value from the topic doesn't fit
    for name, coerce, field in route.topic_columns:
        try:
            values[name] = coerce(field(captures, {}))
        except Unmappable:  # computed again for each message, which becomes a dead letter with this detail
            unfit.add(name)
    if unfit:  # in the order of all columns, so that a dead letter names the first that fails
        columns = tuple(column for column in route.columns if column in columns or column.name in unfit)
    return _TopicMatch(route, captures, values, columns)


def _is_storable(topic: str) -> bool:
    """Whether the topic is UTF-8 without NUL."""
    if topic.isascii():
        return "\0" not in topic
    try:
        topic.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in topic
