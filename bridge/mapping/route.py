"""A route as a setting says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.mapping.fields import FieldSpec, Scalar
from bridge.mapping.formats import FormatOptions


@dataclass(frozen=True, slots=True)
class Example:
    """A message, and what must become of it."""

    topic: str
    payload: Any
    """Text as it is; anything else as JSON."""
    encoding: Literal["text", "base64"]
    """Of a payload that is text."""
    expect: Any
    """The row, a list of rows, or a reason code."""


@dataclass(frozen=True, slots=True)
class Route:
    """Messages under ``topic`` feed ``stream``, ``fields`` naming what isn't there by name."""

    topic: str
    stream: str
    fields: Mapping[str, Scalar | FieldSpec] = field(default_factory=dict)
    id: str | None = None
    """Path to the id that devices give a row, for ``$id``; None: the row's record id is its id."""
    format: FormatOptions = field(default_factory=FormatOptions)
    each: str | None = None
    """Path to what becomes a row each; None: the payload, or the objects of its array."""
    when: str | None = None
    """JMESPath condition on what becomes a row; None: it is taken."""
    match: Literal["first", "all"] = "first"
    """Whether a message that this route takes goes to later routes as well."""
    types: Literal["lenient", "strict"] = "lenient"
    key: Scalar | None = None
    """The Pulsar key of a row; None: none."""
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    """The Pulsar properties of a row."""
    event_time: FieldSpec | None = None
    """The Pulsar event time of a row, with ``time`` set; None: none."""
    name: str | None = None
    examples: tuple[Example, ...] = ()


def sources(route: Route) -> list[Scalar]:
    """Everything in the route that reads captures, payload or metadata, as ``fields`` writes it."""
    specs = [*route.fields.values(), *([route.event_time] if route.event_time else [])]
    found = [spec.source if isinstance(spec, FieldSpec) else spec for spec in specs]
    return [*found, *([] if route.key is None else [route.key]), *route.properties.values()]
