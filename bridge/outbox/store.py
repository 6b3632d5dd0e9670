"""Records, dead letters and the books, changed together in one transaction, synced before ``commit`` returns.

The sync is what a PUBACK depends on (docs/reliability.md, P1). One writer: the pipeline thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge.books import Books
from bridge.errors import OutboxDamaged
from bridge.log import get_logger
from bridge.message import OutboxRecord, Qos2Changes, SeenMessages
from bridge.outbox import dead_letters, records
from bridge.outbox.bounds import ROOM_AGAIN, Bounds, Shares, StreamUsage, Usage
from bridge.outbox.commit import Commit, RefusedRecord, ReplayedDeadLetters
from bridge.outbox.dead_letters import StoredDeadLetter
from bridge.outbox.owned_database import SAVE_VALUE, OwnedDatabase
from bridge.outbox.schema import (
    DEAD_LETTERED,
    DEAD_LETTERS_PURGED,
    DEAD_LETTERS_REPLAYED,
    DELIVERED,
    DROPPED,
    LAST_ID,
    UNKNOWN_LOSSES,
)
from bridge.reasons import DropReason

READ_BOOKS = "SELECT name, value FROM books"
WRITE_BOOK = "INSERT INTO books VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

# "handed_over" is the older name of the seen messages.
READ_SEEN = "SELECT batch, messages FROM handed_over WHERE session = ? ORDER BY batch"
WRITE_SEEN = "INSERT INTO handed_over VALUES (?, ?, ?)"
DELETE_SEEN_BEFORE = "DELETE FROM handed_over WHERE session = ? AND batch < ?"
DELETE_SESSION_SEEN = "DELETE FROM handed_over WHERE session = ?"
DELETE_SEEN = "DELETE FROM handed_over"

READ_QOS_2 = "SELECT packet_id, digest FROM qos_2 WHERE session = ?"
WRITE_QOS_2 = "INSERT OR REPLACE INTO qos_2 VALUES (?, ?, ?)"
DELETE_QOS_2 = "DELETE FROM qos_2 WHERE session = ? AND packet_id = ?"
DELETE_SESSION_QOS_2 = "DELETE FROM qos_2 WHERE session = ?"
DELETE_ALL_QOS_2 = "DELETE FROM qos_2"

PURGE_COUNT = 5000
"""Maximum dead letters purged at a time: selecting them takes memory, and the pipeline waits meanwhile."""

SeenBatch = tuple[int, bytes]  # here, not in the class: there ``bytes`` is a property
Qos2Message = tuple[int, bytes]

log = get_logger(__name__)


class Outbox(OwnedDatabase):
    """Records until they are released, dead letters, and the books that count both.

    Args:
        path: the database file; created with mode 0600.
        bounds: how much it may hold; None: the defaults.
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
        self._shares = Shares(self._bounds.max_bytes, self._bounds.shares)
        self._counts: Counter[str] = Counter()
        self._usage = StreamUsage()
        self._dead_letter_usage = Usage()

    def _load_totals(self, db: sqlite3.Connection, *, is_copy: bool) -> None:
        self._counts = Counter(dict(db.execute(READ_BOOKS).fetchall()))
        found, highest = records.usage(db)
        self._usage = StreamUsage(found)
        self._counts[LAST_ID] = max(highest, self._counts[LAST_ID])  # a rescue may not have found the count
        self._dead_letter_usage = dead_letters.usage(db)
        if is_copy:
            with self._transaction("write to"):
                db.execute(DELETE_SEEN)
                db.execute(DELETE_ALL_QOS_2)

    # --- records ------------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> list[OutboxRecord]:
        """Store, release and count everything in ``commit``, synced, or nothing.

        Returns:
            The rows as records, in their order.

        Raises:
            OutboxUnavailable: nothing was changed; the same commit may be tried again.
            OutboxDamaged: the file is damaged; opening the outbox again rescues everything readable.
        """
        # New messages can wait at the broker; a commit without them makes room, so it may use the reserve.
        return self._commit(commit) if commit.takes_messages else self._with_reserve(lambda: self._commit(commit))

    def _commit(self, commit: Commit) -> list[OutboxRecord]:
        now = int(self._now())
        rows = commit.rows
        stored = [OutboxRecord(n, row.stream, row.payload, row.extras) for n, row in enumerate(rows, self.next_id)]
        if commit.rejects:
            stored = [record for record in stored if record.stream not in commit.rejects]
        dead_letter_usage = self._dead_letter_usage
        with self._counting("commit to") as (db, counts):
            counts["received"] += len(rows) + len(commit.dead_letters) + commit.filtered + commit.unchanged
            counts[DROPPED + DropReason.OUTBOX_FULL] += len(rows) - len(stored)
            counts[DROPPED + DropReason.FILTERED] += commit.filtered
            counts[DROPPED + DropReason.UNCHANGED] += commit.unchanged
            counts[LAST_ID] += len(rows)
            inserted = records.insert(db, stored, now=now)
            streams = {**self._usage.by_stream, **inserted}
            released = records.delete(db, commit.released, streams=streams)
            counts[DELIVERED] += sum([usage.count for usage in released.values()])
            refused, refused_dead_letters = _delete_refused(db, commit.refused)
            new_dead_letters = [StoredDeadLetter(0, d, None, b"", None) for d in commit.dead_letters]
            new_dead_letters += refused_dead_letters
            if commit.unnumbered:  # they are sent again, with new numbers
                db.executemany(records.WRITE_NUMBER, [(None, record_id) for record_id in commit.unnumbered])
            if commit.seen is not None:
                _write_seen(db, commit.session, commit.seen)
            if commit.qos_2 is not None:
                _write_qos_2(db, commit.session, commit.qos_2)
            if commit.replayed is not None:
                dead_letter_usage += _finish_replayed(db, commit.replayed, counts)
            if new_dead_letters:
                dead_letter_usage += dead_letters.insert(db, new_dead_letters, now=now)
                counts.update(DEAD_LETTERED + new.dead_letter.reason for new in new_dead_letters)
            if new_dead_letters or commit.replayed is not None:  # a dead letter that failed again may have grown
                dead_letter_usage -= self._purge_excess(db, dead_letter_usage, counts)
        # Only now: a transaction that failed must not change the totals.
        self._usage.add(inserted)
        self._usage.remove(released)
        self._usage.remove(refused)
        self._dead_letter_usage = dead_letter_usage
        return stored

    def drop(self, *, under_way: Mapping[str, int]) -> dict[str, int]:
        """Make room by the policy ``drop_oldest``; returns how many records of each stream were dropped.

        The streams with the most bytes for their share give way, so one that can't be delivered doesn't cost the others
        anything.

        They are counted as ``outbox_full``, or as ``expired`` if they were too old.

        Args:
            under_way: the highest id sent since the start, of each stream that rows are made for. Records up to it are
                kept: GDN may have stored them.

        Raises:
            OutboxUnavailable: nothing was dropped.
        """
        return self._with_reserve(lambda: self._drop(under_way))

    def _drop(self, under_way: Mapping[str, int]) -> dict[str, int]:
        bounds = self._bounds
        # Down to ROOM_AGAIN: dropping just below the bound would drop again in every turn.
        excess: dict[str, int] = {}
        if self.bytes >= bounds.max_bytes:
            shares = self._shares.of({*under_way, *self._usage.by_stream})
            excess = self._usage.excess(int(bounds.max_bytes * ROOM_AGAIN), shares)
        before = self._now() - bounds.max_age if bounds.max_age else 0.0
        with self._counting("drop from") as (db, counts):
            dropped, reasons = records.drop(
                db,
                under_way=under_way,
                excess=excess,
                since=self._ages_count_from,
                before=before,
                streams=self._usage.by_stream,
            )
            for reason, n in reasons.items():
                counts[DROPPED + reason] += n
        self._usage.remove(dropped)
        return {stream: usage.count for stream, usage in dropped.items()}

    def read(self, stream: str, *, after: int, limit: int, max_bytes: int) -> list[OutboxRecord]:
        """The stream's next records with an id above ``after`` and without a sequence number, oldest first.

        Args:
            stream: its GDN name.
            after: a record id.
            limit: maximum records to read.
            max_bytes: bytes of payload and extras after which the read stops; it returns at least one record.

        Raises:
            OutboxUnavailable: the outbox can't be read now.
        """
        with self._translated("read") as db:
            return records.read(db, stream, after=after, limit=limit, max_bytes=max_bytes)

    def streams(self) -> list[str]:
        """The streams that have waiting records."""
        with self._translated("read") as db:
            return [stream for (stream,) in db.execute(records.READ_STREAMS)]

    # --- bounds -------------------------------------------------------------------------------------------

    @property
    def next_id(self) -> int:
        """The id of the next record."""
        return self._counts[LAST_ID] + 1

    @property
    def bytes(self) -> int:
        """Bytes of waiting records, as ``Bounds.max_bytes`` counts them."""
        return self._usage.total.bytes

    @property
    def stream_bytes(self) -> dict[str, int]:
        """The same by stream; only streams that have records."""
        return {stream: usage.bytes for stream, usage in self._usage.by_stream.items()}

    def divide(self, shares: Mapping[str, float]) -> None:
        """Replace ``Bounds.shares``."""
        self._shares = Shares(self._bounds.max_bytes, shares)

    def streams_at_share(self, *, streams: Iterable[str], part: float = 1.0) -> frozenset[str]:
        """The streams whose records have used up their share of ``Bounds.max_bytes``.

        Args:
            streams: those that rows are made for; others that have records count, too.
            part: of the share.
        """
        usage = self._usage.by_stream
        shares = self._shares.of({*streams, *usage})
        return frozenset(stream for stream, used in usage.items() if used.bytes >= shares[stream] * part)

    @property
    def max_bytes(self) -> int:
        """``Bounds.max_bytes``."""
        return self._bounds.max_bytes

    @property
    def dead_letter_count(self) -> int:
        """How many dead letters it holds."""
        return self._dead_letter_usage.count

    def oldest_age(self) -> float:
        """Seconds that the oldest record has waited; 0 if there is none, or its age isn't known.

        Raises:
            OutboxUnavailable: the outbox can't be read now.
            OutboxDamaged: the file was moved or deleted; anything stored from then on would be lost.
        """
        # Checked here because the pipeline calls this once a second.
        try:
            moved = self._inode() != self._opened_inode
        except OSError:
            moved = True
        if moved:
            raise OutboxDamaged(f"the outbox {self._path} was moved, deleted or replaced while the bridge uses it")
        with self._translated("read") as db:
            found = db.execute(records.READ_OLDEST).fetchone()
        return max(0.0, self._now() - found[0]) if found and found[0] >= self._ages_count_from else 0.0

    def why_full(self, *, age: float) -> str | None:
        """The bound that is reached, as a sentence; None: none is. ``age``: the latest ``oldest_age``."""
        bounds = self._bounds
        if self.bytes >= bounds.max_bytes:
            return f"the outbox is full: it holds {self.bytes} bytes, outbox.max_bytes is {bounds.max_bytes}"
        if bounds.max_age and age > bounds.max_age:
            return f"the oldest record has waited for {age:.0f} s, outbox.max_age is {bounds.max_age:g}"
        return None

    def why_degraded(self) -> str | None:
        """What is wrong with an outbox that can be read and written; None: nothing."""
        loss = (
            "records were lost from a damaged outbox, how many is unknown: look for outbox.rescued in the log, and at "
            f"{self._path}.damaged-*"
        )
        problems = [loss if self._counts[UNKNOWN_LOSSES] else None, self.reserve_shortage]
        return "; ".join(problem for problem in problems if problem) or None

    def has_room_again(self, *, age: float) -> bool:
        """Whether an outbox that was full has room again, with hysteresis. ``age``: the latest ``oldest_age``."""
        bounds = self._bounds
        is_too_old = bool(bounds.max_age) and age > bounds.max_age
        return self.bytes < bounds.max_bytes * ROOM_AGAIN and not is_too_old

    # --- dead letters ---------------------------------------------------------------------------------------

    def dead_letters_to_replay(self, limit: int) -> list[StoredDeadLetter]:
        """The oldest dead letters to replay on request, a few megabytes at most.

        Raises:
            OutboxUnavailable: the outbox can't be read now.
        """
        with self._translated("read") as db:
            return dead_letters.requested_replays(db, limit)

    def purge_requested(self) -> int:
        """Purge dead letters on request; returns how many, up to ``PURGE_COUNT``.

        Raises:
            OutboxUnavailable: nothing was purged.
        """
        with self._translated("read") as db:
            chosen = dead_letters.requested_purges(db, PURGE_COUNT)
        return self._purge(chosen, hint="requested with gdn-bridge deadletter purge")

    def purge_old(self) -> int:
        """Purge dead letters that are older than the bound; returns how many, up to ``PURGE_COUNT``.

        Raises:
            OutboxUnavailable: nothing was purged.
        """
        if not self._bounds.dead_letter_age:
            return 0
        with self._translated("read") as db:
            before = self._now() - self._bounds.dead_letter_age
            chosen = dead_letters.ids_stored_between(db, self._ages_count_from, before, PURGE_COUNT)
        return self._purge(chosen, hint="they are older than outbox.dead_letter_age")

    def _purge(self, chosen: Sequence[int], *, hint: str) -> int:
        if not chosen:
            return 0
        purged = self._with_reserve(lambda: self._delete_dead_letters(chosen))
        log.warning("dead_letters.purged", count=purged, hint=hint)
        return purged

    def _delete_dead_letters(self, chosen: Sequence[int]) -> int:
        with self._counting("purge dead letters from") as (db, counts):
            purged = dead_letters.delete(db, chosen)
            counts[DEAD_LETTERS_PURGED] += purged.count
        self._dead_letter_usage -= purged
        return purged.count

    def _purge_excess(self, db: sqlite3.Connection, usage: Usage, counts: Counter[str]) -> Usage:
        """Purge the oldest dead letters if they use more than the bound; returns what was purged."""
        bound = self._bounds.dead_letter_bytes
        if usage.bytes <= bound:
            return Usage()
        purged = dead_letters.delete_oldest(db, usage.bytes - int(bound * ROOM_AGAIN))
        counts[DEAD_LETTERS_PURGED] += purged.count
        log.warning("dead_letters.purged", count=purged.count, hint="outbox.dead_letter_bytes is reached")
        return purged

    # --- sequence numbers (docs/reliability.md, P8) ------------------------------------------------------------------

    def number(self, stream: str, numbers: Sequence[tuple[int, int]]) -> None:
        """Store (number, record id) pairs of records about to be sent; the last number is the highest.

        Raises:
            OutboxUnavailable: nothing was stored; the records must not be sent.
        """

        def work() -> None:
            with self._transaction("number records in") as db:
                db.executemany(records.WRITE_NUMBER, numbers)
                db.execute(SAVE_VALUE, (f"sequence:{stream}", str(numbers[-1][0])))

        self._with_reserve(work)

    def numbered(self, stream: str) -> tuple[list[tuple[OutboxRecord, int]], int]:
        """The stream's records that have a sequence number, by number, and the last number given out (0: none).

        Raises:
            OutboxUnavailable: the outbox can't be read now.
        """
        with self._translated("read") as db:
            found = [(OutboxRecord(i, stream, p, e), n) for i, p, e, n in db.execute(records.READ_NUMBERED, (stream,))]
        return found, int(self.saved_value(f"sequence:{stream}") or 0)

    def forget_numbers(self) -> None:
        """Remove all sequence numbers: every record is read as one that was never sent.

        Raises:
            OutboxUnavailable: nothing was changed.
        """
        with self._transaction("remove sequence numbers from") as db:
            db.execute(records.FORGET_NUMBERS)

    def seen_messages(self, session: str = "") -> list[SeenBatch]:
        """The messages of this session that recent commits stored, as (batch, messages), oldest first.

        See ``SeenMessages``.

        Raises:
            OutboxUnavailable: the outbox can't be read now.
        """
        with self._translated("read") as db:
            return db.execute(READ_SEEN, (session,)).fetchall()

    def forget_seen_messages(self) -> None:
        """Forget the messages that recent commits stored, of all sessions.

        Raises:
            OutboxUnavailable: nothing was changed.
        """
        with self._transaction("write to") as db:
            db.execute(DELETE_SEEN)

    def qos_2_messages(self, session: str = "") -> list[Qos2Message]:
        """The packet ids and digests of this session's QoS 2 messages whose exchange has not ended.

        See ``Qos2Changes``.

        Raises:
            OutboxUnavailable: the outbox can't be read now.
        """
        with self._translated("read") as db:
            return db.execute(READ_QOS_2, (session,)).fetchall()

    def forget_session(self, session: str) -> None:
        """Forget the messages of this session, whatever their QoS.

        Raises:
            OutboxUnavailable: nothing was changed.
        """
        with self._transaction("write to") as db:
            db.execute(DELETE_SESSION_SEEN, (session,))
            db.execute(DELETE_SESSION_QOS_2, (session,))

    # --- books ----------------------------------------------------------------------------------------------

    def books(self) -> Books:
        """The books as of the last commit."""
        return Books(
            received=self._counts["received"],
            delivered=self._counts[DELIVERED],
            outbox=self._usage.total.count,
            dead_lettered=_by_reason(self._counts, DEAD_LETTERED),
            dropped=_by_reason(self._counts, DROPPED),
            unknown_losses=self._counts[UNKNOWN_LOSSES],
        )

    def counter(self, name: str) -> int:
        """A counter that is stored beside the books."""
        return self._counts[name]

    def count(self, name: str, n: int = 1) -> None:
        """Increment a counter that is stored beside the books, durably.

        Raises:
            OutboxUnavailable: it was not counted.
        """
        with self._counting("count in") as (_, counts):
            counts[name] += n

    @contextmanager
    def _counting(self, doing: str) -> Iterator[tuple[sqlite3.Connection, Counter[str]]]:
        """A transaction, and a copy of the counts to change: stored with it, and in effect once it is synced."""
        counts = Counter(self._counts)
        with self._transaction(doing) as db:
            yield db, counts
            db.executemany(WRITE_BOOK, [(name, n) for name, n in counts.items() if n != self._counts[name]])
        self._counts = counts


def _by_reason(counts: Counter[str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in counts.items() if n and name.startswith(prefix)}


def _delete_refused(
    db: sqlite3.Connection, refused: Sequence[RefusedRecord]
) -> tuple[dict[str, Usage], list[StoredDeadLetter]]:
    """Delete the refused records; returns what was deleted, and the dead letters that they become."""
    deleted: defaultdict[str, Usage] = defaultdict(Usage)
    new_dead_letters: list[StoredDeadLetter] = []
    for record_id, dead_letter in refused:
        if (found := records.delete_refused(db, record_id)) is not None:
            usage, stream, extras = found
            deleted[stream] += usage
            new_dead_letters.append(StoredDeadLetter(0, dead_letter, stream, extras, None))
    return deleted, new_dead_letters


def _write_seen(db: sqlite3.Connection, session: str, seen: SeenMessages) -> None:
    db.execute(DELETE_SEEN_BEFORE, (session, seen.oldest))
    if seen.messages:
        db.execute(WRITE_SEEN, (session, seen.batch, seen.messages))


def _write_qos_2(db: sqlite3.Connection, session: str, changes: Qos2Changes) -> None:
    if changes.clears:
        db.execute(DELETE_SESSION_QOS_2, (session,))
    db.executemany(DELETE_QOS_2, [(session, packet_id) for packet_id in changes.ended])
    db.executemany(WRITE_QOS_2, [(session, packet_id, digest) for packet_id, digest in changes.begun])


def _finish_replayed(db: sqlite3.Connection, replayed: ReplayedDeadLetters, counts: Counter[str]) -> Usage:
    """Delete the dead letters that are done, update those that failed again; returns how their usage changes."""
    deleted = dead_letters.delete(db, replayed.done)
    counts[DEAD_LETTERS_REPLAYED] += deleted.count
    change = Usage() - deleted
    for stored, why in replayed.failed:
        change += dead_letters.update_failed(db, stored, why)
    return change
