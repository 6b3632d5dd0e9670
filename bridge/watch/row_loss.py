"""Compares the rows that GDN receipted with those that came out of the worker: some are behind, some lost.

A row that is behind may still come out; only the order of rows proves a loss. A stream keeps its order, so a row that
was receipted before a canary was sent has come out before the canary's row, or is lost. Each row that was receipted
after the canary and has already come out masks one lost row, so rows are counted as soon as a canary has come out.
Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bridge.streamql.streams import input_streams, query_targets
from bridge.streamql.syntax import Query, TableDefinition, Worker

STALLED_AFTER = 120.0
"""Seconds in which rows are behind and none comes out, after which the worker counts as stalled."""

LATE_AFTER = 300.0
"""Seconds that a row may be behind before it is reported."""


class InputRows(NamedTuple):
    """Rows for the streams that feed the counted table, since the process started."""

    receipted: int
    unreceipted: int = 0
    """In the outbox. GDN may have some of them already."""


@dataclass(frozen=True, slots=True)
class RowLag:
    """What one count of the table shows."""

    rows: int
    """Rows behind: receipted, and neither come out nor lost."""
    lost: int = 0
    """Rows that this count proves lost. They don't count as behind any more."""
    suspected: int = 0
    """Rows that are lost if the next count confirms it: a replica may be outdated, or one row may overtake another."""
    overdue: int = 0
    """Rows behind that were receipted ``age`` seconds ago or earlier."""
    age: float = 0.0
    idle_for: float = 0.0
    """Seconds since a count last differed from the one before."""

    @property
    def is_stalled(self) -> bool:
        """Whether rows are behind and none has come out for ``STALLED_AFTER``."""
        return self.overdue > 0 and min(self.age, self.idle_for) >= STALLED_AFTER

    @property
    def is_late(self) -> bool:
        """Whether rows have been behind for ``LATE_AFTER``."""
        return self.overdue > 0 and self.age >= LATE_AFTER


class RowLagTracker:
    """Follows the lag from count to count.

    How many rows came out before the bridge started is unknown. Therefore the smallest difference between rows in and
    rows out since the start counts as a lag of 0. A worker that was behind at the start shows less than its real lag
    until it has caught up once. Whatever is uncertain counts in the worker's favour.

    Args:
        input_rows: returns the current counts.
        keeps_order: whether the canary's rows and all others come out in the order in which they were receipted.
    """

    def __init__(self, input_rows: Callable[[], InputRows], *, keeps_order: bool = False) -> None:
        self.input_rows = input_rows
        self._keeps_order = keeps_order
        self._baseline: int | None = None  # the difference between rows in and rows out that counts as no lag
        self._rows_out: int | None = None
        self._changed_at = 0.0
        self._suspected = 0
        self._mark: tuple[float, int] | None = None  # a time, and the rows receipted by then: not all are out yet

    def count(self, *, at: float, before: InputRows, after: InputRows, rows_out: int, due_rows: int | None) -> RowLag:
        """Evaluate a count of the table.

        Args:
            at: monotonic seconds at which ``before`` was taken.
            before: ``input_rows`` before the table was counted.
            after: ``input_rows`` after it was counted.
            rows_out: rows in the table, and canary rows removed from it.
            due_rows: receipted rows that must have come out with the last canary; None if no canary has come out.
        """
        if self._rows_out is not None and rows_out < self._rows_out:
            self._baseline = self._mark = None  # rows were deleted from the table: the old differences mean nothing
        if rows_out != self._rows_out:
            self._rows_out, self._changed_at = rows_out, at
        # A row may come out before its receipt is read, so unreceipted rows count as rows in here.
        difference = after.receipted + after.unreceipted - rows_out
        baseline = difference if self._baseline is None else min(self._baseline, difference)
        missing = 0
        if self._keeps_order and due_rows is not None:
            missing = max(0, due_rows - rows_out - baseline)
        # Only what the previous count also found missing: see RowLag.suspected.
        lost = min(missing, self._suspected)
        self._suspected = missing - lost
        # Lost rows never come out, so they must not count as behind.
        self._baseline = baseline = baseline + lost
        mark_at, receipted = self._mark or (at, before.receipted)
        overdue = max(0, receipted - rows_out - baseline)
        # The mark stays until all rows receipted by it are out: its age is the age of the lag.
        self._mark = (mark_at, receipted) if overdue else (at, before.receipted)
        rows = max(0, before.receipted - rows_out - baseline)
        age = at - mark_at if overdue else 0.0
        return RowLag(rows, lost, self._suspected, overdue, age, at - self._changed_at)


class CountableTable(NamedTuple):
    """A table that gets exactly one row from the worker for each row of some streams."""

    collection: str
    """In GDN."""
    streams: tuple[str, ...]
    """The GDN streams that feed it."""


def countable_tables(worker: Worker) -> tuple[CountableTable, ...]:
    """The tables of the definition whose rows can be compared with those of streams.

    A table isn't one of them if a filter, a window, a join, a key by which rows replace each other, or batches change
    the number of rows; nor if rows come from elsewhere: from another source, another query, or a PARTITION.
    """
    targets = query_targets(worker)
    tables = [table for table in worker.tables.values() if targets[table.name] and _keeps_every_row(table)]
    collections = Counter(table.collection for table in worker.tables.values())
    found = [
        CountableTable(table.collection, _feeding_streams(worker, table.name, targets))
        for table in tables
        # Rows of a collection with two definitions can't be attributed to either.
        if collections[table.collection] == 1
    ]
    return tuple(table for table in found if table.streams)


def _keeps_every_row(table: TableDefinition) -> bool:
    replaces_or_delays = any(key.lower() in ("primarykey", "batch.size") for key in table.properties)
    has_key = any(attribute.name == "_key" for attribute in table.attributes or ())
    return table.in_gdn and not replaces_or_delays and not has_key


def _feeding_streams(worker: Worker, table: str, targets: Counter[str]) -> tuple[str, ...]:
    """The GDN streams of which every row becomes exactly one row of the table; empty if that isn't certain."""
    feeding = [query for query in worker.queries if isinstance(query, Query) and query.target == table]
    sources = {query.source for query in feeding if not query.filters and not targets[query.source]}
    # Each query that fills the table is a plain one, and has a source of its own that no query fills.
    if len(sources) != targets[table]:
        return ()
    places = {worker.streams[source].place for source in sources if source in worker.streams}
    streams = {name: s for name, s in input_streams(worker).items() if s.read_by_worker and s.place in places}
    # A source that isn't a GDN stream has rows that the bridge didn't send.
    if {stream.place for stream in streams.values()} != places or len(places) != len(sources):
        return ()
    return tuple(streams)


def keeps_row_order(worker: Worker) -> bool:
    """Whether a single reader processes the rows in order: no ``@App:instances`` and no ``num.consumers``."""
    return not worker.metadata("instances") and not any(
        key.lower() == "num.consumers" for stream in worker.streams.values() for key in stream.properties
    )
