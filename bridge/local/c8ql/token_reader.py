"""Splits a query into tokens and reads them one by one; makes the errors for unexpected tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|//[^\n]*|/\*[\s\S]*?\*/)
    | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<bind>@@?[A-Za-z_0-9]+)
    | (?P<name>[A-Za-z_][A-Za-z_0-9]*|`[^`]+`)
    | (?P<symbol>==|!=|<=|>=|&&|\|\||[<>+\-*/%!?:,.(){}\[\]=])
    """,
    re.VERBOSE,
)

UNSUPPORTED = frozenset(["INSERT", "UPDATE", "UPSERT", "REPLACE", "LET", "WITH", "WINDOW", "FOR", "SEARCH", "GRAPH"])
"""Keywords of C8QL that the local GDN doesn't support, or only in certain places."""


class C8QLError(Exception):
    """``number`` is GDN's errorNum, ``status`` the HTTP status (gdn-api.md A.6)."""

    def __init__(self, message: str, *, number: int = 1501, status: int = 400) -> None:
        super().__init__(message)
        self.number = number
        self.status = status


class QueryToken(NamedTuple):
    """``kind`` is a group of the pattern or ``end``; ``text`` as written; ``start`` an index into the query."""

    kind: str
    text: str
    start: int


class QueryTokenReader:
    """Reads the tokens of a query in order.

    Raises:
        C8QLError: there is a character that can't begin a token.
    """

    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens: list[QueryToken] = []
        self._index = 0
        at = 0
        while at < len(query):
            match = _TOKEN.match(query, at)
            if match is None:
                raise self.error(f"unexpected character {query[at]!r}", at)
            if match.lastgroup != "skip":
                self._tokens.append(QueryToken(match.lastgroup or "", match.group(), at))
            at = match.end()
        self._tokens.append(QueryToken("end", "", len(query)))

    def peek(self, ahead: int = 0) -> QueryToken:
        """The next token, or one further ahead; after the last, always the end token."""
        return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

    @property
    def word(self) -> str:
        """The next token in upper case, to compare with keywords and symbols."""
        return self.peek().text.upper()

    def next(self) -> QueryToken:
        """Take the next token."""
        token = self.peek()
        self._index += 1
        return token

    def take(self, *words: str) -> str:
        """Take the next token if it is one of these keywords or symbols, and return it; else return an empty string."""
        return self.next().text.upper() if self.word in words else ""

    def expect(self, *words: str) -> None:
        """Take all these keywords or symbols in this order.

        Raises:
            C8QLError: the next tokens are others.
        """
        for word in words:
            if not self.take(word):
                shown = word if word.isalpha() else repr(word)
                raise self.unsupported(self.word) if self.word in UNSUPPORTED else self.error(f"{shown} was expected")

    def items(self, closing: str) -> Iterator[None]:
        """Yield at each item of a list whose opening symbol has been taken; takes the commas and the closing symbol."""
        while not self.take(closing):
            yield
            if not self.take(","):
                self.expect(closing)
                return

    def expect_name(self) -> str:
        """Take a name.

        Raises:
            C8QLError: the next token is something else.
        """
        kind, text, start = self.next()
        if kind != "name":
            raise self.error("a name was expected", start)
        return text.strip("`")

    def unsupported(self, construct: str) -> C8QLError:
        """The refusal of a construct that C8QL has and the local GDN doesn't support."""
        return self.error(f"the local GDN doesn't support {construct}")

    def error(self, message: str, at: int | None = None) -> C8QLError:
        """A syntax error at the next token, or at an index into the query."""
        at = self.peek().start if at is None else at
        line = self._query.count("\n", 0, at) + 1
        column = at - self._query.rfind("\n", 0, at)
        near = self._query[at : at + 20]
        return C8QLError(f"C8QL: syntax error, {message} near '{near}' at position {line}:{column} (while parsing)")
