"""Deadlines and back-off, free of clocks: callers pass the time, tests pass any time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Deadline:
    """A point in time that several steps share: each asks what is left."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._clock())


class Backoff:
    """Waits between attempts: full jitter under a ceiling that doubles, from ``base`` to ``cap`` seconds.

    ``reset`` belongs where a link has *held* for a while: resetting on connect alone turns a peer that
    accepts and drops at once into a busy loop.
    """

    def __init__(self, *, base: float = 0.5, cap: float = 30.0, rng: Callable[[], float] = random.random) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling: float = min(self._cap, self._base * 2 ** min(self._failures, 32))
        self._failures += 1
        return ceiling * self._rng()

    def reset(self) -> None:
        """Start again from ``base``."""
        self._failures = 0
