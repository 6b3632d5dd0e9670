"""The daemon's threads: started by name, watched, and reported when one dies or stops working."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bridge.log import get_logger
from bridge.service.watchdog import Watchdog

log = get_logger(__name__)


class Threads:
    """Starts and watches threads. Main thread only.

    Args:
        tick: seconds between two calls of ``stuck``.
        died: called with the name of a thread that ended with an exception, in that thread.
    """

    def __init__(self, *, tick: float, died: Callable[[str], object]) -> None:
        self._died = died
        self._watchdog = Watchdog(tick=tick)

    def start(
        self, name: str, body: Callable[[], None], *, limit: float, beat: Callable[[], object]
    ) -> threading.Thread:
        """Start a thread and watch it.

        Args:
            name: of the thread.
            body: runs in it. An exception ends the thread, and the daemon with it.
            limit: seconds, see ``Watchdog.watch``.
            beat: see ``Watchdog.watch``.
        """

        def run() -> None:
            try:
                body()
            except Exception:  # the one place per thread: record it and stop the daemon
                log.exception("thread.died", thread=name)
                self._died(name)

        # A daemon thread: one that is stuck must not keep the process alive once the main thread has ended.
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._watchdog.watch(name, limit=limit, beat=beat)
        return thread

    def stuck(self) -> list[str]:
        """The names of threads that have stopped working; to be called every ``tick`` seconds."""
        return self._watchdog.tick()
