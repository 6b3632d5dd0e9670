"""How much the outbox may hold, and how much it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

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


class Usage(msgspec.Struct, frozen=True):
    """A number of records or dead letters and their bytes; also the difference of two."""

    count: int = 0
    bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.count + other.count, self.bytes + other.bytes)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.count - other.count, self.bytes - other.bytes)


class StreamUsage:
    """The records of each stream, and of all. ``by_stream`` has only streams with records."""

    def __init__(self, by_stream: Mapping[str, Usage] | None = None) -> None:
        self.by_stream = dict(by_stream or {})
        self.total = sum(self.by_stream.values(), Usage())

    def add(self, changes: Mapping[str, Usage]) -> None:
        """Add records."""
        for stream, change in changes.items():
            self.by_stream[stream] = self.by_stream.get(stream, Usage()) + change
            self.total += change

    def remove(self, changes: Mapping[str, Usage]) -> None:
        """Remove records."""
        for stream, change in changes.items():
            left = self.by_stream.get(stream, Usage()) - change
            self.total -= change
            if left.count:
                self.by_stream[stream] = left
            else:
                self.by_stream.pop(stream, None)

    def excess(self, target: int) -> dict[str, int]:
        """Bytes that the largest streams must give up so that ``target`` are left: all come down to the same size."""
        sizes = sorted(((usage.bytes, stream) for stream, usage in self.by_stream.items()), reverse=True)
        left, allowed = target, 0
        for place, (size, _) in reversed(list(enumerate(sizes))):  # smallest first
            allowed = left // (place + 1)  # an equal part of what the smaller ones leave
            if size > allowed:
                break
            left -= size
        return {stream: size - allowed for size, stream in sizes if size > allowed}
