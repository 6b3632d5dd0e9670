"""A route as configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.mapping.fields import FieldSpec, Scalar
from bridge.mapping.formats import FormatOptions


@dataclass(frozen=True, slots=True)
class Example:
    """A message, and its expected result."""

    topic: str
    payload: Any
    """Text is the payload itself; anything else is encoded as JSON."""
    encoding: Literal["text", "base64"]
    """Of a text payload."""
    expect: Any
    """The row, a list of rows, or a reason code."""


Otherwise = Literal["next", "dead_letter"]
"""What becomes of a message that a route can't read: it goes on to the next route, or is a dead letter."""


@dataclass(frozen=True, slots=True)
class Route:
    """Maps messages on ``topic`` to rows of ``stream``; ``fields`` says how columns not found by name are filled."""

    topic: str
    stream: str
    fields: Mapping[str, Scalar | FieldSpec] = field(default_factory=dict)
    id: str | None = None
    """Path to the id that the device gives a row, for ``$id``; None: outbox name and record id."""
    format: FormatOptions = field(default_factory=FormatOptions)
    each: str | None = None
    """Path to the elements that become a row each; None: the payload, or the objects of its array. A step ``*`` is
    every member of an object."""
    on_empty: Otherwise = "next"
    """For an empty payload, and where the array or object with the elements is empty."""
    on_absent: Otherwise = "dead_letter"
    """For a payload without a value at ``each``."""
    on_unreadable: Otherwise = "dead_letter"
    """For a payload that isn't in the route's format, or is neither an object nor an array of objects."""
    when: str | None = None
    """JMESPath condition on each element; None: every element becomes a row."""
    match: Literal["first", "all"] = "first"
    """Whether a message that this route takes also goes to later routes (``all``)."""
    types: Literal["lenient", "strict"] = "lenient"
    every: float | None = None
    """Seconds within which a row of a device is held back if its values haven't changed; None: never."""
    change: float | Mapping[str, float] = 0.0
    """The change of a number that is still too small, for all columns or by column."""
    device: str | None = None
    """Source of the device's name; None: the topic, and the names of the members that ``each`` finds."""
    key: Scalar | None = None
    """The Pulsar key of a row; None: no key."""
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    """The Pulsar properties of a row."""
    event_time: FieldSpec | None = None
    """The Pulsar event time of a row; its ``time`` must be set. None: no event time."""
    name: str | None = None
    examples: tuple[Example, ...] = ()


def sources(route: Route) -> list[Scalar]:
    """Every source in the route, of columns, key, device, properties and event time."""
    specs = [*route.fields.values(), *([route.event_time] if route.event_time else [])]
    in_fields = [source for spec in specs for source in _of_field(spec)]
    others = [source for source in (route.key, route.device) if source is not None]
    return [*in_fields, *others, *route.properties.values()]


def _of_field(field_: Scalar | FieldSpec) -> list[Scalar]:
    if not isinstance(field_, FieldSpec):
        return [field_]
    return [field_.source, *(_of_field(field_.default) if isinstance(field_.default, FieldSpec) else [])]
