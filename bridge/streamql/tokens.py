r"""The tokens of a definition (lexis: gdn-api.md F.2).

Comments are ``-- …``, ``/* … */`` and ``// …``; the last is undocumented but occurs, and does not count
straight after a colon, where it is part of an unquoted URL.

Strings stand in single, double or triple double quotes and may run over lines. In single and double
quotes a backslash before the same quote or before a backslash stands for that character; any other
backslash is itself, so that patterns such as ``'\d+'`` stay whole. In triple quotes every character is
itself, and of more than three quotes at the end the last three close it. A brace opens a function's
body: nothing else in the language has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from bridge.streamql.script import end_of_body
from bridge.streamql.source import Source


class TokenKind(Enum):
    """What a token is; the value is how an error message calls it."""

    WORD = "word"
    QUOTED_NAME = "name in backticks"
    NUMBER = "number"
    STRING = "string"
    SYMBOL = "symbol"
    BODY = "block in braces"
    END = "end of the definition"


class Token(NamedTuple):
    """``text`` is the value of a string, the name inside backticks, else what is written."""

    kind: TokenKind
    text: str
    start: int
    end: int

    @property
    def is_name(self) -> bool:
        """Whether it can name something: keywords can, attributes are called like them (F.2)."""
        return self.kind is TokenKind.WORD or self.kind is TokenKind.QUOTED_NAME

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these keywords, given in lower case."""
        return self.kind is TokenKind.WORD and self.text.lower() in words

    def is_symbol(self, *symbols: str) -> bool:
        """Whether it is one of these symbols."""
        return self.kind is TokenKind.SYMBOL and self.text in symbols


_SKIPPED = re.compile(r"[\s\ufeff]+|--[^\r\n]*|(?<!:)//[^\r\n]*")
_PLAIN = re.compile(
    r"""
      (?P<WORD>[A-Za-z_][A-Za-z_0-9]*)
    | (?P<NUMBER>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?:[lLfFdD](?![A-Za-z_0-9]))?)
    | (?P<SYMBOL>->|==|!=|<=|>=|[@:,.;()\[\]}<>=+\-*/%#!?])
    """,
    re.VERBOSE,
)
_STRING = {
    "'": re.compile(r"'((?:[^'\\]|\\[\s\S])*+)'"),
    '"': re.compile(r'"((?:[^"\\]|\\[\s\S])*+)"'),
}
_ESCAPE = {
    "'": re.compile(r"\\(['\\])"),
    '"': re.compile(r'\\(["\\])'),
}
_TRIPLE = '"""'


def tokens(source: Source) -> Iterator[Token]:
    """Every token of the text, then END for ever; one at a time, so that the first mistake is the one told.

    Raises:
        StreamQLError: a string, name, comment or body that is never closed, or a character that means
            nothing.
    """
    text = source.text
    at = last = 0
    while at < len(text):
        if skipped := _SKIPPED.match(text, at):
            at = skipped.end()
            continue
        if text.startswith("/*", at):
            at = _after(source, "*/", at, 2, "comment") + 2
            continue
        token = _token(source, at)
        yield token
        at = last = token.end
    while True:
        yield Token(TokenKind.END, "", last, last)


def _token(source: Source, at: int) -> Token:
    text = source.text
    if plain := _PLAIN.match(text, at):
        return Token(TokenKind[plain.lastgroup or ""], plain.group(), at, plain.end())
    if text.startswith(_TRIPLE, at):
        end = _after(source, _TRIPLE, at, 3, "string")
        while text.startswith('"', end + 3):
            end += 1
        return Token(TokenKind.STRING, text[at + 3 : end], at, end + 3)
    character = text[at]
    if character in _STRING:
        string = _STRING[character].match(text, at)
        if string is None:
            raise source.error(at, f"this string is never closed: expected {character}")
        return Token(TokenKind.STRING, _ESCAPE[character].sub(r"\1", string.group(1)), at, string.end())
    if character == "`":
        end = _after(source, "`", at, 1, "name")
        name = text[at + 1 : end]
        if not name or "\n" in name or "\r" in name:
            raise source.error(at, "expected a name between backticks, on one line")
        return Token(TokenKind.QUOTED_NAME, name, at, end + 1)
    if character == "{":
        end = end_of_body(source, at)
        return Token(TokenKind.BODY, text[at + 1 : end - 1], at, end)
    advice = ""
    if character in "‘’“”„":
        advice = "; strings stand in straight quotes: ' or \""
    elif character in "&|":
        advice = "; write AND or OR"
    elif character in "–—":
        advice = "; a comment begins with two hyphens: --"
    raise source.error(at, f"unexpected character {character!r}{advice}")


def _after(source: Source, closing: str, at: int, skip: int, what: str) -> int:
    end = source.text.find(closing, at + skip)
    if end < 0:
        raise source.error(at, f"this {what} is never closed: expected {closing}")
    return end
