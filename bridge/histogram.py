"""Measures that the data path keeps while it runs: pure, cheap by the batch, read as values that are swapped whole."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds, upper ends of the buckets: from a broker on the same machine to ``delivery.receipt_timeout``."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long things took, of one moment."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    """By bucket, not cumulative; the last one is for what took longer than any bound."""
    total: float = 0.0
    """Seconds, of all together."""


class Histogram:
    """Counts durations by bucket. One thread adds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def add(self, durations: Iterable[tuple[float, int]]) -> None:
        """Count ``(seconds, how many took so long)`` pairs; less than no time counts as none."""
        for seconds, number in durations:
            taken = max(0.0, seconds)
            self._counts[bisect_left(BOUNDS, taken)] += number
            self._total += taken * number

    @property
    def durations(self) -> Durations:
        """What was counted until now."""
        return Durations(tuple(self._counts), self._total)
