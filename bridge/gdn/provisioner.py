"""Provisioning: see that the stream worker is there and active and has settled, let the producers begin, keep at it.

What is sent to a worker that isn't attached yet is lost to it. So an activation is remembered durably *before* it is
asked for, and forgotten once the worker has settled: after a crash in between the next start waits again. For the same
reason nothing is sent from when it is known that the worker was switched off, deleted or given columns that rows don't
have, until that is over: the records wait in the outbox, which is on disk.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from bridge.errors import GdnError, GdnUnavailable
from bridge.gdn.drift import losses
from bridge.gdn.rest import GdnRest, WorkerState
from bridge.gdn.worker import differs, ensure_worker
from bridge.log import get_logger
from bridge.parts import PartStatus
from bridge.streamql import InputStream, Worker
from bridge.timing import Pace, PacedBackoff

OnDrift = Literal["report", "apply", "fail"]

ACTIVATING = "activating"
"""The key under which it is remembered that the worker was being activated: "1", or "" afterwards."""

REMEMBER_PATIENCE = 5.0
"""Seconds to wait until that is durable. A store that doesn't take it must not keep the worker from working."""

WATCH_TURN = 0.3
"""Seconds between two looks whether a health check has found anything."""

STEADY_AFTER = 600.0
"""Seconds that the worker must have stayed active for an earlier switching-off to be forgotten."""

log = get_logger(__name__)


class _Drifted(Exception):
    """The worker isn't as the file says, and that is to end the bridge."""


class Provisioner:
    """Keeps the worker ready.

    Args:
        rest: GDN, asked from the provisioning thread.
        worker: the definition.
        streams: the streams that it reads, by name.
        used: the names of those that rows are sent to. Any thread.
        regions: where it shall run; none: in the region that answers.
        settle_time: seconds from an activation to the first row.
        on_drift: what happens when it is found to be another, or deleted. ``fail``: ``fail`` is called.
        was_activating: what an earlier run left under ``ACTIVATING`` says that it hadn't settled.
        remember: keeps a text under a key; the event is set once it is durable. Any thread.
        refresh: called before each attempt: the credentials may be new.
        ready: set while rows may be sent.
        fail: ends the bridge, with the reason. Any thread.
        stop: set when the bridge stops.
    """

    def __init__(
        self,
        *,
        rest: GdnRest,
        worker: Worker,
        streams: Mapping[str, InputStream],
        used: Callable[[], Sequence[str]],
        regions: Sequence[str],
        settle_time: float,
        on_drift: OnDrift,
        was_activating: bool,
        remember: Callable[[str, str], threading.Event],
        refresh: Callable[[], object],
        ready: threading.Event,
        fail: Callable[[str], object],
        stop: threading.Event,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rest = rest
        self._worker = worker
        self._streams = streams
        self._used = used
        self._regions = regions
        self._settle_time = settle_time
        self._on_drift = on_drift
        self._unsettled = was_activating
        self._remember = remember
        self._refresh = refresh
        self._ready = ready
        self._fail = fail
        self._stop = stop
        self._backoff = PacedBackoff(rng=rng)
        self._clock = clock
        self._wall_clock = wall_clock
        self._attempts = 0
        self._state: WorkerState | None = None  # as GDN has it, after the last attempt that succeeded
        self._was_there = False
        self._ready_at = 0.0
        self._switched_off = 0
        self._watched = False  # swapped by the provisioning thread, read by that of the health checks
        self._news: WorkerState | None = None  # the other way round, before _has_news is set
        self._has_news = threading.Event()
        self.beat: int | None = None
        """The number of the attempt under way, None while there is none; for the watchdog."""
        self.status = PartStatus("worker", "starting", wall_clock(), None, None)  # swapped whole, read by any thread
        self.tried = threading.Event()
        """Set once the first attempt has failed or the worker has settled: what checks find before is no news."""

    # --- any thread ---------------------------------------------------------------------------------------

    def saw(self, state: WorkerState | None) -> None:
        """What a health check was shown of the worker: holds the sending at once if it must."""
        if not self._watched or self._has_news.is_set() or state == self._state:
            return  # an attempt looks for itself
        if state is None or not state.is_active:
            self._ready.clear()
        self._news = state
        self._has_news.set()

    # --- the provisioning thread --------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's body: until the bridge stops."""
        try:
            while self.ensure():
                self._watch()
        except _Drifted as exc:
            self.status = self.status.moved("failing", at=self._wall_clock(), error=str(exc))
            self._fail(str(exc))

    def ensure(self) -> bool:
        """Attempt until the worker is active and has settled. False: the bridge stops."""
        while not self._stop.is_set():
            if self._attempt():
                return self._settle()
        return False

    def _attempt(self) -> bool:
        """Whether the worker is active now; waits after a failure."""
        self._attempts += 1
        self.beat = self._attempts
        try:
            self._refresh()
            ensured = ensure_worker(
                self._rest,
                worker=self._worker,
                regions=self._regions,
                before_activation=self._before_activation,
                log=log,
                replace=self._on_drift == "apply",
                examine=self._examine,
            )
            self._state, self._was_there = ensured.state, True
            return True
        except GdnError as exc:
            failure = exc
        finally:
            self.beat = None
        wait = self._backoff.next(failure.pace, failure.retry_after)
        self._say_waiting(str(failure), wait)
        log.warning("worker.not_ensured", error=str(failure), retry_in=round(wait, 2))
        self.tried.set()
        self._stop.wait(wait)
        return False

    def _examine(self, state: WorkerState | None) -> None:
        """Keep an attempt from doing what isn't wanted."""
        if state is None and self._was_there:
            sentence = f"stream worker {self._worker.name} was deleted while the bridge ran"
            if self._on_drift == "fail":
                raise _Drifted(sentence)
            if self._on_drift == "report":
                raise GdnUnavailable(
                    f"{sentence}; nothing is sent until it is there again: `gdn-bridge worker apply` makes it, and so "
                    'does worker.on_drift = "apply"',
                    pace=Pace.MISSING,
                )
        if state is not None and self._on_drift == "fail" and differs(state, self._worker, self._regions):
            raise _Drifted(self._difference())

    def _before_activation(self) -> None:
        """Hold the sending, and remember it: the next start must wait, too, should this one not get to its end."""
        self._ready.clear()
        if self._unsettled:
            return  # it is remembered
        # Once it is durable the data path has had its turn and sends no more.
        if not self._remember(ACTIVATING, "1").wait(REMEMBER_PATIENCE):
            log.warning("worker.activation_not_remembered", hint="a crash before it has settled could cost rows")
        self._unsettled = True

    def _settle(self) -> bool:
        """Wait until the worker reads. False: the bridge stops before."""
        if self._unsettled:
            now = self._wall_clock()
            log.info("worker.settling", seconds=self._settle_time)
            self.status = self.status.moved("connecting", at=now, next_attempt_at=now + self._settle_time)
            if self._stop.wait(self._settle_time):
                return False  # it hasn't settled: the next start must wait again
            self._remember(ACTIVATING, "")
            self._unsettled = False
        self._backoff.reset(except_for=Pace.SWITCHED_OFF)
        self._ready_at = self._clock()
        self._judge()
        self.tried.set()
        return True

    def _judge(self) -> None:
        """Let the producers send, unless what they send would be dropped by another definition than ours."""
        assert self._state is not None
        if not differs(self._state, self._worker, self._regions):
            self.status = self.status.moved("connected", at=self._wall_clock())
            self._ready.set()
            return
        lost = losses(self._state, self._streams, self._used())
        if lost:
            error = f"{self._difference()}; nothing is sent, as it would be lost: {'; '.join(lost.values())}"
            self._ready.clear()
            self.status = self.status.moved("failing", at=self._wall_clock(), error=error)
            log.error("worker.unfit", worker=self._worker.name, error=error)
        else:
            self.status = self.status.moved("connected", at=self._wall_clock(), error=self._difference())
            self._ready.set()

    def _watch(self) -> None:
        """Wait until a health check has seen something new, and what then has to be waited."""
        self._watched = True
        while not self._has_news.is_set():
            if self._stop.wait(WATCH_TURN):
                return
        self._watched = False
        state = self._news
        self._has_news.clear()
        if state is None or not state.is_active:
            self._lost(deleted=state is None)

    def _lost(self, *, deleted: bool) -> None:
        self._before_activation()
        name = self._worker.name
        if deleted:
            log.warning("worker.deleted", worker=name, on_drift=self._on_drift)
            if self._on_drift != "apply":
                return  # the next attempt says so
        else:
            self._switched_off += 1
            log.warning("worker.switched_off", worker=name, times=self._switched_off)
        if self._clock() - self._ready_at >= STEADY_AFTER:
            self._backoff.reset()
        what = "was deleted" if deleted else f"was switched off ({self._switched_off} x since the start)"
        wait = self._backoff.next(Pace.SWITCHED_OFF)
        self._say_waiting(f"stream worker {name} {what}; nothing is sent until it has come back and settled", wait)
        self._stop.wait(wait)

    def _difference(self) -> str:
        return (
            f"drift: stream worker {self._worker.name} has another definition in GDN than the file, or runs in other "
            "regions than worker.regions: see `gdn-bridge worker plan`"
        )

    def _say_waiting(self, error: str, wait: float) -> None:
        now = self._wall_clock()
        self.status = self.status.moved("waiting", at=now, error=error, next_attempt_at=now + wait)
