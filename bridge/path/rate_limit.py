"""Rate limit for sending a stream's rows: a token bucket for rows and one for bytes. Pure."""

from __future__ import annotations

import math

BURST_SECONDS = 1.0
"""Bucket size: what the full rate allows in these seconds may be sent at once after a pause."""

STEP_SECONDS = 0.05
"""Sending resumes once the bucket holds what the rate gives in this time; a turn per row would be a commit per row."""

ROUNDING = 1e-9
"""Tokens by which floating-point rounding may leave a bucket short at ``ready_at``."""


class _Bucket:
    """A bucket refilled with ``rate`` tokens a second. It may go below zero: a row may be larger than the bucket."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = max(rate * BURST_SECONDS, 1.0)
        self._step = max(rate * STEP_SECONDS, 1.0)
        self._tokens = self._most
        self._counted_at = -math.inf

    @property
    def ready_at(self) -> float:
        if self._tokens >= self._step:
            return -math.inf
        return self._counted_at + (self._step - self._tokens) / self._rate

    def tokens(self, now: float) -> int:
        return int(min(self._most, self._tokens + (now - self._counted_at) * self._rate) + ROUNDING)

    def take(self, count: int, now: float) -> None:
        self._tokens = min(self._most, self._tokens + (now - self._counted_at) * self._rate) - count
        self._counted_at = now


class RateLimit:
    """The limit for one stream.

    Args:
        rows: a second; above 0.
        size: bytes a second; above 0.
    """

    def __init__(self, *, rows: float = math.inf, size: float = math.inf) -> None:
        self._rows = None if math.isinf(rows) else _Bucket(rows)
        self._bytes = None if math.isinf(size) else _Bucket(size)

    @property
    def ready_at(self) -> float:
        """Monotonic seconds at which sending may resume; minus infinity: now."""
        return max([bucket.ready_at for bucket in (self._rows, self._bytes) if bucket is not None], default=-math.inf)

    def room(self, now: float) -> tuple[float, float]:
        """How many rows and bytes may be sent now; the last row may exceed the bytes. ``now``: monotonic seconds."""
        if now < self.ready_at:
            return 0, 0
        return (
            math.inf if self._rows is None else self._rows.tokens(now),
            math.inf if self._bytes is None else self._bytes.tokens(now),
        )

    def take(self, rows: int, size: int, now: float) -> None:
        """Record that ``rows`` rows of ``size`` bytes in total were sent."""
        if self._rows is not None:
            self._rows.take(rows, now)
        if self._bytes is not None:
            self._bytes.take(size, now)
