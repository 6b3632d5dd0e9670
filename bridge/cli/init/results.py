"""Samples, the routes inferred from them, and examples made from them. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge.cli.examples import without_nulls
from bridge.mapping import Example, Mapper, Route
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import Attribute, Place, StreamScope

MAX_EXAMPLES = 3
"""Per route."""

MAX_EXAMPLE_BYTES = 4096
"""Of an example's payload, and of the rows that it becomes."""


class Sample(NamedTuple):
    """A message as a device sent it."""

    topic: str
    payload: bytes

    @property
    def message(self) -> MqttMessage:
        """The sample as the broker would deliver it."""
        return MqttMessage(self.topic, self.payload, 1, False, 1, 0)


@dataclass(frozen=True, slots=True)
class InferredRoute:
    """A route with its stream's columns, and the number of samples it takes. ``notes`` are one-line remarks.

    ``takes_nulls``: a column without a value is null, so the worker's source must allow it.
    """

    route: Route
    columns: tuple[Attribute, ...]
    notes: tuple[str, ...]
    samples: int
    takes_nulls: bool = False


class LeftOut(NamedTuple):
    """A sample that no route takes."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inference:
    """The result of ``infer``. ``routes`` are in the order in which they must be tried."""

    routes: tuple[InferredRoute, ...]
    left_out: tuple[LeftOut, ...]
    taken: tuple[Sample, ...] = ()
    """The samples that become rows."""


def table_of(stream: str) -> str:
    """The name of the table for a stream's rows."""
    return f"{stream}_rows"


def mapper_of(inferred: Iterable[InferredRoute]) -> Mapper:
    """A mapper with these routes and their streams."""
    inferred = tuple(inferred)
    streams = {
        one.route.stream: InputStream(
            name=one.route.stream,
            scope=StreamScope.LOCAL,
            attributes=one.columns,
            read_by_worker=True,
            place=Place(1, 1),
            fail_on_missing=not one.takes_nulls,
        )
        for one in inferred
    }
    return Mapper(routes=[one.route for one in inferred], streams=streams)


def example_of(sample: Sample, mapper: Mapper) -> Example | None:
    """The sample with its rows; None if it has no rows, is too long, or can't be written in TOML."""
    mapped = mapper.map(sample.message)
    if isinstance(mapped, DeadLetter) or not sample.topic.isprintable() or len(sample.payload) > MAX_EXAMPLE_BYTES:
        return None
    rows = [without_nulls(mapper.columns_of(row)) for row in mapped]
    if not rows or sum(len(row.payload) for row in mapped) > MAX_EXAMPLE_BYTES or _has_null(rows):
        return None
    expected = rows[0] if len(rows) == 1 else rows
    try:
        return Example(sample.topic, sample.payload.decode(), "text", expected)
    except UnicodeDecodeError:
        return Example(sample.topic, base64.b64encode(sample.payload).decode(), "base64", expected)


def _has_null(value: Any) -> bool:
    """Whether the value contains a null, which TOML doesn't have."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if one is None:
            return True
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one
    return False
