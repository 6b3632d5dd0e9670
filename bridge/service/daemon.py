"""The daemon as a process: signals, the outbox opened and closed, exit codes.

The only place that handles signals; a handler only queues an event for the main thread. If the stop hangs, the process
exits with code 1: everything acknowledged is in the outbox.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from bridge import signals
from bridge.config import Settings
from bridge.errors import OutboxDamaged, OutboxUnavailable
from bridge.gdn.rest import GdnRest
from bridge.log import get_logger
from bridge.outbox import Outbox
from bridge.path.sockets import Sockets
from bridge.service import supervisor
from bridge.service.build import Parts, build
from bridge.service.reload import Configuration, Reloader
from bridge.service.supervisor import Event, StopReason, Supervisor
from bridge.service.systemd import ServiceManager
from bridge.service.watchdog import ForcedExit
from bridge.timing import clock_is_set

EXIT_OK = 0
EXIT_FAILED = 1

OPEN_RETRY = 5.0
"""Seconds between attempts to open the outbox."""

log = get_logger(__name__)


class Daemon:
    """One running bridge.

    Args:
        configuration: checked.
        rest: of GDN; closed when the daemon stops.
        reload_settings: loads the settings again from the same sources, for new credentials; raises ConfigError.
        read_configuration: loads the settings and what they name, for a reload; raises ConfigError.
        events: where ``signal_events`` puts the signals.
        manager: the service manager to notify; None: the one that the environment names.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        rest: GdnRest,
        reload_settings: Callable[[], Settings],
        read_configuration: Callable[[], Configuration],
        events: SimpleQueue[Event],
        manager: ServiceManager | None = None,
    ) -> None:
        self._configuration = configuration
        self._rest = rest
        self._reload_settings = reload_settings
        self._read_configuration = read_configuration
        self._manager = ServiceManager.from_environment(os.environ) if manager is None else manager
        self._events = events
        self._stopping = threading.Event()
        settings = configuration.settings
        self._outbox = Outbox(settings.outbox.path, settings.outbox.bounds)
        self._forced_exit = ForcedExit(
            seconds=settings.stop_timeout + supervisor.STOP_GRACE,
            tick=supervisor.TICK,
            report=lambda: log.error("daemon.hung", hint="the stop hung; what was acknowledged is in the outbox"),
        )

    def run(self) -> int:
        """Run until a signal or a failure; returns the exit code.

        Raises:
            ConfigError: the outbox or the status address can't be used.
        """
        try:
            now = time.time()
            if not clock_is_set(now):
                hint = "set the clock, or wait until it is synchronised: $received_at has no value until then"
                log.warning("clock.not_set", seconds_since_1970=round(now), hint=hint)
            self._manager.status("opening the outbox")
            prepared = self._prepare()
            reason = prepared if isinstance(prepared, StopReason) else self._supervise(prepared)
            return EXIT_FAILED if reason.is_failure else EXIT_OK
        finally:
            self._outbox.close()
            self._forced_exit.disarm()  # last: closing the outbox may hang, too

    def _prepare(self) -> Parts | StopReason:
        """Open the outbox and build the parts, which read it, trying again while the outbox can't be used.

        Returns:
            The parts, or a reason to stop that came first.
        """
        while True:
            try:
                if not self._outbox.is_open:  # else only building the parts has failed
                    self._outbox.open()
                return self._build()
            except (OutboxUnavailable, OutboxDamaged) as exc:
                log.error("outbox.unavailable", error=str(exc), retry_in=OPEN_RETRY)
                self._manager.status(f"waiting for the outbox: {exc}")
                if isinstance(exc, OutboxDamaged):
                    self._outbox.close()  # opening it again rescues it
            try:
                event = self._events.get(timeout=OPEN_RETRY)
            except Empty:
                continue
            if isinstance(event, StopReason):
                return event
            log.warning("daemon.not_reloaded", hint="the outbox is not open yet: reload once the bridge is up")

    def _build(self) -> Parts:
        sockets = Sockets()
        try:
            return build(
                configuration=self._configuration,
                outbox=self._outbox,
                rest=self._rest,
                reload_settings=self._reload_settings,
                fail=lambda reason: self._events.put(StopReason(reason, is_failure=True)),
                sockets=sockets,
                stopping=self._stopping,
            )
        except BaseException:
            # There is no pipeline that would close them, and _prepare tries again.
            sockets.close()
            raise

    def _supervise(self, parts: Parts) -> StopReason:
        configuration = self._configuration
        return Supervisor(
            parts=parts,
            settings=configuration.settings,
            worker=configuration.worker.name,
            events=self._events,
            reloader=Reloader(
                running=configuration,
                read_configuration=self._read_configuration,
                outbox=self._outbox,
                pipeline=parts.pipeline,
                inbox=parts.inbox,
                refresh=parts.connections.refresh,
            ),
            manager=self._manager,
            forced_exit=self._forced_exit,
            stopping=self._stopping,
        ).run()


@contextmanager
def signal_events() -> Iterator[SimpleQueue[Event]]:
    """A queue of the signals as events, including those that waited; the earlier handlers are restored at the end.

    Entered before the configuration is read, which may take seconds.
    """
    events: SimpleQueue[Event] = SimpleQueue()

    def stop(number: int, _frame: object) -> None:
        events.put(StopReason(signal.Signals(number).name))

    def reload(_number: int, _frame: object) -> None:
        events.put(supervisor.RELOAD)

    # A handler may interrupt the main thread inside ``get``: SimpleQueue.put is reentrant, a lock isn't.
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signals.unblock()  # only now: until here the default handlers would have ended the process
    try:
        yield events
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
