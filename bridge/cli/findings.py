"""What ``init`` takes and finds: samples, the routes that they need, and examples made of them. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge.mapping import Example, Mapper, Route
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import Attribute, Place, StreamScope

MAX_EXAMPLES = 3
"""Of a route."""

MAX_EXAMPLE = 4096
"""Bytes of an example's payload, and of the rows that it gives."""


class Sample(NamedTuple):
    """A message as a device sent it."""

    topic: str
    payload: bytes

    @property
    def message(self) -> MqttMessage:
        """It as the broker would hand it over."""
        return MqttMessage(self.topic, self.payload, 1, False, 1, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """A route with its stream's columns. ``notes`` are sentences for a person, one line each."""

    route: Route
    columns: tuple[Attribute, ...]
    notes: tuple[str, ...]
    samples: int


class LeftOut(NamedTuple):
    """A sample that no route was made for."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What was inferred: routes in the order in which they are to stand."""

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]
    taken: tuple[Sample, ...] = ()
    """The samples that become rows."""


def table_of(stream: str) -> str:
    """The name of the table that a stream's rows go to."""
    return f"{stream}_rows"


def mapping_of(found: Iterable[Found]) -> Mapper:
    """The routes at work, feeding streams as their definition will say."""
    found = tuple(found)
    streams = {
        f.route.stream: InputStream(
            name=f.route.stream,
            scope=StreamScope.LOCAL,
            attributes=f.columns,
            read_by_worker=True,
            place=Place(1, 1),
            fail_on_missing=True,
        )
        for f in found
    }
    return Mapper(routes=[f.route for f in found], streams=streams)


def example_of(sample: Sample, mapping: Mapper) -> Example | None:
    """The sample with the rows it gives; None if it gives none, or a TOML file can't say it, or not briefly."""
    mapped = mapping.map(sample.message)
    if isinstance(mapped, DeadLetter) or not sample.topic.isprintable() or len(sample.payload) > MAX_EXAMPLE:
        return None
    rows = [json.loads(row.payload) for row in mapped]
    if not rows or sum(len(row.payload) for row in mapped) > MAX_EXAMPLE or _has_null(rows):
        return None
    expected = rows[0] if len(rows) == 1 else rows
    try:
        return Example(sample.topic, sample.payload.decode(), "text", expected)
    except UnicodeDecodeError:
        return Example(sample.topic, base64.b64encode(sample.payload).decode(), "base64", expected)


def _has_null(value: Any) -> bool:
    """Whether there is a null anywhere in it, which TOML has no word for."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if one is None:
            return True
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one
    return False
