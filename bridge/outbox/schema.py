"""The outbox's schema as numbered changes, and the pragmas that every connection needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

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
    # 2: when a record was stored, for the bound of age; its sequence number, for deduplication; saved values
    """
    ALTER TABLE records ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE records ADD COLUMN number INTEGER;
    UPDATE records SET stored_at = strftime('%s', 'now');
    CREATE INDEX numbered ON records (stream, number) WHERE number IS NOT NULL;
    CREATE TABLE memory (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    # 3: the messages of the last batches, to recognise redelivered ones
    """
    CREATE TABLE handed_over (batch INTEGER PRIMARY KEY, messages BLOB NOT NULL);
    """,
    # 4: further members of a send; the whole message of a dead letter, so that it can be replayed, and what was
    # requested for it; when it was stored, for the bound of age. A refused row has stream and extras, but no message.
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
    # 5: how many bytes of a dead letter's payload are missing because the message was too large to receive
    """
    ALTER TABLE dead_letters ADD COLUMN omitted INTEGER NOT NULL DEFAULT 0;
    """,
    # 6: QoS 2 messages that are stored and whose PUBREL hasn't come
    """
    CREATE TABLE qos_2 (packet_id INTEGER PRIMARY KEY, digest BLOB NOT NULL);
    """,
    # 7: which broker's session a message was seen in; those seen so far are of the only one
    """
    ALTER TABLE handed_over RENAME TO handed_over_6;
    CREATE TABLE handed_over (session TEXT NOT NULL, batch INTEGER NOT NULL, messages BLOB NOT NULL,
        PRIMARY KEY (session, batch)) WITHOUT ROWID;
    ALTER TABLE qos_2 RENAME TO qos_2_6;
    CREATE TABLE qos_2 (session TEXT NOT NULL, packet_id INTEGER NOT NULL, digest BLOB NOT NULL,
        PRIMARY KEY (session, packet_id)) WITHOUT ROWID;
    INSERT INTO handed_over SELECT
        coalesce((SELECT json_extract(value, '$[0]') FROM memory WHERE key = 'mqtt_session'), ''), batch, messages
        FROM handed_over_6;
    INSERT INTO qos_2 SELECT
        coalesce((SELECT json_extract(value, '$[0]') FROM memory WHERE key = 'mqtt_session'), ''), packet_id, digest
        FROM qos_2_6;
    DROP TABLE handed_over_6;
    DROP TABLE qos_2_6;
    """,
)
"""Entry n upgrades a file from version n (SQLite's user_version) to n + 1."""

TABLES = frozenset({"records", "dead_letters", "books"})
"""Tables of every version."""

DELIVERED, DEAD_LETTERED, DROPPED = "delivered", "dead_lettered:", "dropped:"
"""Names in the books: the first is complete, the others are prefixes of a reason code."""
LAST_ID = "last_id"
"""Name in the books: the last id given to a record."""
DEAD_LETTERS_PURGED, DEAD_LETTERS_REPLAYED = "dead_letters_purged", "dead_letters_replayed"
DEAD_LETTERS_LOST = "dead_letters_lost"
"""Names in the books: dead letters that are no longer kept. Lost ones could not be read from a damaged outbox."""
UNKNOWN_LOSSES = "unknown_losses"
"""Name in the books: how often a damaged outbox lost records or dead letters whose number is unknown."""

WAL_BYTES = 64 * 1024 * 1024
"""The write-ahead log is truncated to this size after a burst."""

BUSY_SECONDS = 1.0
"""Seconds that the pipeline waits for another program that locks the file, such as a backup."""


def connect(path: str) -> sqlite3.Connection:
    """A connection that syncs each commit. For one thread at a time."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before any table: lets probe() shrink the file
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # NORMAL doesn't sync each commit, as a PUBACK needs
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        # Debian's SQLite overwrites what is deleted (secure_delete = ON): on a full disk the log has no room for all
        # pages of the records.
        db.execute("PRAGMA secure_delete = FAST")
    except BaseException:
        db.close()
        raise
    return db


def version(db: sqlite3.Connection) -> int:
    """The number of changes that were applied to the file."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    return int(found)


def is_foreign(db: sqlite3.Connection) -> bool:
    """Whether the file is the database of another program: it has tables, and not ours."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return bool(tables) and len(tables & TABLES) < 2  # another program may have a table of the same name


def upgrade(db: sqlite3.Connection) -> None:
    """Apply the changes that the file lacks, each in its own transaction."""
    for number, script in enumerate(CHANGES[version(db) :], start=version(db) + 1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def kept_dead_letters(books: Mapping[str, int]) -> int:
    """The number of dead letters that are kept, by the books."""
    gone = sum(books.get(name, 0) for name in (DEAD_LETTERS_PURGED, DEAD_LETTERS_REPLAYED, DEAD_LETTERS_LOST))
    return sum(n for name, n in books.items() if name.startswith(DEAD_LETTERED)) - gone
