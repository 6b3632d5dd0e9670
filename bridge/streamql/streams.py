"""Which GDN streams a worker's definition stands for (gdn-api.md C.2)."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.streamql.syntax import Attribute, Place, Scope, StreamDefinition, Worker


@dataclass(frozen=True, slots=True)
class InputStream:
    """A GDN stream that the definition names, with the columns of the declaration that names it."""

    name: str
    """Bare: without ``c8locals.`` or ``c8globals.``."""
    scope: Scope
    attributes: tuple[Attribute, ...] | None
    read_by_worker: bool
    """False for sinks: one can write to them, but the worker doesn't look."""
    place: Place
    fail_on_missing: bool
    """Whether the worker drops, without a word, a row that lacks an attribute (gdn-api.md F.6)."""


def input_streams(worker: Worker) -> dict[str, InputStream]:
    """The GDN streams of the worker by bare name; one that is read wins over one that is written."""
    found: dict[str, InputStream] = {}
    for definition in worker.streams.values():
        for name in _gdn_names(definition):
            stream = InputStream(
                name=name,
                scope=definition.scope,
                attributes=definition.attributes,
                read_by_worker=not definition.kind.startswith("sink"),
                place=definition.place,
                fail_on_missing=definition.properties.get("fail.on.missing.attribute", "true").lower() != "false",
            )
            if name not in found or not found[name].read_by_worker:
                found[name] = stream
    return found


def _gdn_names(definition: StreamDefinition) -> list[str]:
    if definition.kind not in ("source", "sink"):
        return [definition.name]
    properties = definition.properties
    if properties.get("type", "").lower() != "stream":
        return []
    # Only the first two are documented; the others occur in real definitions.
    named = next((properties[k] for k in ("stream.list", "stream", "streams.list", "topic") if k in properties), "")
    return [name.strip() for name in named.split(",") if name.strip()]
