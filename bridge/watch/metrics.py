"""The metrics: every one with its type, labels and meaning, and the collector that reads them. The only
prometheus_client.

``python -m bridge.watch.metrics`` prints the reference of all metrics.
"""

from __future__ import annotations

import sys
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
    """One metric."""

    name: str
    """Without ``PREFIX``, and for a counter without ``_total``."""
    type: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As it is scraped; of a histogram without ``_bucket``, ``_sum`` and ``_count``."""
        return f"{PREFIX}{self.name}{'_total' if self.type == 'counter' else ''}"


DEFINITIONS = (
    Definition("info", "gauge", "The running version; always 1.", ("version",)),
    Definition("ready", "gauge", "Whether messages go all the way now: every part is connected."),
    Definition("part_connected", "gauge", "Whether the part works now.", ("part",)),
    Definition("received", "counter", "Records received: a row each, or a message that can't become rows."),
    Definition("delivered", "counter", "Records that GDN receipted and that left the outbox."),
    Definition("dead_lettered", "counter", "Records set aside as dead letters.", ("reason",)),
    Definition("dropped", "counter", "Records dropped by policy.", ("reason",)),
    Definition("books_balanced", "gauge", "Whether received = delivered + outbox + dead-lettered + dropped."),
    Definition("outbox_records", "gauge", "Records in the outbox."),
    Definition("outbox_bytes", "gauge", "Bytes of the records in the outbox, as outbox.max_bytes counts them."),
    Definition(
        "outbox_full_in_seconds",
        "gauge",
        "Seconds until outbox.max_bytes is reached if it fills on as in the last minute; +Inf while it doesn't.",
    ),
    Definition("outbox_oldest_seconds", "gauge", "How long the oldest record waits."),
    Definition("outbox_failing", "gauge", "Whether the store can't take or give now."),
    Definition("holding", "gauge", "Whether nothing is taken from the broker, because the outbox can take no more."),
    Definition("dead_letters", "gauge", "Dead letters kept."),
    Definition("dead_letters_purged", "counter", "Dead letters deleted by a bound or by a person."),
    Definition("dead_letters_replayed", "counter", "Dead letters that became rows after all."),
    Definition("mqtt_messages", "counter", "PUBLISH packets read since the start, repetitions included."),
    Definition(
        "mqtt_repetitions",
        "counter",
        "Of these, those that were told to be stored already (delivery.deduplicate), since the start.",
    ),
    Definition("acked", "counter", "PUBACKs sent since the start."),
    Definition("sessions_lost", "counter", "Times that the broker had lost the session."),
    Definition(
        "broker_dropped",
        "gauge",
        "Messages that the broker says it dropped, for any client, since it started. Only where it says so.",
    ),
    Definition(
        "route_rows",
        "counter",
        "Rows that messages became since the start; those that come again count again. The route by its name or topic.",
        ("route", "stream"),
    ),
    Definition("sends", "counter", "Records sent to GDN since the start, repetitions included."),
    Definition("receipts", "counter", "Receipts from GDN since the start, refusals included."),
    Definition("receipt_seconds", "histogram", "From a record's send to its receipt.", ("stream",)),
    Definition("window_used", "gauge", "Records sent and not receipted; delivery.window is the bound.", ("stream",)),
    Definition("reconnects", "counter", "Connection attempts after the first.", ("link",)),
    Definition(
        "link_failures",
        "counter",
        "Attempts that failed and links that were lost. The cause: lost, or what failed: unreachable, limited, "
        "credentials, missing, name_taken, refused, brief, taken_over.",
        ("link", "cause"),
    ),
    Definition(
        "certificate_ends_timestamp_seconds",
        "gauge",
        "When a certificate of the link's latest connection ends, in seconds since 1970: own or peer. Only with TLS.",
        ("link", "certificate"),
    ),
    Definition("gdn_requests_last_minute", "gauge", "Requests made to GDN in the last 60 seconds."),
    Definition("gdn_requests_last_day", "gauge", "Requests made to GDN in the last 24 hours."),
    Definition("gdn_requests", "counter", "Requests made to GDN since the start, by checks or others.", ("by",)),
    Definition("otp_requests", "counter", "Of these, those for a one-time password."),
    Definition("worker_active", "gauge", "Whether the worker is active. Only once GDN has said."),
    Definition("query_result", "gauge", "The health query's number, by default the rows out. Only where it is one."),
    Definition(
        "rows_behind",
        "gauge",
        "Rows that GDN receipted and that have not come out, against the best moment since the start. Only where the "
        "definition makes exactly one row of each.",
    ),
    Definition(
        "rows_lost",
        "counter",
        "Rows that GDN receipted and that never come out, as far as canaries sent after them showed, since the start. "
        "Only where rows_behind is known.",
    ),
    Definition(
        "health_checks",
        "counter",
        "Health checks since the start: passed, failed, or unasked (GDN could not be asked).",
        ("check", "outcome"),
    ),
    Definition("check_seconds", "gauge", "How long GDN took for the check, the last time.", ("check",)),
    Definition(
        "canary_rounds",
        "counter",
        "The canary's rounds since the start: found, lost, or not_published. Only with canary.enabled.",
        ("outcome",),
    ),
    Definition(
        "canary_seconds",
        "gauge",
        "How long the last canary that came through took, by hop: mqtt (broker to bridge), receipt (bridge to "
        "receipt), row (receipt to row). Only with canary.enabled.",
        ("hop",),
    ),
)

DEAD_LETTER_REASONS = tuple(reason.value for reason in Reason)

DROP_REASONS = tuple(reason.value for reason in DropReason)

Value = float | Durations
Samples = Iterable[tuple[tuple[str, ...], Value]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the metrics are made of, of one moment."""

    parts: Sequence[PartStatus]
    snapshot: Snapshot
    health: HealthStatus
    requests: Requests


class Metrics:
    """Makes every metric from one reading, so that a scrape is consistent in itself.

    Args:
        read: gives the reading; called in the thread that scrapes.
    """

    def __init__(self, read: Callable[[], Reading]) -> None:
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
            found = list(samples[definition.name])
            # A metric without labels and without a value isn't known; one with labels has just counted nothing yet.
            if found or definition.labels:
                yield _family(definition, found)


def _family(definition: Definition, samples: Samples) -> Metric:
    name = f"{PREFIX}{definition.name}"
    if definition.type == "histogram":
        histogram = HistogramMetricFamily(name, definition.text, labels=definition.labels)
        for labels, value in samples:
            if isinstance(value, Durations):
                ends = [f"{bound}" for bound in BOUNDS] + ["+Inf"]
                buckets = list(zip(ends, accumulate(value.counts), strict=True))
                histogram.add_metric(labels, buckets, value.total)
        return histogram
    made = CounterMetricFamily if definition.type == "counter" else GaugeMetricFamily
    family = made(name, definition.text, labels=definition.labels)
    for labels, value in samples:
        if not isinstance(value, Durations):
            family.add_metric(labels, float(value))
    return family


def _samples(reading: Reading) -> dict[str, Samples]:
    """The samples of every metric, by its name."""
    snapshot, health, requests = reading.snapshot, reading.health, reading.requests
    books, traffic, outbox = snapshot.books, snapshot.traffic, snapshot.outbox
    return {
        "info": _by({__version__: 1}),
        "ready": _one(is_ready(reading.parts)),
        "part_connected": _by({part.name: part.state == "connected" for part in reading.parts}),
        "received": _one(books.received),
        "delivered": _one(books.delivered),
        "dead_lettered": _by(_from_zero(DEAD_LETTER_REASONS, books.dead_lettered)),
        "dropped": _by(_from_zero(DROP_REASONS, books.dropped)),
        "books_balanced": _one(books.balanced),
        "outbox_records": _one(books.outbox),
        "outbox_bytes": _one(outbox.bytes),
        "outbox_full_in_seconds": _one(outbox.seconds_left),
        "outbox_oldest_seconds": _one(outbox.oldest_age),
        "outbox_failing": _one(outbox.error is not None),
        "holding": _one(outbox.holding is not None),
        "dead_letters": _one(outbox.dead_letters),
        "dead_letters_purged": _one(outbox.dead_letters_purged),
        "dead_letters_replayed": _one(outbox.dead_letters_replayed),
        "mqtt_messages": _one(traffic.mqtt_messages),
        "mqtt_repetitions": _one(traffic.redelivered),
        "acked": _one(traffic.acked),
        "sessions_lost": _one(traffic.sessions_lost),
        "broker_dropped": _one(traffic.broker_dropped),
        "route_rows": sorted(traffic.route_rows.items()),
        "sends": _one(traffic.sends),
        "receipts": _one(traffic.receipts),
        "receipt_seconds": _by(traffic.receipt_durations),
        "window_used": _by(traffic.window_used),
        "reconnects": _by(traffic.reconnects),
        "link_failures": _by_several(traffic.link_failures),
        "certificate_ends_timestamp_seconds": _by_several(traffic.certificate_ends),
        "gdn_requests_last_minute": _one(requests.last_minute),
        "gdn_requests_last_day": _one(requests.last_day),
        "gdn_requests": _by({"checks": requests.checks, "others": requests.others}),
        "otp_requests": _one(requests.one_time_passwords),
        "worker_active": _one(health.worker_active),
        "query_result": _one(health.count),
        "rows_behind": _one(health.rows_behind),
        "rows_lost": _one(health.rows_lost),
        "check_seconds": _by(health.seconds),
        "health_checks": sorted(health.outcomes.items()),
        "canary_rounds": _by({} if health.canary is None else health.canary.rounds),
        "canary_seconds": _by({} if health.canary is None else health.canary.seconds),
    }


def _one(value: float | None) -> Samples:
    return [] if value is None else [((), value)]


def _by(values: Mapping[str, Value]) -> Samples:
    return [((label,), value) for label, value in sorted(values.items(), key=lambda item: item[0])]


def _from_zero(known: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """With a 0 for what hasn't happened: Prometheus sees no increase in a series that begins with 1."""
    return {**dict.fromkeys(known, 0), **counts}


def _by_several(values: Mapping[str, Mapping[str, float]]) -> Samples:
    return sorted(((outer, inner), value) for outer, inners in values.items() for inner, value in inners.items())


# --- the reference ----------------------------------------------------------------------------------------


def reference() -> str:
    """The text of docs/metrics.md."""
    rows = "".join(
        f"| `{d.full_name}` | {d.type} | {', '.join(f'`{label}`' for label in d.labels)} | {d.text} |\n"
        for d in DEFINITIONS
    )
    return f"""\
# Metrics

<!-- Generated: `{REGENERATE}` -->

`/metrics` of the status address gives them in Prometheus' text format. Each scrape is of one moment: the books in it
balance. Counters "since the start" begin at 0 with the process; the books, dead letters and lost sessions are kept in
the outbox and go on. Seconds and bytes are what the names say.

Labels are bounded by your settings: `stream`, `route`, `link`, `check` and `part` by what is configured, the rest by
fixed lists (`reason`: [mapping.md](mapping.md)). A route with neither a short name nor a short topic is cut at 100
characters. Nothing that a device sends becomes a label.

`deploy/prometheus/rules.yml` has alerts on them, `deploy/grafana/gdn-bridge.json` a dashboard.

| metric | type | labels | meaning |
|---|---|---|---|
{rows}"""


if __name__ == "__main__":
    sys.stdout.write(reference())
