"""The bounds of the outbox and of memory, and a commit that fails half-way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.errors import OutboxUnavailable
from bridge.message import DeadLetter, Row
from bridge.outbox import Bounds, Commit
from bridge.path.delivery import MEMORY_BYTES, MEMORY_RECORDS
from bridge.path.inbox import Change
from tests.path.harness import OTHERS, READINGS, DataPath

MakePath = Callable[..., DataPath]

KILOBYTE = "x" * 1000
BATCH_BYTES = 256 * 1024
"""What one read brings at most: a bound may be exceeded by one batch."""


def test_the_hold_begins_at_the_bound_and_ends_when_a_tenth_is_free(make_path: MakePath) -> None:
    path = make_path(bounds=Bounds(max_bytes=10_000))
    broker, far_end = path.connect_broker(), path.connect_far_end()

    broker.publish(*range(1, 13), text=KILOBYTE)
    path.turn()
    assert broker.is_left
    assert path.intake.link is None
    assert "outbox.max_bytes is 10000" in (path.intake.holding or "")
    assert path.pubacks == list(range(1, 13)), "what is durable is acknowledged before the broker is left"

    far_end.receipt(1, 2, 3)
    path.turn(6)
    assert path.outbox.bytes > 9_000
    assert path.intake.holding is not None

    far_end.receipt(4)
    path.turn(6)
    assert path.outbox.bytes < 9_000
    assert path.intake.holding is None


def test_the_bound_of_bytes_is_enforced_at_once_and_not_at_the_next_check(make_path: MakePath) -> None:
    path = make_path(bounds=Bounds(max_bytes=5_000))
    broker = path.connect_broker()
    path.turn()
    begin = path.clock.now

    broker.publish(1, 2, 3, 4, 5, text=KILOBYTE)
    path.turn()

    assert path.intake.holding is not None
    assert path.clock.now == begin


def test_while_new_messages_are_rejected_the_bounds_are_checked_once_a_second(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_path(bounds=Bounds(max_bytes=5_000), policy="reject_new", routes=[READINGS])
    broker = path.connect_broker()
    broker.publish(1, 2, 3, 4, 5, text=KILOBYTE)
    path.turn()
    checks: list[float] = []
    oldest_age = path.outbox.oldest_age
    begin = path.clock.now

    def counted() -> float:
        checks.append(path.clock.now)
        return oldest_age()

    monkeypatch.setattr(path.outbox, "oldest_age", counted)

    for number in range(6, 26):
        broker.publish(number, text=KILOBYTE)
        path.turn()

    assert path.pubacks == list(range(1, 26))
    assert len(checks) <= 1 + path.clock.now - begin


def test_records_that_are_too_old_hold_the_intake(make_path: MakePath) -> None:
    path = make_path(bounds=Bounds(max_age=60))
    broker = path.connect_broker()
    broker.publish(1)
    path.turn()

    begin = path.clock.now
    path.turn_until(lambda: path.intake.holding is not None)

    assert "outbox.max_age is 60" in (path.intake.holding or "")
    assert path.clock.now - begin == pytest.approx(61, abs=2)


def test_a_link_that_was_being_dialled_when_the_hold_began_is_not_read(make_path: MakePath) -> None:
    path = make_path(bounds=Bounds(max_bytes=2_000))
    broker = path.connect_broker()
    broker.publish(1, 2, text=KILOBYTE)
    path.turn()
    assert path.intake.holding is not None

    late = path.dial_broker()
    path.turn(2)

    assert path.intake.link is None
    assert not late.has_connect
    assert path.intake.holding is not None


def test_drop_oldest_makes_room_drops_what_was_never_sent_and_keeps_receiving(make_path: MakePath) -> None:
    path = make_path(policy="drop_oldest", bounds=Bounds(max_bytes=10_000))
    broker, far_end = path.reach_steady_state()
    path.worker_is_attached = False
    with capture_logs() as logged:
        for first in range(1, 25, 6):
            broker.publish(*range(first, first + 6), text=KILOBYTE)
            path.turn()

    assert sum(line["count"] for line in logged if line["event"] == "outbox.dropped") == 24 - len(path.stored)
    books, kept = path.outbox.books(), path.stored
    assert path.outbox.bytes <= 9_000
    assert path.intake.holding is None
    assert path.pubacks == list(range(1, 25))
    assert kept == list(range(25 - len(kept), 25)), "the newest are kept"
    assert books.dropped == {"outbox_full": 24 - len(kept)}
    assert books.balanced

    path.worker_is_attached = True
    path.turn(2)
    assert far_end.numbers == kept, "a record that was dropped from disk is not sent from memory"


def numbers(path: DataPath, stream: str) -> list[int]:
    """Of the stream's rows in the outbox."""
    return [
        json.loads(record.payload)["n"] for record in path.outbox.read(stream, after=0, limit=1000, max_bytes=1 << 20)
    ]


def test_with_drop_oldest_a_stream_that_is_not_delivered_makes_room_for_the_others(make_path: MakePath) -> None:
    path = make_path(policy="drop_oldest", bounds=Bounds(max_bytes=10_000))
    broker = path.connect_broker()
    path.worker_is_attached = False
    broker.publish(*range(1, 6), topic="o/1")
    path.turn()
    for first in range(10, 30, 5):
        broker.publish(*range(first, first + 5), text=KILOBYTE)
        path.turn()

    assert numbers(path, "others") == [1, 2, 3, 4, 5], "the oldest of all, but not of the stream that fills the outbox"
    kept = numbers(path, "readings")
    assert kept == list(range(30 - len(kept), 30))
    assert path.outbox.bytes <= 9_000
    assert path.outbox.books().dropped == {"outbox_full": 20 - len(kept)}


def test_with_reject_new_each_stream_has_an_equal_share_and_rejects_only_its_own_rows(make_path: MakePath) -> None:
    path = make_path(policy="reject_new", bounds=Bounds(max_bytes=10_000))
    broker = path.connect_broker()
    path.worker_is_attached = False
    for number in range(1, 9):
        broker.publish(number, text=KILOBYTE)
        path.turn()
    broker.publish(*range(10, 14), topic="o/1")
    path.turn()

    assert numbers(path, "readings") == [1, 2, 3, 4, 5], "half of the bound"
    assert numbers(path, "others") == [10, 11, 12, 13]
    assert path.pubacks == [*range(1, 9), *range(10, 14)]
    assert path.outbox.books().dropped == {"outbox_full": 3}
    assert path.outbox.books().balanced


def test_with_drop_oldest_a_stream_within_its_share_loses_nothing_to_larger_ones(make_path: MakePath) -> None:
    path = make_path(policy="drop_oldest", bounds=Bounds(max_bytes=20_000, shares={"others": 0.7}))
    broker = path.connect_broker()
    path.worker_is_attached = False
    for first in range(1, 201, 40):
        broker.publish(*range(first, first + 40), topic="o/1")
        path.turn()
    kept = path.outbox.stream_bytes["others"]
    assert 10_000 < kept < 12_600, "more than half of the bound, and within nine tenths of its share"
    for first in range(200, 220, 5):
        broker.publish(*range(first, first + 5), text=KILOBYTE)
        path.turn()

    assert numbers(path, "others") == list(range(1, 201))
    assert path.outbox.stream_bytes["readings"] <= 18_000 - kept
    assert numbers(path, "readings")[-1] == 219
    assert path.outbox.books().balanced


def test_with_drop_oldest_room_that_others_leave_is_used(make_path: MakePath) -> None:
    path = make_path(policy="drop_oldest", bounds=Bounds(max_bytes=10_000, shares={"readings": 0.1}))
    broker = path.connect_broker()
    path.worker_is_attached = False
    for number in range(1, 9):
        broker.publish(number, text=KILOBYTE)
        path.turn()

    assert numbers(path, "readings") == list(range(1, 9))


def test_with_reject_new_a_stream_never_has_more_than_its_share(make_path: MakePath) -> None:
    path = make_path(policy="reject_new", bounds=Bounds(max_bytes=10_000, shares={"readings": 0.2}))
    broker = path.connect_broker()
    path.worker_is_attached = False
    with capture_logs() as logged:
        for number in range(1, 9):
            broker.publish(number, text=KILOBYTE)
            path.turn()
        path.turn(3)  # it is logged once a second

    assert numbers(path, "readings") == [1, 2]
    assert path.outbox.books().dropped == {"outbox_full": 6}
    (line,) = [line for line in logged if line["event"] == "outbox.rejecting"]
    assert line["streams"] == ["readings"]
    assert "outbox.shares" in line["reason"]


def test_a_change_of_shares_takes_effect_with_the_next_message(make_path: MakePath) -> None:
    path = make_path(policy="reject_new", bounds=Bounds(max_bytes=10_000, shares={"readings": 0.1}))
    broker = path.connect_broker()
    path.worker_is_attached = False
    broker.publish(1, text=KILOBYTE)
    path.turn()
    broker.publish(2, text=KILOBYTE)
    path.turn()
    assert numbers(path, "readings") == [1]

    change = Change(path.mapper(READINGS, OTHERS), ("readings", "others"), {"readings": 0.5}, lambda: None)
    path.inbox.change(change)
    broker.publish(3, text=KILOBYTE)
    path.turn()

    assert numbers(path, "readings") == [1, 3]


def test_in_one_commit_only_the_rows_of_the_stream_with_its_share_are_rejected(make_path: MakePath) -> None:
    path = make_path(policy="reject_new", bounds=Bounds(max_bytes=4_000))
    broker, far_end = path.connect_broker(), path.connect_far_end("others")
    broker.publish(1, 2, text=KILOBYTE)
    path.turn()
    broker.publish(3, 4, text=KILOBYTE)
    broker.publish(5, 6, topic="o/1")
    path.turn(2)

    assert numbers(path, "readings") == [1, 2]
    assert far_end.numbers == [5, 6]
    far_end.receipt(5, 6)
    path.turn_until(lambda: not numbers(path, "others"))
    assert path.outbox.books().delivered == 2
    assert path.outbox.books().balanced


def test_drop_oldest_leaves_records_alone_that_gdn_may_have_already(make_path: MakePath) -> None:
    path = make_path(policy="drop_oldest", bounds=Bounds(max_bytes=10_000))
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2, 3, text=KILOBYTE)
    path.turn()
    assert far_end.numbers == [1, 2, 3]

    path.worker_is_attached = False
    broker.publish(*range(4, 14), text=KILOBYTE)
    path.turn(2)

    assert path.stored[:3] == [1, 2, 3]
    assert path.outbox.books().dropped["outbox_full"] > 0


def test_memory_holds_a_bounded_number_of_bytes_and_the_rest_comes_back_from_disk(make_path: MakePath) -> None:
    path = make_path()
    broker, far_end = path.reach_steady_state()
    path.worker_is_attached = False
    text, count = "x" * 100_000, 200
    assert count * len(text) > 2 * MEMORY_BYTES

    for n in range(1, count + 1):
        broker.publish(n, text=text)
        path.turn()
    assert held_bytes(path) <= MEMORY_BYTES + BATCH_BYTES

    path.worker_is_attached = True
    path.turn(4)
    in_window = path.delivery().in_window
    assert in_window
    assert in_window * len(text) + held_bytes(path) <= MEMORY_BYTES + BATCH_BYTES

    def all_are_sent() -> bool:
        assert held_bytes(path) <= MEMORY_BYTES + BATCH_BYTES
        far_end.receipt()
        return len(far_end.numbers) == count

    path.turn_until(all_are_sent)
    assert far_end.numbers == list(range(1, count + 1))


def held_bytes(path: DataPath) -> int:
    """Of the records that wait in memory, whatever the delivery itself thinks of them."""
    return sum(record.size for record in path.delivery()._ready)


def test_memory_holds_a_bounded_number_of_records(make_path: MakePath) -> None:
    path = make_path()
    broker, _ = path.reach_steady_state()
    path.worker_is_attached = False
    for first in range(1, 6001, 500):
        broker.publish(*range(first, first + 500))
        path.turn(2)

    assert len(path.delivery()._ready) <= MEMORY_RECORDS < path.outbox.books().outbox == 6000


def test_a_commit_that_fails_half_way_stores_nothing_and_leaves_the_outbox_usable(path: DataPath) -> None:
    unstorable = DeadLetter("t", {"no": "bytes"}, 1, 1, None, "no_route", "")  # type: ignore[arg-type]

    with pytest.raises(OutboxUnavailable, match="can't commit to"):
        path.outbox.commit(Commit(rows=[Row("readings", b'{"n":1}')], dead_letters=[unstorable]))

    assert path.stored == []
    assert path.outbox.books().received == 0
    (record,) = path.outbox.commit(Commit(rows=[Row("readings", b'{"n":2}')]))
    assert path.stored == [2]
    assert record.id == 1, "the id that was not used is given out"


def test_nothing_more_is_sent_while_the_outbox_cannot_release(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2)
    path.turn()
    path.outbox.failing = True
    far_end.receipt()
    path.turn(10)

    assert path.delivery().outcomes().released == (1, 2)
    path.outbox.failing = False
    path.turn(5)
    assert path.delivery().outcomes().released == ()
    assert path.stored == []


def test_a_reserve_that_was_used_without_a_hold_is_reported_and_made_again_within_a_minute(
    make_path: MakePath, tmp_path: Path
) -> None:
    path = make_path()
    reserve = tmp_path / "outbox.db.reserve"
    reserve.unlink()
    path.turn(3)
    assert reserve.exists(), "the first time at once"
    reserve.unlink()

    path.turn(3)
    status = path.pipeline.outbox_status
    assert (status.state, "there is no reserve" in (status.error or "")) == ("connected", True)
    assert path.pipeline.snapshot.outbox.error is None, "it works"

    begin = path.clock.now
    while path.pipeline.outbox_status.error is not None:
        path.turn()
        assert path.clock.now - begin < 62

    assert reserve.exists()
