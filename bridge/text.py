"""Makes untrusted text safe to print: it can't control a terminal or forge lines of a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with each unprintable character replaced by U+FFFD."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def counted(number: int, noun: str) -> str:
    """The number with the noun, whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def escape_unprintable(text: str) -> str:
    """The text with each unprintable character as a backslash escape.

    Unprintable are control characters, line breaks, lone surrogates and marks that change the direction of text.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
