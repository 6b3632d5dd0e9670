"""Deadlines and back-off. The clock and the random numbers can be replaced in tests."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import Enum, unique
from math import inf

EARLY = 60.0
"""Seconds of waiting after the first failure in which the next attempt comes soon (``Pace.early``)."""

CLOCK_IS_SET_FROM = 1_672_531_200
"""Seconds since the epoch: 2023-01-01. No version of the bridge is older, so an earlier time is that of a clock that
hasn't been set since the boot: machines without a clock of their own begin in 1970, or where their firmware says.
"""


def clock_is_set(seconds: float) -> bool:
    """Whether this wall clock time can be right."""
    return seconds >= CLOCK_IS_SET_FROM


@unique
class Pace(Enum):
    """The back-off for each kind of failure.

    All values are in seconds: ``base`` is the ceiling of the first wait, ``cap`` the highest ceiling, ``floor`` the
    shortest wait. There is a floor where frequent attempts do harm: with jitter alone a wait can be close to 0.
    ``early`` is the highest ceiling during the first ``EARLY`` seconds of waiting: somebody may be repairing the
    peer and waiting for the bridge to notice. It is infinite where frequent attempts do harm from the beginning.

    The names are published, as values of the metrics label ``cause``: they keep their spelling.
    """

    #               kind of failure                                          base    cap  floor early
    UNREACHABLE = ("no connection, no answer, an answer with 5xx",            0.5,  30.0,   0.0,  5.0)  # fmt: skip
    LIMITED =     ("too many requests (429), or our budget is used up",      10.0, 120.0,  10.0,  inf)  # fmt: skip
    CREDENTIALS = ("credentials or rights refused (401, 403, CONNACK)",      15.0, 300.0,  15.0,  5.0)  # fmt: skip
    MISSING =     ("a resource doesn't exist yet (404 at the upgrade)",       2.0,  60.0,   0.0,  5.0)  # fmt: skip
    NAME_TAKEN =  ("an old connection still has the producer's name (409)",   1.0,  10.0,   0.0,  5.0)  # fmt: skip
    REFUSED =     ("the request itself was refused (400, 422)",              30.0, 300.0,   0.0,  5.0)  # fmt: skip
    BRIEF =       ("several links in a row ended soon after they began",      4.0,  30.0,   2.0,  5.0)  # fmt: skip
    SWITCHED_OFF = ("GDN or another client deactivated the worker",           5.0, 120.0,   1.0,  inf)  # fmt: skip
    TAKEN_OVER =  ("another client with our id took over the session",       10.0, 120.0,  10.0,  inf)  # fmt: skip

    def __init__(self, _kind: str, base: float, cap: float, floor: float, early: float) -> None:
        self.base = base
        self.cap = cap
        self.floor = floor
        self.early = early


class Deadline:
    """A point in time that several steps share: each step asks how much time is left."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._clock())


class Backoff:
    """Exponential back-off with full jitter. The ceiling doubles from ``base`` to ``cap`` seconds.

    Until ``EARLY`` seconds have been waited in total, the ceiling is ``early`` at most.

    Call ``reset`` only once a link has lasted a while. If each connect reset it, a peer that accepts connections and
    closes them at once would cause a busy loop.
    """

    def __init__(
        self,
        *,
        base: float = 0.5,
        cap: float = 30.0,
        floor: float = 0.0,
        early: float = inf,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._cap = cap
        self._floor = floor
        self._early = early
        self._rng = rng
        self._failures = 0
        self._waited = 0.0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling: float = min(self._cap, self._base * 2 ** min(self._failures, 32))
        # A floor equal to the ceiling would leave no jitter: all bridges that fail together would retry together.
        ceiling, floor = max(ceiling, 2 * self._floor), self._floor
        if self._waited < EARLY and ceiling > self._early:
            ceiling, floor = self._early, min(floor, self._early / 2)
        else:
            self._failures += 1
        wait = floor + (ceiling - floor) * self._rng()
        self._waited += wait
        return wait

    def reset(self) -> None:
        """Start again from ``base``."""
        self._failures = 0
        self._waited = 0.0


class PacedBackoff:
    """Back-off for attempts that fail in several ways: each pace counts its own failures."""

    def __init__(self, *, rng: Callable[[], float] = random.random) -> None:
        self._backoffs = {
            pace: Backoff(base=pace.base, cap=pace.cap, floor=pace.floor, early=pace.early, rng=rng) for pace in Pace
        }

    def next(self, pace: Pace, retry_after: float | None = None) -> float:
        """Seconds to wait after a failure of this pace, at least ``retry_after``."""
        return max(self._backoffs[pace].next(), retry_after or 0.0)

    def reset(self, *, except_for: Pace | None = None) -> None:
        """Forget the failures of all paces, except for the given one."""
        for pace, backoff in self._backoffs.items():
            if pace is not except_for:
                backoff.reset()
