"""The budget of requests to GDN: counted here, so that the bridge waits instead of being refused (gdn-api.md A.6).

There are sliding windows of a minute and a day, each in sixty slots. A slot stops counting once all of it has left the
window, so no minute and no day, wherever it begins, has more requests than its limit. Thread-safe. The counts start
with the process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bridge.errors import GdnUnavailable
from bridge.timing import Pace

SLOTS = 60
"""Slots of a window: few enough to limit memory, enough that a request doesn't count much longer than necessary."""


@dataclass(slots=True)
class _Slot:
    """The number of requests in one slot of a window."""

    number: int
    taken: int = 0
    by_checks: int = 0


class _Window:
    """One limit. Not thread-safe."""

    def __init__(self, *, setting: str, limit: int, seconds: float) -> None:
        self.setting = setting
        self.limit = limit
        self._seconds = seconds
        self._slots: deque[_Slot] = deque()

    def used(self, now: float) -> int:
        """Requests that count now."""
        self._expire(now)
        return sum(slot.taken for slot in self._slots)

    def wait(self, now: float, *, check: bool) -> float:
        """Seconds until one more request is allowed; 0: now."""
        if not self.limit:
            return 0.0
        # How many requests must stop counting first: of all, and of those of health checks.
        over = self.used(now) - self.limit + 1
        checks_over = sum(slot.by_checks for slot in self._slots) - self.limit // 2 + 1 if check else 0
        room_at = now
        for slot in self._slots:
            if over <= 0 and checks_over <= 0:
                break
            over -= slot.taken
            checks_over -= slot.by_checks
            room_at = self._expires_at(slot)
        return room_at - now

    def add(self, now: float, *, check: bool) -> None:
        """Count a request."""
        self._expire(now)
        number = int(now * SLOTS / self._seconds)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        self._slots[-1].taken += 1
        self._slots[-1].by_checks += check

    def take_back(self, *, check: bool) -> None:
        """Uncount the last request."""
        if not self._slots or not self._slots[-1].taken:
            return  # it has left the window
        latest = self._slots[-1]
        latest.taken -= 1
        if check and latest.by_checks:
            latest.by_checks -= 1

    def _expire(self, now: float) -> None:
        while self._slots and self._expires_at(self._slots[0]) <= now:
            self._slots.popleft()

    def _expires_at(self, slot: _Slot) -> float:
        return (slot.number + 1) * self._seconds / SLOTS + self._seconds


class Budget:
    """Counts requests to GDN and refuses those that exceed the limits.

    Args:
        per_minute: requests in any 60 seconds; 0: no limit.
        per_day: requests in any 24 hours; 0: no limit.
        clock: monotonic seconds.
    """

    def __init__(self, *, per_minute: int, per_day: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._made = {True: 0, False: 0}  # under _lock: since the start, by whether a check made them
        self._windows = {  # under _lock
            "minute": _Window(setting="gdn.requests_per_minute", limit=per_minute, seconds=60.0),
            "day": _Window(setting="gdn.requests_per_day", limit=per_day, seconds=86400.0),
        }

    def take(self, *, check: bool = False) -> None:
        """Count a request that is about to be made.

        Args:
            check: whether it is for a health check. Checks together get half, so that they can't starve reconnects.

        Raises:
            GdnUnavailable: the budget is used up; ``retry_after`` says until when.
        """
        with self._lock:
            now = self._clock()
            window = max(self._windows.values(), key=lambda window: window.wait(now, check=check))
            wait = window.wait(now, check=check)
            if not wait:
                for each in self._windows.values():
                    each.add(now, check=check)
                self._made[check] += 1
                return
        share = ", of which health checks get half," if check else ""
        raise GdnUnavailable(
            f"the requests allowed by {window.setting} ({window.limit}){share} are used up; "
            f"the next one is possible in {wait:.0f} s",
            pace=Pace.LIMITED,
            retry_after=wait,
        )

    def give_back(self, *, check: bool = False) -> None:
        """Uncount the last request: it didn't reach GDN, so GDN didn't count it either."""
        with self._lock:
            for window in self._windows.values():
                window.take_back(check=check)

    @property
    def made(self) -> tuple[int, int]:
        """Requests since the start, by health checks and by all else, including those that didn't reach GDN."""
        with self._lock:
            return self._made[True], self._made[False]

    @property
    def used(self) -> dict[str, int]:
        """Requests that count now, by window: ``minute`` and ``day``."""
        with self._lock:
            now = self._clock()
            return {name: window.used(now) for name, window in self._windows.items()}
