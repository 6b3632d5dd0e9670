"""The GDN streams that a worker's definition creates (gdn-api.md C.2), and what its queries read."""

from __future__ import annotations

from collections import Counter
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
    find_property,
)
from bridge.streamql.tokens import TokenKind, tokens

# Options of mappers that definitions also write without the prefix "map.".
_BARE_OPTIONS = (
    *("attributes", "enclosing.element", "fail.on.missing.attribute", "fail.on.unknown.attribute", "delimiter"),
    *("header", "event.grouping.enabled", "new.line.character"),
)
_BARE_PREFIXES = ("attributes.", "regex.")


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """How one source reads its messages: its mapper and the mapper's options (gdn-api.md F.6).

    ``type`` is in lower case, empty if the source names none. ``options`` are pairs of key and value, the keys as
    written without the prefix ``map.``; ``columns`` are the source's own.
    """

    source: str
    type: str
    options: tuple[tuple[str, str], ...]
    columns: tuple[Attribute, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the source says nothing about the form of its messages."""
        return not self.type and all(key.lower() == "fail.on.missing.attribute" for key, _ in self.options)


@dataclass(frozen=True, slots=True)
class InputStream:
    """A GDN stream that a bridge can publish to.

    ``name`` is bare, without ``c8locals.``. ``attributes`` is None if the definition gives no types. ``read_by_worker``
    is False for a sink: the worker doesn't read it. ``fail_on_missing``: the worker silently drops a row that lacks an
    attribute or has null for it (gdn-api.md F.6). ``place`` is that of the definition. ``queried`` is False only if
    it is certain that no query reads the stream, so that its rows have no effect. ``mappings`` has one for each source
    that reads the stream; it is empty if all of them are plain.
    """

    name: str
    scope: StreamScope
    attributes: tuple[Attribute, ...] | None
    read_by_worker: bool
    place: Place
    fail_on_missing: bool
    queried: bool = True
    mappings: tuple[SourceMapping, ...] = ()


def input_streams(worker: Worker) -> dict[str, InputStream]:
    """The streams by bare name, in the order of the definition.

    If a sink and a source use the same stream, the source's definition is taken. If several sources read the same
    stream, rows must fit all of them: it has the attributes of all, each with the type that the first one declares.
    """
    # Ignoring case errs on the side of "read".
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
        if same not in merged:  # merged once: two sources may have thousands of streams in common
            merged[same] = _merge(sources)
        streams[name] = replace(merged[same], name=name)
    return streams


def tables_read(worker: Worker) -> dict[str, Place]:
    """Tables and stores that a query reads as streams: its FROM names only tables.

    Such a query reads the stream of the collection, which GDN has only if streaming is enabled for the collection
    (gdn-api.md H). A table joined with a stream isn't one of these.

    Returns:
        By the table's name in the definition, the place of the first such query.
    """
    found: dict[str, Place] = {}
    tables = worker.tables
    for query in worker.queries:
        sources = (query.source,) if isinstance(query, Query) else query.sources
        if all(source in tables for source in sources):
            for source in sources:
                found.setdefault(source, query.place)
    return found


def query_targets(worker: Worker) -> Counter[str]:
    """How often the queries write to each table or stream, by its name in the definition.

    Queries inside a PARTITION are counted by the words that name their targets.
    """
    targets = Counter(query.target for query in worker.queries if query.target is not None)
    for definition in worker.definitions:
        if isinstance(definition, OtherDefinition) and definition.construct == "partition":
            targets.update(_names_after(("into", "update", "delete"), definition))
    return targets


def _names_after(words: tuple[str, ...], statement: OtherDefinition) -> Iterator[str]:
    follows = False
    for token in tokens(Source(statement.text)):
        if token.kind is TokenKind.END:
            return
        if follows and token.is_name:
            yield token.text
        follows = token.is_word(*words)


def _names_read(worker: Worker) -> Iterator[str]:
    """The names that queries read from, and possibly more.

    For a statement that isn't parsed these are all names in it but the targets: a false report that a stream isn't
    read would be worse than a missing one.
    """
    for query in worker.queries:
        if isinstance(query, Query):
            yield query.source
        else:
            yield from _names_in(query)
    for definition in worker.definitions:
        if isinstance(definition, OtherDefinition):
            yield from _names_in(definition)


def _names_in(statement: OtherQuery | OtherDefinition) -> Iterator[str]:
    before = None
    for token in tokens(Source(statement.text)):
        if token.kind is TokenKind.END:
            return
        if token.is_name and not (before is not None and before.is_word("into")):
            yield token.text
        before = token


def _stream_names(definition: StreamDefinition) -> tuple[str, ...]:
    """The names in GDN. A SOURCE or SINK names its streams in its properties; one of another type has none."""
    if definition.type != "stream":
        return ()
    if definition.kind not in ("source", "sink"):
        return (definition.name,)
    # The first is the documented one of each kind; the others are found in real definitions (gdn-api.md C.2).
    documented = "stream.list" if definition.kind == "source" else "stream"
    keys = (documented, "stream.list", "stream", "streams.list", "topic")
    listed = find_property(definition.properties, *keys) or ""
    # A template is filled in for each event: the stream that it names isn't known.
    return tuple(name for name in map(str.strip, listed.split(",")) if name and "{{" not in name)


def _input_stream(definition: StreamDefinition, *, queried: bool) -> InputStream:
    """What all streams of the definition have in common; the name is left empty."""
    missing = find_property(definition.properties, "map.fail.on.missing.attribute", "fail.on.missing.attribute") or ""
    return InputStream(
        name="",
        scope=definition.scope,
        attributes=definition.attributes,
        read_by_worker=not definition.kind.startswith("sink"),
        place=definition.place,
        fail_on_missing=missing.lower() != "false",
        queried=queried,
        mappings=() if definition.kind.startswith("sink") else (_source_mapping(definition),),
    )


def _source_mapping(definition: StreamDefinition) -> SourceMapping:
    options = []
    for key, value in definition.properties.items():
        lowered = key.lower()
        if lowered.startswith("map.") and lowered != "map.type":
            options.append((key[len("map.") :], value))
        elif lowered in _BARE_OPTIONS or lowered.startswith(_BARE_PREFIXES):
            options.append((key, value))
    type_ = find_property(definition.properties, "map.type") or ""
    return SourceMapping(definition.name, type_.lower(), tuple(options), definition.attributes or ())


def _merge(streams: list[InputStream]) -> InputStream:
    """The stream that several sources read, with the place of the first."""
    mappings = tuple(mapping for stream in streams for mapping in stream.mappings)
    if all(mapping.is_plain for mapping in mappings):
        mappings = ()
    if len(streams) == 1:
        return replace(streams[0], mappings=mappings)
    attributes: dict[str, Attribute] = {}
    for stream in streams:
        for attribute in stream.attributes or ():
            attributes.setdefault(attribute.name, attribute)
    return replace(
        streams[0],
        attributes=tuple(attributes.values()) or None,
        fail_on_missing=any(stream.fail_on_missing for stream in streams),
        queried=any(stream.queried for stream in streams),
        mappings=mappings,
    )
