"""The metrics: definitions, documentation and scrapes agree."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bridge.books import Books, OutboxStatus, Requests, Snapshot, Traffic
from bridge.gdn.protocol import ProducerProtocol
from bridge.histogram import BOUNDS, Durations, Histogram
from bridge.mapping import Mapper, Route
from bridge.message import MqttMessage, OutboxRecord
from bridge.parts import PartStatus
from bridge.path.outbox_upkeep import Growth
from bridge.streamql import input_streams, parse
from bridge.watch.health import CanaryStatus, CheckTimes, HealthStatus, TableStatus
from bridge.watch.metrics import DEFINITIONS, REGENERATE, Metrics, Reading, reference

EMPTY = Reading([], Snapshot(), HealthStatus(), Requests())

DURATIONS = Durations(counts=(1, 2, *[0] * (len(BOUNDS) - 2), 3), total=100.5)

FULL = Reading(
    [PartStatus("mqtt", "connected", 0.0, None, None)],
    Snapshot(
        Books(received=9, delivered=4, outbox=1, dead_lettered={"not_json": 3}, dropped={"outbox_full": 1}),
        Traffic(
            broker_dropped=1,
            sparkplug_bytes=1_000,
            sparkplug_refused=2,
            reconnects={"mqtt": 2},
            link_failures={"mqtt": {"lost": 2}},
            certificate_ends={"mqtt": {"own": 1.8e9}},
            window_used={"s": 7},
            rate_limited={"s": True},
            receipt_durations={"s": DURATIONS},
            route_rows={('a/"b"\n\\', "s"): 5},
            route_unanswerable={("a", "s"): 2},
        ),
        OutboxStatus(seconds_left=60.0, stream_bytes={"s": 9}),
    ),
    HealthStatus(
        True,
        (42,),
        3,
        CanaryStatus({"mqtt": 0.1}, {"found": 1}),
        {("query", "passed"): 1},
        {"query": 0.2},
        6,
        tables=(TableStatus("t", ("s",), 3, 6),),
        times={"query": CheckTimes("q", 60, 0.0, 0.0)},
        watched=frozenset(),
    ),
    Requests(1, 2, 3, 4, 5),
)


def scrape(reading: Reading) -> dict[tuple[str, frozenset[str]], float]:
    """Values by name and label values."""
    text = Metrics(lambda: reading).text().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.values())): sample.value for sample in samples}
    assert len(found) == len(samples), "a sample occurs twice"
    return found


def families(reading: Reading) -> set[tuple[str, str]]:
    return set(re.findall(r"^# TYPE (\S+) (\S+)$", Metrics(lambda: reading).text().decode(), re.MULTILINE))


def test_the_reference_is_up_to_date() -> None:
    assert Path("docs/metrics.md").read_text() == reference(), f"run: {REGENERATE}"


def test_a_full_scrape_has_every_metric_of_the_reference_and_no_other() -> None:
    assert families(FULL) == {(d.full_name, d.type) for d in DEFINITIONS}
    assert len({d.name for d in DEFINITIONS}) == len(DEFINITIONS)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
def test_samples_have_the_labels_of_the_reference(definition: object) -> None:
    text = Metrics(lambda: FULL).text().decode()
    (family,) = [f for f in text_string_to_metric_families(text) if f"gdn_bridge_{definition.name}" == f.name]  # type: ignore[attr-defined]

    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == set(definition.labels)  # type: ignore[attr-defined]


def test_a_metric_with_an_unknown_value_is_left_out() -> None:
    missing = {d.full_name for d in DEFINITIONS} - {name for name, _ in families(EMPTY)}

    assert missing == {
        f"gdn_bridge_{name}"
        for name in (
            *("broker_dropped", "sparkplug_bytes", "sparkplug_births_refused_total"),
            *("worker_active", "query_result", "rows_behind", "rows_lost_total", "streams_unwatched"),
        )
    }


def test_a_scrape_has_the_values_of_the_reading() -> None:
    found = scrape(FULL)

    assert found["gdn_bridge_received_total", frozenset()] == 9
    assert found["gdn_bridge_books_balanced", frozenset()] == 1
    assert found["gdn_bridge_dead_lettered_total", frozenset({"not_json"})] == 3
    assert found["gdn_bridge_link_failures_total", frozenset({"mqtt", "lost"})] == 2
    assert found["gdn_bridge_route_rows_total", frozenset({'a/"b"\n\\', "s"})] == 5
    assert found["gdn_bridge_outbox_full_in_seconds", frozenset()] == 60
    assert found["gdn_bridge_gdn_requests_total", frozenset({"checks"})] == 3
    assert found["gdn_bridge_otp_requests_total", frozenset()] == 5
    assert found["gdn_bridge_rate_limited", frozenset({"s"})] == 1
    assert found["gdn_bridge_rows_behind", frozenset()] == 3
    assert found["gdn_bridge_rows_lost_total", frozenset()] == 6
    assert found["gdn_bridge_check_seconds", frozenset({"query"})] == 0.2
    assert found["gdn_bridge_health_checks_total", frozenset({"query", "passed"})] == 1


def test_buckets_are_cumulative_and_end_with_infinity() -> None:
    found = scrape(FULL)

    assert found["gdn_bridge_receipt_seconds_bucket", frozenset({"s", "0.001"})] == 1
    assert found["gdn_bridge_receipt_seconds_bucket", frozenset({"s", "30.0"})] == 3
    assert found["gdn_bridge_receipt_seconds_bucket", frozenset({"s", "+Inf"})] == 6
    assert found["gdn_bridge_receipt_seconds_count", frozenset({"s"})] == 6
    assert found["gdn_bridge_receipt_seconds_sum", frozenset({"s"})] == 100.5


@given(st.lists(st.tuples(st.floats(-1, 1e6), st.integers(1, 1000))))
def test_a_histogram_counts_each_duration_in_the_bucket_that_holds_it(durations: list[tuple[float, int]]) -> None:
    histogram = Histogram()
    histogram.add(durations)
    found = histogram.durations

    assert sum(found.counts) == sum(number for _, number in durations)
    assert found.total == pytest.approx(sum(max(0.0, seconds) * number for seconds, number in durations))
    for place, bound in enumerate(BOUNDS):
        assert sum(found.counts[: place + 1]) == sum(n for seconds, n in durations if seconds <= bound)


def test_the_time_until_the_outbox_is_full_follows_from_the_present_rate() -> None:
    growth = Growth()
    for second in range(600):
        growth.note(100.0 * second, 1000.0 + second)

    assert growth.seconds_to(59_900 + 36_000) == pytest.approx(360, rel=0.01)
    assert growth.seconds_to(10) == 0.0


def test_an_outbox_that_does_not_grow_is_never_full() -> None:
    growth = Growth()
    assert growth.seconds_to(1) == math.inf

    for second in range(10):
        growth.note(1000.0 - second, float(second))

    assert growth.seconds_to(2000) == math.inf


def test_two_samples_of_the_same_time_give_no_rate() -> None:
    growth = Growth()
    growth.note(0.0, 5.0)
    growth.note(100.0, 5.0)

    assert growth.seconds_to(1000) == math.inf


def test_receipts_give_the_send_times_of_their_records() -> None:
    protocol = ProducerProtocol(window=10)
    protocol.send([OutboxRecord(i, "s", b"{}") for i in (1, 2, 3)], 5.0)
    protocol.send([OutboxRecord(4, "s", b"{}")], 6.0)

    receipts = protocol.receive([b'{"result":"ok","context":"%d"}' % i for i in (1, 2, 4, 3)])

    assert list(receipts.sent) == [(5.0, 2), (6.0, 1), (5.0, 1)]
    assert list(protocol.receive([]).sent) == []


def test_rows_are_counted_by_route_and_stream_and_names_that_are_cut_alike_together() -> None:
    streams = input_streams(parse(Path("config/worker.sql").read_text()))
    stream = "tutorialAppInputStream"
    long = "x" * 200
    mapping = Mapper(
        routes=[
            Route("devices/{deviceID}/rooms/{roomNo}/telemetry", stream, name="rooms"),
            Route(f"{long}/{{deviceID}}/{{roomNo}}", stream),
            Route(f"{long}y/{{deviceID}}/{{roomNo}}", stream),
        ],
        streams=streams,
    )
    for topic in ("devices/a/rooms/1/telemetry", f"{long}/a/1", f"{long}y/a/1", "devices/a/rooms/1/telemetry"):
        mapping.map(MqttMessage(topic, b'{"temperature": 1}', 1, False, 1, 0))
    mapping.map(MqttMessage("devices/a/rooms/1/telemetry", b"rubbish", 1, False, 1, 0))

    assert mapping.rows_made() == {("rooms", stream): 2, ("x" * 100, stream): 2}
