"""One read may become gigabytes of rows: what a turn maps, commits, keeps in memory and sends is bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest

from bridge.gdn.producer import OUTGOING_BYTES
from bridge.links import link
from bridge.mapping import Mapper, Route
from bridge.message import MqttMessage, Row
from bridge.outbox import Bounds, Commit
from bridge.path import arrivals
from bridge.path.arrivals import SLICE_BYTES, SLICE_SECONDS
from bridge.path.delivery import OWN_BYTES, PAGE_BYTES, SHARED_BYTES
from tests.faults.mqtt_packets import publish
from tests.path.harness import OTHERS, READINGS, STREAMS, Broker, DataPath

MakePath = Callable[..., DataPath]

HEAVY = Route("h/{text}", "readings")
"""Each row repeats the topic."""
TOPIC = "h/" + "t" * 60_000
ROWS = 52
"""Of a heavy message: two of them fill a slice."""
MESSAGE_ROWS_BYTES = ROWS * len(TOPIC)


@pytest.fixture
def path(make_path: MakePath) -> DataPath:
    return make_path(routes=(READINGS, OTHERS, HEAVY))


@pytest.fixture
def deduplicating(make_path: MakePath) -> DataPath:
    return make_path(routes=(READINGS, OTHERS, HEAVY), deduplicates=True)


def send_heavy(broker: Broker, *numbers: int, dup: bool = False) -> None:
    """Messages of 60 kB that become 3 MB of rows; number and packet id are the same. A socket pair holds three."""
    for n in numbers:
        broker.send(publish(TOPIC, json.dumps([{"n": n}] * ROWS).encode(), n, dup=dup))


def commits(path: DataPath) -> list[list[int]]:
    """The numbers of the messages of each commit that stored something."""
    return [list(dict.fromkeys(what[0])) for name, what in path.events if name == "committed" and what[0]]


def test_a_read_is_committed_in_slices_and_each_is_acknowledged_before_the_next(path: DataPath) -> None:
    broker = path.connect_broker()
    path.events.clear()

    send_heavy(broker, 1, 2, 3)
    path.turn(2)

    assert [(name, what) for name, what in path.events if name == "puback"] == [("puback", [1, 2]), ("puback", [3])]
    assert [name for name, _ in path.events] == ["commit begins", "committed", "puback"] * 2
    assert commits(path) == [[1, 2], [3]]


def test_what_is_left_of_a_read_is_mapped_without_waiting(path: DataPath) -> None:
    broker = path.connect_broker()
    begin = path.clock.now

    send_heavy(broker, 1, 2, 3)
    path.turn(2)

    assert path.clock.now == begin
    assert path.pubacks == [1, 2, 3]


def test_the_bound_of_the_outbox_is_exceeded_by_one_slice_at_most(make_path: MakePath) -> None:
    path = make_path(routes=(HEAVY,), bounds=Bounds(max_bytes=1 << 20))
    broker = path.connect_broker()

    send_heavy(broker, 1, 2, 3)
    path.turn()

    assert path.outbox.bytes <= (1 << 20) + SLICE_BYTES + MESSAGE_ROWS_BYTES
    assert path.intake.holding is not None
    assert path.pubacks == [1, 2], "what the broker is left with comes again"
    path.turn(3)
    assert commits(path) == [[1, 2]]


def test_rows_without_content_fill_a_slice_too(path: DataPath) -> None:
    broker = path.connect_broker()
    rows = SLICE_BYTES // arrivals.OBJECT_BYTES
    tiny = json.dumps([{"n": 1}] * rows).encode()

    broker.send(publish("o/1", tiny, 1) + publish("o/1", tiny, 2))
    path.turn(4)

    assert path.pubacks == [1, 2]
    assert [len(what[0]) for name, what in path.events if name == "committed"] == [rows, rows]


def test_dead_letters_fill_a_slice_too(path: DataPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SLICE_BYTES", 3 * arrivals.OBJECT_BYTES)
    broker = path.connect_broker()

    broker.publish(1, 2, 3, 4, topic="unknown/topic")
    path.turn(2)

    assert [what for name, what in path.events if name == "puback"] == [[1, 2, 3], [4]]


def test_messages_that_are_slow_to_map_fill_a_slice_too(path: DataPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MEASURED_TOGETHER", 1)
    broker, real = path.connect_broker(), Mapper.map

    def slow(mapper: Mapper, message: MqttMessage, next_id: int = 0) -> object:
        path.clock.now += 0.4 * SLICE_SECONDS
        return real(mapper, message, next_id)

    monkeypatch.setattr(Mapper, "map", slow)
    broker.publish(1, 2, 3, 4, 5)
    path.turn(2)

    assert commits(path) == [[1, 2, 3], [4, 5]]


def test_a_stream_that_fills_slices_does_not_delay_the_others(path: DataPath) -> None:
    broker = path.connect_broker()
    others = path.connect_far_end("others")
    send_heavy(broker, 1, 2, 3)
    broker.publish(4, topic="o/1")
    path.turn(2)

    assert commits(path) == [[1, 2], [4]]
    assert others.numbers == [4]
    assert path.pubacks == [1, 2], "PUBACKs keep the order of arrival"

    path.turn()
    assert path.pubacks == [1, 2, 3, 4]


def test_what_arrives_later_for_another_stream_waits_for_one_slice_at_most(path: DataPath) -> None:
    broker, stored_soon = path.connect_broker(), []
    send_heavy(broker, 1, 2, 3)
    path.turn()
    for n in range(10, 16):
        broker.publish(n, topic="o/1")
        send_heavy(broker, n + 100)
        path.turn(2)
        stored_soon.append(any(n in stored for stored in commits(path)))

    assert all(stored_soon)
    path.turn(10)
    assert path.pubacks == [1, 2, 3, *(packet_id for n in range(10, 16) for packet_id in (n, n + 100))]


def test_messages_of_a_stream_keep_their_order_behind_those_that_fill_slices(path: DataPath) -> None:
    broker = path.connect_broker()

    send_heavy(broker, 1, 2, 3)
    broker.publish(4, topic="d/1")
    broker.publish(5, topic="o/1")
    broker.publish(6, topic="d/1")
    path.turn(3)

    assert commits(path) == [[1, 2], [5], [3, 4, 6]]
    assert path.pubacks == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("bound", [("READ_AHEAD_BYTES", 50_000), ("READ_AHEAD_MESSAGES", 1)])
def test_nothing_more_is_read_while_too_many_messages_wait(
    path: DataPath, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int]
) -> None:
    monkeypatch.setattr(arrivals, *bound)
    broker = path.connect_broker()
    send_heavy(broker, 1, 2, 3)
    path.turn()

    send_heavy(broker, 4)
    path.turn()
    assert path.intake.messages == 3
    path.turn()
    assert path.pubacks == [1, 2, 3, 4]


def test_while_messages_wait_all_that_has_arrived_behind_them_is_read(
    path: DataPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = path.connect_broker()
    send_heavy(broker, 1, 2, 3)
    path.turn()

    monkeypatch.setattr(link, "READ_SIZE", 70_000)
    send_heavy(broker, 4, 5)
    path.turn()

    assert path.intake.messages == 5


def test_what_waits_is_measured_until_it_is_acknowledged(path: DataPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "READ_AHEAD_BYTES", 150_000)
    broker = path.connect_broker()
    send_heavy(broker, 1, 2, 3)
    path.turn()
    send_heavy(broker, 4, 5, 6)
    path.turn()
    assert path.pubacks == [1, 2, 3, 4]

    send_heavy(broker, 7)
    path.turn()
    assert path.intake.messages == 7, "5 and 6 are below the bound"


def test_what_waits_when_the_link_breaks_is_stored_once_when_it_comes_again(path: DataPath) -> None:
    broker = path.connect_broker()
    send_heavy(broker, 1, 2, 3)
    path.turn()
    path.intake.drop("broken")
    path.turn(2)
    assert commits(path) == [[1, 2]]

    again = path.connect_broker(session_present=True)
    send_heavy(again, 3, dup=True)
    path.turn(2)

    assert commits(path) == [[1, 2], [3]]
    assert path.pubacks == [1, 2, 3]


def test_when_a_later_slice_cannot_be_committed_only_earlier_ones_are_acknowledged(path: DataPath) -> None:
    broker = path.connect_broker()
    send_heavy(broker, 1, 2, 3)
    path.turn()

    path.outbox.failing = True
    path.turn(2)

    assert path.pubacks == [1, 2]
    assert broker.is_left
    assert path.outbox.books().received == 2 * ROWS


def test_with_deduplication_nothing_is_overtaken_and_each_slice_has_its_fence(deduplicating: DataPath) -> None:
    broker = deduplicating.connect_broker()
    send_heavy(broker, 1, 2, 3)
    broker.publish(4, topic="o/1")

    deduplicating.turn()
    assert (commits(deduplicating), deduplicating.pubacks) == ([[1, 2]], [1])
    deduplicating.turn()
    assert (commits(deduplicating), deduplicating.pubacks) == ([[1, 2], [3, 4]], [1, 2, 3])
    deduplicating.turn_until(lambda: deduplicating.pubacks == [1, 2, 3, 4])


def test_with_deduplication_what_a_crash_leaves_between_two_slices_is_stored_once(
    make_path: MakePath, deduplicating: DataPath
) -> None:
    send_heavy(deduplicating.connect_broker(), 1, 2, 3)
    deduplicating.turn()
    deduplicating.outbox._disconnect_and_unlock()  # the process ends without a word

    path = make_path(routes=(READINGS, OTHERS, HEAVY), deduplicates=True)
    broker = path.connect_broker(session_present=True)
    send_heavy(broker, 2, 3, dup=True)
    path.turn(3)

    assert commits(path) == [[3]]
    assert path.intake.skipped == 1
    assert sorted(set(path.stored)) == [1, 2, 3]
    assert len(path.stored) == 3 * ROWS


def test_with_deduplication_nothing_is_read_while_a_message_waits(deduplicating: DataPath) -> None:
    broker = deduplicating.connect_broker()
    send_heavy(broker, 1, 2, 3)
    deduplicating.turn()
    send_heavy(broker, 4)
    deduplicating.turn()
    assert deduplicating.intake.messages == 3

    deduplicating.turn(2)
    assert deduplicating.intake.messages == 4


# --- outbound -------------------------------------------------------------------------------------------------


def test_a_turn_frames_a_bounded_number_of_bytes(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    send_heavy(broker, 1)

    sends = [0]
    for _ in range(20):
        path.turn()
        sends.append(path.pipeline.snapshot.traffic.sends)

    assert max(after - before for before, after in pairwise(sends)) <= OUTGOING_BYTES // len(TOPIC) + 1
    assert far_end.numbers == [1] * ROWS


def test_the_streams_together_keep_a_bounded_number_of_bytes_in_memory(make_path: MakePath) -> None:
    streams = [f"s{n}" for n in range(8)]
    path = make_path(worker_is_attached=False, streams={**STREAMS, **dict.fromkeys(streams, STREAMS["readings"])})
    deliveries = [path.make_sender(stream).delivery for stream in streams]
    size, held = 100_000, []

    for stream, delivery in zip(streams, deliveries, strict=True):
        path.outbox.commit(Commit(rows=[Row(stream, b'{"n": 1, "text": "%b"}' % (b"x" * size))] * 100))
        sent = [delivery.take(1, 0.0) for _ in range(100)]
        held.append(size * (sum(map(len, sent)) + len(delivery._ready)))

    assert sum(held) <= SHARED_BYTES + PAGE_BYTES + len(streams) * (OWN_BYTES + size)
    assert min(held) >= size, "each has at least one"
