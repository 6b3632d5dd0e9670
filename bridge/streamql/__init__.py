"""Stream worker definitions (version 2 of the language): ``parse`` gives the tree, ``to_text`` the way back,
``input_streams`` what to publish to. Pure; everything others need of this package is here.
"""

from __future__ import annotations

from bridge.streamql.parser import parse
from bridge.streamql.printing import to_text
from bridge.streamql.source import StreamQLError
from bridge.streamql.streams import InputStream, input_streams, tables_read
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
    Scope,
    Selected,
    StreamDefinition,
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
    "Scope",
    "Selected",
    "StreamDefinition",
    "StreamQLError",
    "TableDefinition",
    "Unary",
    "Worker",
    "input_streams",
    "parse",
    "tables_read",
    "to_text",
]
