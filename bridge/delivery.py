"""One stream's records on their way from the outbox to GDN: what goes next, what goes again, what may be released.

In the steady state a record goes from its commit to the wire through memory; when memory is full or after a restart it
is read back from disk. The pipeline's thread owns it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from bridge.gdn.protocol import Refusal
from bridge.message import DeadLetter, OutboxRecord
from bridge.outbox import Refused
from bridge.timing import Backoff

MEMORY_RECORDS = 4000
"""Records kept in memory for a stream, sent or not."""

MEMORY_BYTES = 8 * 1024 * 1024
"""Bytes of payload kept in memory for a stream, sent or not; beyond it the disk is the only place."""

PAGE_RECORDS = 500
"""Records read back at a time."""


class Delivery:
    """The records of one stream.

    Order: arrival order, also after a reconnect (all that is unreceipted goes again, in its order). A record that the
    broker could not take (``send-error:8``) goes again before everything unsent, but after what was already sent
    behind it.

    Args:
        stream: its GDN name.
        read: ``(after, limit)`` -> the stream's records on disk above that id, oldest first.
    """

    def __init__(
        self,
        *,
        stream: str,
        read: Callable[[int, int], list[OutboxRecord]],
        backoff: Backoff | None = None,
    ) -> None:
        self.stream = stream
        self._read = read
        self._backoff = backoff or Backoff(base=0.2, cap=30.0)
        self._ready: deque[OutboxRecord] = deque()
        self._in_window = 0
        self._bytes = 0  # of payloads, ready or in the window
        self._loaded_to = 0  # every record up to this id is in memory, released, or about to be
        self._behind = True  # the disk may hold records above _loaded_to
        self._paused_until = 0.0
        self.released: list[int] = []
        """Receipted and still on disk: to be released with the next commit, then ``forget_released``."""
        self.refused: list[Refused] = []
        """Refused for good: to become dead letters with the next commit."""

    @property
    def has_work(self) -> bool:
        """Whether anything can be sent."""
        return bool(self._ready) or self._behind

    @property
    def paused_until(self) -> float:
        """Monotonic seconds before which nothing is sent, because GDN could not take a record."""
        return self._paused_until

    def offer(self, records: Sequence[OutboxRecord]) -> None:
        """Records of this stream that have just become durable."""
        room = MEMORY_RECORDS - len(self._ready) - self._in_window
        if self._behind or len(records) > room or self._bytes > MEMORY_BYTES:
            self._behind = True
            return
        self._load(records)

    def take(self, count: int, now: float) -> list[OutboxRecord]:
        """Up to ``count`` records to send now, in order.

        Raises:
            OutboxUnavailable: the disk can't be read now.
        """
        if now < self._paused_until or count <= 0:
            return []
        if self._behind and len(self._ready) < count and self._bytes < MEMORY_BYTES:
            page = self._read(self._loaded_to, PAGE_RECORDS)
            self._behind = len(page) == PAGE_RECORDS
            self._load(page)
        ready = self._ready
        taken = [ready.popleft() for _ in range(min(count, len(ready)))]
        self._in_window += len(taken)
        return taken

    def settle(self, receipted: Sequence[int], payload_bytes: int) -> None:
        """Receipts came for these record ids, of ``payload_bytes`` together."""
        self.released.extend(receipted)
        self._in_window -= len(receipted)
        self._bytes -= payload_bytes
        if receipted:
            self._backoff.reset()

    def refuse(self, refusals: Sequence[Refusal], now: float, received_at: int) -> None:
        """GDN answered these sends with an error: for good, or not now."""
        again = []
        for refusal in refusals:
            self._in_window -= 1
            record = refusal.record
            if refusal.is_permanent:
                self._bytes -= len(record.payload)
                detail = f"GDN refused the row for stream {self.stream}: {refusal.result} {refusal.error}".strip()
                letter = DeadLetter("", record.payload, 1, received_at, None, "refused_by_gdn", detail)
                self.refused.append(Refused(record.id, letter))
            else:
                again.append(record)
        if again:
            self._ready.extendleft(sorted(again, key=lambda r: r.id, reverse=True))
            self._paused_until = now + self._backoff.next()

    def lost(self, unreceipted: Sequence[OutboxRecord]) -> None:
        """The link is gone: what has no receipt goes again, first and in its order."""
        self._in_window -= len(unreceipted)
        self._ready.extendleft(sorted(unreceipted, key=lambda r: r.id, reverse=True))

    def forget_released(self) -> None:
        """The commit that released ``released`` and ``refused`` is done."""
        self.released.clear()
        self.refused.clear()

    def _load(self, records: Sequence[OutboxRecord]) -> None:
        if records:
            self._ready.extend(records)
            self._bytes += sum([len(r.payload) for r in records])
            self._loaded_to = records[-1].id
