"""Starts the parts, waits for a reason to stop, and stops them under one deadline.

Run by the main thread. Meanwhile it watches the threads, reports the status to the service manager, and reloads the
settings on SIGHUP. A thread that dies or is stuck stops the daemon with exit code 1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from bridge.config import Settings
from bridge.gdn.client import SLOW_TIMEOUT
from bridge.links.dialer import Dialer
from bridge.log import get_logger
from bridge.service.build import Parts
from bridge.service.reload import Reloader
from bridge.service.systemd import ServiceManager, status_text
from bridge.service.threads import Threads
from bridge.service.watchdog import ForcedExit, stack_of
from bridge.timing import Deadline

TICK = 1.0
"""Seconds between checks of the threads."""

PIPELINE_LIMIT = 60.0
"""Seconds that a turn of the pipeline may take: a slow disk needs some to sync, a disk that hangs never returns."""

GRACE = 120.0
"""Seconds that an attempt or a check may take beyond its timeouts: name look-ups have timeouts of their own."""

ATTEMPT_TIMEOUTS = 12
"""Timeouts that an attempt may use up: it makes a few exchanges, each with timeouts for connecting, the answer and its
body, for each address of a name."""

CHECK_TIMEOUTS = 3
"""Timeouts that a health check may use up: most make one request."""

STOP_GRACE = 5.0
"""Seconds that stopping may take beyond ``stop_timeout``; after that the process ends without an orderly stop."""

log = get_logger(__name__)


class StopReason(NamedTuple):
    """Why the daemon stops."""

    text: str
    is_failure: bool = False


class Reload(Enum):
    """A request to load the settings again."""

    RELOAD = "reload"


RELOAD = Reload.RELOAD

Event = StopReason | Reload | Callable[[], None]
"""For the main thread: a reason to stop, a request to reload, or a function to call."""


class Supervisor:
    """Starts, supervises and stops the parts of one bridge.

    Args:
        parts: built, not started.
        settings: that they were built from.
        worker: the stream worker's name.
        events: for the main thread; a signal handler only puts events into it.
        reloader: reloads the settings.
        manager: the service manager.
        forced_exit: ends the process if the stop hangs.
        stopping: set when the stop begins.
    """

    def __init__(
        self,
        *,
        parts: Parts,
        settings: Settings,
        worker: str,
        events: SimpleQueue[Event],
        reloader: Reloader,
        manager: ServiceManager,
        forced_exit: ForcedExit,
        stopping: threading.Event,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._worker = worker
        self._events = events
        self._reloader = reloader
        self._manager = manager
        self._forced_exit = forced_exit
        self._stopping = stopping
        self._threads = Threads(
            tick=TICK, died=lambda name: events.put(StopReason(f"thread {name} died", is_failure=True))
        )
        self._dialling: set[Dialer[Any]] = set()

    def run(self) -> StopReason:
        """Run until there is a reason to stop, and stop.

        Raises:
            ConfigError: the status address can't be used; nothing was started.
        """
        waited_for = self._start()
        reason = self._wait_for_reason()
        self._stop(reason, waited_for)
        return self._later_failure() or reason  # a failed stop must not exit with code 0

    # --- start --------------------------------------------------------------------------------------------

    def _start(self) -> list[threading.Thread]:
        """Start everything, the diallers last: they need the pipeline. Returns the threads that a stop waits for."""
        parts, timeout = self._parts, self._settings.gdn.request_timeout
        # First: if the address can't be used, nothing else may be running.
        parts.status_server.start()
        pipeline = parts.pipeline
        started = [self._threads.start("pipeline", pipeline.run, limit=PIPELINE_LIMIT, beat=lambda: pipeline.heartbeat)]
        if parts.gdn_parts is not None:
            provisioner, health = parts.gdn_parts.provisioner, parts.gdn_parts.health
            # GDN answers activations only after seconds: these requests have SLOW_TIMEOUT.
            limit = ATTEMPT_TIMEOUTS * max(timeout, SLOW_TIMEOUT) + GRACE
            started.append(
                self._threads.start("provision", provisioner.run, limit=limit, beat=lambda: provisioner.beat)
            )
            limit = CHECK_TIMEOUTS * timeout + GRACE
            started.append(self._threads.start("health", health.run, limit=limit, beat=lambda: health.beat))
        self._start_dialling()
        log.info(
            "daemon.started",
            worker=self._worker,
            streams=list(pipeline.senders),
            filters=list(pipeline.filters),
            outbox=str(self._settings.outbox.path.absolute()),
        )
        self._manager.ready(self._status_text())
        return started

    def _start_dialling(self) -> None:
        """Start a thread for each dialler that has none."""
        for dialer in self._parts.dialers:
            if dialer in self._dialling:
                continue
            is_mqtt = dialer in self._parts.mqtt_dialers
            mqtt, gdn = self._settings.mqtt, self._settings.gdn
            # One attempt tries every broker.
            timeout = mqtt.connect_timeout * len(mqtt.brokers) if is_mqtt else gdn.request_timeout
            limit = ATTEMPT_TIMEOUTS * timeout + GRACE
            self._threads.start(f"dial {dialer.name}", dialer.run, limit=limit, beat=partial(_beat, dialer))
            self._dialling.add(dialer)

    # --- run ----------------------------------------------------------------------------------------------

    def _wait_for_reason(self) -> StopReason:
        while True:
            self._manager.ping(self._parts.pipeline.heartbeat)
            self._manager.status(self._status_text())
            try:
                event = self._events.get(timeout=TICK)
            except Empty:
                stuck = self._threads.stuck()  # only after a whole tick: the watchdog counts them
            else:
                if isinstance(event, StopReason):
                    return event
                if event is RELOAD:
                    self._reload()
                else:
                    event()
                continue
            if stuck:
                self._forced_exit.arm()  # before the log: that may be what hangs
                for name in stuck:
                    log.error("thread.stuck", thread=name, stack=stack_of(name))
                return StopReason(f"stuck: {', '.join(stuck)}", is_failure=True)

    def _reload(self) -> None:
        self._manager.reloading()
        # The pipeline thread calls ``done``, so it only queues the rest for this thread.
        if not self._reloader.reload(done=lambda: self._events.put(self._reloaded)):
            self._manager.ready(self._status_text())

    def _reloaded(self) -> None:
        self._start_dialling()  # the new routes may feed streams that had no producer
        log.info("daemon.reloaded", streams=list(self._parts.pipeline.senders), filters=self._parts.pipeline.filters)
        self._manager.ready(self._status_text())

    def _status_text(self) -> str:
        waiting = self._parts.pipeline.snapshot.books.outbox
        return status_text(self._parts.statuses, waiting=waiting, refused=self._reloader.refused)

    # --- stop ---------------------------------------------------------------------------------------------

    def _stop(self, reason: StopReason, waited_for: list[threading.Thread]) -> None:
        parts, seconds = self._parts, self._settings.stop_timeout
        self._forced_exit.arm()  # before the log: that may be what hangs
        # Longer than until the forced exit, so that the manager doesn't kill the process before its own report.
        self._manager.stopping(f"stopping: {reason.text}", within=seconds + 2 * STOP_GRACE)
        log.info("daemon.stopping", reason=reason.text)
        deadline = Deadline(seconds)
        self._stopping.set()  # also ends the provisioner's waits
        for dialer in parts.dialers:
            dialer.request_stop()
        if parts.gdn_parts is not None:
            parts.gdn_parts.health.request_stop()
        parts.inbox.request_stop(deadline)
        # The dialling threads aren't joined: they may be blocked in a connect, and have nothing to finish.
        for thread in waited_for:
            thread.join(deadline.left())
        parts.status_server.stop()
        parts.rest.close()
        books = parts.pipeline.snapshot.books
        log.info(
            "daemon.stopped",
            received=books.received,
            delivered=books.delivered,
            outbox=books.outbox,
            dead_lettered=sum(books.dead_lettered.values()),
            dropped=sum(books.dropped.values()),
            balanced=books.balanced,
        )

    def _later_failure(self) -> StopReason | None:
        """A failure after the reason to stop, such as a thread that died during the stop."""
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, StopReason) and event.is_failure:
                return event
        return None


def _beat(dialer: Dialer[Any]) -> int | None:
    return dialer.beat
