"""The parts of a running bridge, built from checked settings and an open outbox. Nothing is started here."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bridge.books import Requests
from bridge.config import Settings
from bridge.gdn.address import Numbering
from bridge.gdn.provisioner import ACTIVATING, Provisioner
from bridge.gdn.region import Region
from bridge.gdn.rest import GdnRest
from bridge.links.dialer import Dialer
from bridge.log import get_logger
from bridge.mapping import Mapper
from bridge.mapping.row_formats import KEY_PREFIX as ROW_FORMATS
from bridge.mapping.row_formats import RowFormats
from bridge.mapping.sparkplug import KEY_PREFIX
from bridge.mqtt.brokers import Brokers
from bridge.mqtt.link import MqttLink
from bridge.mqtt.session import MqttSession, streams_with_sessions
from bridge.outbox import Outbox
from bridge.parts import PartStatus
from bridge.path.delivery import Delivery, RecordMemory
from bridge.path.inbox import Inbox
from bridge.path.intake import Intake
from bridge.path.intakes import Intakes
from bridge.path.outdated_rows import OutdatedRows
from bridge.path.pipeline import Pipeline
from bridge.path.rate_limit import RateLimit
from bridge.path.sender import Sender
from bridge.path.sockets import Sockets
from bridge.service.connections import Connections
from bridge.service.reload import Configuration
from bridge.watch.configured_checks import make_checks, watched_streams
from bridge.watch.health import Health, HealthStatus
from bridge.watch.status_server import StatusServer

HEARTBEAT_LIMIT = 10.0
"""Seconds without a turn of the pipeline after which ``/livez`` answers 503."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GdnParts:
    """The parts that only GDN has; a plain Pulsar has neither worker nor queries."""

    provisioner: Provisioner
    health: Health


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that ``Supervisor`` starts and stops."""

    inbox: Inbox
    """Passes other threads' requests to ``pipeline``."""
    pipeline: Pipeline
    connections: Connections
    gdn_parts: GdnParts | None
    """None with a plain Pulsar."""
    status_server: StatusServer
    rest: GdnRest

    @property
    def dialers(self) -> list[Dialer[Any]]:
        """Of the broker's sessions and of every stream's producer. Any thread."""
        return [*self.mqtt_dialers, *(sender.dialer for sender in self.pipeline.senders.values())]

    @property
    def mqtt_dialers(self) -> list[Dialer[MqttLink]]:
        """Those of the broker. Any thread."""
        return self.pipeline.intakes.dialers

    @property
    def statuses(self) -> list[PartStatus]:
        """Of all parts. Any thread."""
        return _statuses(self.pipeline, self.gdn_parts)


def build(
    *,
    configuration: Configuration,
    outbox: Outbox,
    rest: GdnRest,
    reload_settings: Callable[[], Settings],
    fail: Callable[[str], object],
    sockets: Sockets,
    stopping: threading.Event,
) -> Parts:
    """Build the parts.

    Args:
        configuration: what to run.
        outbox: open.
        rest: of GDN.
        reload_settings: loads the settings again from the same sources, for new credentials; raises ConfigError.
        fail: stops the bridge, with a reason. Any thread.
        sockets: for the pipeline, which closes them when it ends.
        stopping: set when the bridge stops.

    Raises:
        ConfigError: a check can't be made as configured.
        OutboxUnavailable: the outbox can't be used now.
        OutboxDamaged: the outbox is damaged; opening it again rescues it.
    """
    settings, streams, is_gdn = configuration.settings, configuration.streams, configuration.settings.gdn.kind == "gdn"
    worker_ready = threading.Event()  # gates sending: a worker that isn't attached never reads what is sent
    region = Region(rest=rest, wanted=settings.worker.regions, worker_name=configuration.worker.name)
    connections = Connections(settings=settings, reload=reload_settings, streams=streams, rest=rest, region=region)
    inbox = Inbox(sockets.wake)
    mapper = Mapper(
        routes=configuration.routes,
        streams=streams,
        outbox_name=outbox.name,
        client=settings.mqtt.client_id,
        births=outbox.saved_values(KEY_PREFIX),
        sparkplug_bytes=settings.mqtt.sparkplug_bytes,
    )
    intakes = _make_intakes(settings, outbox, mapper, connections, inbox)
    formats = RowFormats(streams, outbox.saved_values(ROW_FORMATS))
    make_sender = partial(
        _make_sender,
        outbox=outbox,
        memory=RecordMemory(),  # one bound for all streams
        make_limit=partial(_make_limit, settings),
        formats=formats,
        deduplicates=settings.delivery.deduplicate,
        connections=connections,
        inbox=inbox,
        gate=worker_ready,
    )
    pipeline = Pipeline(
        mapper=mapper,
        outbox=outbox,
        intakes=intakes,
        senders=_make_senders(configuration, outbox, formats, make_sender),
        make_sender=make_sender,
        inbox=inbox,
        sockets=sockets,
        policy=settings.outbox.full,
        linger=settings.delivery.linger / 1000,  # the setting is in milliseconds
        asks_for_births=settings.mqtt.rebirth_requests,
        may_send=worker_ready.is_set,
    )
    gdn_parts = None
    if is_gdn:
        provisioner = Provisioner(
            rest=rest,
            worker=configuration.worker,
            streams=streams,
            used=lambda: list(pipeline.senders),  # a reload may add streams
            regions=settings.worker.regions,
            settle_time=settings.worker.settle_time,
            on_drift=settings.worker.on_drift,
            was_activating=outbox.saved_value(ACTIVATING) == "1",
            remember=inbox.remember,
            refresh=connections.refresh,
            ready=worker_ready,
            fail=fail,
            stop=stopping,
        )
        gdn_parts = GdnParts(provisioner, _make_health(configuration, rest, pipeline, inbox, connections, provisioner))
    else:
        # A plain Pulsar has no worker to wait for.
        worker_ready.set()
    status_server = StatusServer(
        host=settings.status.host,
        port=settings.status.port,
        live=lambda: time.monotonic() - pipeline.heartbeat < HEARTBEAT_LIMIT,
        parts=partial(_statuses, pipeline, gdn_parts),
        snapshot=lambda: pipeline.snapshot,
        health=lambda: HealthStatus() if gdn_parts is None else gdn_parts.health.status,
        requests=partial(_requests, rest),
    )
    return Parts(inbox, pipeline, connections, gdn_parts, status_server, rest)


def _make_intakes(
    settings: Settings, outbox: Outbox, mapper: Mapper, connections: Connections, inbox: Inbox
) -> Intakes:
    """The intakes of the sessions in use, and of those that were in use with other settings or routes."""
    routed = list(dict.fromkeys([route.stream for route in mapper.compiled_routes]))
    used: list[str | None] = [*routed] if settings.mqtt.session_per_stream else [None]

    def sessions_of(stream: str | None) -> list[MqttSession]:
        client_id = settings.mqtt.client_id
        make_session = partial(
            MqttSession,
            client_id=client_id if stream is None else f"{client_id}-{stream}",
            outbox=outbox,
            deduplicates=settings.delivery.deduplicate,
            stream=stream,
            watch_drops=settings.mqtt.watch_drops and stream == used[0],  # the counter is the broker's, not a session's
        )
        return [make_session(broker=str(address)) for address in settings.mqtt.brokers]

    def make(stream: str | None) -> Intake:
        filters = mapper.filters if stream is None else mapper.of_stream(stream).filters
        return _make_intake(sessions_of(stream), stream, filters, connections, inbox)

    def make_retiring(stream: str | None) -> Iterator[Intake]:
        sessions = [session for session in sessions_of(stream) if session.known.filters]
        if sessions:
            yield _make_intake(sessions, stream, sessions[0].known.filters, connections, inbox)

    known: list[str | None] = [None, *streams_with_sessions(outbox)]
    return Intakes(
        [make(stream) for stream in used],
        mapper,
        retiring=[intake for stream in known if stream not in used for intake in make_retiring(stream)],
        make=make if settings.mqtt.session_per_stream else None,
    )


def _make_intake(
    sessions: Sequence[MqttSession],
    stream: str | None,
    filters: Sequence[str],
    connections: Connections,
    inbox: Inbox,
) -> Intake:
    return Intake(
        Brokers(sessions),
        filters=filters,
        connect=connections.dial_mqtt,
        hand_over=inbox.hand_over_mqtt,
        stream=stream,
    )


def _make_senders(
    configuration: Configuration, outbox: Outbox, formats: RowFormats, make_sender: Callable[[str], Sender]
) -> dict[str, Sender]:
    """A sender for each stream of the routes, and for each other stream that has records in the outbox."""
    if not configuration.settings.delivery.deduplicate:
        # They are from an earlier run with deduplication, and invalid once records are sent without numbers.
        outbox.forget_numbers()
    names = dict.fromkeys([route.stream for route in configuration.routes] + outbox.streams())
    for name in names:
        if name not in configuration.streams:
            log.error("outbox.unknown_stream", stream=name, hint="its records wait; the worker no longer reads it")
    known = [name for name in names if name in configuration.streams]
    _mark_format(known, outbox, formats)  # all in one transaction; _make_sender then finds no change
    return {name: make_sender(name) for name in known}


def _mark_format(names: Sequence[str], outbox: Outbox, formats: RowFormats) -> None:
    """Store that the streams' rows have their current form from the next record on."""
    if changes := formats.changes(names, outbox.next_id):
        outbox.save_values(**changes)
        formats.apply(changes)


def _make_sender(
    stream: str,
    *,
    outbox: Outbox,
    memory: RecordMemory,
    make_limit: Callable[[], RateLimit | None],
    formats: RowFormats,
    deduplicates: bool,
    connections: Connections,
    inbox: Inbox,
    gate: threading.Event,
) -> Sender:
    _mark_format([stream], outbox, formats)
    delivery = Delivery(
        stream=stream,
        read=partial(outbox.read, stream),
        memory=memory,
        convert=OutdatedRows(stream, formats, wall_clock=time.time_ns).convert,
        row_format=formats.version_of(stream, outbox.next_id),
        deduplicates=deduplicates,
    )
    if deduplicates:
        # Records sent before the restart keep their numbers: GDN may have stored them.
        delivery.resume(*outbox.numbered(stream))
    # The outbox's name is part of the producer's: another outbox starts its numbers again, and so must its producer.
    producer_name = f"gdn-bridge-{outbox.name}"

    def connect(initial_sequence_id: int | None) -> Any:
        numbering = None if initial_sequence_id is None else Numbering(producer_name, initial_sequence_id)
        return connections.dial_producer(stream, numbering)

    return Sender(delivery, connect=connect, hand_over=inbox.hand_over_producer, limit=make_limit(), gate=gate)


def _make_limit(settings: Settings) -> RateLimit | None:
    """The rate limit of one stream; None if neither rows nor bytes are limited."""
    rows, size = settings.delivery.max_rate_rows, settings.delivery.max_rate_bytes
    return RateLimit(rows=rows or math.inf, size=size or math.inf) if rows or size else None


def _make_health(
    configuration: Configuration,
    rest: GdnRest,
    pipeline: Pipeline,
    inbox: Inbox,
    connections: Connections,
    provisioner: Provisioner,
) -> Health:
    checks = make_checks(
        settings=configuration.settings,
        worker=configuration.worker,
        routes=configuration.routes,
        gdn=rest,
        snapshot=lambda: pipeline.snapshot,
        used=lambda: list(pipeline.senders),
        publish=inbox.publish_canary,
        on_worker_state=provisioner.saw,
    )
    return Health(
        checks=checks,
        watched=watched_streams(configuration.settings, configuration.worker, configuration.routes),
        refresh=connections.refresh,
        start_after=provisioner.tried,  # until then, a missing worker is no failure
    )


def _statuses(pipeline: Pipeline, gdn_parts: GdnParts | None) -> list[PartStatus]:
    links = [*pipeline.intakes.statuses, *(sender.dialer.status for sender in pipeline.senders.values())]
    checks = [] if gdn_parts is None else [gdn_parts.provisioner.status, *gdn_parts.health.parts()]
    return [pipeline.outbox_status, *links, *checks]


def _requests(rest: GdnRest) -> Requests:
    used, (checks, others) = rest.budget.used, rest.budget.made
    return Requests(used["minute"], used["day"], checks, others, rest.one_time_passwords)
