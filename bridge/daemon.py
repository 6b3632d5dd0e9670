"""The daemon: builds the parts, starts them back to front, waits for a reason to stop, stops them under one deadline.

The only place that handles signals; a handler only puts on main's queue. A thread that dies stops the daemon with
exit code 1: a supervisor's restart finds everything acknowledged in the outbox.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from queue import SimpleQueue
from typing import Any

from bridge import mqtt_source
from bridge.config import Settings
from bridge.delivery import Delivery
from bridge.dial import AUTH_RETRY, Dialer, Tls
from bridge.errors import GdnAuthError, GdnRejected, GdnUnavailable
from bridge.gdn import producer
from bridge.gdn.address import GdnAddress, with_otp
from bridge.gdn.rest import GdnRest
from bridge.gdn.worker import ensure_worker
from bridge.health import Health, PartStatus, State, default_query
from bridge.log import get_logger, register_secret
from bridge.mapping import Mapping
from bridge.message import OutboxRecord
from bridge.outbox import Outbox
from bridge.pipeline import Pipeline, Sender
from bridge.status_server import StatusServer
from bridge.streamql import Worker
from bridge.streamql.streams import InputStream
from bridge.timing import Backoff, Deadline

EXIT_OK = 0
EXIT_FAILED = 1

HEARTBEAT_LIMIT = 10.0
"""Seconds without a turn of the data path after which the daemon counts as dead."""

log = get_logger(__name__)


class Daemon:
    """One running bridge.

    Args:
        settings: checked.
        worker: the parsed definition.
        streams: the GDN streams that the worker reads, by name.
        mapping: compiled routes.
        rest: closed when the daemon stops.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        worker: Worker,
        streams: MappingOf[str, InputStream],
        mapping: Mapping,
        rest: GdnRest,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._streams = streams
        self._reasons: SimpleQueue[str] = SimpleQueue()
        self._failed = False
        self._stopping = threading.Event()
        self._worker_ready = threading.Event()  # gates the producers: what is sent earlier is lost to the worker
        self._provision_status = PartStatus("worker", "starting", time.time(), None, None)
        self._outbox_part = PartStatus("outbox", "starting", time.time(), None, None)
        self._address = GdnAddress.parse(settings.gdn.url)
        self._rest = rest
        self._outbox = Outbox(settings.outbox.path)
        self._mapping = mapping

    def run(self) -> int:
        """Run until a signal or a failure; returns the exit code.

        Raises:
            ConfigError: the outbox or the status address can't be used.
        """
        self._outbox.open()
        previous = {
            number: signal.signal(number, lambda signum, _frame: self._reasons.put(signal.Signals(signum).name))
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            return self._run()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._outbox.close()

    def _run(self) -> int:
        settings = self._settings
        # What an earlier configuration stored still has to go out, whatever the routes say today.
        names = dict.fromkeys([route.stream for route in settings.routes] + self._outbox.streams())
        senders = {name: self._sender(name) for name in names if name in self._streams}
        for name in names:
            if name not in senders:
                log.error("outbox.unknown_stream", stream=name, hint="its records wait; the worker no longer has it")
        pipeline = Pipeline(
            mapping=self._mapping, outbox=self._outbox, senders=senders, linger=settings.delivery.linger / 1000
        )
        self._pipeline = pipeline
        mqtt_dialer = Dialer(name="mqtt", connect=self._dial_mqtt, hand_over=pipeline.hand_over_mqtt)
        pipeline.attach_mqtt(mqtt_dialer)
        health = Health(
            rest=self._rest,
            worker_name=self._worker.name,
            query=settings.health.query or default_query(self._worker),
            worker_interval=settings.health.worker_interval,
            query_interval=settings.health.query_interval,
        )
        dialers: list[Dialer[Any]] = [mqtt_dialer, *(sender.dialer for sender in senders.values())]

        def parts() -> list[PartStatus]:
            return [self._outbox_status(), self._provision_status, *(d.status for d in dialers), *health.parts()]

        status = StatusServer(
            host=settings.status.host,
            port=settings.status.port,
            live=lambda: time.monotonic() - pipeline.heartbeat < HEARTBEAT_LIMIT,
            parts=parts,
            books=lambda: pipeline.snapshot.books,
            traffic=lambda: pipeline.snapshot.traffic,
            health=lambda: health.status,
        )
        status.start()
        started = [
            self._start("pipeline", pipeline.run),
            self._start("provision", self._provision),
            self._start("health", health.run),
        ]
        for dialer in dialers:
            self._start(f"dial {dialer.name}", dialer.run)
        log.info("daemon.started", worker=self._worker.name, streams=list(senders), filters=self._mapping.filters)

        reason = self._reasons.get()
        log.info("daemon.stopping", reason=reason)
        deadline = Deadline(settings.stop_timeout)
        self._stopping.set()
        for dialer in dialers:
            dialer.request_stop()
        health.request_stop()
        pipeline.request_stop(deadline)
        for thread in started:
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

    def _start(self, name: str, body: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                body()
            except Exception:  # the one place per thread: record it and stop the daemon
                log.exception("thread.died", thread=name)
                self._failed = True
                self._reasons.put(f"thread {name} died")

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _sender(self, stream: str) -> Sender:
        def read(after: int, limit: int) -> list[OutboxRecord]:
            return self._outbox.read(stream, after=after, limit=limit)

        dialer: Dialer[producer.ProducerLink] = Dialer(
            name=f"producer {stream}",
            connect=lambda: self._dial_producer(stream),
            hand_over=lambda link: self._pipeline.hand_over_producer(stream, link),
            gate=self._worker_ready,
        )
        return Sender(delivery=Delivery(stream=stream, read=read), dialer=dialer)

    def _dial_mqtt(self) -> mqtt_source.MqttLink:
        mqtt = self._settings.mqtt
        return mqtt_source.dial(
            host=mqtt.host,
            port=mqtt.port,
            tls=Tls(mqtt.ca_file, mqtt.cert_file, mqtt.key_file) if mqtt.tls else None,
            connect_timeout=mqtt.connect_timeout,
            filters=self._mapping.filters,
            client_id=mqtt.client_id,
            version=5 if mqtt.protocol == "5" else 4,
            username=mqtt.username,
            password=None if mqtt.password is None else mqtt.password.get_secret_value(),
            keepalive=mqtt.keepalive,
            session_expiry=mqtt.session_expiry,
            receive_maximum=mqtt.receive_maximum,
        )

    def _dial_producer(self, stream: str) -> producer.ProducerLink:
        gdn, delivery = self._settings.gdn, self._settings.delivery
        # Read anew for each attempt: "local" is the region that answers, and that can change (gdn-api.md D).
        host = self._rest.local_datacenter().api_host
        url = self._address.producer_url(
            tenant=gdn.tenant, fabric=gdn.fabric, scope=self._streams[stream].scope, stream=stream, host=host
        )
        headers = []
        if gdn.authentication == "otp":
            otp = self._rest.otp()
            register_secret(otp)
            url = with_otp(url, otp)
        else:
            headers.append(f"Authorization: apikey {gdn.api_key.get_secret_value()}")
        return producer.dial(
            url=url,
            headers=headers,
            tls=Tls(gdn.ca_file),
            connect_timeout=gdn.request_timeout,
            window=delivery.window,
            receipt_timeout=delivery.receipt_timeout,
            ping_interval=delivery.ping_interval,
        )

    def _provision(self) -> None:
        """See that the worker is there and active, then open the gate for the producers."""
        backoff = Backoff(cap=30.0)
        settled = True
        while not self._stopping.is_set():
            try:
                ensured = ensure_worker(self._rest, worker=self._worker, regions=self._settings.worker.regions, log=log)
            except (GdnUnavailable, GdnAuthError, GdnRejected) as exc:
                wait = max(backoff.next(), getattr(exc, "retry_after", None) or 0.0)
                if not isinstance(exc, GdnUnavailable):
                    wait = max(wait, AUTH_RETRY)
                now = time.time()
                self._provision_status = PartStatus("worker", "waiting", now, str(exc), now + wait)
                log.warning("worker.not_ensured", error=str(exc), retry_in=round(wait, 2))
                # An activation may have got through although its answer didn't.
                settled = False
                self._stopping.wait(wait)
                continue
            if ensured.activated or not settled:
                settle = self._settings.worker.settle_time
                log.info("worker.settling", seconds=settle)
                self._provision_status = PartStatus("worker", "connecting", time.time(), None, time.time() + settle)
                self._stopping.wait(settle)
            self._provision_status = PartStatus("worker", "connected", time.time(), None, None)
            self._worker_ready.set()
            return

    def _outbox_status(self) -> PartStatus:
        error = self._pipeline.snapshot.store_error
        state: State = "failing" if error else "connected"
        since = self._outbox_part.since if self._outbox_part.state == state else time.time()
        self._outbox_part = PartStatus("outbox", state, since, error, None)
        return self._outbox_part
