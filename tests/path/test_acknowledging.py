"""PUBACK and commit: what is acknowledged is durable, and what is not durable is not acknowledged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from bridge.mapping import Route
from bridge.mqtt.packets import KEPT_BYTES
from bridge.mqtt.redelivery import PATIENCE
from bridge.outbox import Bounds
from bridge.path.inbox import Change
from bridge.path.pipeline import COUNT_EVERY
from tests.faults.mqtt_packets import publish
from tests.path.harness import READINGS, DataPath

MakePath = Callable[..., DataPath]


def test_a_message_is_acknowledged_only_after_its_commit(path: DataPath) -> None:
    broker = path.connect_broker()
    path.events.clear()

    broker.publish(1, 2, 3)
    path.turn()

    assert path.events == [("commit begins", None), ("committed", ([1, 2, 3], ())), ("puback", [1, 2, 3])]
    assert path.stored == [1, 2, 3]


def test_a_dead_letter_is_acknowledged_only_after_its_commit(path: DataPath) -> None:
    broker = path.connect_broker()
    path.events.clear()

    broker.publish(1, topic="unknown/topic")
    path.turn()

    assert [name for name, _ in path.events] == ["commit begins", "committed", "puback"]
    assert path.outbox.books().dead_lettered == {"no_route": 1}


def test_a_filtered_message_is_counted_and_acknowledged_only_after_the_commit(make_path: MakePath) -> None:
    path = make_path(routes=(Route("d/{device}", "readings", when="n > `5`"),))
    broker = path.connect_broker()
    path.events.clear()

    broker.publish(1, 2, 7)
    path.turn()

    assert path.events == [("commit begins", None), ("committed", ([7], ())), ("puback", [1, 2, 7])]
    assert path.outbox.books().dropped == {"filtered": 2}
    assert path.outbox.books().balanced


def test_conditions_that_cannot_be_evaluated_are_counted_across_a_change_of_routes(make_path: MakePath) -> None:
    misspelt = Route("d/{device}", "readings", when="m > `5`")
    path = make_path(routes=(misspelt,))
    broker = path.connect_broker()

    def unanswerable() -> dict[tuple[str, str], int]:
        path.clock.now += COUNT_EVERY
        path.turn()
        return dict(path.pipeline.snapshot.traffic.route_unanswerable)

    broker.publish(1, 2)
    path.turn()
    assert unanswerable() == {(misspelt.topic, "readings"): 2}
    assert len(list(path.pipeline.snapshot.traffic.route_notes)) == 1

    path.inbox.change(Change(path.mapper(Route("d/{device}", "readings", when="n > `5`")), (), {}, lambda: None))
    broker.publish(3, 7)
    path.turn()
    assert unanswerable() == {(misspelt.topic, "readings"): 2}
    assert not list(path.pipeline.snapshot.traffic.route_notes)
    assert path.outbox.books().dropped == {"filtered": 3}


def test_filtered_elements_of_an_array_are_counted_one_by_one(make_path: MakePath) -> None:
    path = make_path(routes=(Route("d/{device}", "readings", fields={"text": "=x"}, when="n > `5`"),))
    broker = path.connect_broker()

    broker.send(publish("d/1", b'[{"n": 1}, {"n": 7}, {"n": 2}]', 1))
    path.turn()

    books = path.outbox.books()
    assert path.pubacks == [1]
    assert path.stored == [7]
    assert (books.received, books.dropped, books.balanced) == (3, {"filtered": 2}, True)


def test_an_empty_message_is_no_dead_letter_but_filtered_and_acknowledged(path: DataPath) -> None:
    broker = path.connect_broker()

    broker.send(publish("d/1", b"", 1))
    path.turn()

    books = path.outbox.books()
    assert path.pubacks == [1]
    assert (books.received, books.dropped, books.dead_lettered) == (1, {"filtered": 1}, {})


def test_messages_are_acknowledged_in_arrival_order_whatever_they_became(path: DataPath) -> None:
    broker = path.connect_broker()

    broker.publish(5)
    broker.publish(2, topic="unknown/topic")
    broker.publish(9, 4)
    path.turn()

    assert path.pubacks == [5, 2, 9, 4]


def test_when_a_commit_fails_nothing_is_acknowledged_and_the_bridge_leaves_the_broker(path: DataPath) -> None:
    broker = path.connect_broker()

    path.outbox.failing = True
    broker.publish(1, 2)
    path.turn()

    assert path.pubacks == []
    assert broker.is_left
    assert path.intake.link is None
    assert path.intake.holding is not None
    assert path.pipeline.outbox_status.state == "failing"
    assert path.pipeline.outbox_status.error == "the disk is full"


def test_after_a_failed_commit_the_redelivered_messages_are_stored_and_acknowledged(path: DataPath) -> None:
    broker = path.connect_broker()
    path.outbox.failing = True
    broker.publish(1, 2)
    path.turn()

    path.outbox.failing = False
    path.turn(4)  # the outbox is left alone for a second, then tried
    assert path.intake.holding is None
    again = path.connect_broker(session_present=True)
    again.publish(1, 2, dup=True)
    path.turn()

    assert path.pubacks == [1, 2]
    assert path.stored == [1, 2]
    assert path.outbox.books().received == 2


def test_while_the_outbox_fails_it_is_tried_once_a_second(path: DataPath) -> None:
    broker = path.connect_broker()
    path.outbox.failing = True
    broker.publish(1)
    path.turn()
    asked = 0
    probe = path.outbox.probe

    def counting() -> None:
        nonlocal asked
        asked += 1
        probe()

    path.outbox.probe = counting  # type: ignore[method-assign]
    begin = path.clock.now
    path.turn_until(lambda: path.clock.now >= begin + 10)

    assert 9 <= asked <= 11


def test_an_outbox_that_works_again_has_the_status_connected(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1)
    path.turn()

    path.outbox.failing = True
    far_end.receipt()
    path.turn(2)
    assert path.pipeline.outbox_status.state == "failing"
    assert path.intake.holding is None, "only a batch that could not be stored is given up"

    path.outbox.failing = False
    path.turn(4)
    assert (path.pipeline.outbox_status.state, path.pipeline.outbox_status.error) == ("connected", None)


def test_dead_letters_are_logged_one_line_for_each_reason_in_a_batch(path: DataPath) -> None:
    broker = path.connect_broker()

    with capture_logs() as logged:
        broker.publish(1, 2, topic="unknown/topic")
        broker.send(publish("d/1", b"no JSON", 3))
        path.turn()

    lines = [entry for entry in logged if entry["event"] == "message.dead_lettered"]
    assert [(line["reason"], line["count"], line["topic"]) for line in lines] == [
        ("no_route", 2, "unknown/topic"),
        ("not_json", 1, "d/1"),
    ]


def test_a_message_over_the_packet_limit_is_a_dead_letter_with_its_beginning_acknowledged_after_the_commit(
    path: DataPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.mqtt.link.MAX_PACKET", KEPT_BYTES)
    broker = path.connect_broker()
    path.events.clear()
    payload = b"[" + b"1," * KEPT_BYTES

    data = publish("d/1", payload, 7) + publish("d/1", b'{"n": 8, "text": ""}', 8)
    for at in range(0, len(data), 100_000):
        broker.send(data[at : at + 100_000])
        path.turn()

    assert [name for name, _ in path.events] == ["commit begins", "committed", "puback"]
    assert path.pubacks == [7, 8]
    assert path.stored == [8]
    (kept,) = path.dead_letters
    assert (kept.reason, kept.topic, kept.route) == ("too_large", "d/1", "d/{device}")
    assert len(kept.payload) + kept.omitted == len(payload)
    assert payload.startswith(kept.payload)
    assert f"{len(payload)} bytes" in kept.detail


def test_messages_at_qos_0_are_stored_and_not_acknowledged(path: DataPath) -> None:
    broker = path.connect_broker()

    payload = b'{"n": 7, "text": ""}'
    broker.send(bytes((0x30, 5 + len(payload))) + b"\x00\x03d/1" + payload)
    path.turn()

    assert path.pubacks == []
    assert path.stored == [7]


def test_rows_that_a_full_outbox_rejects_are_counted_and_acknowledged(make_path: MakePath) -> None:
    path = make_path(policy="reject_new", bounds=Bounds(max_bytes=150), routes=[READINGS])
    broker = path.connect_broker()
    with capture_logs() as logged:
        path.turn(4)
        broker.publish(1, 2, 3)
        path.turn()
        broker.publish(4, 5)
        path.turn()

    assert [line["event"] for line in logged if line["event"].startswith("outbox.")] == ["outbox.rejecting"]
    books = path.outbox.books()
    assert path.pubacks == [1, 2, 3, 4, 5]
    assert path.stored == [1, 2, 3]
    assert books.dropped == {"outbox_full": 2}
    assert books.balanced


# --- deduplication: the fence ---------------------------------------------------------------------------------


def test_with_deduplication_the_last_message_of_a_commit_is_acknowledged_after_the_next_one(
    make_path: MakePath,
) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()

    broker.publish(1, 2, 3)
    path.turn()
    assert path.pubacks == [1, 2]

    broker.publish(4, 5)
    path.turn()
    assert path.pubacks == [1, 2, 3, 4]


@pytest.mark.parametrize("window", [1, 10])
def test_with_deduplication_a_broker_that_waits_for_all_pubacks_sends_on_and_loses_time_only_once(
    make_path: MakePath, window: int
) -> None:
    """HiveMQ CE does: 50 messages, and more only once all of them are acknowledged."""
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    begin = path.clock.now
    numbers = list(range(1, 4 * window + 1))

    for at in range(0, len(numbers), window):
        sent = numbers[: at + window]
        broker.publish(*sent[at:])
        path.turn_until(lambda sent=sent: path.pubacks == sent)  # type: ignore[misc]

    assert path.stored == numbers
    assert path.clock.now - begin == pytest.approx(PATIENCE)


def test_with_deduplication_a_broker_that_does_not_wait_for_all_pubacks_keeps_the_fence(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.publish(1, 2)
    path.turn(2)

    broker.publish(3)
    path.turn(20)

    assert path.pubacks == [1, 2]


def test_with_deduplication_pubacks_that_are_lost_before_the_barrier_cause_no_duplicate(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.answers_pings = False
    broker.publish(1, 2, 3)
    path.turn(10)
    assert path.pubacks == [1, 2]

    broker.close()
    path.turn(2)
    path.connect_broker(session_present=True).publish(1, 2, 3, dup=True)
    path.turn_until(lambda: path.pubacks == [1, 2, 1, 2, 3])

    assert path.stored == [1, 2, 3]


def test_with_deduplication_the_answer_to_an_earlier_ping_lifts_no_fence(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.answers_pings = False
    quiet_since = path.clock.now
    path.turn_until(lambda: path.clock.now - quiet_since > 40)  # keepalive has sent a PINGREQ
    broker.publish(1, 2)
    path.turn()

    broker.send(b"\xd0\x00")
    path.turn(10)
    assert path.pubacks == [1]

    broker.send(b"\xd0\x00")
    path.turn_until(lambda: path.pubacks == [1, 2])


def test_with_deduplication_messages_at_other_qos_do_not_keep_the_fence_from_being_lifted(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.publish(1, 2)
    path.turn()
    begin = path.clock.now

    n = 10
    while len(path.pubacks) < 2 and n < 100:
        broker.publish(n, qos=2 * (n % 2))
        path.turn()
        path.clock.now += PATIENCE / 10
        n += 1

    assert path.pubacks == [1, 2]
    assert path.clock.now - begin <= PATIENCE + 0.3


def test_with_deduplication_a_fence_whose_commit_fails_is_not_acknowledged(
    make_path: MakePath,
) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.publish(1, 2)
    path.turn(2)

    path.outbox.failing = True
    path.turn_until(lambda: path.intake.holding is not None)
    assert path.pubacks == [1]
    path.outbox.failing = False
    path.turn_until(lambda: path.intake.holding is None)
    path.connect_broker(session_present=True).publish(2, dup=True)
    path.turn_until(lambda: path.pubacks == [1, 2])

    assert path.stored == [1, 2]


def test_with_deduplication_messages_redelivered_after_a_lost_link_are_not_stored_twice(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.publish(1, 2, 3)
    path.turn()

    broker.close()
    path.turn(2)
    again = path.connect_broker(session_present=True)
    again.publish(3, dup=True)
    again.publish(4)
    path.turn(2)

    assert path.stored == [1, 2, 3, 4]
    assert path.intake.skipped == 1


def test_with_deduplication_messages_of_a_failed_commit_are_stored_when_redelivered(
    make_path: MakePath,
) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.publish(1)
    path.turn()
    path.outbox.failing = True
    broker.publish(2, 3)
    path.turn()
    assert path.pubacks == []

    path.outbox.failing = False
    path.turn(5)
    again = path.connect_broker(session_present=True)
    again.publish(1, 2, 3, dup=True)
    path.turn(2)

    assert path.stored == [1, 2, 3]
    assert path.intake.skipped == 1


def test_with_deduplication_messages_redelivered_after_a_crash_are_not_stored_twice(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.publish(1, 2, 3)
    path.turn()
    path.outbox._disconnect_and_unlock()  # the process ends without a word

    path = make_path(deduplicates=True)
    broker = path.connect_broker(session_present=True)
    broker.publish(1, 2, 3, dup=True)
    broker.publish(4)
    path.turn(2)

    assert path.stored == [1, 2, 3, 4]
    assert path.intake.skipped == 3


def test_with_deduplication_redelivered_messages_alone_are_acknowledged_too(make_path: MakePath) -> None:
    """They fill the broker's window: without their PUBACKs it could send nothing new."""
    path = make_path(deduplicates=True)
    path.connect_broker().publish(1, 2, 3)
    path.turn()
    path.outbox._disconnect_and_unlock()  # the process ends without a word

    path = make_path(deduplicates=True)
    path.connect_broker(session_present=True).publish(1, 2, 3, dup=True)
    path.turn()

    assert path.pubacks == [1, 2]
    assert path.stored == [1, 2, 3]


def test_refused_subscriptions_are_logged_as_a_list_of_sentences(path: DataPath) -> None:
    broker = path.dial_broker()
    broker.answer = 0x80
    with capture_logs() as logged:
        broker.accept()
        for _ in range(3):
            path.turn()
            broker.read()

    (subscribed,) = [line for line in logged if line["event"] == "mqtt.subscribed"]
    assert subscribed["refused"] == ["d/+ (Unspecified error)", "o/+ (Unspecified error)"]


def test_a_silent_broker_shows_in_the_status_before_its_link_is_given_up_and_goes_on_when_it_is_heard(
    path: DataPath,
) -> None:
    broker, _ = path.reach_steady_state()
    status = path.intake.dialer
    begin = path.clock.now
    broker.answers_pings = False

    path.turn_until(lambda: status.status.state == "failing")
    silent = path.clock.now - begin
    assert 34 <= silent <= 41, "half of the keepalive, 5 s for the answer, and a step of the report"
    assert "nothing has come from the broker for 35 s" in (status.status.error or "")
    assert path.intake.link is not None

    broker.publish(7)
    path.turn_until(lambda: status.status.state == "connected")
    assert status.status.error is None
    path.turn_until(lambda: path.intake.link is None)
    assert path.clock.now - begin - silent <= 95
