"""Routes: which messages feed which stream, compiled once, run for every message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from bridge.mapping.coercion import COERCIONS, Coercion, from_text
from bridge.mapping.fields import ROW_ID, Field, RowId, Scalar, compile_field, compile_row_id, takes_row_id
from bridge.mapping.payload import MAX_PAYLOAD, objects
from bridge.mapping.reasons import Reason, Unmappable
from bridge.mapping.topics import TopicTemplate
from bridge.message import DeadLetter, MqttMessage, Row
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import Attribute, AttributeType

MAX_ROW = 720 * 1024
"""Bytes. With base64 and envelope it stays below GDN's frame limit of 1 MiB (gdn-api.md C.5)."""

MAX_ROWS = 10_000
"""Rows of one message: an array of tiny objects could otherwise become a thousand times its own size."""

MAX_ROWS_BYTES = 8 * 1024 * 1024
"""Bytes of all rows of one message."""

CACHED_TOPIC_LENGTH = 512
"""Characters. Longer topics are matched each time."""

CACHED_TOPICS = 10_000
"""Topics whose match is remembered; beyond it the memory is cleared and fills anew."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Route:
    """What a setting says: messages under ``topic`` feed ``stream``, ``fields`` naming what isn't there by name."""

    topic: str
    stream: str
    fields: MappingOf[str, Scalar] = field(default_factory=dict)
    id: str | None = None
    """Dotted path to the id that devices give a row, for ``$id``; None: the row's record id is its id."""


class _Column(NamedTuple):
    name: str
    coerce: Coercion
    field: Field | None
    """None: the payload's member of the column's name."""


class _Plan(NamedTuple):
    """A route made ready."""

    template: TopicTemplate
    stream: str
    columns: tuple[_Column, ...]
    takes_nulls: bool
    """Whether the worker keeps rows that lack an attribute (``fail.on.missing.attribute`` false)."""
    row_id: RowId | None
    """None: no field takes it."""


class _Match(NamedTuple):
    """What a topic alone decides."""

    plan: _Plan
    captures: dict[str, str]


class Mapping:
    """Maps messages to rows. The first route whose topic matches takes a message.

    Args:
        routes: in order of precedence.
        streams: what the worker reads, by GDN stream name.
        max_payload: bytes of a payload that are looked at.
        outbox_name: first part of the ids of rows whose route names no ``id``; never used for two outboxes.

    Raises:
        ValueError: a route is wrong; ``check`` lists all that is.
    """

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        streams: MappingOf[str, InputStream],
        max_payload: int = MAX_PAYLOAD,
        outbox_name: str = "",
    ) -> None:
        problems = check(routes, streams)
        if problems:
            raise ValueError("\n".join(problems))
        self._plans = [_plan(route, streams[route.stream], outbox_name) for route in routes]
        self._max_payload = max_payload
        self._matches: dict[str, _Match | None] = {}
        self.filters = tuple(dict.fromkeys(plan.template.filter for plan in self._plans))
        """Topic filters to subscribe."""

    def map(self, message: MqttMessage, next_id: int = 0) -> list[Row] | DeadLetter:
        """The message's rows, or the dead letter it becomes; never an exception for what a device sent.

        ``next_id`` is the record id that the first row will get in the outbox; the others get the next ones.
        """
        match = self._match(message.topic)
        try:
            if match is None:
                if not _is_storable(message.topic):
                    raise Unmappable(Reason.BAD_TOPIC, "the topic is not UTF-8 or holds a NUL")
                raise Unmappable(Reason.NO_ROUTE, "no route takes this topic")
            return _rows(match, objects(message.payload, max_payload=self._max_payload), next_id)
        except Unmappable as exc:
            route = None if match is None else match.plan.template.text
            return DeadLetter.of(message, route=route, reason=exc.reason.value, detail=str(exc))

    def _match(self, topic: str) -> _Match | None:
        try:
            return self._matches[topic]
        except KeyError:
            pass
        found = None
        if _is_storable(topic):
            for plan in self._plans:
                captures = plan.template.match(topic)
                if captures is not None:
                    found = _Match(plan, captures)
                    break
        if len(topic) <= CACHED_TOPIC_LENGTH:
            if len(self._matches) >= CACHED_TOPICS:
                self._matches.clear()
            self._matches[topic] = found
        return found


def _rows(match: _Match, elements: list[dict[str, Any]], next_id: int) -> list[Row]:
    rows = []
    stream, columns, captures, row_id = match.plan.stream, match.plan.columns, match.captures, match.plan.row_id
    if len(elements) > MAX_ROWS:
        raise Unmappable(Reason.TOO_LARGE, f"the array has {len(elements)} elements, at most {MAX_ROWS} are taken")
    room = MAX_ROWS_BYTES
    for number, element in enumerate(elements):
        values: dict[str, Any] = {}
        if row_id is not None:
            try:
                captures = {**match.captures, ROW_ID: row_id(element, next_id + number)}
            except Unmappable as exc:
                where = f"element {number}, " if len(elements) > 1 else ""
                raise Unmappable(exc.reason, f"{where}{ROW_ID}: {exc}") from None
        for name, coerce, compiled in columns:
            try:
                value = element.get(name) if compiled is None else compiled(captures, element)
                if value is None and match.plan.takes_nulls:
                    values[name] = None
                    continue
                if value is None:
                    # The worker drops a row that lacks an attribute, without a word (gdn-api.md F.6).
                    raise Unmappable(Reason.MISSING_FIELD, "there is no value for it")
                values[name] = coerce(value)
            except Unmappable as exc:
                where = f"element {number}, " if len(elements) > 1 else ""
                raise Unmappable(exc.reason, f"{where}column {name}: {exc}") from None
        payload = _encode(values)
        if len(payload) > MAX_ROW:
            raise Unmappable(Reason.TOO_LARGE, f"the row has {len(payload)} bytes, at most {MAX_ROW} can be sent")
        room -= len(payload)
        if room < 0:
            raise Unmappable(Reason.TOO_LARGE, f"the message's rows have over {MAX_ROWS_BYTES} bytes together")
        rows.append(Row(stream, payload))
    return rows


def _is_storable(topic: str) -> bool:
    if topic.isascii():
        return "\0" not in topic
    try:
        topic.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in topic


def _plan(route: Route, stream: InputStream, outbox_name: str) -> _Plan:
    template = TopicTemplate.parse(route.topic)
    names = frozenset(name for name in template.captures if name is not None)
    columns = tuple(_column(a, route.fields, names) for a in stream.attributes or ())
    is_taken = any(takes_row_id(value) for value in route.fields.values())
    row_id = compile_row_id(route.id, outbox_name=outbox_name) if is_taken else None
    return _Plan(template, route.stream, columns, takes_nulls=not stream.fail_on_missing, row_id=row_id)


def _column(attribute: Attribute, fields: MappingOf[str, Scalar], captures: frozenset[str]) -> _Column:
    name, wanted = attribute.name, attribute.type
    compiled: Field | None = None
    if name in fields:
        compiled = compile_field(fields[name], captures=captures, wanted=wanted)
    elif name in captures:
        compiled = _capture(name, wanted)
    return _Column(name, COERCIONS[wanted], compiled)


def _capture(name: str, wanted: AttributeType) -> Field:
    return lambda captured, _payload: from_text(captured[name], wanted)


# --- what `check` says before the first message ---------------------------------------------------------


def check(routes: Sequence[Route], streams: MappingOf[str, InputStream]) -> list[str]:
    """What is wrong with the routes, a sentence each, naming the setting; empty if nothing is."""
    problems: list[str] = []
    taken: dict[str, int] = {}
    for number, route in enumerate(routes):
        place = f"routes[{number}]"
        captures: frozenset[str] = frozenset()
        try:
            template = TopicTemplate.parse(route.topic)
        except ValueError as exc:
            problems.append(f"{place}.topic {route.topic!r}: {exc}")
        else:
            captures = frozenset(name for name in template.captures if name is not None)
            earlier = taken.setdefault(template.filter, number)
            if earlier != number:
                problems.append(
                    f"{place}.topic {route.topic!r}: routes[{earlier}] takes the same topics, so this one never gets "
                    "a message; remove one of them"
                )
        stream = streams.get(route.stream)
        if stream is None:
            problems.append(
                f"{place}.stream {route.stream!r}: the worker reads no such stream{suggestion(route.stream, streams)}"
            )
        elif stream.attributes is None:
            problems.append(f"{place}.stream {route.stream!r}: the worker declares no columns for it")
        elif not stream.read_by_worker:
            problems.append(f"{place}.stream {route.stream!r}: the worker writes it and doesn't read it")
        else:
            problems += _check_fields(place, route, stream.attributes, captures)
    return problems


def _check_fields(place: str, route: Route, attributes: Sequence[Attribute], captures: frozenset[str]) -> list[str]:
    problems = []
    try:
        compile_row_id(route.id, outbox_name="")
    except ValueError as exc:
        problems.append(f"{place}.id: {exc}")
    types = {attribute.name: attribute.type for attribute in attributes}
    for name, value in route.fields.items():
        where = f"{place}.fields.{name}"
        wanted = types.get(name)
        if wanted is None:
            problems.append(f"{where}: stream {route.stream} has no such column{suggestion(name, types)}")
            continue
        try:
            compiled = compile_field(value, captures=captures, wanted=wanted)
            if not isinstance(value, str) or value.startswith("="):
                COERCIONS[wanted](compiled({}, {}))
        except Unmappable as exc:
            problems.append(f"{where}: the constant never fits: {exc}")
        except ValueError as exc:
            problems.append(f"{where}: {exc}")
    return problems


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean …`` for a near miss, else the names there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(names[:10])}" if names else ""
