"""The table of dead letters: selects, stores, marks and deletes them, and measures their size.

Functions on a connection; those that change something run inside the caller's transaction. Only the outbox's owner
replays and purges; other processes mark dead letters with the action that they request (column ``wanted``).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bridge.message import DeadLetter
from bridge.outbox.bounds import Usage

RequestedAction = Literal["replay", "purge"]

# CAST: length() of a text counts only up to its first NUL.
SIZE = (
    "length(payload) + length(CAST(detail AS BLOB)) + length(CAST(topic AS BLOB)) + length(properties) + length(extras)"
)
COLUMNS = (
    "id, received_at, topic, qos, retain, properties, payload, route, reason, detail, mapping, omitted, "
    "stream, extras, wanted"
)
INSERT = """
    INSERT INTO dead_letters (
        received_at, topic, qos, retain, properties, payload, route, reason, detail, mapping, omitted,
        stream, extras, stored_at
    )
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
UPDATE_FAILED = """
    UPDATE dead_letters SET route = ?, reason = ?, detail = ?, mapping = ?, wanted = NULL WHERE id = ?
    RETURNING length(CAST(detail AS BLOB))
"""
DELETE = f"DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?)) RETURNING {SIZE}"  # noqa: S608 - constants
MARK = """
    UPDATE dead_letters SET wanted = ? WHERE id IN (SELECT value FROM json_each(?)) RETURNING id
"""
COUNT = f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM dead_letters"  # noqa: S608 - constants
OLDEST = f"SELECT id, {SIZE} FROM dead_letters ORDER BY id"  # noqa: S608 - constants
STORED_BETWEEN = "SELECT id FROM dead_letters WHERE stored_at >= ? AND stored_at < ? ORDER BY stored_at LIMIT ?"
REQUESTED = f"SELECT {COLUMNS} FROM dead_letters WHERE wanted = ? ORDER BY id"  # noqa: S608 - constants
REQUESTED_IDS = "SELECT id FROM dead_letters WHERE wanted = ? ORDER BY id LIMIT ?"
COUNT_REQUESTED = "SELECT count(*) FROM dead_letters WHERE wanted = ? AND id BETWEEN ? AND ?"
COUNT_BY_REASON = (
    "SELECT reason, count(*) FROM dead_letters WHERE id IN (SELECT value FROM json_each(?)) GROUP BY reason"
)

OVERHEAD = 60
"""Bytes on disk of a dead letter besides those that ``SIZE`` counts, rounded."""

PAGE_BYTES = 4 << 20
"""Bytes of dead letters after which a read stops; it returns at least one."""

MARK_BYTES = 2 << 20
"""Bytes of dead letters after which a transaction marks no more: SQLite rewrites each row, and the owner waits."""


class StoredDeadLetter(NamedTuple):
    """A dead letter in the outbox."""

    id: int
    """Increases, and is never reused."""
    dead_letter: DeadLetter
    stream: str | None
    """For a row that GDN refused, its stream; the payload is the row then. None: the payload is a message's."""
    extras: bytes
    """For a refused row, as in ``Row``."""
    requested: RequestedAction | None
    """The action that an operator has requested."""

    @property
    def size(self) -> int:
        """Bytes, as ``Bounds.dead_letter_bytes`` counts them."""
        message = self.dead_letter
        texts = len(message.detail.encode()) + len(message.topic.encode())
        return texts + len(message.payload) + len(message.properties) + len(self.extras) + OVERHEAD


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the dead letters that match every given criterion."""

    ids: Sequence[int] = ()
    reasons: Sequence[str] = ()
    routes: Sequence[str] = ()
    """Topic templates."""
    since: int | None = None
    """Received at this time or later, in nanoseconds since the epoch."""

    @property
    def is_everything(self) -> bool:
        """Whether there is no criterion."""
        return not (self.ids or self.reasons or self.routes or self.since is not None)

    def where(self, *, after: int = 0) -> tuple[str, list[object]]:
        """The SQL condition and its parameters, for ids above ``after``."""
        conditions: list[str] = ["id > ?"]
        parameters: list[object] = [after]
        for column, chosen in (("id", self.ids), ("reason", self.reasons), ("route", self.routes)):
            if chosen:
                conditions.append(f"{column} IN (SELECT value FROM json_each(?))")  # noqa: S608 - constants
                parameters.append(json.dumps(list(chosen)))
        if self.since is not None:
            conditions.append("received_at >= ?")
            parameters.append(self.since)
        return " AND ".join(conditions), parameters


def usage(db: sqlite3.Connection) -> Usage:
    """Number and bytes of all dead letters."""
    count, size = db.execute(COUNT).fetchone()
    return Usage(count, size + count * OVERHEAD)


def insert(db: sqlite3.Connection, dead_letters: Sequence[StoredDeadLetter], *, now: int) -> Usage:
    """Add dead letters; SQLite gives the ids. ``now`` in seconds since the epoch, for the bound of age."""
    both = [(stored, stored.dead_letter) for stored in dead_letters]
    db.executemany(
        INSERT,
        [
            (
                *(d.received_at, d.topic, d.qos, d.retain, d.properties, d.payload, d.route, d.reason, d.detail),
                *(d.mapping, d.omitted, stored.stream, stored.extras, now),
            )
            for stored, d in both
        ],
    )
    return Usage(len(dead_letters), sum([stored.size for stored in dead_letters]))


def delete(db: sqlite3.Connection, ids: Sequence[int]) -> Usage:
    """Delete dead letters; returns what was deleted: ids that don't exist are ignored."""
    sizes = [size + OVERHEAD for (size,) in db.execute(DELETE, (json.dumps(list(ids)),)).fetchall()]
    return Usage(len(sizes), sum(sizes))


def delete_oldest(db: sqlite3.Connection, excess: int) -> Usage:
    """Delete the oldest until ``excess`` bytes are free; returns what was deleted."""
    count = freed = last = 0
    for last, size in db.execute(OLDEST):  # noqa: B007 - used after the loop
        count += 1
        freed += size + OVERHEAD
        if freed >= excess:
            break
    db.execute("DELETE FROM dead_letters WHERE id <= ?", (last,))
    return Usage(count, freed)


def update_failed(db: sqlite3.Connection, stored: StoredDeadLetter, why: DeadLetter) -> Usage:
    """Give a dead letter that failed again its new reason and clear the request; returns how much it grew."""
    found = db.execute(UPDATE_FAILED, (why.route, why.reason, why.detail, why.mapping, stored.id)).fetchone()
    return Usage() if found is None else Usage(0, found[0] - len(stored.dead_letter.detail.encode()))


def requested_replays(db: sqlite3.Connection, limit: int) -> list[StoredDeadLetter]:
    """The oldest dead letters marked for replay: at most ``limit``, and up to ``PAGE_BYTES``."""
    return _page(_stored(db.execute(REQUESTED, ("replay",))), limit)


def requested_purges(db: sqlite3.Connection, limit: int) -> list[int]:
    """Ids of the oldest dead letters marked for purging."""
    return [dead_letter_id for (dead_letter_id,) in db.execute(REQUESTED_IDS, ("purge", limit))]


def ids_stored_between(db: sqlite3.Connection, since: float, before: float, limit: int) -> list[int]:
    """Ids of dead letters that were stored within a time, in seconds since the epoch."""
    return [dead_letter_id for (dead_letter_id,) in db.execute(STORED_BETWEEN, (since, before, limit))]


def count(db: sqlite3.Connection, selection: Selection) -> int:
    """How many dead letters are selected."""
    where, parameters = selection.where()
    (found,) = db.execute(f"SELECT count(*) FROM dead_letters WHERE {where}", parameters).fetchone()  # noqa: S608
    return int(found)


def page(db: sqlite3.Connection, selection: Selection, *, after: int, limit: int) -> list[StoredDeadLetter]:
    """The oldest selected dead letters with an id above ``after``: at most ``limit``, and up to ``PAGE_BYTES``."""
    where, parameters = selection.where(after=after)
    query = f"SELECT {COLUMNS} FROM dead_letters WHERE {where} ORDER BY id LIMIT ?"  # noqa: S608 - constants
    return _page(_stored(db.execute(query, [*parameters, limit])), limit)


def ids(db: sqlite3.Connection, selection: Selection, *, after: int, limit: int) -> list[int]:
    """As ``page``, but only the ids, and up to ``MARK_BYTES``."""
    where, parameters = selection.where(after=after)
    query = f"SELECT id, {SIZE} FROM dead_letters WHERE {where} ORDER BY id LIMIT ?"  # noqa: S608 - constants
    found: list[int] = []
    room = MARK_BYTES
    for dead_letter_id, size in db.execute(query, [*parameters, limit]):
        found.append(dead_letter_id)
        room -= size + OVERHEAD
        if room <= 0:
            break
    return found


def mark(db: sqlite3.Connection, chosen: Sequence[int], action: RequestedAction) -> list[int]:
    """Mark dead letters for replay or purging; returns the ids of those that exist."""
    return [dead_letter_id for (dead_letter_id,) in db.execute(MARK, (action, json.dumps(list(chosen)))).fetchall()]


def count_requested(db: sqlite3.Connection, action: RequestedAction, *, first: int, last: int) -> int:
    """How many dead letters with an id from ``first`` to ``last`` are marked for the action."""
    return int(db.execute(COUNT_REQUESTED, (action, first, last)).fetchone()[0])


def count_by_reason(db: sqlite3.Connection, chosen: Sequence[int]) -> dict[str, int]:
    """How many of these dead letters still exist, by reason."""
    return dict(db.execute(COUNT_BY_REASON, (json.dumps(list(chosen)),)).fetchall())


def _stored(found: sqlite3.Cursor) -> Iterator[StoredDeadLetter]:
    for row in found:
        row_id, received_at, topic, qos, retain, properties, payload, route, reason, detail, mapping, omitted = row[:-3]
        dead_letter = DeadLetter(
            topic=topic,
            payload=payload,
            qos=qos,
            received_at=received_at,
            route=route,
            reason=reason,
            detail=detail,
            retain=bool(retain),
            properties=properties,
            mapping=mapping,
            omitted=omitted,
        )
        yield StoredDeadLetter(row_id, dead_letter, *row[-3:])  # stream, extras, requested


def _page(found: Iterator[StoredDeadLetter], limit: int) -> list[StoredDeadLetter]:
    taken: list[StoredDeadLetter] = []
    room = PAGE_BYTES
    for stored in found:
        taken.append(stored)
        room -= stored.size
        if room <= 0 or len(taken) >= limit:
            break
    return taken
