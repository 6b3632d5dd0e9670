"""What the store's file holds: its numbered changes, and the pragmas that every connection needs."""

from __future__ import annotations

import sqlite3

CHANGES = (
    # 1
    """
    CREATE TABLE records (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, payload BLOB NOT NULL);
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT, received_at INTEGER NOT NULL, topic TEXT NOT NULL,
        qos INTEGER NOT NULL, payload BLOB NOT NULL, route TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL
    );
    CREATE TABLE books (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    # 2: when a record was stored, for the age bound; its sequence number, for deduplication; what else must survive
    """
    ALTER TABLE records ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE records ADD COLUMN number INTEGER;
    UPDATE records SET stored_at = strftime('%s', 'now');
    CREATE INDEX numbered ON records (stream, number) WHERE number IS NOT NULL;
    CREATE TABLE memory (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    # 3: which messages the last batches held, to tell what the broker hands over again
    """
    CREATE TABLE handed_over (batch INTEGER PRIMARY KEY, messages BLOB NOT NULL);
    """,
    # 4: what else a send says; all of a dead letter's message, so that it can be replayed, and who wants what of it;
    # when it was stored, for the age bound. A refused row has no message: its stream and what else its send said.
    """
    ALTER TABLE records ADD COLUMN extras BLOB NOT NULL DEFAULT x'';
    ALTER TABLE dead_letters ADD COLUMN retain INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE dead_letters ADD COLUMN properties BLOB NOT NULL DEFAULT x'';
    ALTER TABLE dead_letters ADD COLUMN mapping TEXT NOT NULL DEFAULT '';
    ALTER TABLE dead_letters ADD COLUMN stream TEXT;
    ALTER TABLE dead_letters ADD COLUMN extras BLOB NOT NULL DEFAULT x'';
    ALTER TABLE dead_letters ADD COLUMN wanted TEXT;
    ALTER TABLE dead_letters ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
    UPDATE dead_letters SET stored_at = received_at / 1000000000;
    CREATE INDEX wanted ON dead_letters (wanted, id) WHERE wanted IS NOT NULL;
    CREATE INDEX stored ON dead_letters (stored_at);
    """,
)
"""Entry n takes a store from version n (SQLite's user_version) to n + 1."""

DELIVERED, DEAD_LETTERED, DROPPED = "delivered", "dead_lettered:", "dropped:"
"""The books of what became of records: one name, and the beginnings of names that end with a reason."""
LAST_ID = "last_id"
"""The book of the last id that was given to a record."""

WAL_BYTES = 64 * 1024 * 1024
"""What the write-ahead log is cut back to after a burst."""

BUSY_SECONDS = 1.0
"""Another program holds the file (a backup, say): the data path waits no longer than this at a time."""


def connect(path: str) -> sqlite3.Connection:
    """A connection on which each commit is synced. May be used by one thread at a time."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # a full disk gets back what the store needs no more
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # NORMAL doesn't sync each commit: no ground for a PUBACK
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def version(db: sqlite3.Connection) -> int:
    """The number of changes that the file has seen."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    return int(found)


def upgrade(db: sqlite3.Connection) -> None:
    """Make the changes that the file lacks, each in a transaction of its own."""
    for number, script in enumerate(CHANGES[version(db) :], start=version(db) + 1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
