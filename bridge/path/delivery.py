"""One stream's records between outbox and GDN: which to send next, which to send again, which to release.

Normally a record stays in memory from its commit until it is sent. When memory is full, and after a restart, records
are read back from disk. Used by the pipeline thread.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from bridge.gdn.protocol import Refusal, reusable_from
from bridge.log import redacted
from bridge.message import DeadLetter, OutboxRecord, total_size
from bridge.outbox import RefusedRecord
from bridge.reasons import Reason
from bridge.timing import Backoff

MEMORY_RECORDS = 4000
"""Records kept in memory for a stream, sent or not."""

MEMORY_BYTES = 8 * 1024 * 1024
"""Bytes of records kept in memory for a stream, sent or not; further records stay on disk."""

SHARED_BYTES = 24 * 1024 * 1024
"""Bytes of records kept in memory for all streams together; beyond it, each has only ``OWN_BYTES``."""

OWN_BYTES = 64 * 1024
"""Bytes of records that a stream may keep in memory whatever the others keep."""

PAGE_RECORDS = 500
"""Records read back at a time."""

PAGE_BYTES = 1024 * 1024
"""Bytes of records read back at a time; at least one record is read."""


class ReadRecords(Protocol):
    """Reads the stream's records back from disk (``Outbox.read``)."""

    def __call__(self, *, after: int, limit: int, max_bytes: int) -> list[OutboxRecord]:
        """The next records above the id ``after``, oldest first."""


class RecordMemory:
    """Counts the bytes of records that the deliveries sharing it keep in memory."""

    def __init__(self) -> None:
        self._bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether it holds less than ``SHARED_BYTES``."""
        return self._bytes < SHARED_BYTES

    def add(self, size: int) -> None:
        """Count bytes that were loaded; negative: released."""
        self._bytes += size


class RecordOutcomes(NamedTuple):
    """What became of sent records, for the next commit to make durable."""

    released: tuple[int, ...]
    """Ids of receipted records: they leave the outbox."""
    refused: tuple[RefusedRecord, ...]
    """Permanently refused records: they become dead letters."""
    unnumbered: tuple[int, ...]
    """Ids of records whose sequence number must not be used again."""


class PageInCurrentForm(NamedTuple):
    """A page of records from disk, for the current worker."""

    records: Sequence[OutboxRecord]
    """Those that it takes, converted if necessary."""
    outdated: Sequence[RefusedRecord] = ()
    """Those that it doesn't take: they become dead letters."""


class Delivery:
    """The records of one stream.

    Records are sent in arrival order. After a reconnect all records without a receipt are sent again, in their order.
    A record that GDN could not take (``send-error:8``) is sent again: later ones that were already sent stay ahead of
    it, unsent ones follow it.

    With ``deduplicates`` each record gets a sequence number when it is first sent. On a new connection it keeps the
    number only if no higher one is known to be stored: see ``reusable_from``.

    Args:
        stream: the GDN stream's name.
        read: the stream's records on disk.
        memory: shared with the deliveries of the other streams.
        convert: converts records from disk to the form that the current worker takes.
        row_format: version of the form that new records have, for the dead letters that they may become.
        deduplicates: whether records get sequence numbers.
        backoff: before records that GDN could not take are sent again.
    """

    def __init__(
        self,
        *,
        stream: str,
        read: ReadRecords,
        memory: RecordMemory,
        convert: Callable[[Sequence[OutboxRecord]], PageInCurrentForm] = PageInCurrentForm,
        row_format: str = "",
        deduplicates: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        self.stream = stream
        self.deduplicates = deduplicates
        self._read = read
        self._memory = memory
        self._convert = convert
        self._row_format = row_format
        self._backoff = backoff or Backoff(base=0.2, cap=30.0)
        self._ready: deque[OutboxRecord] = deque()
        self._in_window = 0
        self._bytes = 0  # of payloads, ready or in the window
        self._loaded_to = 0  # every record up to this id is, or was, in memory
        self._sent_to = 0
        self._has_more_on_disk = True  # the disk may hold records above _loaded_to
        self._paused_until = 0.0
        self._numbers: dict[int, int] = {}  # by record id: sent and without a receipt
        self._last_number = 0
        self._resumed: frozenset[int] = frozenset()  # ids loaded by resume; a page from disk may bring them again
        # Not committed yet: see RecordOutcomes.
        self._released: list[int] = []
        self._refused: list[RefusedRecord] = []
        self._unnumbered: list[int] = []

    def resume(self, numbered: Sequence[tuple[OutboxRecord, int]], last_number: int) -> None:
        """Load what an earlier process left unreceipted; to be called first.

        Args:
            numbered: records with the sequence numbers that the earlier process gave them.
            last_number: the last number that it gave out.
        """
        records, outdated = self._convert([record for record, _ in numbered])
        self._refused += outdated
        numbers = {record.id: number for record, number in numbered}
        self._last_number = last_number
        self._numbers = {record.id: numbers[record.id] for record in records}
        self._resumed = frozenset(self._numbers)
        self._count_bytes(total_size(records))
        self._keep_reusable_numbers()
        self._queue_again(records)

    @property
    def initial_sequence_id(self) -> int:
        """One less than the first sequence number that the next connection sends.

        It doesn't change while there is no link: the dialling thread relies on that.
        """
        return min(self._numbers.values(), default=self._last_number + 1) - 1

    @property
    def has_work(self) -> bool:
        """Whether a record can be sent.

        False while too many receipted records wait for a commit to release them, or memory is full of sent ones.
        """
        is_available = bool(self._ready) or (self._has_more_on_disk and self._room > 0)
        return is_available and len(self._released) < MEMORY_RECORDS

    @property
    def in_window(self) -> int:
        """Records sent and without a receipt."""
        return self._in_window

    @property
    def sent_to(self) -> int:
        """The highest record id sent since the start."""
        return self._sent_to

    @property
    def paused_until(self) -> float:
        """Monotonic seconds until which nothing is sent, because GDN could not take a record."""
        return self._paused_until

    def offer(self, records: Sequence[OutboxRecord]) -> None:
        """Take over records of this stream that have just become durable, if there is room in memory."""
        # Order: once a batch doesn't fit, all later records are read back from disk, too, until the disk has no more.
        room = MEMORY_RECORDS - len(self._ready) - self._in_window
        size = total_size(records)
        if self._has_more_on_disk or len(records) > room or size > self._room:
            self._has_more_on_disk = True
            return
        self._load(records, size)

    @property
    def _room(self) -> int:
        """Bytes of records that memory takes now."""
        return (MEMORY_BYTES if self._memory.has_room else OWN_BYTES) - self._bytes

    def take(self, count: int, now: float, *, max_bytes: float = math.inf) -> list[OutboxRecord]:
        """Records to send now, in order: up to ``count``; the last one is that which reaches ``max_bytes``.

        Raises:
            OutboxUnavailable: the disk can't be read now.
        """
        if now < self._paused_until or count <= 0 or max_bytes <= 0 or not self.has_work:
            return []
        if self._has_more_on_disk and len(self._ready) < count and self._room > 0:
            max_page = min(PAGE_BYTES, self._room)
            page = self._read(after=self._loaded_to, limit=PAGE_RECORDS, max_bytes=max_page)
            size = total_size(page)
            self._has_more_on_disk = len(page) == PAGE_RECORDS or size >= max_page  # else it is the last page
            records, outdated = self._convert(page)
            self._refused += outdated
            self._load(records, size if records is page else total_size(records))
            if outdated:
                self._loaded_to = page[-1].id
        ready = self._ready
        if self._bytes > max_bytes:  # else all of them fit
            count = _fitting(ready, count, max_bytes)
        taken = [ready.popleft() for _ in range(min(count, len(ready)))]
        self._in_window += len(taken)
        if taken:
            self._sent_to = max(self._sent_to, taken[-1].id)
        return taken

    def put_back(self, taken: Sequence[OutboxRecord], numbers: Sequence[tuple[int, int]]) -> None:
        """Take back records that could not be sent, because their new sequence numbers could not be stored."""
        self._in_window -= len(taken)
        self._ready.extendleft(reversed(taken))
        self._last_number -= len(numbers)  # neither stored nor sent, so they may be given out again
        for _, record_id in numbers:
            del self._numbers[record_id]

    def number(self, records: Sequence[OutboxRecord]) -> list[tuple[int, int]]:
        """Number the records that have no sequence number; returns (number, id) pairs to store before the send."""
        fresh = [record.id for record in records if record.id not in self._numbers]
        numbers = list(enumerate(fresh, start=self._last_number + 1))
        self._numbers.update((record_id, number) for number, record_id in numbers)
        self._last_number += len(fresh)
        return numbers

    def take_receipts(self, receipted: Sequence[int], payload_bytes: int) -> None:
        """Note that GDN receipted these records, of ``payload_bytes`` in total."""
        self._released.extend(receipted)
        self._in_window -= len(receipted)
        self._count_bytes(-payload_bytes)
        if receipted:
            self._backoff.reset()
        if self._numbers:
            for record_id in receipted:
                self._numbers.pop(record_id, None)

    def refuse(self, refusals: Sequence[Refusal], now: float, received_at: int) -> None:
        """Note that GDN refused these sends, permanently or for now.

        With sequence numbers the link must be dropped afterwards. GDN doesn't say whether a refused send used up its
        number, so it may drop later sends of this connection as duplicates: all unreceipted records get new numbers.
        """
        again = []
        if refusals:
            # The stored numbers are removed by the next commit, which is due at once: see needs_commit_now.
            self._unnumbered.extend(self._numbers)
            self._numbers.clear()
        for refusal in refusals:
            self._in_window -= 1
            record = refusal.record
            if refusal.is_permanent:
                self._count_bytes(-record.size)
                answer = redacted(f"{refusal.result} {refusal.error}".strip())
                dead_letter = DeadLetter(
                    topic="",  # records don't keep the topic of their message
                    payload=record.payload,
                    qos=1,
                    received_at=received_at,
                    route=None,
                    reason=Reason.REFUSED_BY_GDN.value,
                    detail=f"GDN refused the row for stream {self.stream}: {answer}",
                    mapping=self._row_format,
                )
                self._refused.append(RefusedRecord(record.id, dead_letter))
            else:
                again.append(record)
        if again:
            self._queue_again(again)
            self._paused_until = now + self._backoff.next()

    def link_lost(self, unreceipted: Sequence[OutboxRecord]) -> None:
        """Note that the link is gone: its records without a receipt are sent again, first and in their order.

        With sequence numbers, records that keep theirs go before the others: a number must not follow a higher one.
        """
        self._in_window -= len(unreceipted)
        self._keep_reusable_numbers()
        self._queue_again(unreceipted)

    def fall_back(self) -> None:
        """Continue without sequence numbers, which the far end doesn't accept: delivery is at least once now."""
        self.deduplicates = False
        self._numbers.clear()
        self._queue_again(())  # without numbers, by id

    @property
    def wants_commit(self) -> bool:
        """Whether a commit is due soon, so that records leave the outbox."""
        return bool(self._released or self._refused)

    @property
    def needs_commit_now(self) -> bool:
        """Whether a commit is due at once: sequence numbers must become unusable before a crash could reuse them."""
        return bool(self._unnumbered)

    def outcomes(self) -> RecordOutcomes:
        """What the next commit must make durable; ``confirm`` it once that is done."""
        return RecordOutcomes(tuple(self._released), tuple(self._refused), tuple(self._unnumbered))

    def confirm(self, outcomes: RecordOutcomes) -> None:
        """Forget outcomes that are durable."""
        del self._released[: len(outcomes.released)]
        del self._refused[: len(outcomes.refused)]
        del self._unnumbered[: len(outcomes.unnumbered)]

    def unload(self) -> None:
        """Drop records that were never sent from memory. Those still on disk are read again."""
        # Sent or numbered records stay: GDN may have stored them, so the outbox keeps them too.
        kept = [r for r in self._ready if r.id <= self._sent_to or r.id in self._resumed]
        self._count_bytes(total_size(kept) - total_size(self._ready))
        self._ready = deque(kept)
        # Records above this id are read from disk again, if they are still there.
        self._loaded_to = min(self._loaded_to, self._sent_to)
        self._has_more_on_disk = True

    def _keep_reusable_numbers(self) -> None:
        start = reusable_from(sorted(self._numbers.values()), self._last_number)
        self._numbers = {record_id: number for record_id, number in self._numbers.items() if number >= start}

    def _queue_again(self, records: Sequence[OutboxRecord]) -> None:
        """Queue records before those never sent; numbered ones first, by number: none may follow a higher one."""
        unnumbered = self._last_number + 1  # above every number: records without one come last, by id
        self._ready = deque(sorted([*records, *self._ready], key=lambda r: (self._numbers.get(r.id, unnumbered), r.id)))

    def _load(self, records: Sequence[OutboxRecord], size: int) -> None:
        """Keep the records, of ``size`` bytes in total, in memory."""
        if records:
            self._loaded_to = records[-1].id
            if self._resumed:
                records = [r for r in records if r.id not in self._resumed]
                size = total_size(records)
            self._ready.extend(records)
            self._count_bytes(size)

    def _count_bytes(self, size: int) -> None:
        self._bytes += size
        self._memory.add(size)


def _fitting(records: Iterable[OutboxRecord], count: int, max_bytes: float) -> int:
    """How many of the first ``count`` records to take so that only the last one goes beyond ``max_bytes``."""
    for n, record in enumerate(islice(records, count), start=1):
        max_bytes -= record.size
        if max_bytes <= 0:
            return n
    return count
