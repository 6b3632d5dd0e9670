"""Provisioning: creates and activates the stream worker, waits until it has settled, and watches it from then on.

A worker that isn't attached yet never sees the rows sent before. So an activation is stored durably *before* it is
requested, and deleted once the worker has settled: after a crash in between the next start waits again. For the same
reason nothing is sent while the worker is known to be deactivated, deleted, or to have columns that rows don't have:
the records wait in the outbox.
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
"""Key of a saved value: "1" while the worker is being activated, "" afterwards."""

REMEMBER_PATIENCE = 5.0
"""Seconds to wait until ``ACTIVATING`` is stored. An outbox that fails must not keep the worker inactive."""

WATCH_TURN = 0.3
"""Seconds between polls of what health checks have found."""

STEADY_AFTER = 600.0
"""Seconds that the worker must stay active before the back-off for a deactivated worker starts again."""

log = get_logger(__name__)


class _Drifted(Exception):
    """The worker differs from the file, and ``on_drift`` is ``fail``."""


class Provisioner:
    """Ensures that the worker exists, is active and has settled.

    Args:
        rest: GDN; used by the provisioning thread.
        worker: the definition.
        streams: the streams that it reads, by name.
        used: returns the names of those that rows are sent to. Any thread.
        regions: where it should run; empty: in the region that answers.
        settle_time: seconds from an activation to the first row.
        on_drift: what happens if it differs from the definition or was deleted. ``fail``: calls ``fail``.
        was_activating: whether an earlier run ended before the worker had settled: see ``ACTIVATING``.
        remember: saves a text under a key; the event is set once it is durable. Any thread.
        refresh: called before each attempt: the credentials may have changed.
        ready: set while rows may be sent.
        fail: ends the bridge with a reason. Any thread.
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
        self._state: WorkerState | None = None  # in GDN, after the last successful attempt
        self._existed = False
        self._ready_at = 0.0
        self._deactivations = 0
        self._is_watching = False  # written by the provisioning thread, read by the health thread
        self._seen: WorkerState | None = None  # written by the health thread before it sets _has_changed
        self._has_changed = threading.Event()
        self.beat: int | None = None
        """The number of the current attempt, None between attempts; for the watchdog."""
        self.status = PartStatus(
            "worker", "starting", wall_clock(), None, None
        )  # replaced as a whole, read by any thread
        self.tried = threading.Event()
        """Set once the first attempt has failed or the worker has settled: the health checks start then."""

    # --- any thread ---------------------------------------------------------------------------------------

    def saw(self, state: WorkerState | None) -> None:
        """Note the worker's state as a health check has read it: stop sending at once if the worker isn't active."""
        if not self._is_watching or self._has_changed.is_set() or state == self._state:
            return  # an attempt reads the state itself
        if state is None or not state.is_active:
            self._ready.clear()
        self._seen = state
        self._has_changed.set()

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
        """Try until the worker is active and has settled. False: the bridge stops."""
        while not self._stop.is_set():
            if self._attempt():
                return self._settle()
        return False

    def _attempt(self) -> bool:
        """Try once; returns whether the worker is active now. Waits after a failure."""
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
            self._state, self._existed = ensured.state, True
            return True
        except GdnError as exc:
            failure = exc
        finally:
            self.beat = None
        wait = self._backoff.next(failure.pace, failure.retry_after)
        self._set_waiting(str(failure), wait)
        log.warning("worker.provision_failed", error=str(failure), retry_in=round(wait, 2))
        self.tried.set()
        self._stop.wait(wait)
        return False

    def _examine(self, state: WorkerState | None) -> None:
        """Raise if ``on_drift`` forbids continuing with the worker found."""
        if state is None and self._existed:
            sentence = f"stream worker {self._worker.name} was deleted while the bridge ran"
            if self._on_drift == "fail":
                raise _Drifted(sentence)
            if self._on_drift == "report":
                raise GdnUnavailable(
                    f"{sentence}; nothing is sent until it exists again: `gdn-bridge worker apply` creates it, and so "
                    'does worker.on_drift = "apply"',
                    pace=Pace.MISSING,
                )
        if state is not None and self._on_drift == "fail" and differs(state, self._worker, self._regions):
            raise _Drifted(self._difference())

    def _before_activation(self) -> None:
        """Stop sending, and store that durably: after a crash the next start must wait, too."""
        self._ready.clear()
        if self._unsettled:
            return  # already stored
        # Once it is durable, the pipeline has finished the turn in which it may have sent: it sends no more.
        if not self._remember(ACTIVATING, "1").wait(REMEMBER_PATIENCE):
            log.warning(
                "worker.activation_not_remembered", hint="a crash before the worker has settled could lose rows"
            )
        self._unsettled = True

    def _settle(self) -> bool:
        """Wait until the worker reads rows. False: the bridge stops first."""
        if self._unsettled:
            now = self._wall_clock()
            log.info("worker.settling", seconds=self._settle_time)
            self.status = self.status.moved("connecting", at=now, next_attempt_at=now + self._settle_time)
            if self._stop.wait(self._settle_time):
                return False  # not settled: the next start must wait again
            # Not waited for: if a crash loses it, the next start only waits for the worker once more.
            self._remember(ACTIVATING, "")
            self._unsettled = False
        # A worker above a limit is deactivated again soon: its back-off is reset only after STEADY_AFTER.
        self._backoff.reset(except_for=Pace.SWITCHED_OFF)
        self._ready_at = self._clock()
        self._check_drift()
        self.tried.set()
        return True

    def _check_drift(self) -> None:
        """Let the producers send, unless the worker's definition in GDN would drop the rows."""
        assert self._state is not None
        if not differs(self._state, self._worker, self._regions):
            self.status = self.status.moved("connected", at=self._wall_clock())
            self._ready.set()
            return
        lost = losses(self._state, self._streams, self._used())
        if lost:
            error = f"{self._difference()}; nothing is sent, because it would be lost: {'; '.join(lost.values())}"
            self._ready.clear()
            self.status = self.status.moved("failing", at=self._wall_clock(), error=error)
            log.error("worker.unfit", worker=self._worker.name, error=error)
        else:
            self.status = self.status.moved("connected", at=self._wall_clock(), error=self._difference())
            self._ready.set()

    def _watch(self) -> None:
        """Wait until a health check sees a change. If the worker was lost, also wait for the back-off."""
        self._is_watching = True
        while not self._has_changed.is_set():
            if self._stop.wait(WATCH_TURN):
                return
        # Before the event is cleared: until the next ``_watch`` no check may change what was seen.
        self._is_watching = False
        state = self._seen
        self._has_changed.clear()
        if state is None or not state.is_active:
            self._on_lost(deleted=state is None)

    def _on_lost(self, *, deleted: bool) -> None:
        # Stored now, not at the next attempt: after a crash another client may have activated the worker meanwhile.
        self._before_activation()
        name = self._worker.name
        if deleted:
            log.warning("worker.deleted", worker=name, on_drift=self._on_drift)
            if self._on_drift != "apply":
                return  # the next attempt reports it
        else:
            self._deactivations += 1
            log.warning("worker.switched_off", worker=name, times=self._deactivations)
        if self._clock() - self._ready_at >= STEADY_AFTER:
            self._backoff.reset()
        what = "was deleted" if deleted else f"was deactivated ({self._deactivations} times since the start)"
        wait = self._backoff.next(Pace.SWITCHED_OFF)
        self._set_waiting(
            f"stream worker {name} {what}; nothing is sent until it is active again and has settled", wait
        )
        self._stop.wait(wait)

    def _difference(self) -> str:
        return (
            f"drift: stream worker {self._worker.name} has another definition in GDN than in the file, or runs in "
            "other regions than worker.regions: see `gdn-bridge worker plan`"
        )

    def _set_waiting(self, error: str, wait: float) -> None:
        now = self._wall_clock()
        self.status = self.status.moved("waiting", at=now, error=error, next_attempt_at=now + wait)
