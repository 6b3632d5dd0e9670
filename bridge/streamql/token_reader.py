"""Reads tokens with look-ahead, and reports what was expected where something else is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from bridge.streamql.source import Source, StreamQLError
from bridge.streamql.syntax import Place
from bridge.streamql.tokens import Token, TokenKind, tokens

# No keyword is longer, and comparing takes quadratic time.
_LONGEST_COMPARED = 24
_LONGEST_SHOWN = 40
CREATED = ("stream", "source", "sink", "table", "store", "window", "trigger", "aggregation", "function", "index")
"""The words that can follow CREATE (gdn-api.md F.3)."""


def did_you_mean(word: str, keywords: Sequence[str]) -> str:
    """``; did you mean X?`` if ``word`` looks like a mistyped keyword, else empty."""
    if len(word) > _LONGEST_COMPARED or word.upper() in keywords:
        return ""
    close = get_close_matches(word.upper(), keywords, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


class TokenReader:
    """Reads tokens on demand and keeps them, so that a statement can be read a second time."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._unread: Iterator[Token] = tokens(source)
        self._read: list[Token] = []
        self.index = 0
        """How many tokens have been taken."""

    def peek(self, ahead: int = 0) -> Token:
        """The next token, or the one ``ahead`` tokens after it."""
        while len(self._read) <= self.index + ahead:
            self._read.append(next(self._unread))
        return self._read[self.index + ahead]

    def next(self) -> Token:
        """Take the next token. END can be taken any number of times."""
        token = self.peek()
        self.index += 1
        return token

    @property
    def place(self) -> Place:
        """The position of the next token."""
        return self.place_of(self.peek())

    def place_of(self, token: Token) -> Place:
        """The position of a token."""
        return self.source.place(token.start)

    def at_word(self, *words: str) -> bool:
        """Whether the next token is one of these keywords (lower case)."""
        return self.peek().is_word(*words)

    def at_symbol(self, *symbols: str) -> bool:
        """Whether the next token is one of these symbols."""
        return self.peek().is_symbol(*symbols)

    def take_word(self, *words: str) -> bool:
        """Take the next token if it is one of these keywords (lower case)."""
        if self.at_word(*words):
            self.index += 1
            return True
        return False

    def take_symbol(self, symbol: str) -> bool:
        """Take the next token if it is this symbol."""
        if self.at_symbol(symbol):
            self.index += 1
            return True
        return False

    def expect_word(self, word: str) -> Token:
        """Take this keyword (lower case).

        Raises:
            StreamQLError: another token comes.
        """
        if not self.at_word(word):
            raise self.unexpected(word.upper(), keywords=(word.upper(),))
        return self.next()

    def expect_symbol(self, symbol: str, *, expected: str = "") -> Token:
        """Take this symbol; the error calls it ``expected``.

        Raises:
            StreamQLError: another token comes.
        """
        if not self.at_symbol(symbol):
            raise self.unexpected(expected or f"'{symbol}'")
        return self.next()

    def expect_name(self, expected: str) -> Token:
        """Take a name; the error calls it ``expected``.

        Raises:
            StreamQLError: another token comes.
        """
        if not self.peek().is_name:
            raise self.unexpected(expected)
        return self.next()

    @property
    def at_end_of_statement(self) -> bool:
        """Whether a semicolon or END comes next."""
        return self.peek().kind is TokenKind.END or self.at_symbol(";")

    def skip_statement(self) -> None:
        """Skip to the end of the statement.

        Raises:
            StreamQLError: another statement starts before a semicolon.
        """
        while not self.at_end_of_statement:
            if self.at_next_statement:
                raise self.unexpected("';' at the end of the previous statement")
            self.next()

    @property
    def at_next_statement(self) -> bool:
        """Whether an annotation, a CREATE or an INSERT … INTO comes next: only a new statement starts with these."""
        if self.at_symbol("@"):
            return True
        if self.at_word("create"):
            return self.peek(1).is_word(*CREATED)
        if not self.at_word("insert") or self.previous.is_word("or"):
            return False
        ahead = 1
        while self.peek(ahead).is_word("all", "current", "expired", "event", "events"):
            ahead += 1
        return self.peek(ahead).is_word("into")

    @property
    def previous(self) -> Token:
        """The token taken last; there must be one."""
        return self._read[self.index - 1]

    def tokens_since(self, index: int) -> Sequence[Token]:
        """The tokens taken from position ``index`` on."""
        return self._read[index : self.index]

    def text_since(self, start: Token) -> str:
        """The text from ``start`` to the token taken last, as written."""
        return self.source.text[start.start : self.previous.end]

    def unexpected(self, expected: str, *, keywords: Sequence[str] = (), advice: str = "") -> StreamQLError:
        """The error that the next token isn't what was ``expected``; it may be one of ``keywords``, mistyped.

        The content of a string is never shown: it may be a password.
        """
        token = self.peek()
        advice = advice or (did_you_mean(token.text, keywords) if token.kind is TokenKind.WORD else "")
        message = f"expected {expected}, found {_describe(token)}{advice}{self._missing_quote_hint()}"
        return self.source.error(token.start, message)

    def _missing_quote_hint(self) -> str:
        """A hint if the previous token is a string over several lines: its closing quote may be missing."""
        if self.index == 0 or self.previous.kind is not TokenKind.STRING:
            return ""
        string = self.previous
        first, last = self.source.place(string.start).line, self.source.place(string.end).line
        if first == last or self.source.text.startswith('"""', string.start):
            return ""
        return f" (the string before it starts on line {first}: is its closing quote missing?)"


def _describe(token: Token) -> str:
    if token.kind is TokenKind.END:
        return f"the {token.kind.value}"
    if token.kind in (TokenKind.STRING, TokenKind.BODY):
        return f"a {token.kind.value}"
    text = token.text if len(token.text) <= _LONGEST_SHOWN else token.text[:_LONGEST_SHOWN] + "…"
    return f"'{text}'"
