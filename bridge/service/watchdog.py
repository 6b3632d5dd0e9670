"""A watch over the threads: one that has stopped working while it lives is found, and told with its stack.

Counted are the watching thread's own turns, not seconds: after SIGCONT or a suspended machine no time has passed for
anyone, and nothing is found stuck that had no chance to run.
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
    """A thread, and what was last seen of it."""

    limit: int
    beat: Callable[[], object]
    last: object = None
    ticks: int = 0


class Watchdog:
    """Finds threads whose beat stands still. Used by one thread.

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
            limit: seconds that it may take from one beat to the next.
            beat: a value that changes as the thread works; None while it has nothing to do.
        """
        self._watched[name] = _Watched(max(1, round(limit / self._tick)), beat)

    def tick(self) -> list[str]:
        """Look at all threads; the names of those that are stuck."""
        return [name for name, watched in self._watched.items() if _is_stuck(watched)]


def _is_stuck(watched: _Watched) -> bool:
    beat = watched.beat()
    if beat is None or beat != watched.last:
        watched.last, watched.ticks = beat, 0
        return False
    watched.ticks += 1
    return watched.ticks > watched.limit


def stack_of(name: str) -> str:
    """Where the thread of that name is now, as lines; empty if there is no such thread."""
    ident = next((thread.ident for thread in threading.enumerate() if thread.name == name), None)
    frame = None if ident is None else sys._current_frames().get(ident)
    return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip("\n")


class LastResort:
    """Ends the process if an orderly end doesn't come: what is acknowledged is on disk.

    Its thread counts its own turns, too. ``arm`` and ``disarm`` may each be called twice, ``disarm`` alone.

    Args:
        seconds: from ``arm`` until the end.
        say: writes a last line; not waited for longer than a tick, since it may be the log that hangs.
        tick: seconds.
        end: ends the process at once, with an exit code.
    """

    def __init__(
        self,
        *,
        seconds: float,
        say: Callable[[], object],
        tick: float = 1.0,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._ticks = max(1, round(seconds / tick))
        self._say = say
        self._tick = tick
        self._end = end
        self._disarmed = threading.Event()
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Start counting."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="last resort", daemon=True)
            self._thread.start()

    def disarm(self) -> None:
        """The end has come by itself."""
        self._disarmed.set()

    def _run(self) -> None:
        for _ in range(self._ticks):
            if self._disarmed.wait(self._tick):
                return
        speaker = threading.Thread(target=self._say, name="last words", daemon=True)
        speaker.start()
        speaker.join(self._tick)
        self._end(1)
