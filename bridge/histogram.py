"""Histograms of durations that the data path keeps. Pure; durations are added in batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import msgspec

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets in seconds: from a receipt on the same machine to ``delivery.receipt_timeout``."""


class Durations(msgspec.Struct, frozen=True):
    """A snapshot of a ``Histogram``."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    """Per bucket, not cumulative. The last bucket has no upper bound."""
    total: float = 0.0
    """Sum of all durations, in seconds."""


class Histogram:
    """Counts durations by bucket. Only one thread may add."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def add(self, durations: Iterable[tuple[float, int]]) -> None:
        """Count pairs of ``(seconds, number of durations)``. A negative duration counts as 0."""
        for seconds, number in durations:
            duration = max(0.0, seconds)
            self._counts[bisect_left(BOUNDS, duration)] += number
            self._total += duration * number

    @property
    def durations(self) -> Durations:
        """The durations counted so far."""
        return Durations(tuple(self._counts), self._total)
