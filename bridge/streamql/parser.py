"""Statements of a stream worker definition, read by recursive descent (grammar: gdn-api.md F.3).

What the bridge needs is read to the last token: streams, tables, functions, plain queries. The rest is recognised and
kept as text (``OtherDefinition``, ``OtherQuery``): a definition that GDN takes must not be refused here.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.streamql.cursor import CREATED, Cursor
from bridge.streamql.expressions import ExpressionReader
from bridge.streamql.source import Source, StreamQLError
from bridge.streamql.syntax import (
    Annotation,
    Attribute,
    AttributeType,
    Definition,
    Expression,
    FunctionDefinition,
    OtherDefinition,
    OtherQuery,
    Place,
    Query,
    Scope,
    Selected,
    StreamDefinition,
    TableDefinition,
    Worker,
)
from bridge.streamql.tokens import Kind, Token

_TYPES = {kind.value: kind for kind in AttributeType}
_STATEMENTS = ("CREATE", "INSERT", "UPDATE", "DELETE", "SELECT", "FROM", "PARTITION")
_CREATED = tuple(word.upper() for word in CREATED)

# What may follow FROM … beyond a plain query, in a reader's words.
_BEYOND = {
    "window": "a window", "sliding_time": "a window", "tumbling_time": "a window", "join": "a join",
    "inner": "a join", "left": "a join", "right": "a join", "full": "a join", "outer": "a join",
    "unidirectional": "a join", "group": "GROUP BY", "having": "HAVING", "where": "WHERE", "order": "ORDER BY",
    "limit": "LIMIT", "offset": "OFFSET", "output": "OUTPUT", "every": "a pattern", "as": "an alias", "on": "a condition",
    "within": "WITHIN", "per": "PER",
}  # fmt: skip


def parse(text: str) -> Worker:
    """The definition in ``text``.

    Raises:
        StreamQLError: it isn't one; with the line, the column and what was expected there.
    """
    return _Parser(Source(text)).worker()


class _Beyond(Exception):  # noqa: N818 - not an error: the query uses more than ``Query`` holds
    def __init__(self, construct: str, place: Place) -> None:
        super().__init__(construct)
        self.construct = construct
        self.place = place


class _Parser:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._cursor = Cursor(source)
        self._expressions = ExpressionReader(self._cursor)
        self._annotations: list[Annotation] = []
        self._definitions: list[Definition] = []
        self._queries: list[Query | OtherQuery] = []
        self._names: dict[str, Place] = {}

    def worker(self) -> Worker:
        cursor = self._cursor
        while cursor.peek().kind is not Kind.END:
            if cursor.take_symbol(";"):
                continue
            before: list[Annotation] = []
            while cursor.at_symbol("@"):
                before.append(self._annotation())
            # @App:… says something of the worker, wherever it stands; the rest of the statement that follows.
            self._annotations += [a for a in before if a.name.lower().startswith("app:")]
            if cursor.peek().kind is not Kind.END:
                self._statement(_query_name(before))
        return Worker(
            self._name(), tuple(self._annotations), tuple(self._definitions), tuple(self._queries), self._source.text
        )

    def _name(self) -> str:
        by_name = {a.name.lower(): a for a in self._annotations}
        version = by_name.get("app:qlversion")
        if version is None or version.value != "2":
            where = version.place if version else Place(1, 1)
            raise StreamQLError(
                where.line, where.column, 'only version 2 of the language is read: add @App:qlVersion("2") at the top'
            )
        named = by_name.get("app:name")
        if named is None or not named.value:
            raise StreamQLError(1, 1, "the worker has no name: add @App:name('…') at the top")
        return named.value

    # --- annotations --------------------------------------------------------------------------------------

    def _annotation(self) -> Annotation:
        cursor = self._cursor
        place = cursor.place
        cursor.expect_symbol("@")
        name = cursor.expect_name("an annotation's name").text
        while cursor.at_symbol(":", "."):
            name += cursor.next().text + cursor.expect_name("the rest of the annotation's name").text
        if not cursor.at_symbol("("):
            return Annotation(name, (), place)
        return Annotation(name, self._elements(), place)

    def _elements(self) -> tuple[tuple[str | None, str], ...]:
        """What stands in the parentheses; of nested annotations only that they are there (the rest is GDN's)."""
        cursor = self._cursor
        opening = cursor.expect_symbol("(")
        elements: list[tuple[str | None, str]] = []
        depth = 1
        key: str | None = None
        pending = ""
        while depth:
            token = cursor.peek()
            if token.kind is Kind.END:
                raise self._source.error(opening.start, "this '(' is never closed")
            cursor.next()
            if token.is_symbol("("):
                depth += 1
            elif token.is_symbol(")"):
                depth -= 1
            elif depth > 1:
                continue
            elif token.is_symbol("="):
                key, pending = pending or None, ""
            elif token.is_symbol(","):
                key, pending = None, ""
            elif token.kind in (Kind.STRING, Kind.NUMBER):
                elements.append((key, token.text))
            else:
                pending += token.text
        return tuple(elements)

    # --- statements ---------------------------------------------------------------------------------------

    def _statement(self, query_name: str | None) -> None:
        cursor = self._cursor
        token = cursor.peek()
        if token.is_word("create"):
            self._create(query_name)
        elif token.is_word("insert", "update", "delete", "select", "from"):
            self._queries.append(self._query(query_name))
        elif token.is_word("partition"):
            self._partition()
        elif token.is_word("define"):
            raise self._source.error(
                token.start, 'DEFINE is version 1 of the language; only version 2 is read (@App:qlVersion("2"), CREATE)'
            )
        else:
            raise cursor.unexpected("a statement (CREATE, INSERT, …)", keywords=_STATEMENTS)
        if not cursor.at_end_of_statement:
            raise cursor.unexpected("';'")
        cursor.take_symbol(";")

    def _create(self, query_name: str | None) -> None:
        cursor = self._cursor
        start = cursor.next()
        place = cursor.place_of(start)
        word = cursor.peek()
        if word.is_word("stream", "source", "sink"):
            self._stream(start, place, query_name)
        elif word.is_word("table", "store"):
            self._table(place)
        elif word.is_word("function"):
            self._function(place)
        elif word.is_word("window", "trigger", "aggregation"):
            self._other(start, place, word.text.lower())
        elif word.is_word("index", "unique", "secondary"):
            self._other(start, place, "index")
        elif word.is_word("query") and cursor.peek(1).is_symbol("-"):
            self._other(start, place, "query-worker")
        else:
            raise cursor.unexpected("what to create (STREAM, TABLE, FUNCTION, …)", keywords=_CREATED)

    def _declare(self, token: Token) -> str:
        """Take note of a name: all of a worker are different, across kinds (F.3)."""
        place = self._cursor.place_of(token)
        earlier = self._names.setdefault(token.text, place)
        if earlier is not place:
            raise self._source.error(token.start, f"the name '{token.text}' is taken already on line {earlier.line}")
        return token.text

    def _scope_and_name(self, default: Scope) -> tuple[Scope, str]:
        """GLOBAL, LOCAL or SPOT stands before the name or after it (C.2)."""
        cursor = self._cursor
        scope = default
        if (
            cursor.at_word("global", "local", "spot")
            and cursor.peek(1).is_name
            and not cursor.peek(1).is_word("with", "as")
        ):
            scope = Scope.GLOBAL if cursor.next().is_word("global") else Scope.LOCAL
        name = self._declare(cursor.expect_name("a name"))
        if cursor.at_word("global", "local", "spot"):
            scope = Scope.GLOBAL if cursor.next().is_word("global") else Scope.LOCAL
        return scope, name

    def _stream(self, start: Token, place: Place, query_name: str | None) -> None:
        cursor = self._cursor
        kind = cursor.next().text.lower()
        if kind != "stream" and cursor.at_word("stream"):
            cursor.next()
            kind += " stream"
        scope, name = self._scope_and_name(Scope.LOCAL)
        properties = self._properties()
        attributes = self._attributes() if cursor.at_symbol("(") else None
        properties |= self._properties()
        replication = properties.get("replication.type", "").lower()
        if replication:
            scope = Scope.GLOBAL if replication == "global" else Scope.LOCAL
        self._definitions.append(StreamDefinition(kind, name, scope, attributes, properties, place))
        self._as_select(start, name, query_name)

    def _table(self, place: Place) -> None:
        cursor = self._cursor
        start = cursor.peek()
        kind = cursor.next().text.lower()
        scope, name = self._scope_and_name(Scope.LOCAL if kind == "table" else Scope.GLOBAL)
        properties = self._properties()
        attributes = self._attributes() if cursor.at_symbol("(") else None
        properties |= self._properties()
        self._definitions.append(TableDefinition(kind, name, scope, attributes, properties, place))
        self._as_select(start, name, None)

    def _as_select(self, start: Token, name: str, query_name: str | None) -> None:
        cursor = self._cursor
        if not cursor.at_word("as"):
            return
        place = cursor.place
        cursor.skip_statement()
        text = cursor.text_since(start)
        self._queries.append(OtherQuery(query_name, "CREATE … AS SELECT", name, (), text, place))

    def _function(self, place: Place) -> None:
        cursor = self._cursor
        cursor.next()
        name = self._declare(cursor.expect_name("the function's name"))
        cursor.expect_symbol("[", expected="'[' and the function's language")
        language = cursor.expect_name("the function's language").text.lower()
        cursor.expect_symbol("]")
        if not cursor.take_word("returns"):
            cursor.expect_word("return")
        returns = self._type()
        if cursor.peek().kind is not Kind.BODY:
            raise cursor.unexpected("'{' and the function's body")
        self._definitions.append(FunctionDefinition(name, language, returns, cursor.next().text, place))

    def _other(self, start: Token, place: Place, construct: str) -> None:
        cursor = self._cursor
        name = None
        while cursor.at_word("unique", "secondary", "index", "window", "trigger", "aggregation", "query", "worker"):
            cursor.next()
            cursor.take_symbol("-")
        if cursor.peek().is_name:
            name = self._declare(cursor.next()) if construct != "index" else cursor.next().text
        cursor.skip_statement()
        self._definitions.append(OtherDefinition(construct, name, cursor.text_since(start), place))

    def _partition(self) -> None:
        cursor = self._cursor
        start = cursor.next()
        place = cursor.place_of(start)
        depth = 0
        while True:
            token = cursor.peek()
            if token.kind is Kind.END:
                raise self._source.error(start.start, "this PARTITION is never closed: expected END")
            cursor.next()
            depth += token.is_word("begin")
            if token.is_word("end"):
                depth -= 1
                if depth <= 0:
                    break
        self._definitions.append(OtherDefinition("partition", None, cursor.text_since(start), place))

    # --- parts of statements ------------------------------------------------------------------------------

    def _properties(self) -> dict[str, str]:
        """WITH (key = value, …), if it comes. Values need no quotes (F.2)."""
        cursor = self._cursor
        properties: dict[str, str] = {}
        if not cursor.take_word("with"):
            return properties
        cursor.expect_symbol("(")
        while not cursor.at_symbol(")"):
            key = self._key()
            cursor.expect_symbol("=")
            properties[key] = self._value()
            if not cursor.take_symbol(","):
                break
        cursor.expect_symbol(")", expected="',' or ')'")
        return properties

    def _key(self) -> str:
        cursor = self._cursor
        key = cursor.expect_name("a property's name").text
        while cursor.at_symbol(".", "-"):
            key += cursor.next().text + cursor.expect_name("the rest of the property's name").text
        return key.lower()

    def _value(self) -> str:
        cursor = self._cursor
        if cursor.peek().kind is Kind.STRING:
            return cursor.next().text
        start = cursor.peek()
        depth = 0
        while depth or not cursor.at_symbol(",", ")"):
            if cursor.peek().kind is Kind.END or cursor.at_symbol(";"):
                raise cursor.unexpected("',' or ')' after the property's value")
            depth += cursor.at_symbol("(", "[") - cursor.at_symbol(")", "]")
            cursor.next()
        if cursor.peek() is start:
            raise cursor.unexpected("a property's value")
        return cursor.text_since(start)

    def _attributes(self) -> tuple[Attribute, ...] | None:
        """(name type, …); None where a mapping stands instead (F.3)."""
        cursor = self._cursor
        cursor.expect_symbol("(")
        first, second = cursor.peek(), cursor.peek(1)
        if first.kind is Kind.STRING or (first.is_name and second.is_symbol("=", ".")):
            self._skip_parentheses()
            return None
        attributes: list[Attribute] = []
        while True:
            name = cursor.expect_name("an attribute's name")
            if any(a.name == name.text for a in attributes):
                raise self._source.error(name.start, f"the attribute '{name.text}' is declared twice")
            attributes.append(Attribute(name.text, self._type()))
            if not cursor.take_symbol(","):
                break
        cursor.expect_symbol(")", expected="',' or ')'")
        return tuple(attributes)

    def _skip_parentheses(self) -> None:
        """To behind the parenthesis that closes the one just taken."""
        cursor = self._cursor
        opening = cursor.previous
        depth = 1
        while depth:
            token = cursor.next()
            if token.kind is Kind.END:
                raise self._source.error(opening.start, "this '(' is never closed")
            depth += token.is_symbol("(") - token.is_symbol(")")

    def _type(self) -> AttributeType:
        cursor = self._cursor
        kind = _TYPES.get(cursor.peek().text.lower()) if cursor.peek().is_name else None
        if kind is None:
            names = [t.upper() for t in _TYPES]
            raise cursor.unexpected(f"a type ({', '.join(_TYPES)})", keywords=names)
        cursor.next()
        return kind

    # --- queries ------------------------------------------------------------------------------------------

    def _query(self, name: str | None) -> Query | OtherQuery:
        cursor = self._cursor
        start, begun = cursor.peek(), cursor.index
        try:
            query = self._plain_query(name)
            if cursor.at_end_of_statement:
                return query
            word = cursor.peek()
            beyond = _Beyond(_BEYOND.get(word.text.lower(), f"'{word.text}'"), cursor.place)
        except _Beyond as exc:
            beyond = exc
        cursor.skip_statement()
        target, sources = _names_of(cursor.taken_since(begun))
        return OtherQuery(name, beyond.construct, target, sources, cursor.text_since(start), beyond.place)

    def _plain_query(self, name: str | None) -> Query:
        cursor = self._cursor
        place = cursor.place
        target: str | None = None
        source: tuple[str, tuple[Expression, ...]] | None = None
        selection: tuple[Selected, ...] | None = None
        selected = False
        while True:
            token = cursor.peek()
            if token.is_word("insert") and target is None:
                target = self._insert_into()
            elif token.is_word("select") and not selected:
                selection, selected = self._selection(), True
            elif token.is_word("from") and source is None:
                source = self._input()
            elif token.is_word("update", "delete"):
                raise _Beyond(token.text.upper(), cursor.place)
            else:
                break
        if token.is_word(*_BEYOND) or token.is_symbol("->", "#", ","):
            raise _Beyond(_BEYOND.get(token.text.lower(), "a pattern or a window"), cursor.place)
        if target is None:
            raise cursor.unexpected("INSERT INTO")
        if source is None:
            raise cursor.unexpected("FROM", keywords=("FROM", "SELECT"))
        return Query(name, target, source[0], source[1], selection, place)

    def _insert_into(self) -> str:
        cursor = self._cursor
        cursor.next()
        if cursor.at_word("current", "expired", "all"):
            raise _Beyond(f"INSERT {cursor.peek().text.upper()} EVENTS", cursor.place)
        cursor.expect_word("into")
        return cursor.expect_name("where to insert: a stream's or table's name").text

    def _selection(self) -> tuple[Selected, ...] | None:
        cursor = self._cursor
        cursor.next()
        if cursor.take_symbol("*"):
            return None
        if cursor.at_word("distinct"):
            raise _Beyond("SELECT DISTINCT", cursor.place)
        selected: list[Selected] = []
        while True:
            begun = cursor.peek()
            expression = self._expressions.read()
            if cursor.take_word("as"):
                name = cursor.expect_name("a column's name").text
            elif cursor.at_symbol("[", "->", "#"):
                raise _Beyond("an indexed event", cursor.place)
            else:
                name = getattr(expression, "name", "")
                if not hasattr(expression, "source"):
                    raise self._source.error(begun.start, "a computed column needs a name: add AS name")
            selected.append(Selected(name, expression))
            if not cursor.take_symbol(","):
                return tuple(selected)

    def _input(self) -> tuple[str, tuple[Expression, ...]]:
        cursor = self._cursor
        cursor.next()
        if cursor.at_symbol("(") or cursor.at_word("every", "not") or cursor.peek(1).is_symbol("=", "#", "!"):
            raise _Beyond("a pattern", cursor.place)
        if cursor.at_symbol("!"):
            raise _Beyond("a fault stream", cursor.place)
        name = cursor.expect_name("where from: a stream's name").text
        filters: list[Expression] = []
        while cursor.take_symbol("["):
            filters.append(self._expressions.read())
            cursor.expect_symbol("]")
        if cursor.at_symbol("#", ",", "->"):
            raise _Beyond("a window" if cursor.at_symbol("#") else "a pattern", cursor.place)
        return name, tuple(filters)


def _query_name(annotations: list[Annotation]) -> str | None:
    """What @info(name='…') or @name('…') call the query that follows."""
    for annotation in annotations:
        if annotation.name.lower() in ("info", "infor", "name"):
            named = [value for key, value in annotation.elements if key is None or key.lower() == "name"]
            if named:
                return named[0]
    return None


def _names_of(taken: Sequence[Token]) -> tuple[str | None, tuple[str, ...]]:
    """The names behind INTO, and behind FROM and JOIN."""
    target: str | None = None
    sources: list[str] = []
    before: Token | None = None
    for token in taken:
        if before is not None and token.is_name:
            if before.is_word("into") and target is None:
                target = token.text
            elif before.is_word("from", "join"):
                sources.append(token.text)
        before = token
    return target, tuple(sources)
