"""Finds where a function's JavaScript body ends.

The body is scanned, not parsed: braces are counted only where they are JavaScript syntax, so not in strings, comments,
template text or regular expressions. The token before a slash decides whether the slash divides or opens a regular
expression. After ``}`` it divides: right for an object literal, wrong only for a statement that starts with a regular
expression.
"""

from __future__ import annotations

import re

from bridge.streamql.source import Source, StreamQLError

_SKIPPED = re.compile(r"\s+|//[^\r\n]*")
_WORD = re.compile(r"[\w$]+")
_STRING = re.compile(r"""'(?:[^'\\\r\n]|\\(?:\r\n|[\s\S]))*+'|"(?:[^"\\\r\n]|\\(?:\r\n|[\s\S]))*+\"""")
_REGULAR_EXPRESSION = re.compile(r"/(?:[^/\\\[\r\n]|\\[^\r\n]|\[(?:[^\]\\\r\n]|\\[^\r\n])*+\])++/[\w$]*")
_TEMPLATE_STOP = re.compile(r"\\[\s\S]|`|\$\{")

# An expression follows these words, so a slash after them opens a regular expression.
_BEFORE_EXPRESSION = frozenset(
    [
        "await",
        "case",
        "delete",
        "do",
        "else",
        "in",
        "instanceof",
        "new",
        "of",
        "return",
        "throw",
        "typeof",
        "void",
        "yield",
    ]
)
# Parentheses after these words hold a condition: a statement follows them, not an operator.
_BEFORE_CONDITION = frozenset(["for", "if", "while", "with"])

# What can be open. A condition's parenthesis differs from others in what may follow it; a template is open while one of
# its ${…} is.
_BRACE, _PARENTHESIS, _CONDITION, _TEMPLATE = "{", "(", "if (", "`"


def end_of_body(source: Source, opening: int) -> int:
    """The offset after the brace that closes the one at ``opening``.

    Raises:
        StreamQLError: the body, or a string, comment, template or regular expression in it, is never closed; the error
            points at where it opens.
    """
    return _BodyScanner(source, opening).scan()


class _BodyScanner:
    def __init__(self, source: Source, opening: int) -> None:
        self._source = source
        self._text = source.text
        self._at = opening + 1
        self._opening = opening
        self._open: list[tuple[str, int]] = [(_BRACE, opening)]
        """Kind and offset of everything not yet closed, outermost first."""
        self._after_operand = False
        """Whether an operand has just ended, so that a slash here divides."""
        self._word = ""
        """The word just before, unless it is the name of a property."""

    def scan(self) -> int:
        while self._open and self._at < len(self._text):
            if not self._skip():
                self._scan_token()
        if self._open:
            raise self._unclosed()
        return self._at

    def _skip(self) -> bool:
        """Skip white space or a comment, if one comes."""
        if skipped := _SKIPPED.match(self._text, self._at):
            self._at = skipped.end()
            return True
        if not self._text.startswith("/*", self._at):
            return False
        end = self._text.find("*/", self._at + 2)
        if end < 0:
            raise self._source.error(self._at, "this comment in the function's body is never closed: expected '*/'")
        self._at = end + 2
        return True

    def _scan_token(self) -> None:
        word_before, self._word = self._word, ""
        character = self._text[self._at]
        if word := _WORD.match(self._text, self._at):
            self._scan_word(word)
        elif character in "'\"":
            self._scan_literal(_STRING, "string")
        elif character == "`":
            self._scan_template(self._at + 1, opening=self._at)
        elif character == "/" and not self._after_operand:
            self._scan_literal(_REGULAR_EXPRESSION, "regular expression")
        elif character in "({":
            self._scan_opening(character, word_before)
        elif character == ")":
            self._scan_parenthesis_close()
        elif character == "}":
            self._scan_brace_close()
        elif self._text.startswith(("++", "--"), self._at):
            self._at += 2  # doesn't change what a slash means: i++ / 2
        else:
            self._after_operand = character == "]"
            self._at += 1

    def _scan_word(self, word: re.Match[str]) -> None:
        is_property = self._text[self._at - 1] == "."
        self._word = "" if is_property else word.group()
        self._after_operand = self._word not in _BEFORE_EXPRESSION
        self._at = word.end()

    def _scan_literal(self, pattern: re.Pattern[str], name: str) -> None:
        literal = pattern.match(self._text, self._at)
        if literal is None:
            raise self._source.error(self._at, f"this {name} in the function's body is not closed on the same line")
        self._after_operand = True
        self._at = literal.end()

    def _scan_template(self, start: int, *, opening: int) -> None:
        """Scan template text from ``start`` to the template's end or to its next ``${``."""
        for stop in _TEMPLATE_STOP.finditer(self._text, start):
            if stop.group() in ("`", "${"):
                self._after_operand = stop.group() == "`"
                if not self._after_operand:
                    self._open.append((_TEMPLATE, opening))
                self._at = stop.end()
                return
        raise self._source.error(opening, "this template in the function's body is never closed: expected '`'")

    def _scan_opening(self, character: str, word_before: str) -> None:
        kind = _CONDITION if character == "(" and word_before in _BEFORE_CONDITION else character
        self._open.append((kind, self._at))
        self._after_operand = False
        self._at += 1

    def _scan_parenthesis_close(self) -> None:
        self._after_operand = True
        if self._open[-1][0] in (_PARENTHESIS, _CONDITION):
            self._after_operand = self._open.pop()[0] == _PARENTHESIS
        self._at += 1

    def _scan_brace_close(self) -> None:
        while self._open[-1][0] in (_PARENTHESIS, _CONDITION):  # unclosed parentheses are for JavaScript to report
            self._open.pop()
        kind, opening = self._open.pop()
        self._after_operand = True
        self._at += 1
        if kind == _TEMPLATE:
            self._scan_template(self._at, opening=opening)

    def _unclosed(self) -> StreamQLError:
        for kind, opening in self._open:
            if kind == _TEMPLATE:
                message = "this template in the function's body is never closed: expected '}'"
                return self._source.error(opening, message)
        return self._source.error(
            self._opening, "this '{' is never closed: expected '}' at the end of the function's body"
        )
