"""How much the outbox may hold, and how much it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
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
    shares: Mapping[str, float] = field(default_factory=dict)
    """Fraction of ``max_bytes`` that a stream has as its share, by stream; together 1 at most. The other streams have
    equal parts of what is left."""


def exact_sum(shares: Iterable[float]) -> Fraction:
    """The sum of the shares as they are written: the floats 0.7, 0.2 and 0.1 have another one."""
    return sum(map(_exact, shares), Fraction())


def _exact(share: float) -> Fraction:
    return Fraction(str(share))


class Shares:
    """Divides the bytes of the outbox among streams: see ``Bounds.shares``."""

    def __init__(self, max_bytes: int, named: Mapping[str, float]) -> None:
        self._named = {stream: int(max_bytes * _exact(share)) for stream, share in named.items()}
        self._rest = max_bytes - sum(self._named.values())

    def of(self, streams: Iterable[str]) -> dict[str, int]:
        """Each stream's share in bytes, at least 1, while these are all streams."""
        shares = {stream: self._named.get(stream) for stream in streams}
        others = sum(share is None for share in shares.values())
        equal = self._rest // others if others else 0
        return {stream: max(1, equal if share is None else share) for stream, share in shares.items()}


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

    def excess(self, target: int, shares: Mapping[str, int]) -> dict[str, int]:
        """Bytes that streams must give up so that ``target`` are left.

        Those with the most bytes for their share give way, down to the same multiple of it. That is at least
        ``target`` divided by the sum of all shares, so a stream within that part of its share gives up nothing.
        """
        sizes = {stream: usage.bytes for stream, usage in self.by_stream.items()}
        left, divided = target, sum(shares[stream] for stream in sizes)
        for stream in sorted(sizes, key=lambda stream: sizes[stream] / shares[stream]):
            if sizes[stream] * divided > left * shares[stream]:  # more than its part of what the others leave
                break
            left -= sizes[stream]
            divided -= shares[stream]
        else:
            return {}
        allowed = {stream: left * shares[stream] // divided for stream in sizes}
        return {stream: size - allowed[stream] for stream, size in sizes.items() if size > allowed[stream]}
