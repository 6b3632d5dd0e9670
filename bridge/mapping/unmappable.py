"""Why a message gives no rows."""

from __future__ import annotations

from bridge.reasons import Reason


class Unmappable(Exception):
    """The message becomes a dead letter. ``reason`` is its code; the text explains it for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NoReading(Exception):
    """A message of a type that carries no readings: dropped, and counted as ``filtered``."""


def preview(value: object) -> str:
    """A value from outside, safe to print: at most 80 characters, control characters escaped."""
    text = ascii(value) if isinstance(value, str | bytes) else ascii(str(value))[1:-1]
    return text if len(text) <= 80 else text[:77] + "..."
