"""Stream worker definitions in version 2 of the language. Pure: no I/O.

``parse`` makes the syntax tree, ``to_text`` writes a tree as text; ``input_streams`` lists the streams to publish to;
``require_metadata`` refuses definitions that the bridge doesn't run.
"""

from __future__ import annotations

from bridge.streamql.metadata import require_metadata
from bridge.streamql.parser import parse
from bridge.streamql.printing import to_text
from bridge.streamql.source import StreamQLError
from bridge.streamql.streams import InputStream, SourceMapping, input_streams, tables_read
from bridge.streamql.syntax import (
    Annotation,
    Attribute,
    AttributeRef,
    AttributeType,
    Binary,
    Call,
    Definition,
    Expression,
    FunctionDefinition,
    Literal,
    OtherDefinition,
    OtherQuery,
    Place,
    Query,
    Selected,
    StreamDefinition,
    StreamScope,
    TableDefinition,
    Unary,
    Worker,
)

__all__ = [
    "Annotation",
    "Attribute",
    "AttributeRef",
    "AttributeType",
    "Binary",
    "Call",
    "Definition",
    "Expression",
    "FunctionDefinition",
    "InputStream",
    "Literal",
    "OtherDefinition",
    "OtherQuery",
    "Place",
    "Query",
    "Selected",
    "SourceMapping",
    "StreamDefinition",
    "StreamQLError",
    "StreamScope",
    "TableDefinition",
    "Unary",
    "Worker",
    "input_streams",
    "parse",
    "require_metadata",
    "tables_read",
    "to_text",
]
