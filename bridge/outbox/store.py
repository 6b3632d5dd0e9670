"""Records, dead letters and the books, in one transaction per batch, synced before ``commit`` returns.

That sync is what a PUBACK stands on (design.md, "acked means durable"). One writer, the pipeline's thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bridge.books import Books
from bridge.errors import OutboxDamaged
from bridge.log import get_logger
from bridge.message import DeadLetter, OutboxRecord, Row, SeenMessages
from bridge.outbox import letters, records
from bridge.outbox.bounds import ROOM_AGAIN, Bounds, Usage
from bridge.outbox.letters import Letter, RefusedRecord, ReplayedLetters
from bridge.outbox.owned import REMEMBER, OwnedDatabase
from bridge.outbox.schema import DEAD_LETTERED, DELIVERED, DROPPED, LAST_ID
from bridge.reasons import DropReason

READ_BOOKS = "SELECT name, value FROM books"
WRITE_BOOK = "INSERT INTO books VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

FORGET_HANDED_OVER = "DELETE FROM handed_over WHERE batch < ?"
KEEP_HANDED_OVER = "INSERT INTO handed_over VALUES (?, ?)"
READ_HANDED_OVER = "SELECT batch, messages FROM handed_over ORDER BY batch"

PURGE_LETTERS = 5000
"""Purged at a time: choosing them takes memory, and nothing else moves meanwhile."""

Batch = tuple[int, bytes]  # in the class, bytes is a property

log = get_logger(__name__)


class Outbox(OwnedDatabase):
    """Records until they are released, dead letters, and the books that count both.

    Args:
        path: the database file; made with mode 0600 if it is missing.
        bounds: what ``why_full`` and ``drop`` go by.
    """

    def __init__(
        self,
        path: Path,
        bounds: Bounds | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(path, clock=clock, wall_clock=wall_clock)
        self._bounds = bounds or Bounds()
        self._counts: Counter[str] = Counter()
        self._waiting = Usage()
        self._held = Usage()

    def _take_stock(self, db: sqlite3.Connection, *, is_copy: bool) -> None:
        self._counts = Counter(dict(db.execute(READ_BOOKS).fetchall()))
        self._waiting, highest = records.held(db)
        self._counts[LAST_ID] = max(highest, self._counts[LAST_ID])
        self._held = letters.held(db)
        if is_copy:
            self.forget_handed_over()

    # --- in and out ---------------------------------------------------------------------------------------

    def commit(
        self,
        *,
        rows: Sequence[Row] = (),
        dead_letters: Sequence[DeadLetter] = (),
        released: Sequence[int] = (),
        refused: Sequence[RefusedRecord] = (),
        unnumbered: Sequence[int] = (),
        rejected: int = 0,
        filtered: int = 0,
        replayed: ReplayedLetters | None = None,
        handed_over: SeenMessages | None = None,
    ) -> list[OutboxRecord]:
        """Take rows and dead letters in, let released and refused records go: all of it or nothing, synced.

        Args:
            rows: to be stored.
            dead_letters: to be kept.
            released: ids of records that GDN has receipted.
            refused: records that become dead letters.
            unnumbered: ids of records whose sequence number must not be used again.
            rejected: rows that were not taken because the store is full; only counted.
            filtered: messages that no route wants, by its condition; only counted.
            replayed: letters whose rows are among ``rows``, and those that failed again; None: nothing was replayed.
            handed_over: what to keep of the messages of this batch; None: nothing changes.

        Returns:
            The rows as records, in their order.

        Raises:
            OutboxUnavailable: nothing was stored, nothing was let go; the same call may be made again.
            OutboxDamaged: the file is no database any more; opening it again rescues what reads.
        """
        work = partial(
            self._commit, rows, dead_letters, released, refused, unnumbered, rejected, filtered, replayed, handed_over
        )
        # New messages can wait at the broker; letting go is what makes room.
        return work() if rows or dead_letters or filtered else self._with_reserve(work)

    def _commit(
        self,
        rows: Sequence[Row],
        dead_letters: Sequence[DeadLetter],
        released: Sequence[int],
        refused: Sequence[RefusedRecord],
        unnumbered: Sequence[int],
        rejected: int,
        filtered: int,
        replayed: ReplayedLetters | None,
        handed_over: SeenMessages | None,
    ) -> list[OutboxRecord]:
        now = int(self._now())
        taken = [OutboxRecord(n, row.stream, row.payload, row.extras) for n, row in enumerate(rows, self.next_id)]
        held = self._held
        with self._counting("commit to") as (db, counts):
            counts["received"] += len(rows) + len(dead_letters) + rejected + filtered
            counts[DROPPED + DropReason.OUTBOX_FULL] += rejected
            counts[DROPPED + DropReason.FILTERED] += filtered
            inserted = records.insert(db, taken, now=now)
            gone = records.delete(db, released)
            counts[DELIVERED] += gone.count
            kept = [Letter(0, dead_letter, None, b"", None) for dead_letter in dead_letters]
            for record_id, dead_letter in refused:
                if (found := records.delete_refused(db, record_id)) is not None:
                    size, stream, extras = found
                    gone += size
                    kept.append(Letter(0, dead_letter, stream, extras, None))
            if unnumbered:
                db.executemany(records.WRITE_NUMBER, [(None, record_id) for record_id in unnumbered])
            if handed_over is not None:
                db.execute(FORGET_HANDED_OVER, (handed_over.oldest,))
                if handed_over.messages:
                    db.execute(KEEP_HANDED_OVER, (handed_over.batch, handed_over.messages))
            if replayed is not None:
                replayed_now = letters.delete(db, replayed.done)
                counts["dead_letters_replayed"] += replayed_now.count
                held -= replayed_now
                for again, why in replayed.failed:
                    held += letters.explain_anew(db, again, why)
            if kept:
                held += letters.insert(db, kept, now=now)
                counts.update(DEAD_LETTERED + letter.dead_letter.reason for letter in kept)
            if kept or replayed is not None:  # a letter that failed again may say more than before
                held -= self._purge_excess(db, held, counts)
            counts[LAST_ID] += len(taken)
        self._waiting += inserted - gone
        self._held = held
        return taken

    def drop(self, *, under_way: Mapping[str, int]) -> int:
        """Make room by the policy ``drop_oldest``; returns how many records were dropped.

        They are counted under ``outbox_full``, or under ``expired`` where they were too old.

        Args:
            under_way: by stream, the highest id that was ever sent: such records are left alone, since GDN may
                have them already.

        Raises:
            OutboxUnavailable: nothing was dropped.
        """
        return self._with_reserve(lambda: self._drop(under_way))

    def _drop(self, under_way: Mapping[str, int]) -> int:
        bounds = self._bounds
        excess = self.bytes - int(bounds.max_bytes * ROOM_AGAIN) if self.bytes >= bounds.max_bytes else 0
        before = self._now() - bounds.max_age if bounds.max_age else 0.0
        with self._counting("drop from") as (db, counts):
            dropped, reasons = records.drop(db, under_way=under_way, excess=excess, before=before)
            for reason, n in reasons.items():
                counts[DROPPED + reason] += n
        self._waiting -= dropped
        return dropped.count

    def read(self, stream: str, *, after: int, limit: int, max_bytes: int) -> list[OutboxRecord]:
        """The stream's next records with an id above ``after`` and without sequence number, oldest first.

        Args:
            stream: its GDN name.
            after: an id.
            limit: records at most.
            max_bytes: of payload and extras, after which no more are read; at least one record is.

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            return records.read(db, stream, after=after, limit=limit, max_bytes=max_bytes)

    def streams(self) -> list[str]:
        """The streams that records are waiting for."""
        with self._translated("read") as db:
            return [stream for (stream,) in db.execute(records.READ_STREAMS)]

    # --- bounds -------------------------------------------------------------------------------------------

    @property
    def next_id(self) -> int:
        """The id that the next record will get."""
        return self._counts[LAST_ID] + 1

    @property
    def bytes(self) -> int:
        """Of the records waiting, as ``Bounds.max_bytes`` counts them."""
        return self._waiting.bytes

    @property
    def max_bytes(self) -> int:
        """``Bounds.max_bytes``."""
        return self._bounds.max_bytes

    @property
    def dead_letters(self) -> int:
        """Dead letters kept."""
        return self._held.count

    def oldest_age(self) -> float:
        """Seconds that the oldest record has waited; 0 if there is none.

        Raises:
            OutboxUnavailable: the store can't be read now.
            OutboxDamaged: its file was moved or deleted; what is stored from then on would be found by nobody.
        """
        try:
            moved = self._inode() != self._opened_inode
        except OSError:
            moved = True
        if moved:
            raise OutboxDamaged(f"the outbox {self._path} was moved, deleted or replaced while the bridge uses it")
        with self._translated("read") as db:
            found = db.execute(records.READ_OLDEST).fetchone()
        return max(0.0, self._now() - found[0]) if found else 0.0

    def why_full(self, *, age: float) -> str | None:
        """Which bound is reached, in words; None if neither is. ``age`` as ``oldest_age`` gave it lately."""
        bounds = self._bounds
        if self.bytes >= bounds.max_bytes:
            return f"the outbox is full: {self.bytes} bytes wait, outbox.max_bytes is {bounds.max_bytes}"
        if bounds.max_age and age > bounds.max_age:
            return f"the oldest record waits for {age:.0f} s, outbox.max_age is {bounds.max_age:g}"
        return None

    def has_room_again(self, *, age: float) -> bool:
        """Whether a store that was full has enough room to go on."""
        bounds = self._bounds
        return self.bytes < bounds.max_bytes * ROOM_AGAIN and not (bounds.max_age and age > bounds.max_age)

    # --- dead letters ---------------------------------------------------------------------------------------

    def letters_to_replay(self, limit: int) -> list[Letter]:
        """The oldest letters that somebody wants replayed, some megabytes of them at most.

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            return letters.wanted(db, limit)

    def purge_wanted(self) -> int:
        """Purge letters that somebody wants purged; returns how many, up to ``PURGE_LETTERS``.

        Raises:
            OutboxUnavailable: nothing was purged.
        """
        with self._translated("read") as db:
            chosen = letters.ids_to_purge(db, PURGE_LETTERS)
        return self._purge(chosen, hint="gdn-bridge deadletter purge")

    def purge_old(self) -> int:
        """Purge letters that are older than the bound; returns how many, up to ``PURGE_LETTERS``.

        Raises:
            OutboxUnavailable: nothing was purged.
        """
        if not self._bounds.dead_letter_age:
            return 0
        with self._translated("read") as db:
            chosen = letters.ids_stored_before(db, self._now() - self._bounds.dead_letter_age, PURGE_LETTERS)
        return self._purge(chosen, hint="they are older than outbox.dead_letter_age")

    def _purge(self, chosen: Sequence[int], *, hint: str) -> int:
        if not chosen:
            return 0
        purged = self._with_reserve(lambda: self._delete_letters(chosen))
        log.warning("dead_letters.purged", count=purged, hint=hint)
        return purged

    def _delete_letters(self, chosen: Sequence[int]) -> int:
        with self._counting("purge dead letters from") as (db, counts):
            purged = letters.delete(db, chosen)
            counts["dead_letters_purged"] += purged.count
        self._held -= purged
        return purged.count

    def _purge_excess(self, db: sqlite3.Connection, held: Usage, counts: Counter[str]) -> Usage:
        """Purge the oldest letters if they take more room than they may; returns what was purged."""
        bound = self._bounds.dead_letter_bytes
        if held.bytes <= bound:
            return Usage()
        purged = letters.delete_oldest(db, held.bytes - int(bound * ROOM_AGAIN))
        counts["dead_letters_purged"] += purged.count
        log.warning("dead_letters.purged", count=purged.count, hint="outbox.dead_letter_bytes is used up")
        return purged

    # --- sequence numbers (design.md P8) --------------------------------------------------------------------

    def number(self, stream: str, numbers: Sequence[tuple[int, int]]) -> None:
        """Write down (number, record id) pairs of records about to be sent; the last one is the highest.

        Raises:
            OutboxUnavailable: nothing was written; the records must not be sent.
        """

        def work() -> None:
            with self._transaction("number records in") as db:
                db.executemany(records.WRITE_NUMBER, numbers)
                db.execute(REMEMBER, (f"sequence:{stream}", str(numbers[-1][0])))

        self._with_reserve(work)

    def numbered(self, stream: str) -> tuple[list[tuple[OutboxRecord, int]], int]:
        """The stream's records with a sequence number, by number, and the last number that was given out (0: none).

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            found = [(OutboxRecord(i, stream, p, e), n) for i, p, e, n in db.execute(records.READ_NUMBERED, (stream,))]
        return found, int(self.recall(f"sequence:{stream}") or 0)

    def forget_numbers(self) -> None:
        """Let every record be read as if it had never been sent.

        Raises:
            OutboxUnavailable: nothing was changed.
        """
        with self._transaction("number records in") as db:
            db.execute(records.FORGET_NUMBERS)

    def handed_over(self) -> list[Batch]:
        """What commits kept of the messages of the last batches, as (batch, messages), oldest first.

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            return db.execute(READ_HANDED_OVER).fetchall()

    def forget_handed_over(self) -> None:
        """Keep nothing of any message.

        Raises:
            OutboxUnavailable: it is kept as it was.
        """
        with self._transaction("write to") as db:
            db.execute("DELETE FROM handed_over")

    # --- books ----------------------------------------------------------------------------------------------

    def books(self) -> Books:
        """The books as of the last commit."""
        return Books(
            received=self._counts["received"],
            delivered=self._counts[DELIVERED],
            outbox=self._waiting.count,
            dead_lettered=_by_reason(self._counts, DEAD_LETTERED),
            dropped=_by_reason(self._counts, DROPPED),
        )

    def counter(self, name: str) -> int:
        """A counter that is kept beside the books."""
        return self._counts[name]

    def count(self, name: str, n: int = 1) -> None:
        """Add to a counter beside the books, durably.

        Raises:
            OutboxUnavailable: it was not counted.
        """
        with self._counting("count in") as (_, counts):
            counts[name] += n

    @contextmanager
    def _counting(self, doing: str) -> Iterator[tuple[sqlite3.Connection, Counter[str]]]:
        """A transaction, and the counts to change: they are written with it, and count once it is synced."""
        counts = Counter(self._counts)
        with self._transaction(doing) as db:
            yield db, counts
            db.executemany(WRITE_BOOK, [(name, n) for name, n in counts.items() if n != self._counts[name]])
        self._counts = counts


def _by_reason(counts: Counter[str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in counts.items() if n and name.startswith(prefix)}
