from __future__ import annotations

from bridge.delivery import MEMORY_RECORDS, PAGE_RECORDS, Delivery
from bridge.gdn.protocol import Refusal
from bridge.message import OutboxRecord
from bridge.timing import Backoff


class Disk:
    """What the outbox holds for one stream; counts how often it is read."""

    def __init__(self, count: int = 0) -> None:
        self.records = [OutboxRecord(n, "s", b"x") for n in range(1, count + 1)]
        self.reads = 0

    def add(self, count: int) -> list[OutboxRecord]:
        first = len(self.records) + 1
        new = [OutboxRecord(n, "s", b"x") for n in range(first, first + count)]
        self.records += new
        return new

    def read(self, after: int, limit: int) -> list[OutboxRecord]:
        self.reads += 1
        return [r for r in self.records if r.id > after][:limit]


def delivery(disk: Disk) -> Delivery:
    return Delivery(stream="s", read=disk.read, backoff=Backoff(base=1, cap=10, rng=lambda: 1.0))


def ids(records: list[OutboxRecord]) -> list[int]:
    return [r.id for r in records]


def test_what_an_earlier_run_left_goes_first() -> None:
    disk = Disk(3)
    d = delivery(disk)
    d.offer(disk.add(2))

    assert ids(d.take(10, 0.0)) == [1, 2, 3, 4, 5]


def test_in_the_steady_state_the_disk_is_not_read() -> None:
    disk = Disk()
    d = delivery(disk)
    d.take(1, 0.0)
    reads = disk.reads

    for _ in range(5):
        d.offer(disk.add(10))
        assert len(d.take(10, 0.0)) == 10
    assert disk.reads == reads


def test_memory_is_bounded_and_nothing_is_skipped_or_doubled_when_it_overflows() -> None:
    disk = Disk()
    d = delivery(disk)
    d.take(1, 0.0)
    for _ in range(30):
        d.offer(disk.add(500))

    assert len(d._ready) <= MEMORY_RECORDS
    taken = []
    while records := d.take(100, 0.0):
        taken += ids(records)
        d.settle(ids(records), len(records))
        assert len(d._ready) <= MEMORY_RECORDS + PAGE_RECORDS
    assert taken == list(range(1, 15_001))


def test_unreceipted_records_go_again_first_and_in_order_after_the_link_is_lost() -> None:
    disk = Disk(6)
    d = delivery(disk)
    sent = d.take(4, 0.0)
    d.settle([2], 1)

    d.lost([r for r in sent if r.id != 2])

    assert ids(d.take(10, 0.0)) == [1, 3, 4, 5, 6]
    assert d.released == [2]


def test_a_record_gdn_could_not_take_goes_again_after_a_pause() -> None:
    disk = Disk(3)
    d = delivery(disk)
    (first,) = d.take(1, 0.0)

    d.refuse([Refusal(first, "send-error:8", "busy")], 10.0, 0)

    assert d.take(5, 10.5) == []
    assert ids(d.take(5, 11.0)) == [1, 2, 3]


def test_a_record_gdn_will_never_take_becomes_a_dead_letter() -> None:
    disk = Disk(2)
    d = delivery(disk)
    (first,) = d.take(1, 0.0)

    d.refuse([Refusal(first, "send-error:7", "bad")], 10.0, 99)

    (refused,) = d.refused
    assert (refused.record_id, refused.dead_letter.reason) == (1, "refused_by_gdn")
    assert "send-error:7" in refused.dead_letter.detail
    assert ids(d.take(5, 10.0)) == [2]
