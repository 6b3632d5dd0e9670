"""How much the outbox may hold, and how much it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ROOM_AGAIN = 0.9
"""Hysteresis: what reached a bound has room again below this share of it."""

Policy = Literal["hold", "drop_oldest", "reject_new"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the outbox may hold. A batch that starts below a bound may end above it."""

    max_bytes: int = 1 << 30
    """Bytes of waiting records: payloads, stream names and SQLite's overhead."""
    max_age: float = 0.0
    """Seconds that the oldest record may wait; 0: no limit."""
    dead_letter_bytes: int = 100 << 20
    """Bytes of dead letters; above it the oldest are purged."""
    dead_letter_age: float = 0.0
    """Seconds that a dead letter is kept; 0: no limit."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A number of records or dead letters and their bytes; also the difference of two."""

    count: int = 0
    bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.count + other.count, self.bytes + other.bytes)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.count - other.count, self.bytes - other.bytes)
