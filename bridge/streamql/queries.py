"""Queries: the simple form is parsed, any other query is kept as text with the name of the first other construct.

The simple form is ``INSERT INTO target`` with ``SELECT … FROM source[filter]…`` or
``FROM source[filter]… SELECT …`` (gdn-api.md F.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.streamql.expressions import NotSimpleError, read_expression
from bridge.streamql.source import StreamQLError
from bridge.streamql.syntax import AttributeRef, Expression, OtherQuery, Query, Selected
from bridge.streamql.token_reader import TokenReader
from bridge.streamql.tokens import Token

QUERY_WORDS = ("insert", "update", "delete")
"""The words that start a query."""

# Words and symbols that can follow a source or a selection, with the name of the construct.
_CLAUSES = {
    "window": "WINDOW",
    **dict.fromkeys(("join", "left", "right", "full", "inner", "outer", "unidirectional"), "JOIN"),
    "where": "WHERE",
    "group": "GROUP BY",
    "having": "HAVING",
    "order": "ORDER BY",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "output": "OUTPUT",
    "within": "WITHIN",
    "per": "PER",
    "on": "ON",
    "set": "SET",
    "for": "FOR",
    "as": "an alias",
    "and": "a pattern",
    "or": "a pattern",
}
_SYMBOLS = {"->": "a pattern", "=": "a pattern", ",": "a sequence", "#": "a stream function"}
_CLAUSE_KEYWORDS = (
    "SELECT", "FROM", "WINDOW", "JOIN", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OUTPUT", "AS",
)  # fmt: skip


def read_query(cursor: TokenReader, name: str | None) -> Query | OtherQuery:
    """Parse a query up to its semicolon. ``name`` comes from its annotation."""
    start, first = cursor.index, cursor.peek()
    try:
        return _simple(cursor, name)
    except NotSimpleError as other:
        # Kept as text: skip to its end, then look for its target and sources among its tokens.
        cursor.skip_statement()
        statement = cursor.tokens_since(start)
        return OtherQuery(
            name=name,
            construct=other.construct,
            target=_target(statement),
            sources=_sources(statement),
            text=cursor.text_since(first),
            place=other.place,
        )


def read_selection_of(cursor: TokenReader, name: str | None, *, created: str, target: str) -> OtherQuery:
    """Read the ``AS SELECT …`` at the end of a CREATE; ``created`` is the kind of element that it fills."""
    start, first = cursor.index, cursor.peek()
    cursor.expect_word("as")
    if not cursor.at_word("select"):
        raise cursor.unexpected("SELECT after AS", keywords=("SELECT",))
    cursor.skip_statement()
    return OtherQuery(
        name=name,
        construct=f"CREATE {created.upper()} … AS SELECT",
        target=target,
        sources=_sources(cursor.tokens_since(start)),
        text=cursor.text_since(first),
        place=cursor.place_of(first),
    )


def read_selection_first(cursor: TokenReader, name: str | None) -> OtherQuery:
    """Read ``SELECT … FROM … INSERT INTO target``: the order of version 1, which examples of version 2 also use.

    Raises:
        StreamQLError: the query has no action.
    """
    start, first = cursor.index, cursor.peek()
    action = None
    has_from = False
    while not cursor.at_end_of_statement:
        has_from = has_from or cursor.at_word("from")
        if action is None and has_from and cursor.at_word(*QUERY_WORDS) and cursor.peek(1).is_name:
            action = cursor.index
        elif cursor.at_next_statement:
            raise cursor.unexpected("';' at the end of the previous statement")
        cursor.next()
    if action is None:
        raise cursor.source.error(first.start, "expected INSERT INTO, UPDATE or DELETE in the query, found none")
    statement = cursor.tokens_since(start)
    return OtherQuery(
        name=name,
        construct="SELECT before the action",
        target=_target(statement[action - start :]),
        sources=_sources(statement),
        text=cursor.text_since(first),
        place=cursor.place_of(first),
    )


def _simple(cursor: TokenReader, name: str | None) -> Query:
    place = cursor.place
    _insert(cursor)
    target = _stream_name(cursor, "the name of a stream or table after INTO")
    selection: tuple[Selected, ...] | None = None
    if cursor.take_word("select"):
        selection = _selection(cursor)
        if not cursor.take_word("from"):
            raise _not_simple_or_unexpected(cursor, "',' or FROM after the selection")
        source, filters = _source(cursor)
    else:
        if not cursor.take_word("from"):
            raise _not_simple_or_unexpected(cursor, "SELECT or FROM after the target")
        source, filters = _source(cursor)
        if cursor.take_word("select"):
            selection = _selection(cursor)
    if not cursor.at_end_of_statement:
        raise _not_simple_or_unexpected(cursor, "';' at the end of the query")
    return Query(name, target, source, filters, selection, place)


def _insert(cursor: TokenReader) -> None:
    place = cursor.place
    action = cursor.next()
    if action.is_word("delete"):
        raise NotSimpleError("DELETE", place)
    if action.is_word("update"):
        raise NotSimpleError("UPDATE OR INSERT" if cursor.at_word("or") else "UPDATE", place)
    if cursor.at_word("current", "expired", "all") and cursor.peek(1).is_word("events", "event"):
        raise NotSimpleError(f"INSERT {cursor.peek().text.upper()} EVENTS", cursor.place)
    if cursor.at_word("events") and cursor.peek(1).is_word("into"):
        raise NotSimpleError("INSERT EVENTS", cursor.place)
    cursor.expect_word("into")


def _stream_name(cursor: TokenReader, expected: str) -> str:
    if cursor.at_symbol("!"):
        raise NotSimpleError("a fault stream", cursor.place)
    if cursor.at_symbol("#"):
        raise NotSimpleError("an inner stream", cursor.place)
    return cursor.expect_name(expected).text


def _source(cursor: TokenReader) -> tuple[str, tuple[Expression, ...]]:
    follower = cursor.peek(1)
    if cursor.at_symbol("(") or (cursor.at_word("every", "not") and (follower.is_name or follower.is_symbol("("))):
        raise NotSimpleError("a pattern", cursor.place)
    source = _stream_name(cursor, "the name of a stream or table after FROM")
    filters: list[Expression] = []
    while cursor.at_symbol("["):
        opening = cursor.next()
        filters.append(read_expression(cursor))
        if cursor.at_end_of_statement:
            raise cursor.source.error(opening.start, "this '[' is never closed: expected ']'")
        cursor.expect_symbol("]", expected="an operator or ']' after the filter")
    return source, tuple(filters)


def _selection(cursor: TokenReader) -> tuple[Selected, ...] | None:
    if cursor.take_symbol("*"):
        if cursor.at_symbol(","):
            raise NotSimpleError("'*' with other columns", cursor.place)
        return None
    selected: list[Selected] = []
    while True:
        place = cursor.place
        expression = read_expression(cursor)
        if cursor.take_word("as"):
            if cursor.at_word("from"):
                raise cursor.unexpected("a name after AS")
            name = cursor.expect_name("a name after AS").text
        elif isinstance(expression, AttributeRef):
            name = expression.name
        elif cursor.at_symbol(",") or cursor.at_word("from") or cursor.at_end_of_statement:
            raise NotSimpleError("an expression without AS", place)
        else:
            raise _not_simple_or_unexpected(cursor, "an operator, AS, ',' or FROM after an expression")
        selected.append(Selected(name, expression))
        if not cursor.take_symbol(","):
            return tuple(selected)


def _not_simple_or_unexpected(cursor: TokenReader, expected: str) -> NotSimpleError | StreamQLError:
    token = cursor.peek()
    construct = None
    if token.is_word(*_CLAUSES):
        construct = _CLAUSES[token.text.lower()]
    elif token.is_symbol("#") and cursor.peek(1).is_word("window"):
        construct = "WINDOW"
    elif token.is_symbol(*_SYMBOLS):
        construct = _SYMBOLS[token.text]
    if construct is not None:
        return NotSimpleError(construct, cursor.place)
    return cursor.unexpected(expected, keywords=_CLAUSE_KEYWORDS)


def _target(statement: Sequence[Token]) -> str | None:
    """The target of an action: the name after INTO, else the one after UPDATE or DELETE."""
    head = statement[:8]  # UPDATE OR INSERT ALL EVENTS INTO target, the longest action, is within these
    for at, token in enumerate(head[:-1]):
        if token.is_word("into"):
            return next((after.text for after in head[at + 1 : at + 3] if after.is_name), None)
        if token.is_word("select", "from", "set", "on"):  # the action ends before these
            break
    if statement[0].is_word("insert") or len(head) < 2 or not head[1].is_name:
        return None
    return head[1].text


_AFTER_SOURCES = (
    "select", "group", "having", "where", "order", "limit", "output", "on", "set", "insert", "update", "delete", "per",
)  # fmt: skip


def _sources(statement: Sequence[Token]) -> tuple[str, ...]:
    """The names in the stream positions of every FROM: after FROM and JOIN, and the parts of a pattern.

    Fault streams and inner streams keep their ``!`` and ``#``: the bare name is another stream.
    """
    finder = _SourceFinder()
    for at, token in enumerate(statement):
        finder.take(token, before=statement[at - 1], after=statement[at + 1] if at + 1 < len(statement) else None)
    return tuple(finder.names)


class _SourceFinder:
    def __init__(self) -> None:
        self.names: dict[str, None] = {}  # in order
        self._depth = 0  # of brackets and of the parentheses of calls
        self._in_from = False
        self._at_source = False  # a source's name can come next
        self._in_within = False  # a comma here separates times, not sources

    def take(self, token: Token, *, before: Token, after: Token | None) -> None:
        if self._is_nested(token):
            return
        if self._at_source and after is not None and token.is_symbol("!", "#") and after.is_name:
            self._add(token.text + after.text)
        elif self._at_source and token.is_name:
            if not _opens_pattern(token, after) and not _names_event(after):
                self._add(token.text)
        else:
            self._take_clause(token, before)

    def _is_nested(self, token: Token) -> bool:
        """Whether the token is inside brackets or the parentheses of a call, or one of them."""
        if token.is_symbol("[") or (token.is_symbol("(") and not self._at_source):
            self._depth += 1
            return True
        if not self._depth:
            return False
        self._depth -= token.is_symbol(")", "]")
        return True

    def _add(self, name: str) -> None:
        self.names[name] = None
        self._at_source = False

    def _take_clause(self, token: Token, before: Token) -> None:
        if token.is_word("from", "join") and not before.is_symbol("."):
            self._in_from = self._at_source = True
            self._in_within = False
        elif token.is_word(*_AFTER_SOURCES):
            self._in_from = self._at_source = False
        elif token.is_word("within"):
            self._in_within = True
        elif self._in_from and token.is_symbol("->"):
            self._at_source, self._in_within = True, False
        elif self._in_from and not self._in_within and (token.is_symbol(",") or token.is_word("and", "or")):
            self._at_source = True


def _opens_pattern(token: Token, after: Token | None) -> bool:
    return token.is_word("every", "not") and after is not None and (after.is_name or after.is_symbol("("))


def _names_event(after: Token | None) -> bool:
    """Whether a name is an event's, as in ``e1=Stream``."""
    return after is not None and after.is_symbol("=")
