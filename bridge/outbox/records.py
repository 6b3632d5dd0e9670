"""The table of records: those that wait for delivery, their size and their sequence numbers.

Functions on a connection; those that change something run inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from bridge.message import OutboxRecord
from bridge.outbox.bounds import Usage
from bridge.reasons import DropReason

SIZE = "length(payload) + length(stream) + length(extras)"
INSERT = "INSERT INTO records (id, stream, payload, extras, stored_at) VALUES (?, ?, ?, ?, ?)"
MEASURE = f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM records WHERE id BETWEEN ? AND ?"  # noqa: S608 - constants
MEASURE_STREAMS = f"SELECT stream, count(*), sum({SIZE}) FROM records WHERE id BETWEEN ? AND ? GROUP BY stream"  # noqa: S608 - constants
DELETE = "DELETE FROM records WHERE id BETWEEN ? AND ?"
DELETE_REFUSED = f"DELETE FROM records WHERE id = ? RETURNING {SIZE}, stream, extras"  # noqa: S608 - constants
READ = "SELECT id, payload, extras FROM records WHERE stream = ? AND id > ? AND number IS NULL ORDER BY id LIMIT ?"
READ_NUMBERED = (
    "SELECT id, payload, extras, number FROM records WHERE stream = ? AND number IS NOT NULL ORDER BY number"
)
READ_STREAMS = "SELECT DISTINCT stream FROM records"
READ_OLDEST = "SELECT stored_at FROM records ORDER BY id LIMIT 1"
COUNT = f"SELECT stream, count(*), sum({SIZE}), max(id) FROM records GROUP BY stream"  # noqa: S608 - constants
WRITE_NUMBER = "UPDATE records SET number = ? WHERE id = ?"
FORGET_NUMBERS = "UPDATE records SET number = NULL WHERE number IS NOT NULL"

OVERHEAD = 40
"""Bytes on disk of a record besides payload, extras and the name of its stream, rounded up."""

DROP_RECORDS = 50_000
"""Maximum records dropped at a time: selecting them takes memory."""


def usage(db: sqlite3.Connection) -> tuple[dict[str, Usage], int]:
    """The records of each stream, and the highest id (0: none)."""
    found = db.execute(COUNT).fetchall()
    usages = {stream: Usage(count, size + count * OVERHEAD) for stream, count, size, _ in found}
    return usages, max([highest for *_, highest in found], default=0)


def insert(db: sqlite3.Connection, records: Sequence[OutboxRecord], *, now: int) -> dict[str, Usage]:
    """Add records; returns what was added. ``now`` in seconds since the epoch, for the bound of age."""
    if not records:
        return {}
    db.executemany(INSERT, [(r.id, r.stream, r.payload, r.extras, now) for r in records])
    first = records[0].stream
    if [r.stream for r in records].count(first) == len(records):  # the usual case
        size = sum([len(r.payload) + len(r.extras) for r in records])
        return {first: Usage(len(records), size + (OVERHEAD + len(first)) * len(records))}
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for r in records:
        counts[r.stream] += 1
        sizes[r.stream] += len(r.payload) + len(r.stream) + len(r.extras) + OVERHEAD
    return {stream: Usage(count, sizes[stream]) for stream, count in counts.items()}


def delete(db: sqlite3.Connection, ids: Sequence[int], *, streams: Collection[str]) -> dict[str, Usage]:
    """Delete records; returns what was deleted: ids that don't exist are ignored. ``streams`` have records."""
    only = next(iter(streams)) if len(streams) == 1 else None
    deleted: defaultdict[str, Usage] = defaultdict(Usage)
    for run in _runs(ids):
        # A sum in SQLite costs a third of RETURNING each size, and more with groups.
        query, names = (MEASURE_STREAMS, []) if only is None else (MEASURE, [only])
        found = [(*names, *row) for row in db.execute(query, run)]
        db.execute(DELETE, run)
        for stream, count, size in found:
            deleted[stream] += Usage(count, size + OVERHEAD * count)
    return deleted


def delete_refused(db: sqlite3.Connection, record_id: int) -> tuple[Usage, str, bytes] | None:
    """Delete one record; returns what was deleted, its stream and its extras. None: it doesn't exist."""
    found = db.execute(DELETE_REFUSED, (record_id,)).fetchall()
    return next(((Usage(1, size + OVERHEAD), stream, extras) for size, stream, extras in found), None)


def drop(
    db: sqlite3.Connection,
    *,
    under_way: Mapping[str, int],
    excess: Mapping[str, int],
    since: float,
    before: float,
    streams: Collection[str],
) -> tuple[dict[str, Usage], Counter[str]]:
    """Delete the oldest records that were never sent: ``excess`` bytes, and all that were stored ``before``.

    Args:
        db: in a transaction.
        under_way: as for ``Outbox.drop``.
        excess: bytes to free, by stream.
        since: seconds since the epoch; what was stored earlier has no known age.
        before: the same.
        streams: those that have records.

    Returns:
        What was deleted, and how many records by reason.
    """
    sent = "".join(" AND NOT (stream = ? AND id <= ?)" for _ in under_way)
    places = ", ".join("?" * len(excess))
    query = (
        f"SELECT id, stream, {SIZE}, stored_at FROM records "  # noqa: S608 - constants
        f"WHERE number IS NULL AND (stored_at >= ? AND stored_at < ? OR stream IN ({places})){sent} "
        f"ORDER BY id LIMIT {DROP_RECORDS}"
    )
    chosen: list[int] = []
    left = dict(excess)
    reasons: Counter[str] = Counter()
    for record_id, stream, size, stored_at in db.execute(
        query, [since, before, *excess, *(part for pair in under_way.items() for part in pair)]
    ):
        expired = since <= stored_at < before
        if not expired and left.get(stream, 0) <= 0:
            if max(left.values(), default=0) <= 0:
                break
            continue
        chosen.append(record_id)
        left[stream] = left.get(stream, 0) - size - OVERHEAD
        reasons[DropReason.EXPIRED if expired else DropReason.OUTBOX_FULL] += 1
    return delete(db, chosen, streams=streams), reasons


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
