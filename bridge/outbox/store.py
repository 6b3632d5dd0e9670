"""Records, dead letters and the books, in one transaction per batch, synced before ``commit`` returns.

That sync is what a PUBACK stands on (design.md, "acked means durable"). One writer, the pipeline's thread.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from bridge.books import Books
from bridge.errors import ConfigError, OutboxDamaged, OutboxUnavailable
from bridge.log import get_logger
from bridge.message import DeadLetter, HandedOver, OutboxRecord, Row
from bridge.outbox import letters, rescue, schema
from bridge.outbox.database import Database
from bridge.outbox.letters import Held, Letter
from bridge.outbox.lock import Lock, not_writable

SIZE = "length(payload) + length(stream) + length(extras)"
INSERT_RECORD = "INSERT INTO records (id, stream, payload, extras, stored_at) VALUES (?, ?, ?, ?, ?)"
DELETE_RECORDS = f"DELETE FROM records WHERE id BETWEEN ? AND ? RETURNING {SIZE}"  # noqa: S608 - our own words
DELETE_REFUSED = f"DELETE FROM records WHERE id = ? RETURNING {SIZE}, stream, extras"  # noqa: S608 - our own words
READ_RECORDS = """
    SELECT id, payload, extras FROM records WHERE stream = ? AND id > ? AND number IS NULL ORDER BY id LIMIT ?
"""
READ_NUMBERED = """
    SELECT id, payload, extras, number FROM records WHERE stream = ? AND number IS NOT NULL ORDER BY number
"""
READ_STREAMS = "SELECT DISTINCT stream FROM records"
READ_OLDEST = "SELECT stored_at FROM records ORDER BY id LIMIT 1"
COUNT_RECORDS = f"SELECT count(*), coalesce(max(id), 0), coalesce(sum({SIZE}), 0) FROM records"  # noqa: S608
WRITE_NUMBER = "UPDATE records SET number = ? WHERE id = ?"
READ_BOOKS = "SELECT name, value FROM books"
WRITE_BOOK = "INSERT INTO books VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
FORGET = "DELETE FROM memory WHERE key = ?"
REMEMBER = "INSERT INTO memory VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

FORGET_HANDED_OVER = "DELETE FROM handed_over WHERE batch < ?"
KEEP_HANDED_OVER = "INSERT INTO handed_over VALUES (?, ?)"
READ_HANDED_OVER = "SELECT batch, messages FROM handed_over ORDER BY batch"

RECORD_OVERHEAD = 40
"""Bytes on disk of a record beside its payload and its stream's name, rounded up from what SQLite takes."""

ROOM_AGAIN = 0.9
"""Share of the bound below which a full store counts as having room again, so that it doesn't flutter."""

DROP_RECORDS = 50_000
"""Dropped at a time: choosing them takes memory."""

PURGE_LETTERS = 5000
"""Purged at a time, for the same reason and because nothing else moves meanwhile."""

DEAD_LETTERED = "dead_lettered:"
DROPPED = "dropped:"

Batch = tuple[int, bytes]  # in the class, bytes is a property

Policy = Literal["hold", "drop_oldest", "reject_new"]

log = get_logger(__name__)


class Refused(NamedTuple):
    """A record that GDN will never take, and the dead letter that it becomes."""

    record_id: int
    dead_letter: DeadLetter


class Replayed(NamedTuple):
    """What becomes of letters that were mapped again."""

    done: Sequence[int] = ()
    """Ids of letters that go, since their rows are stored with the same commit, or have no rows to store."""
    failed: Sequence[tuple[Letter, DeadLetter]] = ()
    """Letters that stay, and what is wrong with them today."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the store may hold. A batch that was begun below a bound may end above it."""

    max_bytes: int = 1 << 30
    """Of records waiting: payloads, stream names, and what SQLite needs to keep them."""
    max_age: float = 0.0
    """Seconds that the oldest record may wait; 0: any time."""
    dead_letter_bytes: int = 100 << 20
    """Of dead letters kept; beyond it the oldest are purged."""
    dead_letter_age: float = 0.0
    """Seconds that a dead letter is kept; 0: any time."""


class Outbox(Database):
    """Records until they are released, dead letters, and the books that count both.

    ``open`` before use, ``close`` after. Not thread-safe: one thread at a time, the pipeline's once it runs.

    Args:
        path: the database file; made with mode 0600 if it is missing.
        bounds: what ``is_full`` and ``drop`` go by.
    """

    def __init__(
        self,
        path: Path,
        bounds: Bounds | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(path)
        self._bounds = bounds or Bounds()
        # Age goes by one reading of the wall clock and the monotonic one after it: a clock that is set while the
        # bridge runs must not make records old.
        self._started = wall_clock() - clock()
        self._clock = clock
        self._lock = Lock(path)
        self._counts: Counter[str] = Counter()
        self._stored = 0
        self._bytes = 0
        self._held = Held()
        self._last_id = 0
        self._opened_inode = 0
        self.name = ""
        """Of this store, for good: part of message ids and of the producer name."""

    def open(self) -> None:
        """Open the store, making, upgrading or rescuing it.

        Raises:
            OutboxInUse: another bridge uses it, or a command in its place.
            ConfigError: the path can't be used.
            OutboxUnavailable: SQLite can't read the file now.
        """
        self._lock.take()
        try:
            rescue.finish(self._path)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise not_writable(self._path, exc) from exc
        try:
            try:
                self._with_reserve(self._load)
            except OutboxDamaged as exc:
                self._rescue(str(exc))
                self._load()
            try:
                self._make_reserve()
            except OutboxUnavailable as exc:
                log.warning("outbox.no_reserve", error=str(exc))
        except BaseException:
            self._let_go()
            raise

    def _load(self) -> None:
        with self._translated("open"):
            self._disconnect()
            self._db = db = schema.connect(str(self._path))
            self._check_version(db)
            schema.upgrade(db)
            if self.recall("closed") != "cleanly" and rescue.is_damaged(db):
                raise OutboxDamaged(f"the outbox {self._path} doesn't pass SQLite's check")
            self._counts = Counter(dict(db.execute(READ_BOOKS).fetchall()))
            self._stored, highest, size = db.execute(COUNT_RECORDS).fetchone()
            self._bytes = size + self._stored * RECORD_OVERHEAD
            self._last_id = max(highest, self._counts.pop("last_id", 0))
            self._held = letters.held(db)
            name = self.recall("name")
            if name is not None and self.recall("seal") != self._seal():
                log.warning(
                    "outbox.replaced",
                    hint="this is a copy, or was put back from one: it gets a new name, so that ids and sequence "
                    "numbers given out since are not given out again",
                )
                name = None
                self.forget_handed_over()
            self.name = name or secrets.token_hex(4)
            self._opened_inode = self._inode()
            seal = secrets.token_hex(8)
            self._remember({"name": self.name, "closed": "", "seal": f"{seal} {self._inode()}"})
            self._lock.write_seal(seal)

    def _seal(self) -> str:
        """What the store must hold if it is the one that was last opened here: the lock file's text, and the inode.

        Nothing tells a whole machine that was set back from one that was not.
        """
        return f"{self._lock.seal} {self._inode()}"

    def _inode(self) -> int:
        return self._path.stat().st_ino  # not the device: its number may change when the machine starts

    def _check_version(self, db: sqlite3.Connection) -> None:
        found = schema.version(db)
        if found > len(schema.CHANGES):
            raise ConfigError(
                f"BRIDGE_OUTBOX__PATH: {self._path} was written by a newer gdn-bridge (format {found}, "
                f"this one knows {len(schema.CHANGES)}). Run that version again, or give another path."
            )

    def _rescue(self, why: str) -> None:
        self._disconnect()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._started + self._clock()))
        try:
            saved = rescue.rescue(self._path, stamp=stamp)
        except (sqlite3.Error, OSError) as exc:
            raise OutboxUnavailable(f"the outbox {self._path} is damaged and can't be rescued now: {exc}") from exc
        log.error(
            "outbox.rescued",
            error=why,
            kept_at=str(saved.kept_at),
            records=saved.records,
            dead_letters=saved.dead_letters,
            lost="unknown: the books could not be read" if saved.lost is None else saved.lost,
        )

    def close(self) -> None:
        """Close the store; may be called twice."""
        if self._db is not None:
            try:
                # A new seal: a copy that was made in the meantime has the old one, and is told from the store by it.
                seal = secrets.token_hex(8)
                self.remember(closed="cleanly", seal=f"{seal} {self._opened_inode}")
                self._lock.write_seal(seal)
            except (OutboxUnavailable, OutboxDamaged) as exc:
                log.warning("outbox.not_closed_cleanly", error=str(exc))  # the next start checks the file
        self._let_go()

    def _let_go(self) -> None:
        self._disconnect()
        self._lock.release()

    # --- in and out ---------------------------------------------------------------------------------------

    def commit(
        self,
        *,
        rows: Sequence[Row] = (),
        dead_letters: Sequence[DeadLetter] = (),
        released: Sequence[int] = (),
        refused: Sequence[Refused] = (),
        unnumbered: Sequence[int] = (),
        rejected: int = 0,
        filtered: int = 0,
        replayed: Replayed | None = None,
        handed_over: HandedOver | None = None,
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

        def work() -> list[OutboxRecord]:
            return self._commit(
                rows, dead_letters, released, refused, unnumbered, rejected, filtered, replayed, handed_over
            )

        # New messages can wait at the broker; letting go is what makes room.
        return work() if rows or dead_letters or filtered else self._with_reserve(work)

    def _commit(
        self,
        rows: Sequence[Row],
        dead_letters: Sequence[DeadLetter],
        released: Sequence[int],
        refused: Sequence[Refused],
        unnumbered: Sequence[int],
        rejected: int,
        filtered: int,
        replayed: Replayed | None,
        handed_over: HandedOver | None,
    ) -> list[OutboxRecord]:
        first = self._last_id + 1
        now = int(self._now())
        records = [OutboxRecord(first + n, row.stream, row.payload, row.extras) for n, row in enumerate(rows)]
        counts = Counter(self._counts)
        counts["received"] += len(rows) + len(dead_letters) + rejected + filtered
        for letter in dead_letters:
            counts[DEAD_LETTERED + letter.reason] += 1
        if rejected:
            counts[f"{DROPPED}outbox_full"] += rejected
        if filtered:
            counts[f"{DROPPED}filtered"] += filtered
        held = self._held
        with self._transaction("commit to") as db:
            if records:
                db.executemany(INSERT_RECORD, [(r.id, r.stream, r.payload, r.extras, now) for r in records])
            delivered = _deleted(db, _runs(released))
            kept = [Letter(0, letter, None, b"", None) for letter in dead_letters]
            gone: list[int] = []
            for record_id, letter in refused:
                for size, stream, extras in db.execute(DELETE_REFUSED, (record_id,)).fetchall():
                    gone.append(size)
                    kept.append(Letter(0, letter, stream, extras, None))
                    counts[DEAD_LETTERED + letter.reason] += 1
            if unnumbered:
                db.executemany(WRITE_NUMBER, [(None, record_id) for record_id in unnumbered])
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
            if kept or replayed is not None:  # a letter that failed again may say more than before
                held -= self._purge_excess(db, held, counts)
            counts["delivered"] += len(delivered)
            self._write_books(db, counts, last_id=self._last_id + len(rows) if rows else None)
        self._counts = counts
        self._stored += len(records) - len(delivered) - len(gone)
        self._bytes += sum([len(r.payload) + len(r.stream) + len(r.extras) for r in records])
        self._bytes += RECORD_OVERHEAD * (len(records) - len(delivered) - len(gone)) - sum(delivered) - sum(gone)
        self._held = held
        self._last_id += len(rows)
        return records

    def drop(self, *, under_way: MappingOf[str, int]) -> int:
        """Make room by the policy ``drop_oldest``; returns how many records were dropped.

        They are counted under ``outbox_full``, or under ``expired`` where they were too old.

        Args:
            under_way: by stream, the highest id that was ever sent: such records are left alone, since GDN may
                have them already.

        Raises:
            OutboxUnavailable: nothing was dropped.
        """
        return self._with_reserve(lambda: self._drop(under_way))

    def _drop(self, under_way: MappingOf[str, int]) -> int:
        bounds = self._bounds
        excess = self._bytes - int(bounds.max_bytes * ROOM_AGAIN) if self._bytes >= bounds.max_bytes else 0
        oldest = self._now() - bounds.max_age if bounds.max_age else 0.0
        sent = "".join(" AND NOT (stream = ? AND id <= ?)" for _ in under_way)
        query = (
            f"SELECT id, {SIZE}, stored_at FROM records "  # noqa: S608 - our own words
            f"WHERE number IS NULL{sent} ORDER BY id LIMIT {DROP_RECORDS}"
        )
        chosen: list[int] = []
        freed = 0
        counts = Counter(self._counts)
        with self._transaction("drop from") as db:
            for record_id, size, stored_at in db.execute(query, [part for pair in under_way.items() for part in pair]):
                expired = stored_at < oldest
                if not expired and freed >= excess:
                    break
                chosen.append(record_id)
                freed += size + RECORD_OVERHEAD
                counts[DROPPED + ("expired" if expired else "outbox_full")] += 1
            _deleted(db, _runs(chosen))
            self._write_books(db, counts)
        self._counts = counts
        self._stored -= len(chosen)
        self._bytes -= freed
        return len(chosen)

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
        records: list[OutboxRecord] = []
        with self._translated("read") as db:
            for record_id, payload, extras in db.execute(READ_RECORDS, (stream, after, limit)):
                records.append(OutboxRecord(record_id, stream, payload, extras))
                max_bytes -= len(payload) + len(extras)
                if max_bytes <= 0:
                    break
        return records

    def streams(self) -> list[str]:
        """The streams that records are waiting for."""
        with self._translated("read") as db:
            return [stream for (stream,) in db.execute(READ_STREAMS)]

    # --- bounds -------------------------------------------------------------------------------------------

    @property
    def next_id(self) -> int:
        """The id that the next record will get."""
        return self._last_id + 1

    @property
    def bytes(self) -> int:
        """Of the records waiting, as ``Bounds.max_bytes`` counts them."""
        return self._bytes

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
            found = db.execute(READ_OLDEST).fetchone()
        return max(0.0, self._now() - found[0]) if found else 0.0

    def why_full(self, *, age: float) -> str | None:
        """Which bound is reached, in words; None if neither is. ``age`` as ``oldest_age`` gave it lately."""
        bounds = self._bounds
        if self._bytes >= bounds.max_bytes:
            return f"the outbox is full: {self._bytes} bytes wait, outbox.max_bytes is {bounds.max_bytes}"
        if bounds.max_age and age > bounds.max_age:
            return f"the oldest record waits for {age:.0f} s, outbox.max_age is {bounds.max_age:g}"
        return None

    def has_room_again(self, *, age: float) -> bool:
        """Whether a store that was full has enough room to go on."""
        bounds = self._bounds
        return self._bytes < bounds.max_bytes * ROOM_AGAIN and not (bounds.max_age and age > bounds.max_age)

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
        counts = Counter(self._counts)
        with self._transaction("purge dead letters from") as db:
            purged = letters.delete(db, chosen)
            counts["dead_letters_purged"] += purged.count
            self._write_books(db, counts)
        self._counts = counts
        self._held -= purged
        return purged.count

    def _purge_excess(self, db: sqlite3.Connection, held: Held, counts: Counter[str]) -> Held:
        """Purge the oldest letters if they take more room than they may; returns what was purged."""
        bound = self._bounds.dead_letter_bytes
        if held.bytes <= bound:
            return Held()
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
                db.executemany(WRITE_NUMBER, numbers)
                db.execute(REMEMBER, (f"sequence:{stream}", str(numbers[-1][0])))

        self._with_reserve(work)

    def numbered(self, stream: str) -> tuple[list[tuple[OutboxRecord, int]], int]:
        """The stream's records with a sequence number, by number, and the last number that was given out (0: none).

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            found = [(OutboxRecord(i, stream, p, e), n) for i, p, e, n in db.execute(READ_NUMBERED, (stream,))]
        return found, int(self.recall(f"sequence:{stream}") or 0)

    def forget_numbers(self) -> None:
        """Let every record be read as if it had never been sent.

        Raises:
            OutboxUnavailable: nothing was changed.
        """
        with self._transaction("number records in") as db:
            db.execute("UPDATE records SET number = NULL WHERE number IS NOT NULL")

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

    # --- books and memory -----------------------------------------------------------------------------------

    def books(self) -> Books:
        """The books as of the last commit."""
        return Books(
            received=self._counts["received"],
            delivered=self._counts["delivered"],
            outbox=self._stored,
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
        counts = Counter(self._counts)
        counts[name] += n
        with self._transaction("count in") as db:
            self._write_books(db, counts)
        self._counts = counts

    def remember(self, **values: str) -> None:
        """Keep texts under their keys, durably; an empty one is forgotten.

        Raises:
            OutboxUnavailable: they were not kept.
        """
        self._with_reserve(lambda: self._remember(values))

    def _remember(self, values: MappingOf[str, str]) -> None:
        with self._transaction("write to") as db:
            db.executemany(REMEMBER, [(key, value) for key, value in values.items() if value])
            db.executemany(FORGET, [(key,) for key, value in values.items() if not value])

    def _write_books(self, db: sqlite3.Connection, counts: Counter[str], *, last_id: int | None = None) -> None:
        changed = {name: n for name, n in counts.items() if n != self._counts[name]}
        if last_id is not None:
            changed["last_id"] = last_id
        db.executemany(WRITE_BOOK, changed.items())

    # --- a full disk ----------------------------------------------------------------------------------------

    def probe(self) -> None:
        """See that the store takes again after it did not: give room back to the disk, take up the reserve, write.

        Raises:
            OutboxUnavailable: it doesn't.
        """
        self._renew_reserve()
        self._remember({"probe": str(int(self._now()))})

    def _now(self) -> float:
        return self._started + self._clock()


def _by_reason(counts: Counter[str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}


def _deleted(db: sqlite3.Connection, runs: Iterator[tuple[int, int]]) -> list[int]:
    """Delete records; returns the size of each that was there."""
    return [size for run in runs for (size,) in db.execute(DELETE_RECORDS, run).fetchall()]


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Unbroken runs of ids as (first, last), so that a batch of releases is a few deletes, not hundreds."""
    ordered = sorted(ids)
    start = previous = None
    for record_id in ordered:
        if previous is not None and record_id == previous + 1:
            previous = record_id
            continue
        if start is not None and previous is not None:
            yield start, previous
        start = previous = record_id
    if start is not None and previous is not None:
        yield start, previous
