r"""The tokens of a definition (lexical rules: gdn-api.md F.2).

Comments are ``-- …``, ``/* … */`` and ``// …``. The last form is undocumented but used; directly after a colon ``//``
is part of an unquoted URL instead.

Strings are in single, double or triple double quotes and may span lines. In single and double quotes a backslash
escapes the same quote and a backslash; any other backslash is literal, so that patterns such as ``'\d+'`` need no
escaping. In triple quotes everything is literal; of more than three quotes at the end, the last three close the string.
A brace opens a function's body: nothing else in the language has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from bridge.streamql.script import end_of_body
from bridge.streamql.source import Source


class TokenKind(Enum):
    """The kinds of tokens; the value is the kind's name in error messages."""

    WORD = "word"
    QUOTED_NAME = "name in backticks"
    NUMBER = "number"
    STRING = "string"
    SYMBOL = "symbol"
    BODY = "block in braces"
    END = "end of the definition"


class Token(NamedTuple):
    """``text`` is a string's value, the name inside backticks, else the token as written."""

    kind: TokenKind
    text: str
    start: int
    end: int

    @property
    def is_name(self) -> bool:
        """Whether it can be a name: keywords can, as attributes may have the same names (F.2)."""
        return self.kind is TokenKind.WORD or self.kind is TokenKind.QUOTED_NAME

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these keywords (lower case)."""
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

# What was probably meant by characters that the language doesn't have.
_ADVICE = {
    "‘’“”„": "; write strings in straight quotes: ' or \"",
    "&|": "; write AND or OR",
    "–—": "; a comment starts with two hyphens: --",
}


def tokens(source: Source) -> Iterator[Token]:
    """The tokens of the text, then END without end; lazily, so that of several errors the first is reported.

    Raises:
        StreamQLError: a string, name, comment or body is never closed, or a character isn't part of the language.
    """
    text = source.text
    at = last = 0
    while at < len(text):
        if skipped := _SKIPPED.match(text, at):
            at = skipped.end()
            continue
        if text.startswith("/*", at):
            at = _find_closing(source, "*/", at, 2, "comment") + 2
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
    character = text[at]
    if character in _STRING:
        return _string(source, at)
    if character == "`":
        return _quoted_name(source, at)
    if character == "{":
        end = end_of_body(source, at)
        return Token(TokenKind.BODY, text[at + 1 : end - 1], at, end)
    advice = next((advice for characters, advice in _ADVICE.items() if character in characters), "")
    raise source.error(at, f"unexpected character {character!r}{advice}")


def _string(source: Source, at: int) -> Token:
    text = source.text
    if text.startswith(_TRIPLE, at):
        end = _find_closing(source, _TRIPLE, at, 3, "string")
        while text.startswith('"', end + 3):
            end += 1
        return Token(TokenKind.STRING, text[at + 3 : end], at, end + 3)
    quote = text[at]
    string = _STRING[quote].match(text, at)
    if string is None:
        raise source.error(at, f"this string is never closed: expected {quote}")
    return Token(TokenKind.STRING, _ESCAPE[quote].sub(r"\1", string.group(1)), at, string.end())


def _quoted_name(source: Source, at: int) -> Token:
    end = _find_closing(source, "`", at, 1, "name")
    name = source.text[at + 1 : end]
    if not name or "\n" in name or "\r" in name:
        raise source.error(at, "expected a name between backticks, on one line")
    return Token(TokenKind.QUOTED_NAME, name, at, end + 1)


def _find_closing(source: Source, closing: str, at: int, skip: int, what: str) -> int:
    """The offset of ``closing`` for ``what``, which opens at ``at`` with ``skip`` characters."""
    end = source.text.find(closing, at + skip)
    if end < 0:
        raise source.error(at, f"this {what} is never closed: expected {closing}")
    return end
