"""The requests that GDN's plan allows, counted on our side: better to wait than to be denied (gdn-api.md A.6).

Sliding windows of a minute and a day, each kept in sixtieths: what a sixtieth counted is forgotten once all of it has
left the window, so that no minute and no day, wherever it begins, holds more than its limit. Any thread may take; the
counts begin with the process.
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
"""Parts of a window: they bound what is remembered, and how much later than needed a request is forgotten."""


@dataclass(slots=True)
class _Slot:
    """What was taken in one part of a window."""

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
        self._forget(now)
        return sum(slot.taken for slot in self._slots)

    def wait(self, now: float, *, check: bool) -> float:
        """Seconds until there is room for one more; 0: now."""
        if not self.limit:
            return 0.0
        # What must be forgotten first, of all that was taken and of what checks took.
        over = self.used(now) - self.limit + 1
        checks_over = sum(slot.by_checks for slot in self._slots) - self.limit // 2 + 1 if check else 0
        room_at = now
        for slot in self._slots:
            if over <= 0 and checks_over <= 0:
                break
            over -= slot.taken
            checks_over -= slot.by_checks
            room_at = self._forgotten_at(slot)
        return room_at - now

    def add(self, now: float, *, check: bool) -> None:
        """Count a request."""
        self._forget(now)
        number = int(now * SLOTS / self._seconds)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        self._slots[-1].taken += 1
        self._slots[-1].by_checks += check

    def take_back(self, *, check: bool) -> None:
        """Don't count the last request after all."""
        if self._slots and self._slots[-1].taken:
            self._slots[-1].taken -= 1
            self._slots[-1].by_checks -= check and self._slots[-1].by_checks > 0

    def _forget(self, now: float) -> None:
        while self._slots and self._forgotten_at(self._slots[0]) <= now:
            self._slots.popleft()

    def _forgotten_at(self, slot: _Slot) -> float:
        return (slot.number + 1) * self._seconds / SLOTS + self._seconds


class Budget:
    """Counts requests to GDN and refuses what its plan doesn't allow.

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
            check: it is one of the health checks, which together may take half: reconnects must not starve for them.

        Raises:
            GdnUnavailable: there is no room; ``retry_after`` says when there is.
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
            f"the requests that {window.setting} ({window.limit}){share} allows are used up; "
            f"more can be made in {wait:.0f} s",
            pace=Pace.LIMITED,
            retry_after=wait,
        )

    def give_back(self, *, check: bool = False) -> None:
        """The request that was just counted didn't get to GDN, so GDN didn't count it either."""
        with self._lock:
            for window in self._windows.values():
                window.take_back(check=check)

    @property
    def made(self) -> tuple[int, int]:
        """Requests since the start, by health checks and by all else; those that didn't get to GDN, too."""
        with self._lock:
            return self._made[True], self._made[False]

    @property
    def used(self) -> dict[str, int]:
        """Requests that count now, in the running ``minute`` and ``day``."""
        with self._lock:
            now = self._clock()
            return {name: window.used(now) for name, window in self._windows.items()}
