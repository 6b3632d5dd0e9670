"""The table of records: those that wait for delivery, their size and their sequence numbers.

Functions on a connection; those that change something run inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bridge.message import OutboxRecord
from bridge.outbox.bounds import Usage
from bridge.reasons import DropReason

SIZE = "length(payload) + length(stream) + length(extras)"
INSERT = "INSERT INTO records (id, stream, payload, extras, stored_at) VALUES (?, ?, ?, ?, ?)"
MEASURE = f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM records WHERE id BETWEEN ? AND ?"  # noqa: S608 - constants
DELETE = "DELETE FROM records WHERE id BETWEEN ? AND ?"
DELETE_REFUSED = f"DELETE FROM records WHERE id = ? RETURNING {SIZE}, stream, extras"  # noqa: S608 - constants
READ = "SELECT id, payload, extras FROM records WHERE stream = ? AND id > ? AND number IS NULL ORDER BY id LIMIT ?"
READ_NUMBERED = (
    "SELECT id, payload, extras, number FROM records WHERE stream = ? AND number IS NOT NULL ORDER BY number"
)
READ_STREAMS = "SELECT DISTINCT stream FROM records"
READ_OLDEST = "SELECT stored_at FROM records ORDER BY id LIMIT 1"
COUNT = f"SELECT count(*), coalesce(sum({SIZE}), 0), coalesce(max(id), 0) FROM records"  # noqa: S608 - constants
WRITE_NUMBER = "UPDATE records SET number = ? WHERE id = ?"
FORGET_NUMBERS = "UPDATE records SET number = NULL WHERE number IS NOT NULL"

OVERHEAD = 40
"""Bytes on disk of a record besides payload, extras and the name of its stream, rounded up."""

DROP_RECORDS = 50_000
"""Most records dropped at a time: selecting them takes memory."""


def usage(db: sqlite3.Connection) -> tuple[Usage, int]:
    """Number and bytes of all records, and the highest id (0: none)."""
    count, size, highest = db.execute(COUNT).fetchone()
    return Usage(count, size + count * OVERHEAD), highest


def insert(db: sqlite3.Connection, records: Sequence[OutboxRecord], *, now: int) -> Usage:
    """Add records; ``now`` in seconds since the epoch, for the bound of age."""
    if records:
        db.executemany(INSERT, [(r.id, r.stream, r.payload, r.extras, now) for r in records])
    size = sum([len(r.payload) + len(r.stream) + len(r.extras) for r in records])
    return Usage(len(records), size + OVERHEAD * len(records))


def delete(db: sqlite3.Connection, ids: Sequence[int]) -> Usage:
    """Delete records; returns what was deleted: ids that don't exist are ignored."""
    deleted = Usage()
    for run in _runs(ids):
        # A sum in SQLite costs a third of RETURNING each size.
        count, size = db.execute(MEASURE, run).fetchone()
        db.execute(DELETE, run)
        deleted += Usage(count, size + OVERHEAD * count)
    return deleted


def delete_refused(db: sqlite3.Connection, record_id: int) -> tuple[Usage, str, bytes] | None:
    """Delete one record; returns what was deleted, its stream and its extras. None: it doesn't exist."""
    found = db.execute(DELETE_REFUSED, (record_id,)).fetchall()
    return next(((Usage(1, size + OVERHEAD), stream, extras) for size, stream, extras in found), None)


def drop(
    db: sqlite3.Connection, *, under_way: Mapping[str, int], excess: int, before: float
) -> tuple[Usage, Counter[str]]:
    """Delete the oldest records that were never sent: ``excess`` bytes, and all that were stored ``before``.

    Args:
        db: in a transaction.
        under_way: as for ``Outbox.drop``.
        excess: bytes to free.
        before: seconds since the epoch.

    Returns:
        What was deleted, and how many records by reason.
    """
    sent = "".join(" AND NOT (stream = ? AND id <= ?)" for _ in under_way)
    query = (
        f"SELECT id, {SIZE}, stored_at FROM records "  # noqa: S608 - constants
        f"WHERE number IS NULL{sent} ORDER BY id LIMIT {DROP_RECORDS}"
    )
    chosen: list[int] = []
    freed = 0
    reasons: Counter[str] = Counter()
    for record_id, size, stored_at in db.execute(query, [part for pair in under_way.items() for part in pair]):
        expired = stored_at < before
        if not expired and freed >= excess:
            break
        chosen.append(record_id)
        freed += size + OVERHEAD
        reasons[DropReason.EXPIRED if expired else DropReason.OUTBOX_FULL] += 1
    return delete(db, chosen), reasons


def read(db: sqlite3.Connection, stream: str, *, after: int, limit: int, max_bytes: int) -> list[OutboxRecord]:
    """The stream's next records without a sequence number: see ``Outbox.read``."""
    records: list[OutboxRecord] = []
    for record_id, payload, extras in db.execute(READ, (stream, after, limit)):
        records.append(OutboxRecord(record_id, stream, payload, extras))
        max_bytes -= len(payload) + len(extras)
        if max_bytes <= 0:
            break
    return records


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive ids as (first, last): a batch of releases becomes a few deletes, not hundreds."""
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
