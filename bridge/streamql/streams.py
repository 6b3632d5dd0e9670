"""The GDN streams that a worker's definition brings about (gdn-api.md C.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bridge.streamql.syntax import Attribute, Place, Scope, StreamDefinition, Worker


@dataclass(frozen=True, slots=True)
class InputStream:
    """A GDN stream that a bridge can publish to.

    ``name`` is bare: no ``c8locals.``. ``attributes`` is None where the definition says no types.
    ``read_by_worker`` is False for a sink: it takes what is sent, and the worker never sees it.
    ``fail_on_missing``: a row that lacks an attribute, or has null for it, is dropped without a word
    (gdn-api.md F.6). ``place`` is that of the definition.
    """

    name: str
    scope: Scope
    attributes: tuple[Attribute, ...] | None
    read_by_worker: bool
    place: Place
    fail_on_missing: bool


def input_streams(worker: Worker) -> dict[str, InputStream]:
    """The streams by bare name, in the order of the definition.

    Of a sink and a source on the same stream the source counts. Where several sources read one stream,
    every one must be satisfied: the attributes are those of all of them, the first's type standing.
    """
    streams: dict[str, InputStream] = {}
    for definition in worker.streams.values():
        for name in _stream_names(definition):
            stream = _input_stream(name, definition)
            earlier = streams.get(name)
            if earlier is None or (stream.read_by_worker and not earlier.read_by_worker):
                streams[name] = stream
            elif stream.read_by_worker and stream.scope is earlier.scope:
                streams[name] = _both(earlier, stream)
    return streams


def _stream_names(definition: StreamDefinition) -> tuple[str, ...]:
    """The names on GDN: a SOURCE or SINK is not a stream of its own name, one of another type none at all."""
    is_named_stream = definition.kind not in ("source", "sink")
    if definition.properties.get("type", "stream" if is_named_stream else "").lower() != "stream":
        return ()
    if is_named_stream:
        return (definition.name,)
    # Documented is the first for each kind; the others occur in real definitions (gdn-api.md C.2).
    documented = "stream.list" if definition.kind == "source" else "stream"
    keys = (documented, "stream.list", "stream", "streams.list", "topic")
    listed = next((definition.properties[key] for key in keys if key in definition.properties), "")
    return tuple(name for name in map(str.strip, listed.split(",")) if name)


def _input_stream(name: str, definition: StreamDefinition) -> InputStream:
    properties = definition.properties
    # The mapper's own options are written with its prefix in some definitions.
    missing = properties.get("map.fail.on.missing.attribute", properties.get("fail.on.missing.attribute", ""))
    return InputStream(
        name=name,
        scope=definition.scope,
        attributes=definition.attributes,
        read_by_worker=not definition.kind.startswith("sink"),
        place=definition.place,
        fail_on_missing=missing.lower() != "false",
    )


def _both(first: InputStream, second: InputStream) -> InputStream:
    attributes = {a.name: a for a in (*(second.attributes or ()), *(first.attributes or ()))}
    ordered = dict.fromkeys(a.name for a in (*(first.attributes or ()), *(second.attributes or ())))
    return replace(
        first,
        attributes=tuple(attributes[name] for name in ordered) or None,
        fail_on_missing=first.fail_on_missing or second.fail_on_missing,
    )
