"""How a message's way through the mapping ends without rows."""

from __future__ import annotations

from bridge.reasons import Reason


class Unmappable(Exception):
    """A message's way ends here. ``reason`` is its code, the text says it in words."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NoReading(Exception):
    """A message that carries no reading by its kind: counted as dropped, like one that no condition takes."""


def shown(value: object) -> str:
    """A foreign value for a person to read: at most 80 characters, control characters escaped."""
    text = ascii(value) if isinstance(value, str | bytes) else ascii(str(value))[1:-1]
    return text if len(text) <= 80 else text[:77] + "..."
