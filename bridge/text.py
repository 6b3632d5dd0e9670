"""Foreign text made fit to be shown: it must steer neither a terminal nor a log."""

from __future__ import annotations


def replaced(text: str) -> str:
    """The text with a replacement character for everything that isn't shown as itself."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def escaped(text: str) -> str:
    """The text with everything that isn't shown as itself as a backslash escape.

    That is control characters, line breaks, lone surrogates, marks that turn the direction of text.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
