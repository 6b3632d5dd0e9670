"""The syntax tree of a stream worker definition: plain values with look-ups.

Names are case-sensitive, keywords and types are not (gdn-api.md F.1). Places are 1-based.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class AttributeType(Enum):
    """The attribute types of the language (gdn-api.md F.3)."""

    STRING = "string"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    BOOL = "bool"
    OBJECT = "object"


class StreamScope(Enum):
    """LOCAL: one region, topic ``c8locals.N``. GLOBAL: replicated, ``c8globals.N`` (gdn-api.md C.1)."""

    LOCAL = "local"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the text."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column."""

    name: str
    type: AttributeType


@dataclass(frozen=True, slots=True)
class Annotation:
    """``@App:name('x')``: name ``App:name`` as written, elements ``((None, 'x'),)``."""

    name: str
    elements: tuple[tuple[str | None, str], ...]
    place: Place

    @property
    def value(self) -> str | None:
        """The first element's value: ``x`` in ``@App:name('x')``."""
        return self.elements[0][1] if self.elements else None


# --- expressions ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. ``type``: 5 is an int, 5L a long, 5.0 a double, 5f a float, 'x' a string, true a bool."""

    value: str | int | float | bool
    type: AttributeType
    place: Place


@dataclass(frozen=True, slots=True)
class AttributeRef:
    """``temperature`` or ``Stream.temperature``."""

    name: str
    source: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class Call:
    """``fn(a, b)`` or ``str:concat(a, b)``; ``namespace`` is None without one."""

    name: str
    namespace: str | None
    arguments: tuple[Expression, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Unary:
    """``operator`` is ``not``, ``-`` or ``is null``."""

    operator: str
    operand: Expression
    place: Place


@dataclass(frozen=True, slots=True)
class Binary:
    """``operator`` is one of ``and or == != < <= > >= + - * / %``."""

    operator: str
    left: Expression
    right: Expression
    place: Place


Expression = Literal | AttributeRef | Call | Unary | Binary


# --- definitions ---------------------------------------------------------------------------------------


def find_property(properties: Mapping[str, str], *keys: str) -> str | None:
    """The value of the first of these keys, given in lower case, that is among the properties; None: none is."""
    lowered = {key.lower(): value for key, value in properties.items()}
    return next((lowered[key] for key in keys if key in lowered), None)


@dataclass(frozen=True, slots=True)
class StreamDefinition:
    """CREATE [SOURCE|SINK] STREAM, CREATE SOURCE, CREATE SINK.

    ``kind`` is ``stream``, ``source stream``, ``sink stream``, ``source`` or ``sink``. ``properties`` are those of
    WITH(…), by key as written; ``find_property`` ignores its case. ``attributes`` is None where the parentheses hold a
    mapping instead of typed columns ("no schema", gdn-api.md F.3).
    """

    kind: str
    name: str
    scope: StreamScope
    attributes: tuple[Attribute, ...] | None
    properties: dict[str, str] = field(repr=False)  # may hold passwords
    place: Place
    mapping: str = ""
    """The parentheses' content where it isn't columns, as written."""

    @property
    def type(self) -> str:
        """The transport in lower case: ``stream``, ``kafka``, …; empty where none is given."""
        stated = find_property(self.properties, "type", f"{self.kind}.type")
        return (stated or "").lower() or ("" if self.kind in ("source", "sink") else "stream")


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """CREATE TABLE (``kind`` ``table``) or CREATE STORE (``kind`` ``store``); other members as in StreamDefinition."""

    kind: str
    name: str
    scope: StreamScope
    attributes: tuple[Attribute, ...] | None
    properties: dict[str, str] = field(repr=False)  # may hold passwords
    place: Place
    mapping: str = ""

    @property
    def collection(self) -> str:
        """The GDN collection that holds its rows: its ``collection`` property, else its name."""
        return find_property(self.properties, "collection") or self.name

    @property
    def in_gdn(self) -> bool:
        """Whether its rows are in a GDN collection: a store may also be one outside GDN (gdn-api.md F.3)."""
        return self.kind == "table" or self.properties.get("type", "database").lower() == "database"


@dataclass(frozen=True, slots=True)
class FunctionDefinition:
    """CREATE FUNCTION name[language] RETURN type { body }; ``body`` without its outer braces, as written."""

    name: str
    language: str
    returns: AttributeType
    body: str
    place: Place


@dataclass(frozen=True, slots=True)
class OtherDefinition:
    """A statement kept as text: window, trigger, aggregation, index, query-worker, partition or fault stream."""

    construct: str
    name: str | None
    text: str = field(repr=False)  # may hold passwords
    place: Place


# --- queries -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selected:
    """``expression AS name``; the name of a bare attribute is its own."""

    name: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class Query:
    """``INSERT INTO target SELECT … FROM source[filter]`` and nothing more.

    ``selection`` is None for ``SELECT *`` and for a query without SELECT.
    """

    name: str | None
    target: str
    source: str
    filters: tuple[Expression, ...]
    selection: tuple[Selected, ...] | None
    place: Place


@dataclass(frozen=True, slots=True)
class OtherQuery:
    """A query that ``Query`` can't represent: ``construct`` names the first construct beyond it, at ``place``.

    ``target`` and ``sources`` are the names that could be recognised (None and () if none); ``!s`` is the fault stream
    of s, ``#s`` an inner stream.
    """

    name: str | None
    construct: str
    target: str | None
    sources: tuple[str, ...]
    text: str = field(repr=False)
    place: Place


Definition = StreamDefinition | TableDefinition | FunctionDefinition | OtherDefinition


@dataclass(frozen=True, slots=True)
class Worker:
    """A whole stream worker definition."""

    annotations: tuple[Annotation, ...]
    definitions: tuple[Definition, ...]
    queries: tuple[Query | OtherQuery, ...]
    text: str = field(repr=False)
    """The definition as read, byte for byte: this text is sent to GDN."""

    def metadata(self, name: str) -> tuple[Annotation, ...]:
        """Every ``@App:NAME``, in any case."""
        return tuple(a for a in self.annotations if a.name.lower() == f"app:{name.lower()}")

    @property
    def name(self) -> str:
        """Empty if the text gives none; GDN then generates one."""
        return next((a.value or "" for a in self.metadata("name")), "")

    @property
    def language_version(self) -> str:
        """The value of ``@App:qlVersion``; empty if the text names no version (gdn-api.md F.1)."""
        return next((a.value or "" for a in self.metadata("qlVersion")), "")

    @property
    def streams(self) -> dict[str, StreamDefinition]:
        """Streams, sources and sinks by their name in the definition."""
        return {d.name: d for d in self.definitions if isinstance(d, StreamDefinition)}

    @property
    def tables(self) -> dict[str, TableDefinition]:
        """Tables and stores by their name in the definition."""
        return {d.name: d for d in self.definitions if isinstance(d, TableDefinition)}

    @property
    def functions(self) -> dict[str, FunctionDefinition]:
        """Script functions by name."""
        return {d.name: d for d in self.definitions if isinstance(d, FunctionDefinition)}
