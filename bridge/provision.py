"""Provisioning: see that the stream worker is there and active and has settled, then let the producers begin.

What is sent to a worker that isn't attached yet is lost to it. So an activation is remembered durably *before* it is
asked for, and forgotten once the worker has settled: after a crash in between the next start waits again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

from bridge.errors import GdnError
from bridge.gdn.rest import GdnRest
from bridge.gdn.worker import ensure_worker
from bridge.health import PartStatus
from bridge.log import get_logger
from bridge.streamql import Worker
from bridge.timing import PacedBackoff

ACTIVATING = "activating"
"""The key under which it is remembered that the worker was being activated: "1", or "" afterwards."""

REMEMBER_PATIENCE = 5.0
"""Seconds to wait until that is durable. A store that doesn't take it must not keep the worker from working."""

log = get_logger(__name__)


class Provision:
    """Keeps at it until the worker is ready.

    Args:
        rest: GDN, asked from the provisioning thread.
        worker: the definition.
        regions: where it shall run; none: in the region that answers.
        settle_time: seconds from an activation to the first row.
        was_activating: what an earlier run left under ``ACTIVATING`` says that it hadn't settled.
        remember: keeps a text under a key; the event is set once it is durable. Any thread.
        refresh: called before each attempt: the credentials may be new.
        ready: set once rows may be sent.
        stop: set when the bridge stops.
    """

    def __init__(
        self,
        *,
        rest: GdnRest,
        worker: Worker,
        regions: Sequence[str],
        settle_time: float,
        was_activating: bool,
        remember: Callable[[str, str], threading.Event],
        refresh: Callable[[], object],
        ready: threading.Event,
        stop: threading.Event,
        rng: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rest = rest
        self._worker = worker
        self._regions = regions
        self._settle_time = settle_time
        self._unsettled = was_activating
        self._remember = remember
        self._refresh = refresh
        self._ready = ready
        self._stop = stop
        self._backoff = PacedBackoff(rng=rng)
        self._wall_clock = wall_clock
        self._attempts = 0
        self.beat: int | None = None
        """The number of the attempt under way, None while there is none; for the watchdog."""
        self.status = PartStatus("worker", "starting", wall_clock(), None, None)  # swapped whole, read by any thread

    def run(self) -> None:
        """The thread's body: until the worker is ready or the bridge stops."""
        while not self._stop.is_set():
            if self._attempt():
                self._settle()
                return

    def _attempt(self) -> bool:
        """Whether the worker is active now; waits after a failure."""
        self._attempts += 1
        self.beat = self._attempts
        try:
            self._refresh()
            ensure_worker(
                self._rest,
                worker=self._worker,
                regions=self._regions,
                before_activation=self._before_activation,
                log=log,
            )
            return True
        except GdnError as exc:
            failure = exc
        finally:
            self.beat = None
        wait = self._backoff.next(failure.pace, failure.retry_after)
        now = self._wall_clock()
        self.status = self.status.moved("waiting", at=now, error=str(failure), next_attempt_at=now + wait)
        log.warning("worker.not_ensured", error=str(failure), retry_in=round(wait, 2))
        self._stop.wait(wait)
        return False

    def _before_activation(self) -> None:
        if not self._remember(ACTIVATING, "1").wait(REMEMBER_PATIENCE):
            log.warning("worker.activation_not_remembered", hint="a crash before it has settled could cost rows")
        self._unsettled = True

    def _settle(self) -> None:
        if self._unsettled:
            now = self._wall_clock()
            log.info("worker.settling", seconds=self._settle_time)
            self.status = self.status.moved("connecting", at=now, next_attempt_at=now + self._settle_time)
            if self._stop.wait(self._settle_time):
                return  # it hasn't settled: the next start must wait again
            self._remember(ACTIVATING, "")
        self.status = self.status.moved("connected", at=self._wall_clock())
        self._ready.set()
