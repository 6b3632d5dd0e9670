"""Counts the tables that the worker fills, and compares each with the streams that feed it.

The check fails only on proof: after a loss, until a later canary has come out without a further one; and while the
worker is stalled. Each table is judged by itself: a worker that fills ten tables may lose every row of the eleventh.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from bridge.watch.checks import CountCheck, GdnApi, query_rows, quote_query, quote_result
from bridge.watch.health import CanaryStatus, CheckResult, HealthStatus, TableStatus
from bridge.watch.row_loss import CountableTable, InputRows, RowLag, RowLagTracker

TABLES_PER_QUERY = 50
"""Tables counted by one query; more are counted in rotation. GDN doesn't document how many a query may name."""

RECOUNT_WAIT = 2.0
"""Seconds until a second count, which must confirm a loss. In a longer wait more new rows could hide it."""

MAX_SENTENCES = 3
"""Maximum tables described in the error or note; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table to count.

    Args:
        table: its name and the streams that feed it.
        tracker: compares its rows with those of the streams.
        is_cleaned: whether rows of canaries are removed from it.
    """

    table: CountableTable
    tracker: RowLagTracker
    is_cleaned: bool = False


@dataclass(frozen=True, slots=True)
class _Count:
    """The latest count of a table."""

    rows: int
    """In the table."""
    lag: RowLag
    lost: int
    """Sum of ``RowLag.lost`` since the start."""
    loss: str | None
    """The sentence about rows that are lost, until a later canary shows no further loss."""
    loss_at: int
    """Number of canaries found when the loss was noticed."""
    stalled: str | None
    late: str | None


class TableCheck:
    """Counts the tables of the streams in use, with one query or in rotation. It also runs when a canary has come out.

    Args:
        gdn: GDN's API.
        tables: at least one; the first is the one that receives the canaries' rows.
        used: returns the streams that the bridge feeds; called by the health thread.
        interval: seconds between runs.
        clock: monotonic seconds, the same clock as the canary's.
        wall_clock: seconds since the epoch.
    """

    name = CountCheck.name

    def __init__(
        self,
        *,
        gdn: GdnApi,
        tables: Sequence[WatchedTable],
        used: Callable[[], Collection[str]],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.interval = interval
        self.query = ""
        self._gdn = gdn
        self._tables = tables
        self._used = used
        self._clock = clock
        self._wall_clock = wall_clock
        self._counts: dict[str, _Count] = {}  # by table
        self._next = 0  # where the rotation continues
        self._canaries_found = 0  # as of the last answered run

    def run(self, status: HealthStatus) -> CheckResult:
        """See ``Check``."""
        used = set(self._used())
        tables = [table for table in self._tables if used & set(table.table.streams)] or self._tables[:1]
        canary = status.canary or CanaryStatus()
        canaries_found = canary.rounds.get("found", 0)
        is_urgent = self._is_urgent(tables[0].table, canaries_found)
        # Beyond the last table the rotation begins again; a reload may also have left fewer tables.
        first = 0 if is_urgent or self._next >= len(tables) else self._next
        counted = tables[first : first + TABLES_PER_QUERY]
        self.query = count_query([table.table.collection for table in counted])
        now = self._clock()
        # Counted before and after the query: the result may or may not include rows that are receipted while it runs.
        before = [table.tracker.input_rows() for table in counted]
        rows = query_rows(self._gdn, self.query)
        if isinstance(rows, str):
            return CheckResult(status, rows)
        numbers = rows if len(counted) == 1 else rows[0] if len(rows) == 1 else ()
        if not _are_counts(numbers, len(counted)):
            got = quote_result(list(rows))
            return CheckResult(status, f"{quote_query(self.query)}: expected {len(counted)} numbers, got {got}")
        for table, earlier, number in zip(counted, before, numbers, strict=True):
            self._compare(table, canary, at=now, before=earlier, number=number)
        self._canaries_found = canaries_found
        # A run out of turn counts from the first table on; the rotation continues where it was.
        if not is_urgent:
            self._next = first + TABLES_PER_QUERY
        return self._result(status, [table.table for table in tables])

    def _is_urgent(self, canary_table: CountableTable, canaries_found: int) -> bool:
        """Whether to count the canary's table out of turn: each later row can hide a lost one (row_loss.py)."""
        latest = self._counts.get(canary_table.collection)
        return canaries_found != self._canaries_found or (latest is not None and latest.lag.suspected > 0)

    def _compare(self, table: WatchedTable, canary: CanaryStatus, *, at: float, before: InputRows, number: int) -> None:
        # Canary rows that were removed from the table had come out of the worker, too.
        rows_out = number + (canary.removed if table.is_cleaned else 0)
        after = table.tracker.input_rows()
        lag = table.tracker.count(at=at, before=before, after=after, rows_out=rows_out, due_rows=canary.due_rows)
        earlier = self._counts.get(table.table.collection)
        canaries_found = canary.rounds.get("found", 0)
        loss, loss_at = (None, 0) if earlier is None else (earlier.loss, earlier.loss_at)
        if lag.lost:
            rows = f"{lag.lost} of the rows that GDN had receipted by {self._utc(canary.found_sent_at)}"
            why = "a canary sent after them has come out, and they have not"
            loss = f"{rows} are lost: {why}. The worker drops rows, or somebody deletes them from the table"
            loss_at = canaries_found
        # An unconfirmed loss keeps the earlier one: whether it continues is known after the next count.
        elif canaries_found > loss_at and not lag.suspected:
            loss = None
        receipted_by = self._utc(self._clock() - lag.age)
        overdue = f"{lag.overdue} of the rows that GDN had receipted by {receipted_by} have not come out"
        stalled = f"{overdue}, and no other row has for {lag.idle_for:.0f} s: the worker drops rows, or has stalled"
        self._counts[table.table.collection] = _Count(
            rows=number,
            lag=lag,
            lost=(0 if earlier is None else earlier.lost) + lag.lost,
            loss=loss,
            loss_at=loss_at,
            stalled=stalled if lag.is_stalled else None,
            late=f"{overdue}: the worker is behind, or loses rows" if lag.is_late else None,
        )

    def _result(self, status: HealthStatus, tables: Sequence[CountableTable]) -> CheckResult:
        found = [(table, self._counts[table.collection]) for table in tables if table.collection in self._counts]
        status = replace(
            status,
            # In a rotation the sum is complete after the first round.
            rows=(sum(count.rows for _, count in found),) if len(found) == len(tables) else None,
            rows_behind=sum(count.lag.rows for _, count in found),
            rows_lost=sum(count.lost for count in self._counts.values()),
            tables=tuple(TableStatus(table.collection, table.streams, c.lag.rows, c.lost) for table, c in found),
        )
        losses = _sentences([(table, count.loss or count.stalled) for table, count in found])
        note = _sentences([(table, count.late) for table, count in found])
        wait = self.interval if any(count.loss for _, count in found) else None
        if any(count.lag.suspected for _, count in found):
            wait = min(RECOUNT_WAIT, self.interval)
        return CheckResult(status, losses, note=None if losses else note, wait=wait)

    def _utc(self, moment: float) -> str:
        """A time in monotonic seconds as UTC."""
        at = datetime.fromtimestamp(self._wall_clock() - (self._clock() - moment), UTC)
        return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def count_query(collections: Sequence[str]) -> str:
    """C8QL that counts the collections: one number, or one array of numbers."""
    lengths = [f"LENGTH(`{collection}`)" for collection in collections]
    return f"RETURN {lengths[0]}" if len(lengths) == 1 else f"RETURN [{', '.join(lengths)}]"


def _are_counts(numbers: Any, expected: int) -> bool:
    return (
        isinstance(numbers, list | tuple)
        and len(numbers) == expected
        and all(type(number) is int for number in numbers)  # isinstance would take booleans
    )


def _sentences(found: Sequence[tuple[CountableTable, str | None]]) -> str | None:
    """One sentence for each table that has one."""
    sentences = [f"{_described(table)}: {sentence}" for table, sentence in found if sentence is not None]
    more = len(sentences) - MAX_SENTENCES
    return "; ".join([*sentences[:MAX_SENTENCES], *([f"and {more} more tables"] if more > 0 else [])]) or None


def _described(table: CountableTable) -> str:
    streams = ", ".join(table.streams[:MAX_SENTENCES]) + (", …" if len(table.streams) > MAX_SENTENCES else "")
    return f"stream{'s' if len(table.streams) > 1 else ''} {streams} (table {table.collection})"
