"""The metrics: definitions with type, labels and help text, and the collector. Only this module uses prometheus_client.

``python -m bridge.watch.metrics`` prints the reference of all metrics.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge import __version__
from bridge.books import Requests, Snapshot
from bridge.histogram import BOUNDS, Durations
from bridge.parts import PartStatus, is_ready
from bridge.reasons import DropReason, Reason
from bridge.watch.health import HealthStatus

REGENERATE = "python -m bridge.watch.metrics > docs/metrics.md"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PREFIX = "gdn_bridge_"


class Definition(NamedTuple):
    """The definition of a metric."""

    name: str
    """Without ``PREFIX``, and for a counter without ``_total``."""
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as scraped; for a histogram without ``_bucket``, ``_sum`` and ``_count``."""
        return f"{PREFIX}{self.name}{'_total' if self.type == 'counter' else ''}"


DEFINITIONS = (
    Definition("info", "gauge", "The bridge's version, as a label; the value is always 1.", ("version",)),
    Definition("ready", "gauge", "Whether the bridge is ready: every part is connected."),
    Definition("part_connected", "gauge", "Whether the part is connected.", ("part",)),
    Definition("received", "counter", "Records received. A record is a row, or a message that can't become rows."),
    Definition("delivered", "counter", "Records that GDN receipted and that were released from the outbox."),
    Definition("dead_lettered", "counter", "Records kept as dead letters.", ("reason",)),
    Definition("dropped", "counter", "Records neither delivered nor kept, by reason.", ("reason",)),
    Definition(
        "books_balanced",
        "gauge",
        "Whether received = delivered + outbox + dead-lettered + dropped. 0 also after a loss whose size is unknown.",
    ),
    Definition(
        "unknown_losses",
        "counter",
        "How often a damaged outbox lost records or dead letters whose number is unknown. Known losses are in dropped "
        "(outbox_damaged) and dead_letters_lost.",
    ),
    Definition("outbox_records", "gauge", "Records in the outbox."),
    Definition("outbox_bytes", "gauge", "Size of the records in the outbox, as outbox.max_bytes counts it."),
    Definition(
        "outbox_full_in_seconds",
        "gauge",
        "Seconds until outbox.max_bytes is reached at the rate of the last minute; +Inf if the outbox isn't filling.",
    ),
    Definition("outbox_stream_bytes", "gauge", "The same as outbox_bytes, by stream.", ("stream",)),
    Definition("outbox_oldest_seconds", "gauge", "Age of the oldest record in the outbox."),
    Definition("outbox_failing", "gauge", "Whether the outbox can't be read or written."),
    Definition(
        "holding", "gauge", "Whether the bridge takes no messages from the broker because the outbox can't store them."
    ),
    Definition("dead_letters", "gauge", "Dead letters kept."),
    Definition("dead_letters_purged", "counter", "Dead letters deleted by a bound or by a command."),
    Definition("dead_letters_replayed", "counter", "Dead letters that became rows when they were mapped again."),
    Definition("dead_letters_lost", "counter", "Dead letters that could not be read from a damaged outbox."),
    Definition("mqtt_messages", "counter", "PUBLISH packets read since the start, redelivered ones included."),
    Definition(
        "mqtt_repetitions",
        "counter",
        "Redelivered messages recognised as stored already (delivery.deduplicate, or QoS 2), since the start.",
    ),
    Definition("acked", "counter", "PUBACKs and PUBRECs sent since the start."),
    Definition("sessions_lost", "counter", "How often the broker reported that it had lost the session."),
    Definition("sessions_kept", "counter", "Reports of a lost session that redelivered messages disproved."),
    Definition(
        "sparkplug_bytes",
        "gauge",
        "Memory taken by Sparkplug births, as mqtt.sparkplug_bytes counts it. Only with a route of this format.",
    ),
    Definition(
        "sparkplug_births_refused",
        "counter",
        "Births that mqtt.sparkplug_bytes left no room for, since the start. Only with a route of format sparkplug.",
    ),
    Definition(
        "broker_dropped",
        "gauge",
        "Messages for any client that the broker reports as dropped since it started. Only if it reports them.",
    ),
    Definition(
        "route_rows",
        "counter",
        "Rows mapped since the start; redelivered messages count again. A route is identified by its name or topic.",
        ("route", "stream"),
    ),
    Definition(
        "route_unanswerable",
        "counter",
        "Elements since the start for which the route's condition (when) couldn't be evaluated, because a member was "
        "absent or had another type: they went to the next route.",
        ("route", "stream"),
    ),
    Definition("sends", "counter", "Records sent to GDN since the start, resent ones included."),
    Definition("receipts", "counter", "Receipts from GDN since the start, refusals included."),
    Definition("receipt_seconds", "histogram", "Time from the send of a record to its receipt.", ("stream",)),
    Definition("window_used", "gauge", "Records sent without a receipt; delivery.window is the maximum.", ("stream",)),
    Definition(
        "rate_limited",
        "gauge",
        "Whether records wait because of delivery.max_rate_rows or delivery.max_rate_bytes, and not for GDN.",
        ("stream",),
    ),
    Definition("reconnects", "counter", "Connection attempts after the first.", ("link",)),
    Definition(
        "link_failures",
        "counter",
        "Failed attempts to connect and lost links. The cause is lost, or the kind of failure: unreachable, limited, "
        "credentials, missing, name_taken, refused, brief, taken_over.",
        ("link", "cause"),
    ),
    Definition(
        "certificate_ends_timestamp_seconds",
        "gauge",
        "When the certificate of the link's latest connection expires, own or peer, in seconds since 1970. Only with "
        "TLS.",
        ("link", "certificate"),
    ),
    Definition("gdn_requests_last_minute", "gauge", "Requests made to GDN in the last 60 seconds."),
    Definition("gdn_requests_last_day", "gauge", "Requests made to GDN in the last 24 hours."),
    Definition("gdn_requests", "counter", "Requests made to GDN since the start, by checks or by others.", ("by",)),
    Definition("otp_requests", "counter", "Requests for a one-time password, included in gdn_requests."),
    Definition("worker_active", "gauge", "Whether the worker is active. Only once GDN has answered."),
    Definition(
        "query_result",
        "gauge",
        "Result of the health query, by default the number of rows out, in all tables that are counted. Only if the "
        "result is an integer.",
    ),
    Definition(
        "rows_behind",
        "gauge",
        "Rows that GDN receipted and that have not come out of the worker, in all tables that are counted. The "
        "smallest difference since the start counts as 0. Only if the definition makes exactly one row of each.",
    ),
    Definition(
        "rows_lost",
        "counter",
        "Rows that GDN receipted and that are proven lost by canaries sent after them, since the start. Only if "
        "rows_behind is known.",
    ),
    Definition("table_rows_behind", "gauge", "The part of rows_behind in one table.", ("table",)),
    Definition("table_rows_lost", "counter", "The part of rows_lost in one table.", ("table",)),
    Definition(
        "streams_unwatched",
        "gauge",
        "Streams of routes for which nothing shows whether their rows come out: they are neither counted nor does the "
        "canary go through them.",
    ),
    Definition(
        "health_checks",
        "counter",
        "Health checks since the start: passed, failed, or unasked (GDN could not be asked).",
        ("check", "outcome"),
    ),
    Definition("check_seconds", "gauge", "How long GDN took for the last run of the check.", ("check",)),
    Definition("check_answer_age_seconds", "gauge", "Seconds since GDN last answered the check.", ("check",)),
    Definition(
        "canary_rounds",
        "counter",
        "Rounds of the canary since the start: found, lost, or not_published. Only with canary.enabled.",
        ("outcome",),
    ),
    Definition(
        "canary_seconds",
        "gauge",
        "Duration of each hop of the last canary found: mqtt (broker to bridge), receipt (bridge to receipt), row "
        "(receipt to row). Only with canary.enabled.",
        ("hop",),
    ),
)

DEAD_LETTER_REASONS = tuple(reason.value for reason in Reason)

DROP_REASONS = tuple(reason.value for reason in DropReason)

Value = float | Durations
Samples = Iterable[tuple[tuple[str, ...], Value]]


@dataclass(frozen=True, slots=True)
class Reading:
    """The values that the metrics show, all of one moment."""

    parts: Sequence[PartStatus]
    snapshot: Snapshot
    health: HealthStatus
    requests: Requests


class Metrics:
    """Produces all metrics of a scrape from one reading, so that they are consistent with each other.

    Args:
        read: returns the reading; called in the thread that serves the scrape.
    """

    def __init__(self, read: Callable[[], Reading]) -> None:
        # With auto_describe the registration would already collect the metrics.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(read))

    def text(self) -> bytes:
        """The metrics in Prometheus' text format, ``CONTENT_TYPE``."""
        return generate_latest(self._registry)


class _Collector(Collector):
    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        samples = _samples(self._read())
        for definition in DEFINITIONS:
            values = list(samples[definition.name])
            # Without a value, a metric without labels is unknown and left out; one with labels has no series yet.
            if values or definition.labels:
                yield _family(definition, values)


def _family(definition: Definition, samples: Samples) -> Metric:
    name = f"{PREFIX}{definition.name}"
    if definition.type == "histogram":
        histogram = HistogramMetricFamily(name, definition.help, labels=definition.labels)
        for labels, value in samples:
            if isinstance(value, Durations):
                upper_bounds = [f"{bound}" for bound in BOUNDS] + ["+Inf"]
                buckets = list(zip(upper_bounds, accumulate(value.counts), strict=True))
                histogram.add_metric(labels, buckets, value.total)
        return histogram
    family_type = CounterMetricFamily if definition.type == "counter" else GaugeMetricFamily
    family = family_type(name, definition.help, labels=definition.labels)
    for labels, value in samples:
        if not isinstance(value, Durations):
            family.add_metric(labels, float(value))
    return family


def _samples(reading: Reading) -> dict[str, Samples]:
    """The samples of all metrics, by the metric's name."""
    snapshot, health, requests = reading.snapshot, reading.health, reading.requests
    books, traffic, outbox = snapshot.books, snapshot.traffic, snapshot.outbox
    now = time.monotonic()
    return {
        "info": _by_label({__version__: 1}),
        "ready": _single(is_ready(reading.parts)),
        "part_connected": _by_label({part.name: part.state == "connected" for part in reading.parts}),
        "received": _single(books.received),
        "delivered": _single(books.delivered),
        "dead_lettered": _by_label(_with_zeros(DEAD_LETTER_REASONS, books.dead_lettered)),
        "dropped": _by_label(_with_zeros(DROP_REASONS, books.dropped)),
        "books_balanced": _single(books.balanced),
        "unknown_losses": _single(books.unknown_losses),
        "outbox_records": _single(books.outbox),
        "outbox_bytes": _single(outbox.bytes),
        "outbox_full_in_seconds": _single(outbox.seconds_left),
        "outbox_stream_bytes": _by_label(outbox.stream_bytes),
        "outbox_oldest_seconds": _single(outbox.oldest_age),
        "outbox_failing": _single(outbox.error is not None),
        "holding": _single(outbox.holding is not None),
        "dead_letters": _single(outbox.dead_letters),
        "dead_letters_purged": _single(outbox.dead_letters_purged),
        "dead_letters_replayed": _single(outbox.dead_letters_replayed),
        "dead_letters_lost": _single(outbox.dead_letters_lost),
        "mqtt_messages": _single(traffic.mqtt_messages),
        "mqtt_repetitions": _single(traffic.redelivered),
        "acked": _single(traffic.acked),
        "sessions_lost": _single(traffic.sessions_lost),
        "sessions_kept": _single(traffic.sessions_kept),
        "sparkplug_bytes": _single(traffic.sparkplug_bytes),
        "sparkplug_births_refused": _single(traffic.sparkplug_refused),
        "broker_dropped": _single(traffic.broker_dropped),
        "route_rows": sorted(traffic.route_rows.items()),
        "route_unanswerable": sorted(traffic.route_unanswerable.items()),
        "sends": _single(traffic.sends),
        "receipts": _single(traffic.receipts),
        "receipt_seconds": _by_label(traffic.receipt_durations),
        "window_used": _by_label(traffic.window_used),
        "rate_limited": _by_label(traffic.rate_limited),
        "reconnects": _by_label(traffic.reconnects),
        "link_failures": _by_two_labels(traffic.link_failures),
        "certificate_ends_timestamp_seconds": _by_two_labels(traffic.certificate_ends),
        "gdn_requests_last_minute": _single(requests.last_minute),
        "gdn_requests_last_day": _single(requests.last_day),
        "gdn_requests": _by_label({"checks": requests.checks, "others": requests.others}),
        "otp_requests": _single(requests.one_time_passwords),
        "worker_active": _single(health.worker_active),
        "query_result": _single(health.count),
        "rows_behind": _single(health.rows_behind),
        "rows_lost": _single(health.rows_lost),
        "table_rows_behind": _by_label({table.table: table.rows_behind for table in health.tables}),
        "table_rows_lost": _by_label({table.table: table.rows_lost for table in health.tables}),
        "streams_unwatched": _single(None if health.watched is None else len(health.unwatched(traffic.window_used))),
        "check_seconds": _by_label(health.seconds),
        "check_answer_age_seconds": _by_label(
            {name: now - times.answered_at for name, times in health.times.items() if times.answered_at is not None}
        ),
        "health_checks": sorted(health.outcomes.items()),
        "canary_rounds": _by_label({} if health.canary is None else health.canary.rounds),
        "canary_seconds": _by_label({} if health.canary is None else health.canary.seconds),
    }


def _single(value: float | None) -> Samples:
    return [] if value is None else [((), value)]


def _by_label(values: Mapping[str, Value]) -> Samples:
    return [((label,), value) for label, value in sorted(values.items(), key=lambda item: item[0])]


def _with_zeros(known: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """With a 0 for what hasn't happened yet: Prometheus sees no increase in a series that starts at 1."""
    return {**dict.fromkeys(known, 0), **counts}


def _by_two_labels(values: Mapping[str, Mapping[str, float]]) -> Samples:
    return sorted(((outer, inner), value) for outer, inners in values.items() for inner, value in inners.items())


# --- the reference ----------------------------------------------------------------------------------------


def reference() -> str:
    """The text of docs/metrics.md."""
    rows = "".join(
        f"| `{d.full_name}` | {d.type} | {', '.join(f'`{label}`' for label in d.labels)} | {d.help} |\n"
        for d in DEFINITIONS
    )
    return f"""\
# Metrics

<!-- Generated: `{REGENERATE}` -->

`/metrics` on the status address returns the metrics in Prometheus' text format. All values of a scrape are taken
at one moment, so the books in it balance. Counters "since the start" start at 0 with the process. The books, dead
letters and lost sessions are stored in the outbox and continue after a restart.

The number of series is bounded: the labels `stream`, `route`, `link`, `check`, `part` and `table` take their values
from your settings and the worker's definition, the others from fixed lists (for `reason` see [mapping.md](mapping.md)).
The name or topic of a route is cut after 100 characters. No data from devices becomes a label.

`deploy/prometheus/rules.yml` has alerts for these metrics, `deploy/grafana/gdn-bridge.json` a dashboard.

| metric | type | labels | meaning |
|---|---|---|---|
{rows}"""


if __name__ == "__main__":
    sys.stdout.write(reference())
