"""Routes: which topics go to which stream, and what fills its columns.

All that can be worked out early is: reading the route once, and once per topic everything that depends on the topic alone.
A message then costs its decoding, the columns it really brings, and its encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bridge.mapping.coercion import COERCIONS, EXACT, Coercion, TextWanted, from_text
from bridge.mapping.fields import (
    BoundTemplate,
    Capture,
    Constant,
    Path,
    Scalar,
    Source,
    Template,
    parse_field,
)
from bridge.mapping.payload import JsonObject, WrittenFloat, decode
from bridge.mapping.reason import Reason, Unmappable
from bridge.mapping.topics import TopicTemplate
from bridge.message import Row

if TYPE_CHECKING:
    from bridge.streamql.streams import InputStream
    from bridge.streamql.syntax import Attribute, AttributeType

MAX_ROW = 750 * 1024
"""Bytes. In base64 (4 for 3) and with 24 KiB left for the envelope this is 1 MiB, the largest frame (gdn-api.md C.5)."""
MAX_ROWS = 10_000
"""Rows of one message: 500 KiB of ``{},{},…`` would be 170,000."""
MAX_ROWS_BYTES = 4 * 1024 * 1024
"""Bytes of all rows of one message: captures and constants repeat in each row, so rows outgrow their payload."""

# The decoder gives floats as WrittenFloat where their text was wanted; they go out as plain floats.
_encode = msgspec.json.Encoder(enc_hook=float).encode


@dataclass(frozen=True, slots=True)
class Route:
    """Messages on ``topic`` (a topic template) become rows of ``stream``.

    ``fields``: column -> field expression (docs/mapping.md), for columns that neither a capture nor a member of the payload
    fills by bearing their name.
    """

    topic: str
    stream: str
    fields: Mapping[str, Scalar] = field(default_factory=dict)


def sources(route: Route, template: TopicTemplate, attributes: tuple[Attribute, ...]) -> list[tuple[Attribute, Source]]:
    """What fills each column, in declared order: its entry in ``fields``, else its capture, else the payload's member.

    Raises:
        ValueError: an entry can't be read.
    """
    return [(a, _source(a.name, route.fields, template.names)) for a in attributes]


def _source(column: str, fields: Mapping[str, Scalar], captures: tuple[str, ...]) -> Source:
    if column in fields:
        return parse_field(fields[column], captures)
    if column in captures:
        return Capture(column)
    return Path(column, ((column, None),))


def constant(value: Scalar, kind: AttributeType) -> Any:
    """A constant as the column's type. Raises Unmappable if it doesn't fit."""
    return COERCIONS[kind](WrittenFloat(repr(value)) if isinstance(value, float) else value)


class CompiledRoute:
    """A route that ``check`` finds nothing wrong with, read against its stream."""

    def __init__(self, route: Route, stream: InputStream) -> None:
        assert stream.attributes is not None
        self.template = TopicTemplate.parse(route.topic)
        self.topic = route.topic
        self._stream = route.stream
        self._null_allowed = not stream.fail_on_missing
        self._sources = sources(route, self.template, stream.attributes)
        self._null_row: JsonObject = dict.fromkeys(a.name for a in stream.attributes)

    def bind(self, captures: dict[str, str]) -> BoundRoute:
        """The route for the one topic with these captures.

        Raises:
            Unmappable: a capture doesn't fit its column, so no message of this topic can be mapped.
        """
        row = self._null_row.copy()
        steps: list[_Step] = []
        for attribute, source in self._sources:
            kind = attribute.type
            match source:
                case Constant(value):
                    row[attribute.name] = constant(value, kind)
                case Capture(name):
                    row[attribute.name] = _from_topic(captures[name], attribute, name)
                case Path(text=text, steps=((key, _),)):
                    steps.append(self._step(attribute, key, None, text))
                case Path(text=text):
                    steps.append(self._step(attribute, "", source, text))
                case Template(text=text):
                    steps.append(self._step(attribute, "", source.bind(captures), text))
        return BoundRoute(self.topic, self._stream, row, tuple(steps))

    def _step(self, attribute: Attribute, key: str, source: Path | BoundTemplate | None, text: str) -> _Step:
        coerce = COERCIONS[attribute.type]
        return (
            attribute.name,
            key,
            source,
            EXACT.get(attribute.type),
            _or_null(coerce) if self._null_allowed else coerce,
            text,
        )


_Step = tuple[str, str, Path | BoundTemplate | None, type | None, Coercion, str]
"""Column; its member of the payload, or where deeper to find it; the type that needs no coercion; the coercion; as written."""


class BoundRoute:
    """A route for one topic: only the payload is still to come."""

    __slots__ = ("_row", "_steps", "_stream", "topic")

    def __init__(self, topic: str, stream: str, row: JsonObject, steps: tuple[_Step, ...]) -> None:
        self.topic = topic
        """The route's topic template, as written."""
        self._stream = stream
        self._row = row
        self._steps = steps

    def rows(self, payload: bytes, max_payload: int) -> list[Row]:
        """The rows of one payload. Raises Unmappable."""
        try:
            return self._rows(decode(payload, max_payload=max_payload))
        except TextWanted:
            return self._rows(decode(payload, max_payload=max_payload, written=True))

    def _rows(self, document: JsonObject | list[JsonObject]) -> list[Row]:
        if type(document) is dict:
            return [Row(self._stream, self._encoded(document))]
        if len(document) > MAX_ROWS:
            raise Unmappable(Reason.TOO_LARGE, f"the array has {len(document)} elements, the limit is {MAX_ROWS}")
        rows: list[Row] = []
        size = 0
        for index, element in enumerate(document):
            try:
                encoded = self._encoded(element)
            except Unmappable as exc:
                raise Unmappable(exc.reason, f"element {index}: {exc.detail}") from exc
            size += len(encoded)
            if size > MAX_ROWS_BYTES:
                raise Unmappable(Reason.TOO_LARGE, f"the rows have more than {MAX_ROWS_BYTES} bytes together")
            rows.append(Row(self._stream, encoded))
        return rows

    def _encoded(self, document: JsonObject) -> bytes:
        row = self._row.copy()
        for column, key, source, exact, coerce, text in self._steps:
            try:
                value = document.get(key) if source is None else source.find(document)
                row[column] = value if type(value) is exact else coerce(value)
            except Unmappable as exc:
                place = column if text == column else f"{column} ({text})"
                raise Unmappable(exc.reason, f"{place}: {exc.detail}") from exc
        try:
            encoded = _encode(row)
        except RecursionError as exc:
            raise Unmappable(Reason.NOT_JSON, "the JSON is nested too deeply") from exc
        if len(encoded) > MAX_ROW:
            raise Unmappable(Reason.TOO_LARGE, f"the row has {len(encoded)} bytes, the limit is {MAX_ROW}")
        return encoded


def _or_null(coerce: Coercion) -> Coercion:
    """For a stream that takes nulls (``fail.on.missing.attribute='false'``, gdn-api.md F.6)."""
    return lambda value: None if value is None else coerce(value)


def _from_topic(text: str, attribute: Attribute, capture: str) -> Any:
    try:
        return from_text(text, attribute.type)
    except Unmappable as exc:
        raise Unmappable(exc.reason, f"{attribute.name}, {{{capture}}} of the topic: {exc.detail}") from exc
