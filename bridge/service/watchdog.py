"""Finds threads that are alive but stuck, and forces the process to exit if the shutdown hangs.

Time is counted in ticks of the watching thread, not in seconds: while the process is stopped or the machine suspended,
no thread can run, so none may count as stuck.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Watched:
    """A thread and its last known beat."""

    limit: int
    """In ticks."""
    beat: Callable[[], object]
    last: object = None
    ticks: int = 0
    """Ticks since the beat last changed."""


class Watchdog:
    """Finds threads whose beat has stopped changing. Used by one thread.

    Args:
        tick: seconds between two calls of ``tick``.
    """

    def __init__(self, *, tick: float) -> None:
        self._tick = tick
        self._watched: dict[str, _Watched] = {}

    def watch(self, name: str, *, limit: float, beat: Callable[[], object]) -> None:
        """Watch a thread.

        Args:
            name: of the thread.
            limit: seconds that may pass without a change of the beat.
            beat: returns a value that changes while the thread makes progress; None while it is idle.
        """
        self._watched[name] = _Watched(max(1, round(limit / self._tick)), beat)

    def tick(self) -> list[str]:
        """Check all threads. Returns the names of those that are stuck."""
        return [name for name, watched in self._watched.items() if _is_stuck(watched)]


def _is_stuck(watched: _Watched) -> bool:
    beat = watched.beat()
    if beat is None or beat != watched.last:
        watched.last, watched.ticks = beat, 0
        return False
    watched.ticks += 1
    return watched.ticks > watched.limit


def stack_of(name: str) -> str:
    """The current stack of the thread with that name, as text; empty if there is no such thread."""
    # A thread that is stuck can't report its own stack.
    ident = next((thread.ident for thread in threading.enumerate() if thread.name == name), None)
    frame = None if ident is None else sys._current_frames().get(ident)
    return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip("\n")


class ForcedExit:
    """Exits the process if an orderly shutdown doesn't end in time. No data is lost: acknowledged messages are on disk.

    Its thread counts ticks, too. ``arm`` and ``disarm`` may be called more than once, and ``disarm`` without ``arm``.

    Args:
        seconds: from ``arm`` to the exit.
        report: logs the reason. The exit waits for it one tick at most, since the log itself may hang.
        tick: seconds per tick.
        end: exits the process at once, with an exit code.
    """

    def __init__(
        self,
        *,
        seconds: float,
        report: Callable[[], object],
        tick: float = 1.0,
        end: Callable[[int], object] = os._exit,  # sys.exit would only end the thread that calls it
    ) -> None:
        self._ticks = max(1, round(seconds / tick))
        self._report = report
        self._tick = tick
        self._end = end
        self._disarmed = threading.Event()
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Start counting."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="forced exit", daemon=True)
            self._thread.start()

    def disarm(self) -> None:
        """Cancel the exit: the shutdown has ended."""
        self._disarmed.set()

    def _run(self) -> None:
        # In ticks: one long wait would also count the time in which the process is stopped.
        for _ in range(self._ticks):
            if self._disarmed.wait(self._tick):
                return
        reporter = threading.Thread(target=self._report, name="forced exit report", daemon=True)
        reporter.start()
        reporter.join(self._tick)
        self._end(1)
