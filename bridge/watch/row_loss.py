"""Rows out against rows in: how many that GDN receipted have not come out of the worker, and which of them never will.

A row that is behind may still come: only order tells. A stream keeps it, so what was receipted before a canary was sent
has come out before the canary's row, or is lost. What came in after it and is out, too, hides as many: so rows are
counted as soon as a canary has come out. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bridge.streamql.streams import input_streams
from bridge.streamql.syntax import Query, Worker

STILL = 120.0
"""Seconds without any row that came out, while some are awaited, after which that is no slowness any more."""

LATE = 300.0
"""Seconds that rows may take before it is said."""


class RowsIn(NamedTuple):
    """What GDN was given for the streams behind the table, since the start."""

    receipted: int
    waiting: int = 0
    """Of no receipt yet: GDN may have them or not."""


@dataclass(frozen=True, slots=True)
class Behind:
    """What a count shows."""

    rows: int
    """Receipted, and not come out."""
    lost: int = 0
    """Rows that this count shows to be lost: they count as behind no more."""
    suspected: int = 0
    """Rows that are lost if another count shows the same: a replica may be a moment old, one row overtake another."""
    overdue: int = 0
    """Of ``rows``, those that were receipted ``age`` seconds ago or earlier."""
    age: float = 0.0
    still_for: float = 0.0
    """Seconds since a row was last seen to come out."""

    @property
    def stands_still(self) -> bool:
        """Whether nothing has come out for so long that the worker can't just be slow."""
        return self.overdue > 0 and min(self.age, self.still_for) >= STILL

    @property
    def is_late(self) -> bool:
        """Whether rows are so old that it should be said."""
        return self.overdue > 0 and self.age >= LATE


class RowLag:
    """Compares two counts that began at different times.

    Nobody knows how many rows came out before the bridge began to count, so the best moment since the start counts as
    without lag: the smallest difference there was. A worker that was behind then shows less than it is, until it has
    caught up once. What is doubtful counts in the worker's favour.

    Args:
        rows_in: what GDN was given.
        keeps_order: whether the canary's rows take the same way as all others, one after another.
    """

    def __init__(self, rows_in: Callable[[], RowsIn], *, keeps_order: bool = False) -> None:
        self.rows_in = rows_in
        self._keeps_order = keeps_order
        self._least: int | None = None
        self._rows_out: int | None = None
        self._moved_at = 0.0
        self._suspected = 0
        self._mark: tuple[float, int] | None = None  # a moment, and the rows receipted by then: not all came out since

    def count(self, *, at: float, before: RowsIn, after: RowsIn, rows_out: int, proven: int | None) -> Behind:
        """What these counts show.

        Args:
            at: monotonic seconds when ``before`` was taken.
            before: as ``rows_in`` gave it before the rows were counted.
            after: the same afterwards.
            rows_out: in the table.
            proven: rows that must have come out, as the last canary that came out was sent after them; None: there was
                none.
        """
        if self._rows_out is not None and rows_out < self._rows_out:
            self._least = self._mark = None  # somebody deletes there: begin anew
        if rows_out != self._rows_out:
            self._rows_out, self._moved_at = rows_out, at
        # A row may come out before its receipt is read.
        most = after.receipted + after.waiting - rows_out
        least = most if self._least is None else min(self._least, most)
        short = max(0, proven - rows_out - least) if self._keeps_order and proven is not None else 0
        lost = min(short, self._suspected)
        self._suspected = short - lost
        self._least = least + lost
        mark_at, receipted = self._mark or (at, before.receipted)
        overdue = max(0, receipted - rows_out - self._least)
        self._mark = (mark_at, receipted) if overdue else (at, before.receipted)
        rows = max(0, before.receipted - rows_out - self._least)
        age = at - mark_at if overdue else 0.0
        return Behind(rows, lost, self._suspected, overdue, age, at - self._moved_at)


def streams_of_single_rows(worker: Worker) -> tuple[str, ...]:
    """The GDN streams whose every row becomes exactly one row of the table that the default query counts.

    Empty where the definition doesn't say that: a filter, a window, a join, a key that lets rows replace each other,
    rows that are written once there are enough of them.
    """
    table = next((t for query in worker.queries if (t := worker.tables.get(query.target or "")) is not None), None)
    if table is None or any(key.lower() in ("primarykey", "batch.size") for key in table.properties):
        return ()
    if any(attribute.name == "_key" for attribute in table.attributes or ()):
        return ()
    feeding = [query for query in worker.queries if query.target == table.name]
    plain = [query.source for query in feeding if isinstance(query, Query) and not query.filters]
    filled_inside = {query.target for query in worker.queries}
    if len(plain) != len(feeding) or len(set(plain)) != len(plain) or filled_inside & set(plain):
        return ()
    places = {worker.streams[source].place for source in plain if source in worker.streams}
    if len(places) != len(plain):
        return ()
    return tuple(name for name, stream in input_streams(worker).items() if stream.place in places)


def works_in_order(worker: Worker) -> bool:
    """Whether one reader takes the rows one after another: neither ``@App:instances`` nor ``num.consumers``."""
    return not worker.metadata("instances") and not any(
        key.lower() == "num.consumers" for stream in worker.streams.values() for key in stream.properties
    )
