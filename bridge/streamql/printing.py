"""Writes a worker as text that ``parse`` reads as the same tree, apart from places and text.

For workers made by a program. The text lacks what the tree doesn't hold: comments, annotations of statements other than
a query's name, the case of property keys, and all but the last of equal keys. For a definition read from a file use
``Worker.text``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from bridge.streamql.expressions import LEVELS, PREFIX
from bridge.streamql.syntax import (
    Annotation,
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
    Query,
    Selected,
    StreamDefinition,
    StreamScope,
    TableDefinition,
    Unary,
    Worker,
    find_property,
)

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_PLAIN_ANNOTATION = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(?:[.:][A-Za-z_][A-Za-z_0-9]*)*")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(?:[.:-][A-Za-z_][A-Za-z_0-9]*)*")
# Words with a meaning somewhere in the grammar: written in backticks as names.
_RESERVED = frozenset(
    [
        *("all", "and", "as", "asc", "begin", "by", "case", "create", "current", "delete", "desc", "end", "every"),
        *("expired", "false", "for", "from", "full", "global", "group", "having", "in", "inner", "insert", "into"),
        *("is", "join", "left", "limit", "local", "not", "null", "of", "offset", "on", "or", "order", "outer"),
        *("output", "partition", "per", "right", "select", "set", "spot", "stream", "table", "true"),
        *("unidirectional", "update", "when", "where", "window", "with", "within"),
    ]
)
_NULL_TEST, _OPERAND = PREFIX + 1, PREFIX + 2  # levels above those of LEVELS: they bind tighter


def to_text(worker: Worker) -> str:
    """The worker's definition; name and version are written only if they are among its annotations.

    Raises:
        ValueError: a name can't be written (it is empty, or has a backtick or line break), or the definition of a
            stream or table is not where the query that fills it (``AS SELECT``) needs it.
    """
    lines = map(_annotation, worker.annotations)
    return "".join(f"{line}\n" for line in [*lines, *_statements(worker)])


def _statements(worker: Worker) -> Iterator[str]:
    """Definitions first; only a query inside a CREATE keeps its position among the queries."""
    definitions = deque(worker.definitions)
    queries = deque(worker.queries)
    filled = {query.target for query in queries if _is_in_create(query)}
    while definitions or queries:
        while definitions and not _is_one_of(filled, definitions[0]):
            yield f"{_definition(definitions.popleft())};"
        while queries and not _is_in_create(queries[0]):
            yield f"{_query(queries.popleft())};"
        if not queries:
            continue
        query = queries.popleft()
        if not definitions or definitions[0].name != query.target:
            raise ValueError(f"the query that fills {query.target} is not at the position of its CREATE")
        yield f"{_named(query.name)}{_definition(definitions.popleft())}\n{_query(replace(query, name=None))};"
        filled.discard(query.target)


def _is_one_of(filled: set[str | None], definition: Definition) -> bool:
    return isinstance(definition, StreamDefinition | TableDefinition) and definition.name in filled


def _is_in_create(query: Query | OtherQuery) -> bool:
    return isinstance(query, OtherQuery) and query.construct.startswith("CREATE ")


def _annotation(annotation: Annotation) -> str:
    name = annotation.name if _PLAIN_ANNOTATION.fullmatch(annotation.name) else _name(annotation.name)
    elements = [
        _string(value) if key is None else f"{_key(key)}={_string(value)}" for key, value in annotation.elements
    ]
    return f"@{name}({', '.join(elements)})" if elements else f"@{name}"


def _named(name: str | None) -> str:
    return "" if name is None else f"@info(name={_string(name)})\n"


# --- definitions -----------------------------------------------------------------------------------------


def _definition(definition: Definition) -> str:
    if isinstance(definition, OtherDefinition):
        # A partition's name is in its annotation, other names are in the text.
        return _named(definition.name if definition.construct == "partition" else None) + definition.text
    if isinstance(definition, FunctionDefinition):
        head = f"CREATE FUNCTION {_name(definition.name)}[{_name(definition.language)}]"
        return f"{head} RETURN {definition.returns.value} {{{definition.body}}}"
    return _created(definition)


def _created(definition: StreamDefinition | TableDefinition) -> str:
    words = ["CREATE", definition.kind.upper()]
    default = StreamScope.GLOBAL if definition.kind == "store" else StreamScope.LOCAL
    if find_property(definition.properties, "replication.type") is None and definition.scope is not default:
        words.append(definition.scope.name)
    words.append(_name(definition.name))
    if definition.properties:
        properties = ", ".join(f"{_key(key)}={_string(value)}" for key, value in definition.properties.items())
        words.append(f"WITH ({properties})")
    if definition.attributes is not None:
        attributes = ", ".join(f"{_name(a.name)} {a.type.value}" for a in definition.attributes)
        words.append(f"({attributes})")
    elif definition.mapping:
        words.append(f"({definition.mapping})")
    return " ".join(words)


# --- queries ---------------------------------------------------------------------------------------------


def _query(query: Query | OtherQuery) -> str:
    if isinstance(query, OtherQuery):
        return _named(query.name) + query.text
    selection = "*" if query.selection is None else ", ".join(map(_selected, query.selection))
    filters = "".join(f"[{_expression(condition)}]" for condition in query.filters)
    head = f"{_named(query.name)}INSERT INTO {_name(query.target)}"
    return f"{head}\nSELECT {selection}\nFROM {_name(query.source)}{filters}"


def _selected(selected: Selected) -> str:
    text = _expression(selected.expression)
    is_own_name = isinstance(selected.expression, AttributeRef) and selected.expression.name == selected.name
    return text if is_own_name else f"{text} AS {_name(selected.name)}"


def _expression(node: Expression, loosest: int = 1) -> str:
    text, level = _text_and_level(node)
    return f"({text})" if level < loosest else text


def _text_and_level(node: Expression) -> tuple[str, int]:
    if isinstance(node, Binary):
        level = LEVELS[node.operator]
        # Left-associative: a right operand of the same level needs parentheses.
        return f"{_expression(node.left, level)} {node.operator} {_expression(node.right, level + 1)}", level
    if isinstance(node, Unary):
        if node.operator == "is null":
            return f"{_expression(node.operand, _NULL_TEST)} is null", _NULL_TEST
        operand = _expression(node.operand, PREFIX)
        # Two signs without a space would start a comment.
        space = " " if node.operator == "not" or operand.startswith("-") else ""
        return f"{node.operator}{space}{operand}", PREFIX
    if isinstance(node, Call):
        namespace = "" if node.namespace is None else f"{_name(node.namespace)}:"
        return f"{namespace}{_name(node.name)}({', '.join(map(_expression, node.arguments))})", _OPERAND
    if isinstance(node, AttributeRef):
        return ("" if node.source is None else f"{_name(node.source)}.") + _name(node.name), _OPERAND
    return _literal(node), _OPERAND


def _literal(literal: Literal) -> str:
    if literal.type is AttributeType.STRING:
        return _string(str(literal.value))
    suffix = {AttributeType.LONG: "L", AttributeType.FLOAT: "f"}.get(literal.type, "")
    return str(literal.value).lower() + suffix


# --- names and strings -----------------------------------------------------------------------------------


def _name(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name) and name.lower() not in _RESERVED:
        return name
    if not name or re.search(r"[`\r\n]", name):
        raise ValueError(f"a definition can't contain the name {name!r}")
    return f"`{name}`"


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else _string(key)


def _string(value: str) -> str:
    """In quotes that need no escaping if possible: the documentation has no rule for it (gdn-api.md F.2)."""
    is_plain = not re.search(r"[\r\n]|\\\\|\\\Z", value)
    if is_plain and not re.search(r"['\"]", value):
        return f"'{value}'"
    if is_plain and '"' not in value:
        return f'"{value}"'
    if '"""' not in value:
        return f'"""{value}"""'
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
