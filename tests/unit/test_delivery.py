from __future__ import annotations

from bridge.gdn.protocol import Refusal
from bridge.message import DeadLetter, OutboxRecord
from bridge.outbox import RefusedRecord
from bridge.path.delivery import (
    MEMORY_BYTES,
    MEMORY_RECORDS,
    OWN_BYTES,
    PAGE_BYTES,
    PAGE_RECORDS,
    SHARED_BYTES,
    Delivery,
    RecordMemory,
)
from bridge.timing import Backoff


class Disk:
    """What the outbox holds for one stream; counts how often it is read."""

    def __init__(self, count: int = 0, size: int = 1) -> None:
        self._payload = b"x" * size
        self.records = [OutboxRecord(n, "s", self._payload) for n in range(1, count + 1)]
        self.reads = 0
        self.max_bytes: list[int] = []
        """Of each read."""

    def add(self, count: int) -> list[OutboxRecord]:
        first = len(self.records) + 1
        new = [OutboxRecord(n, "s", self._payload) for n in range(first, first + count)]
        self.records += new
        return new

    def read(self, *, after: int, limit: int, max_bytes: int) -> list[OutboxRecord]:
        self.reads += 1
        self.max_bytes.append(max_bytes)
        page = []
        for record in [r for r in self.records if r.id > after][:limit]:
            page.append(record)
            max_bytes -= record.size
            if max_bytes <= 0:
                break
        return page


def delivery(disk: Disk) -> Delivery:
    return Delivery(stream="s", read=disk.read, memory=RecordMemory(), backoff=Backoff(base=1, cap=10, rng=lambda: 1.0))


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
        d.take_receipts(ids(records), len(records))
        d.confirm(d.outcomes())
        assert len(d._ready) <= MEMORY_RECORDS + PAGE_RECORDS
    assert taken == list(range(1, 15_001))


def test_unreceipted_records_go_again_first_and_in_order_after_the_link_is_lost() -> None:
    disk = Disk(6)
    d = delivery(disk)
    sent = d.take(4, 0.0)
    d.take_receipts([2], 1)

    d.link_lost([r for r in sent if r.id != 2])

    assert ids(d.take(10, 0.0)) == [1, 3, 4, 5, 6]
    assert d.outcomes().released == (2,)


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

    (refused,) = d.outcomes().refused
    assert (refused.record_id, refused.dead_letter.reason) == (1, "refused_by_gdn")
    assert "send-error:7" in refused.dead_letter.detail
    assert ids(d.take(5, 10.0)) == [2]


def test_a_page_from_disk_is_bounded_in_bytes() -> None:
    disk = Disk(5, size=PAGE_BYTES // 2)
    d = delivery(disk)

    d.take(1, 0.0)

    assert disk.max_bytes == [PAGE_BYTES]


def test_records_to_send_at_once_are_bounded_in_bytes() -> None:
    d = delivery(Disk(9, size=100))

    assert ids(d.take(9, 0.0, max_bytes=250)) == [1, 2, 3]
    assert ids(d.take(9, 0.0, max_bytes=1)) == [4], "one record goes whatever its size"
    assert d.take(9, 0.0, max_bytes=0) == []
    assert ids(d.take(2, 0.0, max_bytes=1000)) == [5, 6]


def test_a_batch_that_would_exceed_the_memory_stays_on_disk() -> None:
    disk = Disk()
    d = delivery(disk)
    d.take(1, 0.0)

    d.offer([OutboxRecord(n, "s", bytes(MEMORY_BYTES // 2)) for n in (1, 2, 3)])

    assert not d._ready


def test_there_is_no_work_while_sent_records_fill_the_memory() -> None:
    disk = Disk(9, size=LARGE)
    d = delivery(disk)
    while sent := d.take(1, 0.0):
        last = sent
    assert not d.has_work

    d.take_receipts(ids(last), LARGE)
    assert d.has_work


def test_streams_that_fill_the_shared_memory_leave_the_others_a_small_part() -> None:
    memory = RecordMemory()
    memory.add(SHARED_BYTES)
    disk = Disk(9, size=OWN_BYTES // 2)
    d = Delivery(stream="s", read=disk.read, memory=memory)

    assert ids(d.take(9, 0.0)) == [1, 2]
    assert disk.max_bytes == [OWN_BYTES]
    assert d.take(9, 0.0) == []

    memory.add(-SHARED_BYTES)
    assert ids(d.take(9, 0.0)) == [3, 4, 5, 6, 7, 8, 9]


# --- sequence numbers ----------------------------------------------------------------------------------


def numbered_delivery(disk: Disk) -> Delivery:
    return Delivery(
        stream="s",
        read=disk.read,
        memory=RecordMemory(),
        deduplicates=True,
        backoff=Backoff(base=1, cap=10, rng=lambda: 1.0),
    )


def test_records_get_dense_numbers_when_they_are_first_sent_and_keep_them() -> None:
    disk = Disk(5)
    d = numbered_delivery(disk)
    assert d.initial_sequence_id == 0
    sent = d.take(3, 0.0)
    assert d.number(sent) == [(1, 1), (2, 2), (3, 3)]

    d.link_lost(sent)
    assert d.initial_sequence_id == 0
    again = d.take(5, 0.0)
    assert ids(again) == [1, 2, 3, 4, 5]
    assert d.number(again) == [(4, 4), (5, 5)]


def test_behind_a_gap_a_record_goes_last_and_with_a_new_number() -> None:
    disk = Disk(4)
    d = numbered_delivery(disk)
    sent = d.take(4, 0.0)
    d.number(sent)
    d.take_receipts([2], 1)

    d.link_lost([r for r in sent if r.id != 2])

    assert d.initial_sequence_id == 2
    again = d.take(10, 0.0)
    assert ids(again) == [3, 4, 1]
    assert d.number(again) == [(5, 1)]


def test_what_an_earlier_run_had_sent_goes_first_with_its_numbers() -> None:
    disk = Disk(5)
    d = numbered_delivery(disk)

    d.resume([(disk.records[1], 9), (disk.records[2], 12), (disk.records[3], 13)], 13)

    assert d.initial_sequence_id == 11
    taken = d.take(10, 0.0)
    assert ids(taken) == [3, 4, 2, 1, 5], "the disk's page holds them too and must not bring them twice"
    assert d.number(taken) == [(14, 2), (15, 1), (16, 5)]


def test_after_a_refusal_no_number_of_the_connection_is_used_again() -> None:
    disk = Disk(3)
    d = numbered_delivery(disk)
    sent = d.take(3, 0.0)
    d.number(sent)

    d.refuse([Refusal(sent[1], "send-error:8", "busy")], 0.0, 0)
    d.link_lost([sent[0], sent[2]])

    assert sorted(d.outcomes().unnumbered) == [1, 2, 3]
    assert d.initial_sequence_id == 3
    assert d.number(d.take(3, 10.0)) == [(4, 1), (5, 2), (6, 3)]


def test_numbers_that_did_not_get_to_the_disk_are_given_again() -> None:
    disk = Disk(2)
    d = numbered_delivery(disk)
    taken = d.take(2, 0.0)
    numbers = d.number(taken)

    d.put_back(taken, numbers)

    assert d.initial_sequence_id == 0
    assert d.number(d.take(2, 0.0)) == numbers


def test_without_deduplication_at_the_far_end_everything_goes_in_arrival_order() -> None:
    disk = Disk(4)
    d = numbered_delivery(disk)
    d.resume([(disk.records[2], 7)], 7)

    d.fall_back()

    assert not d.deduplicates
    assert ids(d.take(1, 0.0)) == [3]


def test_what_waits_behind_higher_numbers_returns_to_arrival_order_without_deduplication() -> None:
    disk = Disk(4)
    d = numbered_delivery(disk)
    sent = d.take(4, 0.0)
    d.number(sent)
    d.take_receipts([2], 1)
    d.link_lost([r for r in sent if r.id != 2])

    d.fall_back()

    assert ids(d.take(10, 0.0)) == [1, 3, 4]


# --- bounds --------------------------------------------------------------------------------------------


def test_what_was_never_sent_leaves_memory_and_is_read_again_from_disk() -> None:
    disk = Disk(10)
    d = delivery(disk)
    sent = d.take(3, 0.0)

    d.unload()
    disk.records = [r for r in disk.records if r.id not in (4, 5)]

    assert d.sent_to == 3
    d.link_lost(sent)
    assert ids(d.take(20, 0.0)) == [1, 2, 3, 6, 7, 8, 9, 10]


def test_nothing_more_is_sent_while_the_disk_takes_no_releases() -> None:
    disk = Disk(2 * MEMORY_RECORDS)
    d = delivery(disk)
    while taken := d.take(500, 0.0):
        d.take_receipts(ids(taken), len(taken))

    assert MEMORY_RECORDS <= len(d.outcomes().released) <= MEMORY_RECORDS + 500
    d.confirm(d.outcomes())
    assert d.take(1, 0.0)


# --- accounting: what leaves memory and the window makes room again ---------------------------------------


LARGE = MEMORY_BYTES // 4
"""Bytes of a record of which four fill memory."""


def steady(disk: Disk) -> Delivery:
    """A delivery that has caught up with the disk: what is offered goes through memory."""
    d = delivery(disk)
    d.take(1, 0.0)
    return d


def test_receipted_bytes_make_room_in_memory() -> None:
    disk = Disk(size=LARGE)
    d = steady(disk)
    reads = disk.reads

    for _ in range(12):
        d.offer(disk.add(1))
        (record,) = d.take(1, 0.0)
        d.take_receipts([record.id], record.size)
    assert disk.reads == reads


def test_refused_bytes_make_room_in_memory() -> None:
    disk = Disk(size=LARGE)
    d = steady(disk)
    reads = disk.reads

    for _ in range(12):
        d.offer(disk.add(1))
        (record,) = d.take(1, 0.0)
        d.refuse([Refusal(record, "send-error:7", "bad")], 0.0, 0)
    assert disk.reads == reads


def test_bytes_of_an_earlier_process_count() -> None:
    disk = Disk(5, size=LARGE)
    d = numbered_delivery(disk)
    d.resume([(record, number) for number, record in enumerate(disk.records, start=1)], 5)

    assert len(d.take(10, 0.0)) == 5
    assert disk.reads == 0, "memory is full: the disk is not read"
    d.take_receipts(ids(disk.records[:3]), 3 * LARGE)
    d.take(10, 0.0)
    assert disk.reads == 1


def test_what_leaves_the_window_no_longer_counts() -> None:
    disk = Disk(9)
    d = delivery(disk)
    sent = d.take(9, 0.0)
    assert d.in_window == 9

    d.take_receipts([sent[0].id, sent[1].id], 2)
    assert d.in_window == 7
    d.refuse([Refusal(sent[2], "send-error:7", "bad"), Refusal(sent[3], "send-error:8", "busy")], 0.0, 0)
    assert d.in_window == 5
    d.link_lost(sent[4:])
    assert d.in_window == 0


def test_records_put_back_leave_the_window() -> None:
    disk = Disk(3)
    d = numbered_delivery(disk)
    taken = d.take(3, 0.0)

    d.put_back(taken, d.number(taken))

    assert d.in_window == 0


def test_the_pause_grows_with_each_refusal_and_starts_anew_after_a_receipt() -> None:
    disk = Disk(2)
    d = delivery(disk)
    first, second = d.take(2, 0.0)
    busy = [Refusal(first, "send-error:8", "busy")]

    d.refuse(busy, 0.0, 0)
    assert d.paused_until == 1.0
    d.take(1, 10.0)
    d.refuse(busy, 10.0, 0)
    assert d.paused_until == 12.0

    d.take_receipts([], 0)
    d.take(1, 20.0)
    d.refuse(busy, 20.0, 0)
    assert d.paused_until == 24.0, "no receipt, no new start"

    d.take_receipts([second.id], 1)
    d.take(1, 30.0)
    d.refuse(busy, 30.0, 0)
    assert d.paused_until == 31.0


def test_the_dead_letter_of_a_refused_record_has_its_row_and_what_gdn_said() -> None:
    disk = Disk(1)
    d = delivery(disk)
    (record,) = d.take(1, 0.0)

    d.refuse([Refusal(record, "send-error:7", "bad")], 10.0, 99)

    detail = "GDN refused the row for stream s: send-error:7 bad"
    expected = DeadLetter("", record.payload, 1, 99, None, "refused_by_gdn", detail)
    assert d.outcomes().refused == (RefusedRecord(record.id, expected),)


def test_only_what_was_committed_is_confirmed() -> None:
    disk = Disk(6)
    d = numbered_delivery(disk)
    sent = d.take(6, 0.0)
    d.number(sent)
    d.take_receipts([1], 1)
    d.refuse([Refusal(sent[1], "send-error:7", "bad")], 0.0, 0)
    committed = d.outcomes()
    assert (committed.released, len(committed.refused), committed.unnumbered) == ((1,), 1, (2, 3, 4, 5, 6))
    d.take_receipts([3], 1)
    d.refuse([Refusal(sent[3], "send-error:7", "bad")], 0.0, 0)

    d.confirm(committed)

    left = d.outcomes()
    assert (left.released, [refused.record_id for refused in left.refused], left.unnumbered) == ((3,), [4], ())


def test_a_record_without_a_number_goes_after_the_one_with_the_last_number() -> None:
    disk = Disk(6)
    d = numbered_delivery(disk)
    d.resume([(disk.records[4], 3)], 3)

    d.link_lost([disk.records[1]])

    assert ids(d.take(2, 0.0)) == [5, 2]
