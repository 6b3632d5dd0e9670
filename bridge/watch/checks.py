"""The checks that ask GDN: the worker's state, and queries with expected results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from http import HTTPStatus
from typing import Any, Protocol

from bridge.errors import GdnRejected
from bridge.streamql.syntax import Worker
from bridge.watch.health import CanaryStatus, CheckResult, HealthStatus
from bridge.watch.row_loss import RowLag, RowLagTracker

MAX_ROWS = 100
"""Rows read from the result of a query; a health query should return few."""

MAX_QUOTED = 200
"""Characters of a query or a result that are quoted in a sentence."""

RECOUNT_WAIT = 2.0
"""Seconds until a second count has to confirm that rows are lost. A longer wait would let more new rows hide them."""


class GdnApi(Protocol):
    """What the checks need of GDN's API. ``GdnRest`` implements it."""

    def get_worker(self, name: str, *, check: bool = ...) -> Any:
        """The worker's state; None if there is no such worker."""

    def query(self, c8ql: str, *, max_rows: int = ..., check: bool = ...) -> list[Any]:
        """The rows that the query returns."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected result of a query. A field that is None isn't checked."""

    min: float | None = None
    """The query returns a single number, at least this."""
    equals: str | float | bool | None = None
    """The query returns this single value."""
    rows: int | None = None
    """The query returns this many rows; below ``MAX_ROWS``."""
    changes_within: float | None = None
    """The result changes within this many seconds."""

    def unmet(self, rows: Sequence[Any], *, unchanged_for: float) -> str | None:
        """The first expectation that isn't met, as the end of a sentence; None if all are met.

        Args:
            rows: the result.
            unchanged_for: seconds since the result last changed.
        """
        if self.rows is not None and len(rows) != self.rows:
            more = " or more" if len(rows) == MAX_ROWS else ""
            return f"expected {self.rows} row{'' if self.rows == 1 else 's'}, got {len(rows)}{more}"
        is_single = len(rows) == 1
        got = _quote_result(rows[0]) if is_single else f"{len(rows) or 'no'} rows"
        if self.min is not None and not (is_single and _is_number(rows[0]) and rows[0] >= self.min):
            return f"expected at least {self.min:g}, got {got}"
        if self.equals is not None and not (is_single and _is_equal(rows[0], self.equals)):
            return f"expected {_quote_result(self.equals)}, got {got}"
        if self.changes_within is not None and unchanged_for > self.changes_within:
            return f"expected a change within {self.changes_within:g} s, got {got} for {unchanged_for:.0f} s"
        return None


class WorkerCheck:
    """Checks that the worker is active.

    Args:
        gdn: GDN's API.
        worker_name: the worker's name.
        interval: seconds between runs.
        on_state: called with each state that GDN returns; None if there is no such worker.
    """

    name = "worker active"

    def __init__(
        self,
        *,
        gdn: GdnApi,
        worker_name: str,
        interval: float,
        on_state: Callable[[Any], object] = lambda _state: None,
    ) -> None:
        self._gdn = gdn
        self._on_state = on_state
        self._worker_name = worker_name
        self.interval = interval

    def run(self, status: HealthStatus) -> CheckResult:
        """See ``Check``."""
        state = self._gdn.get_worker(self._worker_name, check=True)
        self._on_state(state)
        status = replace(status, worker_active=None if state is None else state.is_active)
        if state is None:
            return CheckResult(status, f"GDN has no stream worker {self._worker_name}")
        if not state.is_active:
            return CheckResult(status, f"stream worker {self._worker_name} is not active: rows are not processed")
        return CheckResult(status)


class QueryCheck:
    """Compares the result of a query with what is expected.

    Args:
        name: of the part.
        gdn: GDN's API.
        query: C8QL.
        interval: seconds between runs.
        expectation: of the result.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        gdn: GdnApi,
        query: str,
        interval: float,
        expectation: Expectation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.interval = interval
        self._gdn = gdn
        self._query = query
        self._expectation = expectation
        self._clock = clock
        self._digest = b""
        self._changed_at = 0.0

    def run(self, status: HealthStatus) -> CheckResult:
        """See ``Check``."""
        rows = _query_rows(self._gdn, self._query)
        if isinstance(rows, str):
            return CheckResult(status, rows)
        now = self._clock()
        # A digest is kept instead of the rows, which may take megabytes.
        digest = blake2b(json.dumps(rows, sort_keys=True).encode()).digest()
        if digest != self._digest:
            self._digest, self._changed_at = digest, now
        unmet = self._expectation.unmet(rows, unchanged_for=now - self._changed_at)
        return CheckResult(status, None if unmet is None else f"{quote_query(self._query)}: {unmet}")


class CountCheck:
    """Runs the health query, and compares the rows that came out with those that went in.

    The query has no expected result of its own. The check also runs whenever a canary has come out. It fails only on
    proof: once rows are lost, until a later canary has come out and shows no further loss; and while the worker is
    stalled.

    Args:
        gdn: GDN's API.
        query: C8QL; it should return a single number that grows with the rows.
        interval: seconds between runs.
        lag: compares the counts; None if they can't be compared.
        clock: monotonic seconds, the same clock as the canary's.
        wall_clock: seconds since the epoch.
    """

    name = "query"

    def __init__(
        self,
        *,
        gdn: GdnApi,
        query: str,
        interval: float,
        lag: RowLagTracker | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.interval = interval
        self._gdn = gdn
        self._query = query
        self._lag = lag
        self._clock = clock
        self._wall_clock = wall_clock
        self._loss: tuple[int, str] | None = None  # canaries found when a loss was noticed, and the sentence about it

    def run(self, status: HealthStatus) -> CheckResult:
        """See ``Check``."""
        tracker, now = self._lag, self._clock()
        # Counted before and after the query: the result may or may not include rows that are receipted while it runs.
        before = None if tracker is None else tracker.input_rows()
        rows = _query_rows(self._gdn, self._query)
        if isinstance(rows, str):
            return CheckResult(status, rows)
        status = replace(status, rows=rows)
        if tracker is None or before is None or status.count is None:
            return CheckResult(status)
        canary = status.canary or CanaryStatus()
        # Canary rows that were removed had come out, too.
        rows_out = status.count + canary.removed
        lag = tracker.count(
            at=now, before=before, after=tracker.input_rows(), rows_out=rows_out, due_rows=canary.due_rows
        )
        status = replace(status, rows_behind=lag.rows, rows_lost=(status.rows_lost or 0) + lag.lost)
        return self._judge(status, lag, canary)

    def _judge(self, status: HealthStatus, lag: RowLag, canary: CanaryStatus) -> CheckResult:
        canaries_found = canary.rounds.get("found", 0)
        if lag.lost:
            rows = f"{lag.lost} of the rows that GDN had receipted by {self._utc(canary.found_sent_at)}"
            why = "a canary sent after them has come out, and they have not"
            loss = f"{rows} are lost: {why}. The worker drops rows, or somebody deletes them from the table"
            self._loss = canaries_found, loss
        elif self._loss is not None and canaries_found > self._loss[0] and not lag.suspected:
            self._loss = None
        wait = min(RECOUNT_WAIT, self.interval) if lag.suspected else self.interval
        if self._loss is not None:
            return CheckResult(status, self._loss[1], wait=wait)
        receipted_by = self._utc(self._clock() - lag.age)
        overdue = f"{lag.overdue} of the rows that GDN had receipted by {receipted_by} have not come out"
        if lag.is_stalled:
            stalled = f"{overdue}, and no other row has for {lag.idle_for:.0f} s: the worker drops rows, or has stalled"
            return CheckResult(status, stalled)
        note = f"{overdue}: the worker is behind, or loses rows" if lag.is_late else None
        return CheckResult(status, note=note, wait=wait)

    def _utc(self, moment: float) -> str:
        """A time in monotonic seconds as UTC."""
        at = datetime.fromtimestamp(self._wall_clock() - (self._clock() - moment), UTC)
        return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def default_query(worker: Worker) -> str | None:
    """A query that counts the rows of the table that the worker fills; None if it fills none."""
    for query in worker.queries:
        table = worker.tables.get(query.target or "")
        if table is not None:
            return f"RETURN LENGTH(`{table.collection}`)"
    return None


def quote_query(query: str) -> str:
    """A query as quoted in a sentence: on one line, and cut."""
    return _cut(" ".join(query.split()))


def _quote_result(value: Any) -> str:
    """A result as quoted in a sentence: JSON, and cut."""
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_equal(value: Any, expected: str | float | bool) -> bool:
    """Whether both are equal and both or neither are booleans: in Python, True equals 1."""
    return isinstance(value, bool) == isinstance(expected, bool) and bool(value == expected)


def _query_rows(gdn: GdnApi, query: str) -> tuple[Any, ...] | str:
    """The rows that the query returns, or why there are none yet."""
    try:
        return tuple(gdn.query(query, max_rows=MAX_ROWS, check=True))
    except GdnRejected as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        return f"the collection doesn't exist yet; it is created when the worker is activated ({exc})"
