"""Parses stream worker definitions in version 2 of the language to ``syntax.Worker`` (grammar: gdn-api.md F.3).

Statements that the bridge doesn't use are recognised and skipped. Where the documentation contradicts itself or is
silent, both forms are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.streamql.metadata import VERSION_ADVICE
from bridge.streamql.properties import Properties, read_annotation, read_properties
from bridge.streamql.queries import QUERY_WORDS, read_query, read_selection_first, read_selection_of
from bridge.streamql.source import Source, StreamQLError, error_at
from bridge.streamql.syntax import (
    Annotation,
    Attribute,
    AttributeType,
    Definition,
    FunctionDefinition,
    OtherDefinition,
    OtherQuery,
    Place,
    Query,
    StreamDefinition,
    StreamScope,
    TableDefinition,
    Worker,
)
from bridge.streamql.token_reader import CREATED, TokenReader, did_you_mean
from bridge.streamql.tokens import Token, TokenKind

_STATEMENTS = ("CREATE", "INSERT", "UPDATE", "DELETE", "PARTITION")
_KINDS = (*(kind.upper() for kind in CREATED), "QUERY-WORKER")
_TYPES = {attribute_type.value: attribute_type for attribute_type in AttributeType}
_SCOPES = {scope.value: scope for scope in StreamScope}
# Spot collections are replicated ones with a preferred region.
_SCOPE_WORDS = {**_SCOPES, "spot": StreamScope.GLOBAL}
# An operand follows these words, so END after one of them is an attribute named end.
_BEFORE_OPERAND = ("as", "by", "from", "having", "into", "limit", "not", "on", "or", "and", "select", "set", "where")


def parse(text: str) -> Worker:
    """Parse a stream worker definition. Its name and version aren't checked: see ``require_metadata``.

    Raises:
        StreamQLError: it has a syntax error, or is in the grammar of version 1; with the first error's line and column.
    """
    return _WorkerReader(TokenReader(Source(text))).read()


class _WorkerReader:
    def __init__(self, cursor: TokenReader) -> None:
        self._cursor = cursor
        self._annotations: list[Annotation] = []
        self._definitions: list[Definition] = []
        self._queries: list[Query | OtherQuery] = []
        self._places: dict[str, Place] = {}

    def read(self) -> Worker:
        cursor = self._cursor
        while True:
            pending = self._pending_annotations()
            if cursor.peek().kind is TokenKind.END:
                if pending:
                    raise cursor.unexpected(f"a statement after @{pending[-1].name}")
                break
            if cursor.take_symbol(";"):
                continue
            self._statement(_query_name(pending))
            if not cursor.at_end_of_statement:
                raise cursor.unexpected("';' at the end of the statement")
        return Worker(
            annotations=tuple(self._annotations),
            definitions=tuple(self._definitions),
            queries=tuple(self._queries),
            text=cursor.source.text,
        )

    # --- annotations ---------------------------------------------------------------------------------

    def _pending_annotations(self) -> list[Annotation]:
        """Keep the worker's annotations, return those of the next statement."""
        pending = []
        while self._cursor.at_symbol("@"):
            annotation = read_annotation(self._cursor)
            if annotation.name.lower().startswith("app:"):
                self._annotations.append(annotation)
            else:
                pending.append(annotation)
        return pending

    # --- statements ----------------------------------------------------------------------------------

    def _statement(self, name: str | None) -> None:
        cursor = self._cursor
        if cursor.at_word("create"):
            self._create(name)
        elif cursor.at_word(*QUERY_WORDS):
            self._queries.append(read_query(cursor, name))
        elif cursor.at_word("select"):
            self._queries.append(read_selection_first(cursor, name))
        elif cursor.at_word("partition"):
            self._partition(name)
        elif cursor.at_word("define", "from"):
            raise cursor.source.error(
                cursor.peek().start,
                f"expected {_listed(_STATEMENTS)}, found '{cursor.peek().text}', which starts a statement of "
                f"version 1; {VERSION_ADVICE}, write CREATE … instead of DEFINE …, and put the action first in queries",
            )
        else:
            raise cursor.unexpected(_listed(_STATEMENTS), keywords=_STATEMENTS)

    def _create(self, name: str | None) -> None:
        cursor = self._cursor
        start = cursor.next()
        if cursor.take_word("stream"):
            self._stream(start, "stream", name)
        elif cursor.at_word("source", "sink"):
            kind = cursor.next().text.lower()
            if cursor.take_word("stream"):
                kind += " stream"
            self._stream(start, kind, name)
        elif cursor.at_word("table", "store"):
            self._table(start, cursor.next().text.lower(), name)
        elif cursor.take_word("function"):
            self._function(start)
        elif cursor.take_word("aggregation"):
            self._aggregation(start)
        elif cursor.at_word("window", "trigger"):
            kind = cursor.next().text.lower()
            self._other(start, kind, self._new_name(kind))
        elif cursor.at_word("unique", "secondary", "index"):
            cursor.take_word("unique", "secondary")
            cursor.expect_word("index")
            # An index belongs to its table: its name need not be unique in the worker.
            self._other(start, "index", cursor.expect_name("the name of the index").text)
        elif cursor.at_word("query") and cursor.peek(1).is_symbol("-"):
            cursor.index += 2
            cursor.expect_word("worker")
            self._other(start, "query-worker", self._new_name("query-worker"))
        else:
            raise cursor.unexpected(f"{_listed(_KINDS)} after CREATE", keywords=_KINDS)

    def _new_name(self, kind: str) -> str:
        """The name of an element; names are unique across all kinds (gdn-api.md F.3)."""
        cursor = self._cursor
        token = cursor.expect_name(f"the name of the {kind}")
        earlier = self._places.get(token.text)
        if earlier is not None:
            raise cursor.source.error(
                token.start,
                f"expected a new name, found '{token.text}', which is already defined on line {earlier.line}: "
                "names must be unique within a worker",
            )
        self._places[token.text] = cursor.place_of(token)
        return token.text

    def _stream(self, start: Token, kind: str, query_name: str | None) -> None:
        cursor = self._cursor
        if kind == "stream" and cursor.take_symbol("!"):
            # GDN creates fault streams itself (F.2), but the documentation has definitions of them.
            self._other(start, "fault stream", f"!{cursor.expect_name('the name of the stream').text}")
            return
        scope, name = self._scope_and_name(kind)
        if kind in ("source", "sink") and not cursor.at_word("with"):
            raise self._no_properties(kind, name)
        properties, attributes, mapping = self._properties_and_attributes()
        self._definitions.append(
            StreamDefinition(
                kind=kind,
                name=name,
                scope=_replication(properties) or scope or StreamScope.LOCAL,
                attributes=attributes,
                properties={key: property_.value for key, property_ in properties.items()},
                place=cursor.place_of(start),
                mapping=mapping,
            )
        )
        self._created_as(kind, name, query_name)

    def _no_properties(self, kind: str, name: str) -> StreamQLError:
        created = f"CREATE {kind.upper()}"
        if self._cursor.peek().is_name:
            advice = did_you_mean(name, ("STREAM",))
        else:
            advice = f"; to read or write a GDN stream without properties write {created} STREAM {name}"
        return self._cursor.unexpected(f"WITH (type = '…', …) after {created} {name}", advice=advice)

    def _table(self, start: Token, kind: str, query_name: str | None) -> None:
        cursor = self._cursor
        scope, name = self._scope_and_name(kind)
        properties, attributes, mapping = self._properties_and_attributes()
        # Stores are replicated by default; for tables the documentation contradicts itself (F.5).
        default = StreamScope.GLOBAL if kind == "store" else StreamScope.LOCAL
        self._definitions.append(
            TableDefinition(
                kind=kind,
                name=name,
                scope=_replication(properties) or scope or default,
                attributes=attributes,
                properties={key: property_.value for key, property_ in properties.items()},
                place=cursor.place_of(start),
                mapping=mapping,
            )
        )
        self._created_as(kind, name, query_name)

    def _created_as(self, kind: str, name: str, query_name: str | None) -> None:
        if self._cursor.at_word("as"):
            self._queries.append(read_selection_of(self._cursor, query_name, created=kind, target=name))

    def _scope_and_name(self, kind: str) -> tuple[StreamScope | None, str]:
        """GLOBAL, LOCAL or SPOT may precede or follow the name, or be the name itself."""
        cursor = self._cursor
        scope = None
        follower = cursor.peek(1)
        # GLOBAL is the scope only if a name follows; before WITH ( it is the name itself.
        if follower.is_name and not (follower.is_word("with") and cursor.peek(2).is_symbol("(")):
            scope = self._scope_word()
        name = self._new_name(kind)
        return scope or self._scope_word(), name

    def _scope_word(self) -> StreamScope | None:
        cursor = self._cursor
        return _SCOPE_WORDS[cursor.next().text.lower()] if cursor.at_word(*_SCOPE_WORDS) else None

    def _function(self, start: Token) -> None:
        cursor = self._cursor
        name = self._new_name("function")
        cursor.expect_symbol("[", expected=f"'[javascript]' after the function's name {name}")
        language = cursor.expect_name("the function's language").text
        cursor.expect_symbol("]")
        cursor.expect_word("return")
        returns = self._type(f"the function {name}")
        if cursor.peek().kind is not TokenKind.BODY:
            raise cursor.unexpected("the function's body in braces: '{'")
        body = cursor.next().text
        self._definitions.append(FunctionDefinition(name, language, returns, body, cursor.place_of(start)))

    def _aggregation(self, start: Token) -> None:
        cursor = self._cursor
        name = self._new_name("aggregation")
        if cursor.at_word("with"):
            read_properties(cursor)
        while cursor.at_symbol("@"):  # the documentation puts the query's annotation here
            read_annotation(cursor)
        self._other(start, "aggregation", name)

    def _other(self, start: Token, construct: str, name: str | None) -> None:
        cursor = self._cursor
        cursor.skip_statement()
        self._definitions.append(OtherDefinition(construct, name, cursor.text_since(start), cursor.place_of(start)))

    def _partition(self, name: str | None) -> None:
        """Skip a partition with its queries, from PARTITION to END."""
        cursor = self._cursor
        start = cursor.next()
        while not cursor.at_word("begin"):
            if cursor.at_end_of_statement:
                raise cursor.unexpected("BEGIN in the partition", keywords=("BEGIN",))
            cursor.next()
        begin = cursor.next()
        while not self._at_end_of_partition():
            if cursor.peek().kind is TokenKind.END:
                raise cursor.source.error(begin.start, "this BEGIN is never closed: expected END")
            cursor.next()
        cursor.next()
        self._definitions.append(OtherDefinition("partition", name, cursor.text_since(start), cursor.place_of(start)))

    def _at_end_of_partition(self) -> bool:
        """Whether END comes next, at the end of a statement and where it can't be an attribute named ``end``."""
        cursor = self._cursor
        if not cursor.at_word("end"):
            return False
        before, after = cursor.previous, cursor.peek(1)
        # At the start of a statement END closes the partition, unless it is a name: a comma or dot follows then.
        if before.is_symbol(";") or before.is_word("begin"):
            return not after.is_symbol(",", ".")
        if not (after.kind is TokenKind.END or after.is_symbol(";")):
            return False
        # The last query's semicolon is missing: END closes the partition if an operand has just ended.
        if before.kind is TokenKind.SYMBOL:
            return before.is_symbol(")", "]", "*")
        return not before.is_word(*_BEFORE_OPERAND)

    # --- attributes ----------------------------------------------------------------------------------

    def _properties_and_attributes(self) -> tuple[Properties, tuple[Attribute, ...] | None, str]:
        """Parse ``WITH(…) (…)`` or ``(…) WITH(…)``: WITH is optional, attributes are optional before AS SELECT.

        The last value returned is the mapping given instead of attributes, else empty.
        """
        cursor = self._cursor
        properties = read_properties(cursor) if cursor.at_word("with") else {}
        attributes, mapping = None, ""
        if cursor.at_symbol("("):
            mapping = self._mapping()
            attributes = None if mapping else self._attributes()
        elif not cursor.at_word("as"):
            expected = "'(' and the attributes" if properties else "WITH or '(' and the attributes"
            raise cursor.unexpected(expected, keywords=("WITH",))
        if cursor.at_word("with"):
            properties |= read_properties(cursor)
        return properties, attributes, mapping

    def _mapping(self) -> str:
        """Read ``name = "path", …`` or ``"path", …``, which give no types (F.3); empty if attributes come."""
        cursor = self._cursor
        first = cursor.peek(1)
        # An attribute has a type after its name; a mapping has =, or a dot of a dotted name.
        if not (first.kind is TokenKind.STRING or (first.is_name and cursor.peek(2).is_symbol("=", "."))):
            return ""
        opening = cursor.next()
        while not cursor.at_symbol(")"):
            if cursor.at_end_of_statement:
                raise cursor.source.error(opening.start, "this '(' is never closed: expected ')'")
            cursor.next()
        mapping = cursor.text_since(first)
        cursor.next()
        return mapping

    def _attributes(self) -> tuple[Attribute, ...]:
        cursor = self._cursor
        cursor.next()
        attributes: dict[str, Attribute] = {}
        while True:
            token = cursor.expect_name("an attribute's name")
            if token.text in attributes:
                raise cursor.source.error(token.start, f"the attribute '{token.text}' is declared twice")
            attributes[token.text] = Attribute(token.text, self._type(f"the attribute {token.text}"))
            if not cursor.take_symbol(","):
                break
        cursor.expect_symbol(")", expected="',' or ')' after an attribute")
        return tuple(attributes.values())

    def _type(self, owner: str) -> AttributeType:
        cursor = self._cursor
        if not cursor.at_word(*_TYPES):
            raise cursor.unexpected(
                f"a type for {owner} ({', '.join(_TYPES)})", keywords=tuple(name.upper() for name in _TYPES)
            )
        return _TYPES[cursor.next().text.lower()]


def _replication(properties: Properties) -> StreamScope | None:
    property_ = {key.lower(): found for key, found in properties.items()}.get("replication.type")
    if property_ is None:
        return None
    scope = _SCOPES.get(property_.value.lower())
    if scope is None:
        raise error_at(property_.place, "expected local or global as replication.type")
    return scope


def _query_name(annotations: Sequence[Annotation]) -> str | None:
    """From ``@info(name='q')``, ``@info('q')``, ``@name('q')`` or ``@infor``, a typo found in examples (F.4)."""
    for annotation in reversed(annotations):  # the last one names the query
        if annotation.name.lower() not in ("info", "infor", "name"):
            continue
        for key, value in annotation.elements:
            if key is None or key.lower() == "name":
                return value
    return None


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
