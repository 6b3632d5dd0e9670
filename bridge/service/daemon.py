"""The daemon: builds the parts, starts them back to front, waits for a reason to stop, stops them under one deadline.

The only place that handles signals; a handler only puts on main's queue. A thread that dies or is stuck stops the
daemon with exit code 1, and so does a stop that hangs: a supervisor's restart finds everything acknowledged in the
outbox.

SIGHUP loads the settings again: routes that are good go to the pipeline as one change, over the link to the broker that
stands; anything wrong changes nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from bridge.books import Requests
from bridge.config import Settings
from bridge.errors import ConfigError, OutboxUnavailable
from bridge.gdn.address import Numbering
from bridge.gdn.client import SLOW_TIMEOUT
from bridge.gdn.producer import ProducerLink
from bridge.gdn.provisioner import ACTIVATING, Provisioner
from bridge.gdn.region import Region
from bridge.gdn.rest import GdnRest
from bridge.links.dialer import Dialer
from bridge.log import configure, get_logger
from bridge.mapping import Mapper, Route
from bridge.mapping.sparkplug import KEY_PREFIX
from bridge.mqtt.link import MqttLink
from bridge.mqtt.session import MqttSession
from bridge.outbox import Bounds, Outbox
from bridge.parts import PartStatus
from bridge.path.delivery import Delivery
from bridge.path.intake import Intake
from bridge.path.pipeline import Change, Pipeline
from bridge.path.sender import Sender
from bridge.service.connections import Connections
from bridge.service.reload import Configuration, need_restart
from bridge.service.systemd import ServiceManager, sentence
from bridge.service.watchdog import LastResort, Watchdog, stack_of
from bridge.streamql import Worker
from bridge.streamql.streams import InputStream
from bridge.timing import Deadline
from bridge.watch.configured_checks import make_checks
from bridge.watch.health import Health, HealthStatus
from bridge.watch.status_server import StatusServer

EXIT_OK = 0
EXIT_FAILED = 1


HEARTBEAT_LIMIT = 10.0
"""Seconds without a turn of the data path after which the daemon counts as dead."""

TICK = 1.0
"""Seconds between two looks of the watchdog."""

PIPELINE_LIMIT = 60.0
"""Seconds that a turn of the data path may take: a disk that syncs slowly does, one that hangs doesn't come back."""

GRACE = 120.0
"""Seconds that an attempt or a check may take beyond its timeouts: name servers that don't answer have their own."""

ATTEMPT_TIMEOUTS = 12
"""An attempt is a few exchanges, each with timeouts for connecting, the answer and its body, and that for each of the
addresses of a name."""

CHECK_TIMEOUTS = 3
"""A health check is mostly one request."""

OPEN_RETRY = 5.0
"""Seconds between attempts to open the outbox."""

STOP_GRACE = 5.0
"""Seconds that stopping may take beyond ``stop_timeout`` before the process ends without."""

log = get_logger(__name__)


class Daemon:
    """One running bridge.

    Args:
        settings: checked.
        worker: the parsed definition.
        streams: the GDN streams that the worker reads, by name.
        routes: checked.
        rest: closed when the daemon stops.
        reload: loads the settings again from where they came from, for new credentials; raises ConfigError.
        read_configuration: loads them with all that they name, for a reload; raises ConfigError.
        manager: is told how the daemon is.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        worker: Worker,
        streams: Mapping[str, InputStream],
        routes: Sequence[Route],
        rest: GdnRest,
        reload: Callable[[], Settings],
        read_configuration: Callable[[], Configuration],
        manager: ServiceManager | None = None,
    ) -> None:
        self._settings = settings
        self._read_configuration = read_configuration
        self._manager = ServiceManager.of(os.environ) if manager is None else manager
        self._log = settings.log
        self._refused: str | None = None  # why the last reload changed nothing
        self._latest: Mapper | None = None
        self._worker = worker
        self._streams = streams
        self._events: SimpleQueue[str | Callable[[], None]] = SimpleQueue()
        """For main's thread: a reason to stop, or something to do."""
        self._failed = False
        self._stopping = threading.Event()
        self._worker_ready = threading.Event()  # gates the producers: what is sent earlier is lost to the worker
        self._outbox_part = PartStatus("outbox", "starting", time.time(), None, None)
        self._rest = rest
        region = Region(rest=rest, wanted=settings.worker.regions, worker_name=worker.name)
        self._access = Connections(settings=settings, reload=reload, streams=streams, rest=rest, region=region)
        self._senders: Mapping[str, Sender] = {}  # swapped whole, by the pipeline's thread once that runs
        self._dialers: tuple[Dialer[Any], ...] = ()  # swapped whole, by main's thread
        self._provision: Provisioner | None = None
        self._health: Health | None = None
        self._filters: tuple[str, ...] = ()
        outbox = settings.outbox
        self._outbox = Outbox(
            outbox.path,
            Bounds(outbox.max_bytes, outbox.max_age, outbox.dead_letter_bytes, outbox.dead_letter_age),
        )
        self._routes = routes
        self._is_gdn = settings.gdn.kind == "gdn"
        self._watchdog = Watchdog(tick=TICK)
        self._last_resort = LastResort(
            seconds=settings.stop_timeout + STOP_GRACE,
            tick=TICK,
            say=lambda: log.error("daemon.hung", hint="the stop did not end; what was acknowledged is in the outbox"),
        )

    def run(self) -> int:
        """Run until a signal or a failure; returns the exit code.

        Raises:
            ConfigError: the outbox or the status address can't be used.
        """
        previous = {
            number: signal.signal(number, lambda signum, _frame: self._events.put(signal.Signals(signum).name))
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda _signum, _frame: self._events.put(self._reload))
        try:
            self._manager.status("opening the outbox")
            reason = self._open_outbox()
            return self._run() if reason is None else EXIT_OK
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._outbox.close()
            self._last_resort.disarm()

    def _open_outbox(self) -> str | None:
        """Open the outbox, trying again while the disk is full or another program holds the file.

        Returns:
            A reason to stop that came first, if one did.
        """
        while True:
            try:
                self._outbox.open()
                return None
            except OutboxUnavailable as exc:
                log.error("outbox.unavailable", error=str(exc), retry_in=OPEN_RETRY)
                self._manager.status(f"waiting for the outbox: {exc}")
            try:
                event = self._events.get(timeout=OPEN_RETRY)
            except Empty:
                continue
            if isinstance(event, str):
                return event
            log.warning("daemon.not_reloaded", hint="the outbox is not open yet: reload once the bridge is up")

    def _run(self) -> int:
        settings = self._settings
        mapping = self._mapping(self._routes)
        self._filters = mapping.filters
        # What an earlier configuration stored still has to go out, whatever the routes say today.
        names = dict.fromkeys([route.stream for route in settings.routes] + self._outbox.streams())
        if not settings.delivery.deduplicate:
            self._outbox.forget_numbers()
        self._senders = senders = {name: self._sender(name) for name in names if name in self._streams}
        for name in names:
            if name not in senders:
                log.error("outbox.unknown_stream", stream=name, hint="its records wait; the worker no longer has it")
        name = f"{settings.mqtt.client_id} at {settings.mqtt.host}:{settings.mqtt.port}"
        self._session = MqttSession(name=name, outbox=self._outbox, deduplicates=settings.delivery.deduplicate)
        mqtt_dialer: Dialer[MqttLink] = Dialer(
            name="mqtt",
            connect=self._dial_mqtt,
            hand_over=lambda link: self._pipeline.hand_over_mqtt(link),  # noqa: PLW0108 - there is no pipeline yet
        )
        pipeline = Pipeline(
            mapping=mapping,
            outbox=self._outbox,
            intake=Intake(self._session, mqtt_dialer),
            senders=senders,
            policy=settings.outbox.full,
            linger=settings.delivery.linger / 1000,
            asks_for_births=settings.mqtt.rebirth_requests,
            may_send=self._worker_ready.is_set,
        )
        self._pipeline = pipeline
        self._dialers = (mqtt_dialer, *(sender.dialer for sender in senders.values()))
        self._provision = provision = self._make_provision(pipeline) if self._is_gdn else None
        self._health = health = None if provision is None else self._make_health(provision)
        status = StatusServer(
            host=settings.status.host,
            port=settings.status.port,
            live=lambda: time.monotonic() - pipeline.heartbeat < HEARTBEAT_LIMIT,
            parts=self._parts,
            snapshot=lambda: pipeline.snapshot,
            health=lambda: HealthStatus() if health is None else health.status,
            requests=self._requests,
        )
        status.start()
        timeout = settings.gdn.request_timeout
        waited_for = [self._start("pipeline", pipeline.run, PIPELINE_LIMIT, lambda: pipeline.heartbeat)]
        if provision is not None and health is not None:
            limit = ATTEMPT_TIMEOUTS * max(timeout, SLOW_TIMEOUT) + GRACE
            waited_for += [
                self._start("provision", provision.run, limit, lambda: provision.beat),
                self._start("health", health.run, CHECK_TIMEOUTS * timeout + GRACE, lambda: health.beat),
            ]
        else:
            self._worker_ready.set()
        self._start_dialling(mqtt_dialer, settings.mqtt.connect_timeout)
        for sender in senders.values():
            self._start_dialling(sender.dialer, timeout)
        log.info("daemon.started", worker=self._worker.name, streams=list(senders), filters=mapping.filters)
        self._manager.ready(self._sentence())

        reason = self._reason_to_stop()
        self._last_resort.arm()  # before the log: that may be what hangs
        self._manager.stopping(f"stopping: {reason}", within=settings.stop_timeout + 2 * STOP_GRACE)
        log.info("daemon.stopping", reason=reason)
        deadline = Deadline(settings.stop_timeout)
        self._stopping.set()
        for dialer in self._dialers:
            dialer.request_stop()
        if health is not None:
            health.request_stop()
        pipeline.request_stop(deadline)
        for thread in waited_for:
            thread.join(deadline.left())
        status.stop()
        self._rest.close()
        books = pipeline.snapshot.books
        log.info(
            "daemon.stopped",
            received=books.received,
            delivered=books.delivered,
            outbox=books.outbox,
            dead_lettered=sum(books.dead_lettered.values()),
            dropped=sum(books.dropped.values()),
            balanced=books.balanced,
        )
        return EXIT_FAILED if self._failed else EXIT_OK

    def _start(self, name: str, body: Callable[[], None], limit: float, beat: Callable[[], object]) -> threading.Thread:
        """Start a thread and have it watched: see ``Watchdog.watch``."""

        def guarded() -> None:
            try:
                body()
            except Exception:  # the one place per thread: record it and stop the daemon
                log.exception("thread.died", thread=name)
                self._fail(f"thread {name} died")

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self._watchdog.watch(name, limit=limit, beat=beat)
        return thread

    def _fail(self, reason: str) -> None:
        """Have the daemon stop with exit code 1. Any thread."""
        self._failed = True
        self._events.put(reason)

    def _start_dialling(self, dialer: Dialer[Any], timeout: float) -> None:
        limit = ATTEMPT_TIMEOUTS * timeout + GRACE
        self._start(f"dial {dialer.name}", dialer.run, limit, lambda: dialer.beat)

    def _reason_to_stop(self) -> str:
        """Wait for one, looking after the threads meanwhile and telling the service manager."""
        while True:
            self._manager.alive(self._pipeline.heartbeat)
            self._manager.status(self._sentence())
            try:
                event = self._events.get(timeout=TICK)
            except Empty:
                stuck = self._watchdog.tick()
            else:
                if isinstance(event, str):
                    return event
                event()
                continue
            if stuck:
                self._failed = True
                self._last_resort.arm()  # before the log: that may be what hangs
                for name in stuck:
                    log.error("thread.stuck", thread=name, stack=stack_of(name))
                return f"stuck: {', '.join(stuck)}"

    # --- reloading: main's thread -------------------------------------------------------------------------

    def _reload(self) -> None:
        """Load the settings again, and go on with what may change while the bridge runs; or change nothing."""
        self._manager.reloading()
        problems: Sequence[str] = ()
        try:
            configuration = self._read_configuration()
        except ConfigError as exc:
            self._refuse(exc.problems)
            return
        restart = need_restart(self._settings, configuration.settings)
        if configuration.worker.text != self._worker.text and "worker.definition" not in restart:
            restart.append("worker.definition (the file's text)")
        try:
            mapping = self._mapping(configuration.routes)
        except ValueError as exc:  # the definition that GDN runs hasn't got what the one in the file has
            problems = [f"{problem} (in the definition that the bridge runs with)" for problem in str(exc).split("\n")]
            self._refuse([*problems, f"need a restart: {', '.join(restart)}"])
            return
        if restart:
            log.warning("daemon.restart_needed", settings=restart, hint="these stay as they were until a restart")
        self._refused = None
        if configuration.settings.log != self._log:
            self._log = configuration.settings.log
            configure(level=self._log.level, format=self._log.format, stream=sys.stderr)
        self._access.refresh()
        self._filters = mapping.filters
        names = dict.fromkeys(route.stream for route in configuration.routes)
        added: dict[str, Sender] = {}

        def senders() -> Mapping[str, Sender]:
            # A stream that no route names any more keeps its sender: its records still have to go out.
            added.update({name: self._sender(name) for name in names if name not in self._senders})
            self._senders = {**self._senders, **added}
            return self._senders

        self._pipeline.change(Change(mapping, senders, done=lambda: self._events.put(partial(self._reloaded, added))))

    def _refuse(self, problems: Sequence[str]) -> None:
        self._refused = "; ".join(problems)
        log.error("daemon.reload_refused", problems=problems, hint="the bridge goes on as before")
        self._manager.ready(self._sentence())

    def _reloaded(self, added: Mapping[str, Sender]) -> None:
        self._dialers = (*self._dialers, *(sender.dialer for sender in added.values()))
        for sender in added.values():
            self._start_dialling(sender.dialer, self._settings.gdn.request_timeout)
        log.info("daemon.reloaded", streams=list(self._senders), filters=self._filters)
        self._manager.ready(self._sentence())

    # --- the parts ----------------------------------------------------------------------------------------

    def _mapping(self, routes: Sequence[Route]) -> Mapper:
        """The mapping by these routes.

        Raises:
            ValueError: they don't fit the definition that the bridge runs with; a line for each problem.
        """
        self._latest = Mapper(
            routes=routes,
            streams=self._streams,
            outbox_name=self._outbox.name,
            client=self._settings.mqtt.client_id,
            # What Sparkplug nodes said of themselves at their birth outlasts a change of routes, and a restart.
            sparkplug=None if self._latest is None else self._latest.sparkplug,
            births=self._outbox.recall_all(KEY_PREFIX) if self._latest is None else None,
        )
        return self._latest

    def _make_provision(self, pipeline: Pipeline) -> Provisioner:
        worker = self._settings.worker
        return Provisioner(
            rest=self._rest,
            worker=self._worker,
            streams=self._streams,
            used=lambda: list(self._senders),
            regions=worker.regions,
            settle_time=worker.settle_time,
            on_drift=worker.on_drift,
            was_activating=self._outbox.recall(ACTIVATING) == "1",
            remember=pipeline.remember,
            refresh=self._access.refresh,
            ready=self._worker_ready,
            fail=self._fail,
            stop=self._stopping,
        )

    def _make_health(self, provision: Provisioner) -> Health:
        pipeline = self._pipeline
        checks = make_checks(
            settings=self._settings,
            worker=self._worker,
            routes=self._routes,
            rest=self._rest,
            snapshot=lambda: pipeline.snapshot,
            launch=pipeline.launch,
            saw=provision.saw,
        )
        return Health(checks=checks, refresh=self._access.refresh, begins=provision.tried)

    def _sender(self, stream: str) -> Sender:
        deduplicates = self._settings.delivery.deduplicate
        delivery = Delivery(stream=stream, read=partial(self._outbox.read, stream), deduplicates=deduplicates)
        if deduplicates:
            delivery.resume(*self._outbox.numbered(stream))
        dialer: Dialer[ProducerLink] = Dialer(
            name=f"producer {stream}",
            connect=lambda: self._dial_producer(stream),
            hand_over=lambda link: self._pipeline.hand_over_producer(stream, link),
            gate=self._worker_ready,
        )
        return Sender(delivery, dialer)

    # --- connecting: in the dialling threads --------------------------------------------------------------

    def _dial_mqtt(self) -> MqttLink:
        return self._access.dial_mqtt(self._filters, self._session)

    def _dial_producer(self, stream: str) -> ProducerLink:
        first = self._senders[stream].initial_sequence_id
        # The outbox's name is in the producer's: with another store the numbers begin anew, and so must the producer.
        numbering = None if first is None else Numbering(f"gdn-bridge-{self._outbox.name}", first)
        return self._access.dial_producer(stream, numbering)

    # --- statuses: any thread -----------------------------------------------------------------------------

    def _parts(self) -> list[PartStatus]:
        found = [self._outbox_status(), *(dialer.status for dialer in self._dialers)]
        if self._provision is None or self._health is None:
            return found
        return [*found, self._provision.status, *self._health.parts()]

    def _requests(self) -> Requests:
        budget = self._rest.budget
        used, (checks, others) = budget.used, budget.made
        return Requests(used["minute"], used["day"], checks, others, self._rest.one_time_passwords)

    def _sentence(self) -> str:
        return sentence(self._parts(), waiting=self._pipeline.snapshot.books.outbox, refused=self._refused)

    def _outbox_status(self) -> PartStatus:
        error = self._pipeline.snapshot.store.error
        self._outbox_part = self._outbox_part.moved("failing" if error else "connected", at=time.time(), error=error)
        return self._outbox_part
