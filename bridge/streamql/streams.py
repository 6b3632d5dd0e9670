"""The GDN streams that a worker's definition brings about (gdn-api.md C.2), and what its queries read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bridge.streamql.source import Source
from bridge.streamql.syntax import (
    Attribute,
    OtherDefinition,
    OtherQuery,
    Place,
    Query,
    StreamDefinition,
    StreamScope,
    Worker,
)
from bridge.streamql.tokens import TokenKind, tokens


@dataclass(frozen=True, slots=True)
class InputStream:
    """A GDN stream that a bridge can publish to.

    ``name`` is bare: no ``c8locals.``. ``attributes`` is None where the definition says no types.
    ``read_by_worker`` is False for a sink: it takes what is sent, and the worker never sees it.
    ``fail_on_missing``: a row that lacks an attribute, or has null for it, is dropped without a word
    (gdn-api.md F.6). ``place`` is that of the definition. ``queried`` is False where certainly no query
    reads what arrives: the rows lead nowhere. In doubt it is True.
    """

    name: str
    scope: StreamScope
    attributes: tuple[Attribute, ...] | None
    read_by_worker: bool
    place: Place
    fail_on_missing: bool
    queried: bool = True


def input_streams(worker: Worker) -> dict[str, InputStream]:
    """The streams by bare name, in the order of the definition.

    Of a sink and a source on the same stream the source counts. Where several sources read one stream,
    every one must be satisfied: the attributes are those of all of them, the first's type standing.
    """
    read = {name.casefold() for name in _names_read(worker)}
    found: dict[str, list[InputStream]] = {}
    for definition in worker.streams.values():
        source = _input_stream(definition, queried=definition.name.casefold() in read)
        for name in dict.fromkeys(_stream_names(definition)):
            earlier = found.get(name)
            if earlier is None or (source.read_by_worker and not earlier[0].read_by_worker):
                found[name] = [source]
            elif source.read_by_worker and source.scope is earlier[0].scope:
                earlier.append(source)
    merged: dict[tuple[int, ...], InputStream] = {}
    streams = {}
    for name, sources in found.items():
        same = tuple(map(id, sources))
        if same not in merged:  # two sources may have thousands of streams in common
            merged[same] = _all_of(sources)
        streams[name] = replace(merged[same], name=name)
    return streams


def tables_read(worker: Worker) -> dict[str, Place]:
    """Tables and stores that a query reads as if they were streams: nothing but tables stands in its FROM.

    Such a query sees what the collection's own stream tells, which GDN has only where streaming is switched on
    for the collection (gdn-api.md H). A table that a stream is joined with is none of these.

    Returns:
        For each name in the definition the place of the first such query.
    """
    found: dict[str, Place] = {}
    tables = worker.tables
    for query in worker.queries:
        sources = (query.source,) if isinstance(query, Query) else query.sources
        if all(source in tables for source in sources):
            for source in sources:
                found.setdefault(source, query.place)
    return found


def _names_read(worker: Worker) -> Iterator[str]:
    """At least the names that queries read from.

    What isn't looked into counts with every name in it but the targets: better a stream too many that is
    said to be read than one too few.
    """
    for query in worker.queries:
        if isinstance(query, Query):
            yield query.source
        else:
            yield from _names_in(query)
    for definition in worker.definitions:
        if isinstance(definition, OtherDefinition):
            yield from _names_in(definition)


def _names_in(kept: OtherQuery | OtherDefinition) -> Iterator[str]:
    before = None
    for token in tokens(Source(kept.text)):
        if token.kind is TokenKind.END:
            return
        if token.is_name and not (before is not None and before.is_word("into")):
            yield token.text
        before = token


def _stream_names(definition: StreamDefinition) -> tuple[str, ...]:
    """The names on GDN: a SOURCE or SINK is not a stream of its own name, one of another type none at all."""
    if definition.type != "stream":
        return ()
    if definition.kind not in ("source", "sink"):
        return (definition.name,)
    # Documented is the first for each kind; the others occur in real definitions (gdn-api.md C.2).
    documented = "stream.list" if definition.kind == "source" else "stream"
    keys = (documented, "stream.list", "stream", "streams.list", "topic")
    listed = next((definition.properties[key] for key in keys if key in definition.properties), "")
    # A template is filled for each event: which stream it names can't be known.
    return tuple(name for name in map(str.strip, listed.split(",")) if name and "{{" not in name)


def _input_stream(definition: StreamDefinition, *, queried: bool) -> InputStream:
    """What each of the definition's streams is, still without its name."""
    properties = definition.properties
    # The mapper's own options are written with its prefix in some definitions.
    missing = properties.get("map.fail.on.missing.attribute", properties.get("fail.on.missing.attribute", ""))
    return InputStream(
        name="",
        scope=definition.scope,
        attributes=definition.attributes,
        read_by_worker=not definition.kind.startswith("sink"),
        place=definition.place,
        fail_on_missing=missing.lower() != "false",
        queried=queried,
    )


def _all_of(streams: list[InputStream]) -> InputStream:
    """What a stream is that several sources read: with the place of the first."""
    if len(streams) == 1:
        return streams[0]
    attributes: dict[str, Attribute] = {}
    for stream in streams:
        for attribute in stream.attributes or ():
            attributes.setdefault(attribute.name, attribute)
    return replace(
        streams[0],
        attributes=tuple(attributes.values()) or None,
        fail_on_missing=any(stream.fail_on_missing for stream in streams),
        queried=any(stream.queried for stream in streams),
    )
