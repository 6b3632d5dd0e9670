"""From the outbox to GDN: order, the window, what is sent again, and when records are released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.outbox import DeadLetterClient, Selection
from bridge.path.canary_tracker import CanaryMessage
from bridge.path.pipeline import RELEASE_WITHIN
from bridge.streamql import input_streams, parse
from tests.faults.mqtt_packets import publish
from tests.path.harness import READINGS, STREAMS, WINDOW, DataPath, FarEnd

MakePath = Callable[..., DataPath]


def test_records_are_sent_in_arrival_order_and_released_after_their_receipt(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()

    broker.publish(1, 2, 3)
    path.turn()
    assert far_end.numbers == [1, 2, 3]
    assert path.stored == [1, 2, 3]

    far_end.receipt()
    path.turn(3)
    assert path.stored == []
    assert path.outbox.books().delivered == 3


def test_a_record_is_sent_only_after_it_is_durable(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    path.events.clear()

    broker.publish(1)
    path.turn()

    assert [name for name, _ in path.events] == ["commit begins", "committed", "puback", "sent"]
    assert far_end.numbers == [1]


def test_receipts_are_released_within_their_time_without_further_messages(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2)
    path.turn()

    far_end.receipt()
    begin = path.clock.now
    path.turn_until(lambda: not path.stored)

    assert path.clock.now - begin == pytest.approx(RELEASE_WITHIN)


def test_further_receipts_do_not_delay_the_release_of_the_first(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(*range(1, 11))
    path.turn()

    begin = path.clock.now
    for n in range(1, 11):
        far_end.receipt(n)
        path.turn()
        path.clock.now += 0.02

    (at, *_) = [when for when, released in path.releases if released]
    assert at - begin <= RELEASE_WITHIN + 0.02


def test_receipts_of_a_stream_are_processed_independently_of_other_streams(path: DataPath) -> None:
    broker = path.connect_broker()
    path.connect_far_end("readings")
    others = path.connect_far_end("others")
    broker.publish(1)
    broker.publish(2, topic="o/1")
    path.turn()

    others.receipt()
    path.turn(3)

    assert path.stored == [1]


def test_the_time_from_send_to_receipt_is_measured_for_each_record(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2)
    path.turn()
    path.clock.now += 0.2
    far_end.receipt()
    path.turn()

    durations = path.pipeline.snapshot.traffic.receipt_durations["readings"]
    assert sum(durations.counts) == 2
    assert durations.total == pytest.approx(0.4)
    assert path.pipeline.snapshot.traffic.receipts == 2


def test_releases_join_the_commit_of_the_next_batch(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1)
    path.turn()
    path.events.clear()

    far_end.receipt()
    broker.publish(2)
    path.turn()

    assert [what for name, what in path.events if name == "committed"] == [([2], (1,))]


def test_nothing_is_sent_while_the_worker_is_deactivated_and_everything_afterwards(make_path: MakePath) -> None:
    path = make_path(worker_is_attached=False)
    broker, far_end = path.connect_broker(), path.connect_far_end()

    broker.publish(1, 2)
    path.turn()
    broker.publish(3)
    path.turn(3)
    assert far_end.numbers == []
    assert path.pubacks == [1, 2, 3]

    path.worker_is_attached = True
    path.turn()
    assert far_end.numbers == [1, 2, 3]


def test_with_one_stream_records_go_through_memory_too(make_path: MakePath) -> None:
    path = make_path(routes=(READINGS,))
    broker, far_end = path.reach_steady_state()

    broker.publish(1, 2)
    path.turn()

    assert far_end.numbers == [1, 2]


def test_no_more_than_the_window_is_sent_without_receipts(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()

    broker.publish(*range(1, WINDOW + 51))
    path.turn(3)
    assert far_end.numbers == list(range(1, WINDOW + 1))

    far_end.receipt(1, 2)
    path.turn()
    assert far_end.numbers == list(range(1, WINDOW + 3))


def test_after_a_lost_link_records_without_receipt_are_sent_again_first_and_in_order(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2, 3, 4)
    path.turn()
    far_end.receipt(2)
    path.turn()

    far_end.close()
    broker.publish(5)
    path.turn()
    assert path.pipeline.senders["readings"].link is None
    assert path.pipeline.snapshot.traffic.sends == 4, "nothing is written to a link that has failed"
    again = path.connect_far_end()
    path.turn()

    assert again.numbers == [1, 3, 4, 5]


def test_each_stream_keeps_its_order_independently_of_the_other(path: DataPath) -> None:
    broker = path.connect_broker()
    readings = path.connect_far_end("readings")
    broker.publish(1, 3)
    broker.publish(2, 4, topic="o/1")
    path.turn()
    broker.publish(6, topic="o/1")
    broker.publish(5)
    path.turn()
    others = path.connect_far_end("others")
    path.turn()

    assert readings.numbers == [1, 3, 5]
    assert others.numbers == [2, 4, 6]


def test_records_of_an_earlier_process_are_sent_first(make_path: MakePath) -> None:
    path = make_path()
    path.connect_broker().publish(1, 2)
    path.turn()
    path.close()

    path = make_path()
    broker, far_end = path.connect_broker(session_present=True), path.connect_far_end()
    broker.publish(3)
    path.turn(2)

    assert far_end.numbers == [1, 2, 3]


def test_a_record_that_gdn_refuses_for_good_becomes_a_dead_letter_with_the_next_commit(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2)
    path.turn()

    far_end.receipt(1, result="send-error:7")
    far_end.receipt(2)
    path.turn(3)

    books = path.outbox.books()
    assert path.stored == []
    assert (books.delivered, books.dead_lettered) == (1, {"refused_by_gdn": 1})
    assert books.balanced


def test_a_dead_letter_that_is_replayed_is_sent(path: DataPath) -> None:
    broker, far_end = path.reach_steady_state()
    broker.publish(1)
    path.turn()
    far_end.receipt(1, result="send-error:7")
    path.turn(3)
    with DeadLetterClient(path.outbox._path, may_mark=True) as client:
        client.mark(Selection(), "replay")

    path.turn_until(lambda: len(far_end.numbers) > 1)

    assert far_end.numbers == [1, 1]
    assert path.outbox.books().balanced


def test_a_record_that_gdn_cannot_take_now_is_sent_again_after_a_pause_before_unsent_ones(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1)
    path.turn()

    far_end.receipt(1, result="send-error:8")
    path.turn()
    begin = path.clock.now
    broker.publish(2)
    path.clock.now += 0.3  # no longer a whole number of idle turns before the end of the pause
    path.turn()
    assert far_end.numbers == [1]
    path.turn_until(lambda: len(far_end.numbers) > 1)

    assert far_end.numbers == [1, 1, 2]
    assert path.clock.now - begin == pytest.approx(1.0, abs=0.01)


def test_after_a_protocol_error_of_the_far_end_its_records_are_sent_again(path: DataPath) -> None:
    broker, far_end = path.reach_steady_state()
    sent = CanaryMessage("d/1", b'{"n": 5, "text": ""}', "5")
    path.inbox.publish_canary(sent)
    path.turn()
    broker.send(publish(sent.topic, sent.payload, 5))
    path.turn()
    assert far_end.numbers == [5]

    far_end.break_protocol()
    path.turn()
    sender = path.pipeline.senders["readings"]
    assert sender.link is None
    assert "binary message" in (sender.dialer.status.error or "")

    again = path.connect_far_end()
    path.turn()
    assert again.numbers == [5]
    again.receipt()
    path.turn()
    assert sent.receipted_at == path.clock.now, "the canary is tracked over the reconnect"


def test_refusals_and_unknown_receipts_are_logged_once_for_a_read(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2)
    path.turn()

    with capture_logs() as logged:
        far_end.answer("999")
        far_end.receipt(1, result="send-error:8")
        far_end.receipt(2, result="send-error:7")
        path.turn()
        far_end.answer("998")
        path.turn()

    lines = [entry for entry in logged if entry["event"].startswith("producer.")]
    assert [(line["event"], line["stream"], line["count"]) for line in lines] == [
        ("producer.refused", "readings", 2),
        ("producer.unknown_receipts", "readings", 1),
        ("producer.unknown_receipts", "readings", 1),
    ]
    assert (lines[0]["result"], lines[0]["error"]) == ("send-error:8", "no")
    assert path.pipeline.snapshot.traffic.receipts == 2


# --- the limit of the rate ------------------------------------------------------------------------------------


def sent_within(path: DataPath, far_end: FarEnd, seconds: float) -> int:
    """How many rows come within this time of the clock; each is receipted."""
    before, end = len(far_end.sent), path.clock.now + seconds
    while path.clock.now < end:
        path.turn()
        far_end.receipt_new()
    return len(far_end.sent) - before


def limited(path: DataPath) -> Mapping[str, bool]:
    return path.pipeline.snapshot.traffic.rate_limited


def test_a_backlog_is_sent_at_the_limited_rate_after_a_burst_of_a_second(make_path: MakePath) -> None:
    path = make_path(max_rows=20, worker_is_attached=False)
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(*range(1, 101))
    path.turn()
    path.worker_is_attached = True

    path.turn()
    assert far_end.numbers == list(range(1, 21))
    assert limited(path) == {"readings": True, "others": False}

    assert sent_within(path, far_end, 2.0) == pytest.approx(40, abs=3)
    sent_within(path, far_end, 3.0)
    assert far_end.numbers == list(range(1, 101))
    assert limited(path) == {"readings": False, "others": False}, "nothing waits"


def test_each_stream_has_a_limit_of_its_own(make_path: MakePath) -> None:
    path = make_path(max_rows=5)
    broker, readings, others = path.connect_broker(), path.connect_far_end(), path.connect_far_end("others")

    broker.publish(*range(1, 11))
    broker.publish(*range(11, 16), topic="o/1")
    path.turn()

    assert readings.numbers == [1, 2, 3, 4, 5]
    assert others.numbers == [11, 12, 13, 14, 15]


def test_below_the_limit_nothing_waits(make_path: MakePath) -> None:
    path = make_path(max_rows=100)
    broker, far_end = path.connect_broker(), path.connect_far_end()

    broker.publish(1, 2, 3)
    path.turn()

    assert far_end.numbers == [1, 2, 3]
    assert not any(limited(path).values())


def test_a_full_window_a_lost_link_or_an_inactive_worker_is_not_reported_as_the_limit(make_path: MakePath) -> None:
    path = make_path(max_rows=WINDOW)
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(*range(1, 3 * WINDOW))
    path.turn(2)
    assert path.delivery().in_window == WINDOW
    assert not limited(path)["readings"], "the far end is what slows"

    far_end.receipt()
    path.turn()
    assert limited(path)["readings"]

    path.worker_is_attached = False
    path.turn()
    assert not limited(path)["readings"]
    path.worker_is_attached = True
    far_end.close()
    path.turn(2)
    assert not limited(path)["readings"]


# --- sequence numbers -------------------------------------------------------------------------------------------


def test_sequence_numbers_are_on_disk_before_their_records_are_sent(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker, far_end = path.connect_broker(), path.connect_far_end()
    path.events.clear()

    broker.publish(1, 2)
    path.turn()

    assert [event for event in path.events if event[0] in ("numbered", "sent")] == [
        ("numbered", [1, 2]),
        ("sent", [1, 2]),
    ]
    assert far_end.numbers == [1, 2]


def test_a_record_whose_number_cannot_be_stored_is_not_sent(make_path: MakePath) -> None:
    path = make_path(deduplicates=True, worker_is_attached=False)
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2)
    path.turn()

    path.outbox.failing = path.worker_is_attached = True
    path.turn(2)
    assert far_end.numbers == []

    path.outbox.failing = False
    path.turn(4)
    assert far_end.numbers == [1, 2]
    assert path.outbox.numbered("readings")[1] == 2


def test_after_a_crash_records_are_sent_again_with_the_numbers_they_had(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    path.connect_far_end()
    broker.publish(1, 2, 3)
    path.turn()
    path.outbox._disconnect_and_unlock()  # the process ends without a word

    path = make_path(deduplicates=True)
    assert path.pipeline.senders["readings"].initial_sequence_id == 0
    far_end = path.connect_far_end()
    path.turn(2)

    assert far_end.numbers == [1, 2, 3]
    assert [number for _, number in path.outbox.numbered("readings")[0]] == [1, 2, 3]


def test_after_a_refusal_the_link_is_dropped_and_its_numbers_are_void_at_once(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2, 3)
    path.turn()

    far_end.receipt(1, result="send-error:8")
    path.turn()

    sender = path.pipeline.senders["readings"]
    assert sender.link is None
    assert sender.initial_sequence_id == 3
    assert path.outbox.numbered("readings") == ([], 3)


def test_a_far_end_without_deduplication_gets_records_without_numbers(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    path.deduplicates = False  # the next link is one that GDN granted without
    far_end = path.connect_far_end()
    broker.publish(1, 2)
    path.turn()

    assert far_end.numbers == [1, 2]
    assert path.pipeline.senders["readings"].initial_sequence_id is None
    assert path.outbox.numbered("readings") == ([], 0)


# --- rows of an earlier definition ----------------------------------------------------------------------


def changed(columns: str) -> Any:
    """The worker's streams once the stream readings has these columns."""
    return STREAMS | input_streams(parse(f"@App:name('w') @App:qlVersion('2') CREATE STREAM readings ({columns});"))


def with_waiting_rows(make_path: MakePath, *numbers: int, **options: Any) -> None:
    """Rows of these numbers wait in the outbox, made for the harness's definition."""
    path = make_path(**options)
    path.connect_broker().publish(*numbers)
    path.turn()
    path.close()


@pytest.mark.parametrize("deduplicates", [False, True])
def test_rows_that_waited_while_the_definition_changed_are_sent_in_the_new_form(
    make_path: MakePath, deduplicates: bool
) -> None:
    with_waiting_rows(make_path, 1, 2, deduplicates=deduplicates)
    path = make_path(streams=changed("n double, text string"), deduplicates=deduplicates)

    broker, far_end = path.connect_broker(session_present=True), path.connect_far_end()
    broker.publish(3)
    path.turn(2)

    assert far_end.numbers == [1, 2, 3]
    assert [payload for _, payload in far_end.payloads] == [
        b'{"n":1.0,"text":""}',
        b'{"n":2.0,"text":""}',
        b'{"n":3.0,"text":""}',
    ]


@pytest.mark.parametrize("deduplicates", [False, True])
def test_rows_that_do_not_fit_the_new_definition_become_dead_letters_and_are_never_sent(
    make_path: MakePath, deduplicates: bool
) -> None:
    with_waiting_rows(make_path, 1, 2, deduplicates=deduplicates)
    path = make_path(streams=changed("n long, text string, site string"), deduplicates=deduplicates)

    with capture_logs() as log:
        far_end = path.connect_far_end()
        path.turn(3)

    books = path.outbox.books()
    assert (far_end.numbers, path.stored) == ([], [])
    assert books.dead_lettered == {"outdated_definition": 2}
    assert books.balanced
    assert [entry["count"] for entry in log if entry["event"] == "outbox.outdated_rows"] == [2]


def test_rows_that_were_sent_without_a_receipt_are_converted_too(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    path.connect_far_end()
    broker.publish(1)
    path.turn()
    path.close()

    path = make_path(streams=changed("n double, text string"), deduplicates=True)
    far_end = path.connect_far_end()
    path.turn()

    assert [payload for _, payload in far_end.payloads] == [b'{"n":1.0,"text":""}']


def test_a_row_that_did_not_fit_is_replayed_once_the_definition_takes_it_again(make_path: MakePath) -> None:
    with_waiting_rows(make_path, 1)
    path = make_path(streams=changed("n long, text string, site string"))
    path.connect_far_end()
    path.turn(3)
    path.close()

    path = make_path(streams=changed("n double, text string"))
    far_end = path.connect_far_end()
    with DeadLetterClient(path.outbox_path, may_mark=True) as client:
        client.mark(Selection(), "replay")
    path.turn_until(lambda: bool(far_end.numbers))

    assert [payload for _, payload in far_end.payloads] == [b'{"n":1.0,"text":""}']
    assert path.outbox.dead_letter_count == 0
