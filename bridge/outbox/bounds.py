"""How much the store holds, and how much it may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ROOM_AGAIN = 0.9
"""Share of a bound below which what was full counts as having room again, so that it doesn't flutter."""

Policy = Literal["hold", "drop_oldest", "reject_new"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the store may hold. A batch that was begun below a bound may end above it."""

    max_bytes: int = 1 << 30
    """Of records waiting: payloads, stream names, and what SQLite needs to keep them."""
    max_age: float = 0.0
    """Seconds that the oldest record may wait; 0: any time."""
    dead_letter_bytes: int = 100 << 20
    """Of dead letters kept; beyond it the oldest are purged."""
    dead_letter_age: float = 0.0
    """Seconds that a dead letter is kept; 0: any time."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How many records or letters there are, or how many more, and the bytes that they take."""

    count: int = 0
    bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.count + other.count, self.bytes + other.bytes)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.count - other.count, self.bytes - other.bytes)
