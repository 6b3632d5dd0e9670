"""Where a function's JavaScript body ends.

A body is not parsed, only followed: braces count where JavaScript would count them, so not in strings,
comments, template text and regular expressions. Whether a slash divides or opens a regular expression is
told by the token before it; after ``}`` it divides, which is right for an object and wrong only for a
statement that begins with a regular expression.
"""

from __future__ import annotations

import re

from bridge.streamql.source import Source, StreamQLError

_SKIPPED = re.compile(r"\s+|//[^\r\n]*")
_WORD = re.compile(r"[\w$]+")
_STRING = re.compile(r"""'(?:[^'\\\r\n]|\\(?:\r\n|[\s\S]))*+'|"(?:[^"\\\r\n]|\\(?:\r\n|[\s\S]))*+\"""")
_REGULAR_EXPRESSION = re.compile(r"/(?:[^/\\\[\r\n]|\\[^\r\n]|\[(?:[^\]\\\r\n]|\\[^\r\n])*+\])++/[\w$]*")
_TEMPLATE_STOP = re.compile(r"\\[\s\S]|`|\$\{")

# An expression follows these, so a slash after them opens a regular expression.
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
# The parentheses after these hold a condition: a statement follows, not an operator.
_BEFORE_CONDITION = frozenset(["for", "if", "while", "with"])


def end_of_body(source: Source, opening: int) -> int:
    """The offset behind the brace that closes the one at ``opening``.

    Raises:
        StreamQLError: the body, or a string, comment, template or regular expression in it, is never
            closed; the place is where it opens.
    """
    text = source.text
    # What is open: "{", "(", "if (" and "`", the last for the ${…} of a template; with their offsets.
    opened: list[tuple[str, int]] = [("{", opening)]
    after_operand = False
    word = ""  # the word just before, unless it is a property's name
    at = opening + 1
    while at < len(text):
        if skipped := _SKIPPED.match(text, at):
            at = skipped.end()
            continue
        if text.startswith("/*", at):
            at = _end_of_comment(source, at)
            continue
        before, word = word, ""
        character = text[at]
        if found := _WORD.match(text, at):
            is_property = text[at - 1] == "."
            word = "" if is_property else found.group()
            after_operand = word not in _BEFORE_EXPRESSION
            at = found.end()
        elif character in "'\"":
            string = _STRING.match(text, at)
            if string is None:
                raise source.error(at, "this string in the function's body is never closed on its line")
            after_operand = True
            at = string.end()
        elif character == "`":
            at, after_operand = _template(source, at + 1, at, opened)
        elif character == "/" and not after_operand:
            expression = _REGULAR_EXPRESSION.match(text, at)
            if expression is None:
                raise source.error(at, "this regular expression in the function's body is never closed on its line")
            after_operand = True
            at = expression.end()
        elif character == "(":
            opened.append(("if (" if before in _BEFORE_CONDITION else "(", at))
            after_operand = False
            at += 1
        elif character == ")":
            after_operand = True
            if opened[-1][0].endswith("("):
                after_operand = opened.pop()[0] == "("
            at += 1
        elif character == "{":
            opened.append(("{", at))
            after_operand = False
            at += 1
        elif character == "}":
            while opened[-1][0].endswith("("):  # never closed: JavaScript's to report, not ours
                opened.pop()
            kind, opened_at = opened.pop()
            if not opened:
                return at + 1
            after_operand = True
            at += 1
            if kind == "`":
                at, after_operand = _template(source, at, opened_at, opened)
        else:
            if text.startswith(("++", "--"), at):
                at += 2  # what stood before it still counts: i++ / 2
                continue
            after_operand = character == "]"
            at += 1
    raise _unclosed(source, opening, opened)


def _end_of_comment(source: Source, at: int) -> int:
    end = source.text.find("*/", at + 2)
    if end < 0:
        raise source.error(at, "this comment in the function's body is never closed: expected '*/'")
    return end + 2


def _template(source: Source, at: int, opened_at: int, opened: list[tuple[str, int]]) -> tuple[int, bool]:
    """Go through template text from ``at``; returns where it stops and whether the template is over."""
    for stop in _TEMPLATE_STOP.finditer(source.text, at):
        if stop.group() == "`":
            return stop.end(), True
        if stop.group() == "${":
            opened.append(("`", opened_at))
            return stop.end(), False
    raise source.error(opened_at, "this template in the function's body is never closed: expected '`'")


def _unclosed(source: Source, opening: int, opened: list[tuple[str, int]]) -> StreamQLError:
    for kind, at in opened:
        if kind == "`":
            return source.error(at, "this template in the function's body is never closed: expected '}'")
    return source.error(opening, "this '{' is never closed: expected '}' at the end of the function's body")
