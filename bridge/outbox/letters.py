"""The table of dead letters: which ones are meant, what they hold, how much room they take.

Functions on a connection: those that change something are called inside a transaction of their caller's. A letter
that is *wanted* waits for the bridge to replay or purge it: whoever doesn't own the store can only ask.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bridge.message import DeadLetter
from bridge.outbox.bounds import Usage

Wanted = Literal["replay", "purge"]

# In bytes: length() of a text that holds a NUL counts what comes before it.
SIZE = (
    "length(payload) + length(CAST(detail AS BLOB)) + length(CAST(topic AS BLOB)) + length(properties) + length(extras)"
)
COLUMNS = (
    "id, received_at, topic, qos, retain, properties, payload, route, reason, detail, mapping, stream, extras, wanted"
)
INSERT = """
    INSERT INTO dead_letters (
        received_at, topic, qos, retain, properties, payload, route, reason, detail, mapping, stream, extras, stored_at
    )
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
EXPLAIN_ANEW = """
    UPDATE dead_letters SET route = ?, reason = ?, detail = ?, mapping = ?, wanted = NULL WHERE id = ?
    RETURNING length(CAST(detail AS BLOB))
"""
DELETE = f"DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?)) RETURNING {SIZE}"  # noqa: S608 - our own words
MARK = """
    UPDATE dead_letters SET wanted = ? WHERE id IN (SELECT value FROM json_each(?)) RETURNING id
"""
COUNT = f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM dead_letters"  # noqa: S608 - our own words
OLDEST = f"SELECT id, {SIZE} FROM dead_letters ORDER BY id"  # noqa: S608 - our own words
STORED_BEFORE = "SELECT id FROM dead_letters WHERE stored_at < ? ORDER BY stored_at LIMIT ?"
WANTED_IDS = "SELECT id FROM dead_letters WHERE wanted = ? ORDER BY id LIMIT ?"
WANTED_LETTERS = f"SELECT {COLUMNS} FROM dead_letters WHERE wanted = ? ORDER BY id"  # noqa: S608 - our own words
WANTED_BETWEEN = "SELECT count(*) FROM dead_letters WHERE wanted = ? AND id BETWEEN ? AND ?"
REASONS = "SELECT reason, count(*) FROM dead_letters WHERE id IN (SELECT value FROM json_each(?)) GROUP BY reason"

OVERHEAD = 60
"""Bytes on disk of a letter beside its texts and bytes, rounded."""

PAGE_BYTES = 8 << 20
"""Of letters read at a time, after which no more are; at least one is."""

MARK_BYTES = 2 << 20
"""Of letters marked with one transaction: SQLite writes a row as a whole, and the owner has to wait meanwhile."""


class Letter(NamedTuple):
    """A dead letter as it stands in the store."""

    id: int
    """Grows, is never used twice."""
    dead_letter: DeadLetter
    stream: str | None
    """Of a row that GDN refused, which is the payload then; None: the payload is a message's."""
    extras: bytes
    """Of such a row."""
    wanted: Wanted | None
    """What it waits for."""

    @property
    def size(self) -> int:
        """Bytes, as the bound of dead letters counts them."""
        letter = self.dead_letter
        texts = len(letter.detail.encode()) + len(letter.topic.encode())
        return texts + len(letter.payload) + len(letter.properties) + len(self.extras) + OVERHEAD


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: those that fit all that is given."""

    ids: Sequence[int] = ()
    reasons: Sequence[str] = ()
    routes: Sequence[str] = ()
    """Topic templates."""
    since: int | None = None
    """Received at this time or later, in nanoseconds since the epoch."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is given."""
        return not (self.ids or self.reasons or self.routes or self.since is not None)

    def where(self, *, after: int = 0) -> tuple[str, list[object]]:
        """The SQL condition and its parameters."""
        conditions: list[str] = ["id > ?"]
        parameters: list[object] = [after]
        for column, chosen in (("id", self.ids), ("reason", self.reasons), ("route", self.routes)):
            if chosen:
                conditions.append(f"{column} IN (SELECT value FROM json_each(?))")  # noqa: S608 - our own words
                parameters.append(json.dumps(list(chosen)))
        if self.since is not None:
            conditions.append("received_at >= ?")
            parameters.append(self.since)
        return " AND ".join(conditions), parameters


class RefusedRecord(NamedTuple):
    """A record that GDN will never take, and the dead letter that it becomes."""

    record_id: int
    dead_letter: DeadLetter


class ReplayedLetters(NamedTuple):
    """What becomes of letters that were mapped again."""

    done: Sequence[int] = ()
    """Ids of letters that go, since their rows are stored with the same commit, or have no rows to store."""
    failed: Sequence[tuple[Letter, DeadLetter]] = ()
    """Letters that stay, and what is wrong with them today."""


def held(db: sqlite3.Connection) -> Usage:
    """All that the table holds."""
    count, size = db.execute(COUNT).fetchone()
    return Usage(count, size + count * OVERHEAD)


def insert(db: sqlite3.Connection, letters: Sequence[Letter], *, now: int) -> Usage:
    """Add letters, whose ids are not looked at; ``now`` in seconds since the epoch, for the bound of age."""
    both = [(letter, letter.dead_letter) for letter in letters]
    db.executemany(
        INSERT,
        [
            (
                *(d.received_at, d.topic, d.qos, d.retain, d.properties, d.payload, d.route, d.reason, d.detail),
                *(d.mapping, letter.stream, letter.extras, now),
            )
            for letter, d in both
        ],
    )
    return Usage(len(letters), sum([letter.size for letter in letters]))


def delete(db: sqlite3.Connection, ids: Sequence[int]) -> Usage:
    """Delete letters; returns how many of them were there."""
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


def explain_anew(db: sqlite3.Connection, letter: Letter, why: DeadLetter) -> Usage:
    """Let a letter that failed again say why it did this time, and wait for nothing; returns how it grew."""
    found = db.execute(EXPLAIN_ANEW, (why.route, why.reason, why.detail, why.mapping, letter.id)).fetchone()
    return Usage() if found is None else Usage(0, found[0] - len(letter.dead_letter.detail.encode()))


def wanted(db: sqlite3.Connection, limit: int) -> list[Letter]:
    """The oldest letters that wait to be replayed: ``limit`` at most, and ``PAGE_BYTES`` of them."""
    return _page(_letters(db.execute(WANTED_LETTERS, ("replay",))), limit)


def ids_to_purge(db: sqlite3.Connection, limit: int) -> list[int]:
    """The oldest letters that wait to be purged."""
    return [letter_id for (letter_id,) in db.execute(WANTED_IDS, ("purge", limit))]


def ids_stored_before(db: sqlite3.Connection, when: float, limit: int) -> list[int]:
    """The letters that came into the store before a time, in seconds since the epoch."""
    return [letter_id for (letter_id,) in db.execute(STORED_BEFORE, (when, limit))]


def count(db: sqlite3.Connection, selection: Selection) -> int:
    """How many letters are meant."""
    where, parameters = selection.where()
    (found,) = db.execute(f"SELECT count(*) FROM dead_letters WHERE {where}", parameters).fetchone()  # noqa: S608
    return int(found)


def page(db: sqlite3.Connection, selection: Selection, *, after: int, limit: int) -> list[Letter]:
    """The oldest letters that are meant, with an id above ``after``, up to ``limit`` and to ``PAGE_BYTES``."""
    where, parameters = selection.where(after=after)
    query = f"SELECT {COLUMNS} FROM dead_letters WHERE {where} ORDER BY id LIMIT ?"  # noqa: S608 - our own words
    return _page(_letters(db.execute(query, [*parameters, limit])), limit)


def ids(db: sqlite3.Connection, selection: Selection, *, after: int, limit: int) -> list[int]:
    """As ``page``, the ids alone, and up to ``MARK_BYTES``."""
    where, parameters = selection.where(after=after)
    query = f"SELECT id, {SIZE} FROM dead_letters WHERE {where} ORDER BY id LIMIT ?"  # noqa: S608 - our own words
    found: list[int] = []
    room = MARK_BYTES
    for letter_id, size in db.execute(query, [*parameters, limit]):
        found.append(letter_id)
        room -= size + OVERHEAD
        if room <= 0:
            break
    return found


def mark(db: sqlite3.Connection, chosen: Sequence[int], action: Wanted) -> list[int]:
    """Want letters to be replayed or purged; returns the ids of those that are there."""
    return [letter_id for (letter_id,) in db.execute(MARK, (action, json.dumps(list(chosen)))).fetchall()]


def count_wanted(db: sqlite3.Connection, action: Wanted, *, first: int, last: int) -> int:
    """How many letters with such ids wait for the action."""
    return int(db.execute(WANTED_BETWEEN, (action, first, last)).fetchone()[0])


def reasons(db: sqlite3.Connection, chosen: Sequence[int]) -> dict[str, int]:
    """How many of these letters there are, by reason."""
    return dict(db.execute(REASONS, (json.dumps(list(chosen)),)).fetchall())


def _letters(found: sqlite3.Cursor) -> Iterator[Letter]:
    for letter_id, received_at, topic, qos, retain, properties, payload, route, reason, detail, mapping, *row in found:
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
        )
        yield Letter(letter_id, dead_letter, *row)


def _page(found: Iterator[Letter], limit: int) -> list[Letter]:
    taken: list[Letter] = []
    room = PAGE_BYTES
    for letter in found:
        taken.append(letter)
        room -= letter.size
        if room <= 0 or len(taken) >= limit:
            break
    return taken
