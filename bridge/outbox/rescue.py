"""A damaged store without a human: what still reads goes into a new file, the damaged one is kept beside it.

The new file takes the place of the old one only when it is whole and synced, so a crash in the middle starts over.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bridge.outbox import directories, schema
from bridge.reasons import DropReason

UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file raises; the second where SQLite's own message quotes the rubbish that it found."""

MAX_QUERIES = 20_000
"""Attempts to read around damaged places, for each table: bounds the time."""

COPY_ROWS = 1000

UNKNOWN_HIGHEST = 2**32
"""Where to look up to when the damage hides the highest id; halving gets there soon."""

RECORDS = {
    "id": "",
    "stream": "",
    "payload": "",
    "stored_at": "strftime('%s', 'now')",
    "extras": "x''",
}
"""What is copied, and what a file that is too old to have the column gives instead."""

DEAD_LETTERS = {
    "id": "",
    "received_at": "",
    "topic": "",
    "qos": "",
    "payload": "",
    "route": "",
    "reason": "",
    "detail": "",
    "retain": "0",
    "properties": "x''",
    "mapping": "''",
    "stream": "NULL",
    "extras": "x''",
    "wanted": "NULL",
    "stored_at": "received_at / 1000000000",
}

FATES = (schema.DELIVERED, schema.DEAD_LETTERED, schema.DROPPED)
DAMAGED = schema.DROPPED + DropReason.OUTBOX_DAMAGED


class Rescued(NamedTuple):
    """What became of a damaged store."""

    kept_at: Path
    """The damaged file."""
    records: int
    """Saved, to be delivered."""
    dead_letters: int
    """Saved."""
    lost: int | None
    """Records that were in the store and could not be read; None where the books could not be read either."""


def is_damaged(db: sqlite3.Connection) -> bool:
    """Whether SQLite's own check finds anything. Reads the whole file."""
    try:
        return bool(db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except UNREADABLE as exc:
        if is_damage(exc):
            return True
        raise


def is_damage(exc: Exception) -> bool:
    """Whether an error means that the file is not what it should be, rather than that it can't be used now."""
    if isinstance(exc, UnicodeDecodeError):
        return True
    code = getattr(exc, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code == sqlite3.SQLITE_READONLY_DBMOVED


def finish(path: Path) -> None:
    """Finish a rescue that a crash cut short between its renames; throw away one that was not ready."""
    made = _made(path)
    if made.exists() and not path.exists():
        for left in _beside(path):  # of the damaged file: what they hold is in the new one
            left.unlink(missing_ok=True)
        directories.sync(path.parent)
        made.replace(path)
    for left in (made, *_beside(made)):
        left.unlink(missing_ok=True)


def rescue(path: Path, *, stamp: str) -> Rescued:
    """Put a new store with all that could be read in the place of a damaged one.

    Args:
        path: the store, closed.
        stamp: goes into the name under which the damaged file is kept.

    Raises:
        sqlite3.Error, OSError: the new file could not be written; the damaged one is where it was.
    """
    finish(path)
    made = _made(path)
    os.close(os.open(made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    new = schema.connect(str(made))
    try:
        schema.upgrade(new)
        records, dead_letters, lost = _copy(path, new)
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        new.close()
    kept_at = path.with_name(f"{path.name}.damaged-{stamp}")
    # Until the damaged file is moved, a crash starts the rescue over, and needs its log; from then on the new file
    # counts, and must not meet that log. The syncs keep this order on disk.
    directories.sync(path.parent)
    path.replace(kept_at)
    directories.sync(path.parent)
    for beside in _beside(path):
        if beside.exists():
            beside.replace(f"{kept_at}{beside.name.removeprefix(path.name)}")
    directories.sync(path.parent)
    made.replace(path)
    directories.sync(path.parent)
    return Rescued(kept_at, records, dead_letters, lost)


def _copy(path: Path, new: sqlite3.Connection) -> tuple[int, int, int | None]:
    """Copy what reads; returns records, dead letters and lost records."""
    old = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=schema.BUSY_SECONDS)
    try:
        books = dict(_rows_or_nothing(old, "SELECT name, value FROM books"))
        known = bool(books)
        new.execute("BEGIN IMMEDIATE")
        records = _copy_table(old, new, table="records", columns=RECORDS)
        letters = _copy_table(old, new, table="dead_letters", columns=DEAD_LETTERS)
        lost = _balance(books, records=records, dead_letters=letters)
        new.executemany("INSERT INTO books VALUES (?, ?)", books.items())
        # Not the memory: after damage the store gets another name, and with it the producer. A broker that drops
        # repeated sequence numbers must not take a new record for an old one (design.md P8).
        new.execute("COMMIT")
    finally:
        old.close()
    return records, letters, lost if known else None


def _balance(books: dict[str, int], *, records: int, dead_letters: int) -> int:
    """Correct the books so that they balance with what was saved; returns how many records are lost."""
    if not books:
        books["received"] = records + dead_letters
        books[f"{schema.DEAD_LETTERED}unknown"] = dead_letters
        return 0
    # Not a name that damage has changed: nobody reads it.
    fates = sum(n for name, n in books.items() if name.startswith(FATES))
    missing = books.get("received", 0) - fates - records
    if missing > 0:
        books[DAMAGED] = books.get(DAMAGED, 0) + missing
    else:
        books["received"] = books.get("received", 0) - missing
    return max(0, missing)


def _rows_or_nothing(db: sqlite3.Connection, query: str) -> list[tuple[str, int]]:
    try:
        return [(name, value) for name, value in db.execute(query) if isinstance(value, int) and isinstance(name, str)]
    except UNREADABLE:
        return []


def _has_column(db: sqlite3.Connection, table: str, name: str) -> bool:
    try:
        db.execute(f"SELECT {name} FROM {table} LIMIT 0")  # noqa: S608 - our own words
    except UNREADABLE:
        return False
    return True


def _copy_table(old: sqlite3.Connection, new: sqlite3.Connection, *, table: str, columns: Mapping[str, str]) -> int:
    places = ", ".join("?" * len(columns))
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - our own words
    there = [name if not instead or _has_column(old, table, name) else instead for name, instead in columns.items()]
    saved = 0
    for rows in _readable(old, table=table, columns=", ".join(there)):
        for row in rows:
            try:
                saved += new.execute(insert, row).rowcount
            except sqlite3.IntegrityError:  # a row of rubbish
                continue
    return saved


def _readable(db: sqlite3.Connection, *, table: str, columns: str) -> Iterator[list[tuple[object, ...]]]:
    """The rows of a table in pages by id; where one can't be read, ever smaller ranges around the damage."""
    query = f"SELECT {columns} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"  # noqa: S608 - our own words
    left = MAX_QUERIES
    ranges = [(1, _highest_id(db, table))]
    while ranges and left:
        low, high = ranges.pop()
        left -= 1
        try:
            rows = db.execute(query, (low, high, COPY_ROWS)).fetchall()
        except UNREADABLE:
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]  # the lower half is taken first
            continue
        if rows:
            yield rows
        if len(rows) == COPY_ROWS and isinstance(rows[-1][0], int) and rows[-1][0] < high:
            ranges.append((rows[-1][0] + 1, high))


def _highest_id(db: sqlite3.Connection, table: str) -> int:
    for query in (f"SELECT max(id) FROM {table}", f"SELECT value FROM books WHERE name = '{schema.LAST_ID}'"):  # noqa: S608
        try:
            found = db.execute(query).fetchone()
        except UNREADABLE:
            continue
        if found and isinstance(found[0], int):
            return found[0]
    return UNKNOWN_HIGHEST


def _made(path: Path) -> Path:
    return path.with_name(f"{path.name}.rescue")


def _beside(path: Path) -> tuple[Path, Path]:
    """SQLite's write-ahead log of a file, and its index."""
    return Path(f"{path}-wal"), Path(f"{path}-shm")
