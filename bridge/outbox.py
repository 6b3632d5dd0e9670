"""The durable store between the broker and GDN: records, dead letters and the books, on SQLite.

The only door to sqlite3. One writer, the pipeline's thread, one transaction per batch, synced before ``commit``
returns: that sync is what a PUBACK stands on (design.md, "acked means durable").
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bridge.books import Books
from bridge.errors import ConfigError, OutboxUnavailable
from bridge.message import DeadLetter, OutboxRecord, Row

SCHEMA = (
    # 1
    """
    CREATE TABLE records (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, payload BLOB NOT NULL);
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT, received_at INTEGER NOT NULL, topic TEXT NOT NULL,
        qos INTEGER NOT NULL, payload BLOB NOT NULL, route TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL
    );
    CREATE TABLE books (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
)
"""Numbered changes: entry n takes a store from version n (SQLite's user_version) to n + 1."""

INSERT_RECORD = "INSERT INTO records (id, stream, payload) VALUES (?, ?, ?)"
DELETE_RECORDS = "DELETE FROM records WHERE id BETWEEN ? AND ?"
INSERT_DEAD_LETTER = """
    INSERT INTO dead_letters (received_at, topic, qos, payload, route, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
READ_RECORDS = "SELECT id, payload FROM records WHERE stream = ? AND id > ? ORDER BY id LIMIT ?"
READ_STREAMS = "SELECT DISTINCT stream FROM records"
COUNT_RECORDS = "SELECT count(*), coalesce(max(id), 0) FROM records"
READ_BOOKS = "SELECT name, value FROM books"
WRITE_BOOK = "INSERT INTO books VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

WAL_BYTES = 64 * 1024 * 1024
"""What the write-ahead log is cut back to after a burst."""

DEAD_LETTERED = "dead_lettered:"


class Refused(NamedTuple):
    """A record that GDN will never take, and the dead letter that it becomes."""

    record_id: int
    dead_letter: DeadLetter


class Outbox:
    """Records until they are released, dead letters, and the books that count both.

    ``open`` before use, ``close`` after. Not thread-safe: one thread at a time, the pipeline's once it runs.

    Args:
        path: the database file; made with mode 0600 if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._lock_file: int | None = None
        self._counts: Counter[str] = Counter()
        self._stored = 0
        self._last_id = 0

    def open(self) -> None:
        """Open the store, making or upgrading it.

        Raises:
            ConfigError: the path can't be used, or another bridge uses it.
            OutboxUnavailable: SQLite can't read the file.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise ConfigError(
                f"BRIDGE_OUTBOX__PATH: {self._path} can't be opened for writing: {exc.strerror}. "
                "Give a file in a directory that the bridge may write to."
            ) from exc
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ConfigError(
                f"BRIDGE_OUTBOX__PATH: {self._path} is in use by another bridge. "
                "Give each bridge an outbox (and an MQTT client id) of its own."
            ) from exc
        with self._translated("open"):
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._db = db
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # NORMAL doesn't sync each commit: no ground for a PUBACK
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self._upgrade(db)
            self._counts.update(dict(db.execute(READ_BOOKS).fetchall()))
            self._stored, highest = db.execute(COUNT_RECORDS).fetchone()
            self._last_id = max(highest, self._counts.pop("last_id", 0))

    def _upgrade(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(SCHEMA):
            raise ConfigError(
                f"BRIDGE_OUTBOX__PATH: {self._path} was written by a newer gdn-bridge (format {version}, "
                f"this one knows {len(SCHEMA)}). Run that version again, or give another path."
            )
        for number, script in enumerate(SCHEMA[version:], start=version + 1):
            db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")

    def close(self) -> None:
        """Close the store; may be called twice."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def commit(
        self,
        *,
        rows: Sequence[Row] = (),
        dead_letters: Sequence[DeadLetter] = (),
        released: Sequence[int] = (),
        refused: Sequence[Refused] = (),
    ) -> list[OutboxRecord]:
        """Take rows and dead letters in, let released and refused records go: all of it or nothing, synced.

        Returns:
            The rows as records, in their order.

        Raises:
            OutboxUnavailable: nothing was stored, nothing was let go; the same call may be made again.
        """
        first = self._last_id + 1
        records = [OutboxRecord(first + n, row.stream, row.payload) for n, row in enumerate(rows)]
        counts = Counter(self._counts)
        counts["received"] += len(rows) + len(dead_letters)
        for letter in (*dead_letters, *(r.dead_letter for r in refused)):
            counts[DEAD_LETTERED + letter.reason] += 1
        last_id = self._last_id + len(rows)
        with self._translated("commit to") as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                if records:
                    db.executemany(INSERT_RECORD, ((r.id, r.stream, r.payload) for r in records))
                delivered = sum(db.execute(DELETE_RECORDS, run).rowcount for run in _runs(released))
                gone = sum(db.execute(DELETE_RECORDS, (r.record_id, r.record_id)).rowcount for r in refused)
                db.executemany(
                    INSERT_DEAD_LETTER,
                    (
                        (d.received_at, d.topic, d.qos, d.payload, d.route, d.reason, d.detail)
                        for d in (*dead_letters, *(r.dead_letter for r in refused))
                    ),
                )
                counts["delivered"] += delivered
                changed = {name: n for name, n in counts.items() if n != self._counts[name]}
                if records:
                    changed["last_id"] = last_id
                db.executemany(WRITE_BOOK, changed.items())
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        self._counts = counts
        self._stored += len(records) - delivered - gone
        self._last_id = last_id
        return records

    def read(self, stream: str, *, after: int, limit: int) -> list[OutboxRecord]:
        """The stream's next records with an id above ``after``, oldest first.

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            return [
                OutboxRecord(record_id, stream, payload)
                for record_id, payload in db.execute(READ_RECORDS, (stream, after, limit))
            ]

    def streams(self) -> list[str]:
        """The streams that records are waiting for."""
        with self._translated("read") as db:
            return [stream for (stream,) in db.execute(READ_STREAMS)]

    def books(self) -> Books:
        """The books as of the last commit."""
        return Books(
            received=self._counts["received"],
            delivered=self._counts["delivered"],
            outbox=self._stored,
            dead_lettered={
                name.removeprefix(DEAD_LETTERED): n
                for name, n in self._counts.items()
                if name.startswith(DEAD_LETTERED)
            },
            dropped={},
        )

    @contextmanager
    def _translated(self, doing: str) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db  # type: ignore[misc]  # None only before open, which sets it inside this block
        except sqlite3.Error as exc:
            raise OutboxUnavailable(f"can't {doing} the outbox {self._path}: {exc}") from exc


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
