"""A session for each stream: what one stream costs the others, and how the sessions are exchanged."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from bridge.mapping import Route
from bridge.outbox import Bounds
from bridge.path.inbox import Change
from bridge.path.intakes import FETCHED_FIRST
from bridge.path.retirement import PATIENCE, QUIET
from tests.faults.mqtt_packets import publish
from tests.path.harness import CLIENT, OTHERS, READINGS, Broker, DataPath

MakePath = Callable[..., DataPath]

KILOBYTE = "x" * 1000
BOTH = Route("d/{device}", "others")
"""Of the topics of ``READINGS``."""


def numbers(path: DataPath, stream: str) -> list[int]:
    """Of the stream's rows in the outbox."""
    found = path.outbox.read(stream, after=0, limit=1000, max_bytes=1 << 20)
    return [json.loads(record.payload)["n"] for record in found]


def connect(path: DataPath) -> tuple[Broker, Broker]:
    """The ends of the sessions of both streams."""
    return path.connect_broker("readings"), path.connect_broker("others")


def parts(path: DataPath) -> dict[str, str]:
    return {status.name: status.state for status in path.intakes.statuses}


def wait_quiet(path: DataPath) -> None:
    path.clock.now += QUIET
    path.turn(3)


def test_a_stream_that_is_not_delivered_leaves_the_broker_alone_and_the_others_go_on(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, bounds=Bounds(max_bytes=10_000))
    readings, others = connect(path)
    far_end = path.connect_far_end()
    path.worker_is_attached = False
    assert (readings.subscribed, others.subscribed) == (["d/+"], ["o/+"])

    readings.publish(*range(1, 7), text=KILOBYTE)
    path.turn()
    assert readings.is_left
    assert "their share (outbox.shares): readings" in (path.pipeline.snapshot.outbox.holding or "")
    assert parts(path) == {"mqtt readings": "waiting", "mqtt others": "connected"}

    others.publish(*range(10, 15), topic="o/1")
    path.turn()
    assert not others.is_left
    assert others.acknowledged == [10, 11, 12, 13, 14]
    assert readings.acknowledged == [1, 2, 3, 4, 5, 6]

    path.worker_is_attached = True
    path.turn(2)
    far_end.receipt_new()
    path.turn_until(lambda: path.intake_of("readings").holding is None)
    assert path.outbox.books().balanced


def test_shares_decide_when_a_stream_leaves_the_broker(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, bounds=Bounds(max_bytes=10_000, shares={"readings": 0.2}))
    readings, others = connect(path)
    path.worker_is_attached = False
    for number in (1, 2):
        assert not readings.is_left
        readings.publish(number, text=KILOBYTE)
        others.publish(number, topic="o/1", text=KILOBYTE)
        path.turn()

    assert readings.is_left
    assert not others.is_left


def test_streams_that_wait_never_keep_others_waiting(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, bounds=Bounds(max_bytes=20_000, shares={"readings": 0.95}))
    readings, _ = connect(path)
    path.worker_is_attached = False
    for first in range(1, 19, 3):
        assert not readings.is_left
        readings.publish(first, first + 1, first + 2, text=KILOBYTE)
        path.turn()
    assert readings.is_left
    assert 18_000 <= path.outbox.bytes < 20_000

    path.outbox.failing = True
    path.ends["others"].publish(1, topic="o/1")
    path.turn()
    path.outbox.failing = False
    path.turn_until(lambda: path.intake_of("others").holding is None)
    others = path.connect_broker("others", session_present=True)
    others.publish(1, topic="o/1", dup=True)
    path.turn()
    assert numbers(path, "others") == [1]
    assert path.intake_of("readings").holding is not None


def test_a_full_outbox_holds_every_session(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, bounds=Bounds(max_bytes=4_000))
    readings, others = connect(path)
    path.worker_is_attached = False
    readings.publish(1, 2, 3, 4, text=KILOBYTE)  # one read exceeds share and bound
    path.turn()

    assert readings.is_left
    assert others.is_left


def test_a_message_for_two_streams_becomes_each_row_once_and_is_acknowledged_in_both_sessions(
    make_path: MakePath,
) -> None:
    path = make_path(session_per_stream=True, routes=[Route("d/{device}", "readings", match="all"), BOTH])
    readings, others = connect(path)
    for end in (readings, others):  # as a broker delivers it
        end.publish(1, 2)
    path.turn()

    assert (numbers(path, "readings"), numbers(path, "others")) == ([1, 2], [1, 2])
    assert (readings.acknowledged, others.acknowledged) == ([1, 2], [1, 2])
    assert path.outbox.books().received == 4
    path.turn(4)
    assert path.intakes.rows_made() == {("d/{device}", "readings"): 2, ("d/{device}", "others"): 2}


def test_the_first_route_takes_a_message_whatever_session_it_came_in(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, routes=[Route("d/{device}", "readings", when="n < `2`"), BOTH])
    readings, others = connect(path)
    for end in (readings, others):
        end.publish(1, 2)
    path.turn()

    assert (numbers(path, "readings"), numbers(path, "others")) == ([1], [2])
    books = path.outbox.books()
    assert (books.received, books.dropped) == (2, {}), "none was filtered"


def test_what_becomes_no_row_is_counted_once(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, routes=[Route("d/{device}", "readings", when="n < `1`"), BOTH])
    readings, others = connect(path)
    for end in (readings, others):
        end.send(publish("d/1", b"no JSON", 7))
        end.send(publish("d/1", b"", 8))
    path.turn()

    (dead_letter,) = path.dead_letters
    assert dead_letter.topic == "d/1"
    assert (readings.acknowledged, others.acknowledged) == ([7, 8], [7, 8])
    books = path.outbox.books()
    assert (books.received, books.dropped) == (2, {"filtered": 1})


def test_a_failed_commit_makes_every_session_leave_and_return(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True)
    readings, others = connect(path)
    path.outbox.failing = True
    readings.publish(1)
    others.publish(2, topic="o/1")
    path.turn()
    assert (readings.is_left, others.is_left) == (True, True)
    assert path.pubacks == []

    path.outbox.failing = False
    path.turn_until(lambda: path.intakes.holding is None)
    readings, others = connect(path)
    readings.publish(1, dup=True)
    others.publish(2, topic="o/1", dup=True)
    path.turn()
    assert path.pubacks == [1, 2]


@pytest.mark.parametrize("starts_per_stream", [False, True])
def test_the_session_used_before_is_drained_then_unsubscribed_and_left(
    make_path: MakePath, starts_per_stream: bool
) -> None:
    old_stream, new_streams = ("readings", [None]) if starts_per_stream else (None, ["readings", "others"])
    first = make_path(session_per_stream=starts_per_stream)
    for stream in ["readings", "others"] if starts_per_stream else [None]:
        first.connect_broker(stream)
    first.close()

    path = make_path(session_per_stream=not starts_per_stream)
    path.worker_is_attached = False
    old = path.connect_broker(old_stream, session_present=True)
    if starts_per_stream:
        path.connect_broker("others", session_present=True)
    old.publish(1, 2)
    path.turn()
    assert {path.intake_of(stream).dialer.status.error for stream in new_streams} == {FETCHED_FIRST}
    wait_quiet(path)
    assert {path.intake_of(stream).dialer.status.error for stream in new_streams} == {None}, "now they are dialled"
    assert (old.subscribed, old.unsubscribed, old.acknowledged) == ([], [], [1, 2]), "no new session is subscribed yet"

    new = [path.connect_broker(stream) for stream in new_streams]
    assert all(end.subscribed for end in new)
    path.turn(2)
    assert sorted(old.unsubscribed) == (["d/+"] if starts_per_stream else ["d/+", "o/+"])
    old.publish(3)
    path.turn()
    assert old.acknowledged == [1, 2, 3], "what was queued still comes"
    with capture_logs() as logged:
        wait_quiet(path)
    assert old.is_left
    retired = {line["session"] for line in logged if line["event"] == "mqtt.session_retired"}
    assert f"{CLIENT}{'-readings' * starts_per_stream} at broker" in retired
    assert numbers(path, "readings") == [1, 2, 3]
    if not starts_per_stream:
        assert parts(path) == {"mqtt readings": "connected", "mqtt others": "connected"}
    path.close()

    again = make_path(session_per_stream=not starts_per_stream)
    assert f"mqtt{' readings' * starts_per_stream}" not in parts(again), "it is known to be empty"


def test_the_session_used_before_stays_while_a_subscription_of_a_new_one_is_refused(make_path: MakePath) -> None:
    first = make_path()
    first.connect_broker()
    first.close()
    path = make_path(session_per_stream=True)
    old = path.connect_broker(session_present=True)
    wait_quiet(path)

    path.connect_broker("readings")
    refusing = path.dial_broker("others")
    refusing.answer = 0x80
    refusing.accept()
    for _ in range(3):
        path.turn()
        refusing.read()
    wait_quiet(path)
    old.publish(5)
    path.turn()

    assert (old.unsubscribed, old.acknowledged, numbers(path, "readings")) == ([], [5], [5])


def test_new_sessions_wait_only_for_a_time_for_an_old_one_that_cannot_be_connected(make_path: MakePath) -> None:
    first = make_path()
    first.connect_broker()
    first.close()
    path = make_path(session_per_stream=True)
    path.turn()
    dialer = path.intake_of("readings").dialer
    assert dialer.status.error == FETCHED_FIRST

    path.clock.now += PATIENCE
    path.turn()
    assert dialer.status.error is None


def kill_while_the_old_session_retires(make_path: MakePath) -> None:
    """One session was used; with a session for each stream it is unsubscribed, and not left yet."""
    first = make_path()
    first.connect_broker()
    first.close()
    path = make_path(session_per_stream=True)
    connect(path)
    old = path.connect_broker(None, session_present=True)
    wait_quiet(path)
    assert old.unsubscribed
    path.outbox._disconnect_and_unlock()


def test_a_session_is_drained_after_a_restart_in_between(make_path: MakePath) -> None:
    kill_while_the_old_session_retires(make_path)

    again = make_path(session_per_stream=True)
    connect(again)
    old = again.connect_broker(None, session_present=True)
    old.publish(1)
    again.turn()
    assert old.acknowledged == [1]


def test_filters_that_may_have_been_unsubscribed_are_subscribed_again_when_the_session_is_used_again(
    make_path: MakePath,
) -> None:
    kill_while_the_old_session_retires(make_path)  # and the setting is changed back

    again = make_path()
    assert sorted(again.connect_broker(session_present=True).subscribed) == ["d/+", "o/+"]


def test_a_stream_that_returns_while_its_session_retires_is_subscribed_again(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, routes=[READINGS])
    readings = path.connect_broker("readings")
    path.inbox.change(Change(path.mapper(OTHERS), ("others",), {}, lambda: None))
    path.turn(2)
    assert readings.unsubscribed == ["d/+"]

    path.inbox.change(Change(path.mapper(READINGS), ("readings",), {}, lambda: None))
    path.turn()
    assert readings.is_left
    assert path.connect_broker("readings", session_present=True).subscribed == ["d/+"]


def test_an_old_session_that_the_broker_no_longer_has_is_not_subscribed_again(make_path: MakePath) -> None:
    first = make_path()
    first.connect_broker()
    first.close()
    path = make_path(session_per_stream=True)
    connect(path)
    old = path.connect_broker(None)
    wait_quiet(path)
    wait_quiet(path)

    assert old.subscribed == []
    assert sorted(old.unsubscribed) == ["d/+", "o/+"], "ActiveMQ Classic says so even if it has the session"
    assert old.is_left
    assert path.outbox.counter("sessions_lost") == 1


def test_a_reload_adds_and_removes_the_sessions_of_streams(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, routes=[READINGS])
    readings = path.connect_broker("readings")
    done: list[bool] = []

    path.inbox.change(Change(path.mapper(OTHERS), ("others",), {}, lambda: done.append(True)))
    path.turn(2)
    others = path.connect_broker("others")
    assert done == [True]
    assert (readings.unsubscribed, others.subscribed) == (["d/+"], ["o/+"])
    wait_quiet(path)
    assert readings.is_left
    assert parts(path) == {"mqtt others": "connected"}

    path.inbox.change(Change(path.mapper(READINGS, OTHERS), ("readings", "others"), {}, lambda: done.append(True)))
    path.turn()
    again = path.connect_broker("readings", session_present=True)
    again.publish(1)
    path.turn()
    assert again.subscribed == ["d/+"]
    assert numbers(path, "readings") == [1]


def test_qos_2_messages_of_two_sessions_may_have_equal_packet_ids(make_path: MakePath) -> None:
    path = make_path(session_per_stream=True, qos=2)
    path.worker_is_attached = False
    readings, others = connect(path)
    readings.publish(1, qos=2)
    others.publish(1, topic="o/1", qos=2)
    path.turn()
    readings.pubrel(1)
    path.turn(2)
    others.publish(1, topic="o/1", qos=2, dup=True)
    path.turn()

    assert (numbers(path, "readings"), numbers(path, "others")) == ([1], [1])
    assert path.intakes.figures.skipped == 1
