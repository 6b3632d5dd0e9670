"""Rescue of a damaged outbox: everything readable is copied into a new file, the damaged file is kept beside it.

The new file replaces the damaged one only when it is complete and synced: after a crash the rescue starts over.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from bridge.outbox import directories, schema, wal
from bridge.reasons import DropReason

UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file raises; UnicodeDecodeError if SQLite's message quotes damaged bytes."""

DAMAGE_CODES = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH}
)
"""SQLite's codes for damage. The last two mean a damaged table definition or length: everything that the bridge writes
is far below SQLite's limits and of the right type.
"""

MAX_QUERIES = 20_000
"""Maximum queries per table to read around damage: limits the time."""

COPY_ROWS = 1000
"""Rows read at a time: limits memory."""

UNKNOWN_HIGHEST = 2**32
"""Upper end of the search if the highest id can't be read; halving narrows it quickly."""

RECORDS = {
    "id": "",
    "stream": "",
    "payload": "",
    "stored_at": "strftime('%s', 'now')",
    "extras": "x''",
}
"""Columns to copy, each with the SQL expression for a file too old to have it; empty: every file has it."""

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
    "omitted": "0",
    "stream": "NULL",
    "extras": "x''",
    "wanted": "NULL",
    "stored_at": "received_at / 1000000000",
}

FATES = (schema.DELIVERED, schema.DEAD_LETTERED, schema.DROPPED)
DAMAGED = schema.DROPPED + DropReason.OUTBOX_DAMAGED


class Rescued(NamedTuple):
    """The outcome of a rescue."""

    kept_at: Path
    """The damaged file."""
    records: int
    """Saved records; they will be delivered."""
    dead_letters: int
    """Saved dead letters."""
    lost: int | None
    """Records in the outbox that could not be read; None: unknown, because the books as of the last commit are lost."""
    dead_letters_lost: int | None
    """The same for dead letters."""


class LogDamage(NamedTuple):
    """Damage by which SQLite would lose commits without an error."""

    why: str
    log: wal.Verdict


def find_log_damage(path: Path) -> LogDamage | None:
    """Find damage by which SQLite would lose commits in the write-ahead log of a closed outbox; None if there is none.

    Raises:
        OSError: a file can't be read.
    """
    log_path = _beside(path)[0]
    if not log_path.exists():
        return None
    log = wal.judge(log_path, path)
    if log.is_damaged:
        return LogDamage(f"{log_path} is damaged, and later commits follow the damage", log)
    if log.frames and not path.stat().st_size:
        return LogDamage(f"{path} is empty, but its write-ahead log isn't", log)
    return None


def is_damaged(db: sqlite3.Connection) -> bool:
    """Whether SQLite's check finds damage. Reads the whole file."""
    try:
        return bool(db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except UNREADABLE as exc:
        if is_damage(exc):
            return True
        raise


def is_damage(exc: Exception) -> bool:
    """Whether an error means that the file is damaged or was replaced, rather than unusable for now."""
    if isinstance(exc, UnicodeDecodeError):
        return True
    if isinstance(exc, sqlite3.OperationalError) and not hasattr(exc, "sqlite_errorcode"):
        return True  # raised by Python itself, for text that isn't UTF-8
    code = getattr(exc, "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGE_CODES or code == sqlite3.SQLITE_READONLY_DBMOVED


def finish(path: Path) -> None:
    """Finish a rescue that crashed between its renames; delete the new file of one that crashed earlier."""
    new_path = _new_path(path)
    if new_path.exists() and not path.exists():
        for leftover in _beside(path):  # of the damaged file; the new file has their content
            leftover.unlink(missing_ok=True)
        directories.sync(path.parent)
        new_path.replace(path)
    for leftover in (new_path, _source_path(path)):
        _delete(leftover)


def rescue(path: Path, *, stamp: str) -> Rescued:
    """Replace a damaged outbox with a new one that has everything readable.

    Args:
        path: the outbox, closed.
        stamp: part of the name under which the damaged file is kept.

    Raises:
        sqlite3.Error, OSError: the new file could not be written; the damaged one is unchanged.
    """
    finish(path)
    new_path = _new_path(path)
    _create(new_path)
    new = schema.connect(str(new_path))
    try:
        schema.upgrade(new)
        counts = _copy(path, new)
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        new.close()
    kept_at = _unused(path.with_name(f"{path.name}.damaged-{stamp}"))
    # After a crash before the damaged file is renamed, the rescue starts over, which needs that file's log. After a
    # later crash the new file is the outbox, and must not be opened with that log. The syncs keep this order on disk.
    directories.sync(path.parent)
    path.replace(kept_at)
    directories.sync(path.parent)
    for beside in _beside(path):
        if beside.exists():
            beside.replace(f"{kept_at}{beside.name.removeprefix(path.name)}")
    directories.sync(path.parent)
    new_path.replace(path)
    directories.sync(path.parent)
    return Rescued(kept_at, *counts)


def _copy(path: Path, new: sqlite3.Connection) -> tuple[int, int, int | None, int | None]:
    """Copy everything readable; returns the numbers of records and dead letters, and of those that are lost."""
    source, stale = _source(path)
    old = sqlite3.connect(
        f"{source.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=schema.BUSY_SECONDS
    )
    try:
        # Without this SQLite reads nothing at all of a file that is shorter than its header says.
        old.execute("PRAGMA writable_schema = ON")
        books = dict(_rows_or_nothing(old, "SELECT name, value FROM books"))
        new.execute("BEGIN IMMEDIATE")
        records = _copy_table(old, new, table="records", columns=RECORDS)
        dead_letters = _copy_table(old, new, table="dead_letters", columns=DEAD_LETTERS)
        are_current = bool(books) and _are_current(old, new, books, stale)
        losses = _balance(books, records=records, dead_letters=dead_letters, are_current=are_current)
        new.executemany("INSERT INTO books VALUES (?, ?)", books.items())
        new.executemany("INSERT INTO memory VALUES (?, ?)", _row_formats(old))
        # Other saved values are not copied, so outbox and producer get a new name. A far end that deduplicates by
        # sequence number must not mistake a new record for an old one (docs/reliability.md, P8).
        new.execute("COMMIT")
    finally:
        old.close()
        if source != path:
            _delete(source)
    return records, dead_letters, *losses


def _source(path: Path) -> tuple[Path, frozenset[int]]:
    """The file to read from, and the pages whose latest content is lost.

    If SQLite would not read the write-ahead log to its end, this is a hard link to the outbox, or a copy, with a log of
    the intact frames. The outbox and its log aren't changed.
    """
    damage, source = find_log_damage(path), _source_path(path)
    if damage is None:
        return path, frozenset()
    if path.stat().st_size:
        try:
            source.hardlink_to(path)
        except OSError:  # not every file system has hard links
            _create(source)
            shutil.copyfile(path, source)
    else:
        _create(source)
        source.write_bytes(bytes(wal.DEFAULT_PAGE_SIZE))  # SQLite ignores the log of an empty file
    log_path, new_log_path = _beside(path)[0], _beside(source)[0]
    _create(new_log_path)
    wal.write_intact(log_path, path, frames=damage.log.frames, to=new_log_path)
    return source, damage.log.stale


def _are_current(
    old: sqlite3.Connection, new: sqlite3.Connection, books: Mapping[str, int], stale: frozenset[int]
) -> bool:
    """Whether these are the books as of the last commit. ``new`` has the records that were saved."""
    pages = dict(_rows_or_nothing(old, "SELECT name, rootpage FROM sqlite_master"))
    if stale & {wal.ANY_PAGE, pages.get("books", wal.ANY_PAGE)}:  # the books are a table of one page
        return False
    (highest,) = new.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()
    return bool(highest <= books.get(schema.LAST_ID, highest))


def _balance(
    books: dict[str, int], *, records: int, dead_letters: int, are_current: bool
) -> tuple[int | None, int | None]:
    """Correct the books to what was saved; returns the numbers of lost records and dead letters, None if unknown."""
    if not books:
        books[f"{schema.DEAD_LETTERED}unknown"] = dead_letters
    # Only known names: damage may have changed others, which are never read again.
    accounted = records + sum(n for name, n in books.items() if name.startswith(FATES))
    missing = books.get("received", 0) - accounted
    if not are_current:
        books[schema.UNKNOWN_LOSSES] = books.get(schema.UNKNOWN_LOSSES, 0) + 1
        books["received"] = accounted
        return None, None
    if missing > 0:
        books[DAMAGED] = books.get(DAMAGED, 0) + missing
    else:
        books["received"] = accounted
    dead_letters_lost = max(0, schema.kept_dead_letters(books) - dead_letters)
    if dead_letters_lost:
        books[schema.DEAD_LETTERS_LOST] = books.get(schema.DEAD_LETTERS_LOST, 0) + dead_letters_lost
    return max(0, missing), dead_letters_lost


def _row_formats(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """The saved markers of the form that the records have (row_formats.py)."""
    try:
        found = db.execute("SELECT key, value FROM memory WHERE key LIKE 'row_format:%'").fetchall()
    except UNREADABLE:
        return []
    return [(key, value) for key, value in found if isinstance(key, str) and isinstance(value, str)]


def _rows_or_nothing(db: sqlite3.Connection, query: str) -> list[tuple[str, int]]:
    try:
        return [(name, value) for name, value in db.execute(query) if isinstance(value, int) and isinstance(name, str)]
    except UNREADABLE:
        return []


def _has_column(db: sqlite3.Connection, table: str, name: str) -> bool:
    try:
        db.execute(f"SELECT {name} FROM {table} LIMIT 0")  # noqa: S608 - constants
    except UNREADABLE:
        return False
    return True


def _copy_table(old: sqlite3.Connection, new: sqlite3.Connection, *, table: str, columns: Mapping[str, str]) -> int:
    places = ", ".join("?" * len(columns))
    # OR IGNORE: a damaged tree may return a row twice.
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - constants
    # A file of an older version lacks columns; they get their default.
    sources = [name if not default or _has_column(old, table, name) else default for name, default in columns.items()]
    saved = 0
    for rows in _readable(old, table=table, columns=", ".join(sources)):
        for row in rows:
            try:
                saved += new.execute(insert, row).rowcount
            except sqlite3.IntegrityError:  # a damaged row
                continue
    return saved


def _readable(db: sqlite3.Connection, *, table: str, columns: str) -> Iterator[list[tuple[object, ...]]]:
    """The rows of a table in pages by id; a range that can't be read is halved until the damage is isolated."""
    query = f"SELECT {columns} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"  # noqa: S608 - constants
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
                ranges += [(middle + 1, high), (low, middle)]  # the lower half is read first
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


def _new_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.rescue")


def _source_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.rescue-source")


def _unused(path: Path) -> Path:
    """The path, with a number if it is taken: a clock that restarts at each boot repeats its timestamps."""
    numbered = (path.with_name(f"{path.name}-{n}") for n in count(2))
    return next(name for name in chain((path,), numbered) if not name.exists())


def _create(path: Path) -> None:
    """Create a file that only the owner can read."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _delete(path: Path) -> None:
    for leftover in (path, *_beside(path)):
        leftover.unlink(missing_ok=True)


def _beside(path: Path) -> tuple[Path, Path]:
    """The write-ahead log of a database file, and the log's index."""
    return Path(f"{path}-wal"), Path(f"{path}-shm")
