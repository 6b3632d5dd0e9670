"""The QoS 2 exchange and the commit: a message is stored once, whatever ends between its packets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.path import arrivals
from tests.path.harness import Broker, DataPath

MakePath = Callable[..., DataPath]

deduplicating_or_not = pytest.mark.parametrize("deduplicates", [False, True])


def kill(path: DataPath) -> None:
    """End the process without a word."""
    path.outbox._disconnect_and_unlock()


def remembered(path: DataPath) -> list[int]:
    return [packet_id for packet_id, _ in path.outbox.qos_2_messages(path.brokers.session.name)]


@deduplicating_or_not
def test_each_step_of_the_exchange_is_answered_after_its_commit(make_path: MakePath, deduplicates: bool) -> None:
    path = make_path(deduplicates=deduplicates)
    broker = path.connect_broker()
    path.events.clear()

    broker.publish(1, 2, qos=2)
    path.turn()
    broker.pubrel(1, 2)
    path.turn()

    assert path.events == [
        ("commit begins", None),
        ("committed", ([1, 2], ())),
        ("pubrec", 1),
        ("pubrec", 2),
        ("commit begins", None),
        ("committed", ([], ())),
        ("pubcomp", 1),
        ("pubcomp", 2),
    ]
    assert remembered(path) == []


@deduplicating_or_not
@pytest.mark.parametrize("ending", ["kill", "cut"])
@pytest.mark.parametrize("dup", [True, False])
def test_a_message_redelivered_before_its_pubrel_is_stored_once(
    make_path: MakePath, deduplicates: bool, ending: str, dup: bool
) -> None:
    """Aedes redelivers without DUP."""
    path = make_path(deduplicates=deduplicates)
    broker = path.connect_broker()
    broker.publish(1, 2, qos=2)
    path.turn()

    if ending == "kill":
        kill(path)
        path = make_path(deduplicates=deduplicates)
    else:
        broker.close()
        path.turn(2)
    broker = path.connect_broker(session_present=True)
    path.events.clear()
    broker.publish(1, 2, qos=2, dup=dup)
    broker.publish(3, qos=2)
    path.turn(2)

    assert path.stored == [1, 2, 3]
    assert path.intake.skipped == 2
    assert [event for event in path.events if event[0] == "pubrec"] == [("pubrec", 1), ("pubrec", 2), ("pubrec", 3)]
    assert path.outbox.books().received == 3


def test_a_pubrel_that_comes_again_after_a_kill_is_completed_again(make_path: MakePath) -> None:
    path = make_path()
    broker = path.connect_broker()
    broker.publish(1, qos=2)
    path.turn()
    kill(path)

    path = make_path()
    broker = path.connect_broker(session_present=True)
    broker.pubrel(1, 9)
    path.turn()

    assert [event for event in path.events if event[0] == "pubcomp"] == [("pubcomp", 1), ("pubcomp", 9)]
    assert remembered(path) == []


def test_a_packet_id_that_the_broker_uses_again_after_the_pubcomp_brings_a_new_message(path: DataPath) -> None:
    broker = path.connect_broker()
    for _ in range(3):
        broker.publish(1, qos=2)
        path.turn()
        broker.pubrel(1)
        path.turn()

    assert path.stored == [1, 1, 1]
    assert path.intake.skipped == 0


def test_nothing_is_answered_when_the_commit_fails(path: DataPath) -> None:
    broker = path.connect_broker()
    broker.publish(1, qos=2)
    path.turn()
    path.events.clear()

    path.outbox.failing = True
    broker.pubrel(1)
    broker.publish(2, qos=2)
    path.turn()

    assert path.events == [("commit begins", None)]
    assert broker.is_left
    path.outbox.failing = False
    assert remembered(path) == [1]

    path.turn(4)
    broker = path.connect_broker(session_present=True)
    broker.pubrel(1)
    broker.publish(2, qos=2, dup=True)
    path.turn()
    assert path.stored == [1, 2]
    assert remembered(path) == [2]


@deduplicating_or_not
def test_messages_of_a_new_session_are_not_taken_for_those_of_a_lost_one(
    make_path: MakePath, deduplicates: bool
) -> None:
    """A new session counts its packet ids from 1 again, and a device may send the same content."""
    path = make_path(deduplicates=deduplicates)
    broker = path.connect_broker()
    broker.publish(1, qos=2)
    path.turn()
    kill(path)

    path = make_path(deduplicates=deduplicates)
    path.outbox.failing = True
    assert path.connect_broker(session_present=False).subscribed == [], "first they are forgotten on disk"
    path.outbox.failing = False
    path.turn(4)
    broker = path.connect_broker(session_present=True)
    assert broker.subscribed == ["d/+", "o/+"]
    assert remembered(path) == []
    broker.publish(1, qos=2)
    path.turn()

    assert path.stored == [1, 1]


def test_another_message_with_the_packet_id_of_a_remembered_one_is_stored(path: DataPath) -> None:
    """The broker was restored from an older state."""
    broker = path.connect_broker()
    broker.publish(1, qos=2, text="before")
    path.turn()
    broker.publish(1, qos=2, text="after", dup=True)
    path.turn()

    assert path.stored == [1, 1]


@pytest.mark.parametrize(("dup", "stored"), [(True, [1, 2]), (False, [1, 2, 2])])
def test_after_a_link_without_connack_only_messages_marked_dup_are_skipped(
    path: DataPath, dup: bool, stored: list[int]
) -> None:
    """The CONNACK may have said that the session was lost; the next one says that there is a session: the new one."""
    broker = path.connect_broker()
    broker.publish(1, 2, qos=2)
    path.turn()
    broker.close()
    path.turn()
    path.dial_broker().close()
    path.turn(2)

    broker = path.connect_broker(session_present=True)
    broker.publish(2, qos=2, dup=dup)
    path.turn()

    assert path.stored == stored


@pytest.mark.parametrize("pubrel_first", [True, False])
def test_a_message_that_comes_with_its_pubrel_is_not_remembered(path: DataPath, pubrel_first: bool) -> None:
    """No broker should send both before the PUBREC; the next message with this packet id is another one."""
    broker = path.connect_broker()
    if pubrel_first:
        broker.pubrel(1)
    broker.publish(1, qos=2)
    if not pubrel_first:
        broker.pubrel(1)
    path.turn()

    assert path.stored == [1]
    assert remembered(path) == []


def test_with_deduplication_qos_2_does_not_disturb_the_fence(make_path: MakePath) -> None:
    path = make_path(deduplicates=True)
    broker = path.connect_broker()
    broker.publish(1)
    broker.publish(2, qos=2)
    broker.publish(3)
    broker.publish(4, qos=2)
    path.turn()
    assert path.pubacks == [1]
    assert ("pubrec", 2) in path.events
    assert ("pubrec", 4) in path.events

    broker.close()
    path.turn(2)
    broker = path.connect_broker(session_present=True)
    broker.publish(1, dup=True)
    broker.publish(2, qos=2, dup=True)
    broker.publish(3, dup=True)
    broker.publish(4, qos=2, dup=True)
    broker.publish(5)
    path.turn(2)

    assert path.stored == [1, 2, 3, 4, 5]
    assert path.intake.skipped == 4


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_with_3_1_1_another_qos_is_requested_for_a_kept_session(make_path: MakePath, before: int, after: int) -> None:
    path = make_path(qos=before)
    path.connect_broker()
    path.turn()
    kill(path)

    path = make_path(qos=after)
    assert path.connect_broker(session_present=True).subscribed == ["d/+", "o/+"]
    path.turn()
    kill(path)

    path = make_path(qos=after)
    assert path.connect_broker(session_present=True).subscribed == []


def test_a_copy_of_the_outbox_forgets_the_exchanges(make_path: MakePath) -> None:
    """It may not know of later ones: the broker may have used the packet id again."""
    path = make_path()
    broker: Broker = path.connect_broker()
    broker.publish(1, qos=2)
    path.turn()
    kill(path)
    path.outbox_path.with_name("outbox.db.lock").write_text("another seal")

    assert remembered(make_path()) == []


@deduplicating_or_not
@pytest.mark.parametrize("ending", ["kill", "cut", "none"])
def test_messages_that_wait_for_a_later_slice_are_stored_once_if_they_are_redelivered(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch, deduplicates: bool, ending: str
) -> None:
    monkeypatch.setattr(arrivals, "SLICE_BYTES", 2 * arrivals.OBJECT_BYTES)
    monkeypatch.setattr(arrivals, "MEASURED_TOGETHER", 1)
    path = make_path(deduplicates=deduplicates)
    broker = path.connect_broker()
    broker.publish(1, 2, 3, 4, 5, qos=2)
    path.turn()
    assert 0 < len(path.stored) < 5

    if ending == "kill":
        kill(path)
        path = make_path(deduplicates=deduplicates)
    if ending == "cut":
        broker.close()
        path.turn(2)
    if ending != "none":
        broker = path.connect_broker(session_present=True)
    broker.publish(1, 2, 3, 4, 5, qos=2, dup=True)
    path.turn(8)

    assert path.stored == [1, 2, 3, 4, 5]
    assert sorted(remembered(path)) == [1, 2, 3, 4, 5]
