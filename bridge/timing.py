"""Deadlines, and how soon what failed is tried again; free of clocks: callers pass the time, tests pass any time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import Enum, unique


@unique
class Pace(Enum):
    """How soon each kind of failure is tried again.

    Seconds: the first wait's ceiling, the last one's, and what no wait goes below. Where trying often does harm, the
    floor keeps jitter from hammering.
    """

    #               what it is for                                           base    cap  floor
    UNREACHABLE = ("no connection, no answer, an answer with 5xx",            0.5,  30.0,   0.0)  # fmt: skip
    LIMITED =     ("too many requests (429), or our own budget is used up",  10.0, 120.0,  10.0)  # fmt: skip
    CREDENTIALS = ("credentials or rights refused (401, 403, CONNACK)",      15.0, 300.0,  15.0)  # fmt: skip
    MISSING =     ("what is needed isn't there yet (404 at the upgrade)",     2.0,  60.0,   0.0)  # fmt: skip
    NAME_TAKEN =  ("the old connection still has the producer's name (409)",  1.0,  10.0,   0.0)  # fmt: skip
    REFUSED =     ("the request itself was refused (400, 422)",              30.0, 300.0,   0.0)  # fmt: skip
    BRIEF =       ("links that ended soon after they began, several in a row", 4.0,  30.0,   2.0)  # fmt: skip
    SWITCHED_OFF = ("the worker was switched off behind our back",            5.0, 120.0,   1.0)  # fmt: skip
    TAKEN_OVER =  ("another client with our id took the session",            10.0, 120.0,  10.0)  # fmt: skip

    def __init__(self, _what_for: str, base: float, cap: float, floor: float) -> None:
        self.base = base
        self.cap = cap
        self.floor = floor


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

    def __init__(
        self, *, base: float = 0.5, cap: float = 30.0, floor: float = 0.0, rng: Callable[[], float] = random.random
    ) -> None:
        self._base = base
        self._cap = cap
        self._floor = floor
        self._rng = rng
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling: float = min(self._cap, self._base * 2 ** min(self._failures, 32))
        # A floor at the ceiling would leave no jitter: all bridges that fail together would come back together.
        ceiling = max(ceiling, 2 * self._floor)
        self._failures += 1
        return self._floor + (ceiling - self._floor) * self._rng()

    def reset(self) -> None:
        """Start again from ``base``."""
        self._failures = 0


class PacedBackoff:
    """Waits between attempts that fail in several ways: each pace counts its own failures."""

    def __init__(self, *, rng: Callable[[], float] = random.random) -> None:
        self._backoffs = {pace: Backoff(base=pace.base, cap=pace.cap, floor=pace.floor, rng=rng) for pace in Pace}

    def next(self, pace: Pace, retry_after: float | None = None) -> float:
        """Seconds to wait after such a failure, at least ``retry_after``."""
        return max(self._backoffs[pace].next(), retry_after or 0.0)

    def reset(self, *, but: Pace | None = None) -> None:
        """Forget the failures of all paces, or of all but one."""
        for pace, backoff in self._backoffs.items():
            if pace is not but:
                backoff.reset()
