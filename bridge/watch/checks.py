"""What is asked of GDN to know that it works: the worker's state, and queries with what is expected of their rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Protocol

from bridge.errors import GdnRejected
from bridge.streamql.syntax import Worker
from bridge.watch.health import CanaryStatus, CheckResult, HealthStatus
from bridge.watch.row_loss import Behind, RowLag

MAX_ROWS = 100
"""Rows of a health query that are read; it should return few."""

MAX_SHOWN = 200
"""Characters of a query or of a result that stand in a sentence."""

RECOUNT = 2.0
"""Seconds until rows are counted again that seem to be lost: what comes in meanwhile can hide them."""

MISSING = 404


class CheckedGdn(Protocol):
    """What is asked of GDN (``GdnRest`` has it)."""

    def get_worker(self, name: str, *, check: bool = ...) -> Any:
        """The worker's state, or None."""

    def query(self, c8ql: str, *, max_rows: int = ..., check: bool = ...) -> list[Any]:
        """The query's rows."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a query's rows must be. What is None isn't asked for."""

    min: float | None = None
    """The one row is a number and at least this."""
    equals: str | float | bool | None = None
    """The one row is this."""
    rows: int | None = None
    """There are so many rows, below ``MAX_ROWS``."""
    changes_within: float | None = None
    """Seconds in which the rows must change."""

    def unmet(self, rows: Sequence[Any], *, unchanged_for: float) -> str | None:
        """What was expected and what came, in a sentence's end; None: all that was expected.

        Args:
            rows: what the query gave.
            unchanged_for: seconds that it has given the same for.
        """
        if self.rows is not None and len(rows) != self.rows:
            more = " or more" if len(rows) == MAX_ROWS else ""
            return f"expected {self.rows} row{'' if self.rows == 1 else 's'}, {len(rows)}{more} came"
        came = shown(rows[0]) if len(rows) == 1 else f"{len(rows) or 'no'} rows"
        if self.min is not None and not (len(rows) == 1 and _is_number(rows[0]) and rows[0] >= self.min):
            return f"expected at least {self.min:g}, {came} came"
        if self.equals is not None and not (len(rows) == 1 and _same(rows[0], self.equals)):
            return f"expected {shown(self.equals)}, {came} came"
        if self.changes_within is not None and unchanged_for > self.changes_within:
            return f"expected a change within {self.changes_within:g} s, for {unchanged_for:.0f} s {came} came"
        return None


class WorkerCheck:
    """Looks whether the worker is active.

    Args:
        rest: asked.
        worker_name: the worker to look at.
        interval: seconds between looks.
        saw: is shown what was found; None: there is no such worker.
    """

    name = "worker active"

    def __init__(
        self, *, rest: CheckedGdn, worker_name: str, interval: float, saw: Callable[[Any], object] = lambda _state: None
    ) -> None:
        self._rest = rest
        self._saw = saw
        self._worker_name = worker_name
        self.interval = interval

    def ask(self, known: HealthStatus) -> CheckResult:
        """Look: see ``Check``."""
        state = self._rest.get_worker(self._worker_name, check=True)
        self._saw(state)
        known = replace(known, worker_active=None if state is None else state.is_active)
        if state is None:
            return CheckResult(known, f"GDN shows no stream worker {self._worker_name}")
        if not state.is_active:
            return CheckResult(known, f"stream worker {self._worker_name} is not active: what is sent is not worked on")
        return CheckResult(known)


class QueryCheck:
    """Runs a query and holds its rows against what is expected.

    Args:
        name: of the part.
        rest: asked.
        query: C8QL.
        interval: seconds between queries.
        expectation: of its rows.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        rest: CheckedGdn,
        query: str,
        interval: float,
        expectation: Expectation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.interval = interval
        self._rest = rest
        self._query = query
        self._expectation = expectation
        self._clock = clock
        self._last = b""
        self._changed_at = 0.0

    def ask(self, known: HealthStatus) -> CheckResult:
        """Look: see ``Check``."""
        rows = _rows(self._rest, self._query)
        if isinstance(rows, str):
            return CheckResult(known, rows)
        now = self._clock()
        digest = blake2b(json.dumps(rows, sort_keys=True).encode()).digest()
        if digest != self._last:
            self._last, self._changed_at = digest, now
        unmet = self._expectation.unmet(rows, unchanged_for=now - self._changed_at)
        return CheckResult(known, None if unmet is None else f"{shown_query(self._query)}: {unmet}")


class CountCheck:
    """Runs the default query, which by itself expects nothing, and tells what came of it.

    It is due whenever a canary has come out. It is red while rows out fall short of rows in beyond doubt: from when
    rows are known to be lost until a later canary has come out and shown no further loss, and while nothing comes out.

    Args:
        rest: asked.
        query: C8QL; best one number that grows with the rows.
        interval: seconds between queries.
        lag: rows out against rows in; None where they can't be compared.
        clock: monotonic seconds, the same as the canary's.
        wall_clock: seconds since the epoch.
    """

    name = "query"

    def __init__(
        self,
        *,
        rest: CheckedGdn,
        query: str,
        interval: float,
        lag: RowLag | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.interval = interval
        self._rest = rest
        self._query = query
        self._lag = lag
        self._clock = clock
        self._wall_clock = wall_clock
        self._loss: tuple[int, str] | None = None  # how many canaries had come out by then, and the sentence

    def ask(self, known: HealthStatus) -> CheckResult:
        """Look: see ``Check``."""
        lag, now = self._lag, self._clock()
        # Before the query and after it: what is receipted while it runs may be in its answer or not.
        before = None if lag is None else lag.rows_in()
        rows = _rows(self._rest, self._query)
        if isinstance(rows, str):
            return CheckResult(known, rows)
        known = replace(known, rows=rows, queried_at=self._wall_clock())
        if lag is None or before is None or known.count is None:
            return CheckResult(known)
        canary = known.canary or CanaryStatus()
        rows_out = known.count + canary.removed
        behind = lag.count(at=now, before=before, after=lag.rows_in(), rows_out=rows_out, proven=canary.found_after)
        known = replace(known, rows_behind=behind.rows, rows_lost=(known.rows_lost or 0) + behind.lost)
        return self._judged(known, behind, canary)

    def _judged(self, known: HealthStatus, behind: Behind, canary: CanaryStatus) -> CheckResult:
        found = canary.rounds.get("found", 0)
        if behind.lost:
            who = f"{behind.lost} of the rows that GDN had receipted by {self._time(canary.found_from)}"
            why = "a canary sent after them has come out, and they have not"
            self._loss = found, f"{who} are lost: {why}. The worker drops them, or somebody deletes from the table"
        elif self._loss is not None and found > self._loss[0] and not behind.suspected:
            self._loss = None
        wait = min(RECOUNT, self.interval) if behind.suspected else self.interval
        if self._loss is not None:
            return CheckResult(known, self._loss[1], wait=wait)
        who = f"{behind.overdue} of the rows that GDN had receipted by {self._time(self._clock() - behind.age)}"
        if behind.stands_still:
            still = f"{who} have not come out, and nothing at all has for {behind.still_for:.0f} s"
            return CheckResult(known, f"{still}: the worker takes rows and swallows them, or stands still")
        if behind.is_late:
            late = f"{who} have not come out: the worker is that far behind, or loses rows"
            return CheckResult(known, note=late, wait=wait)
        return CheckResult(known, wait=wait)

    def _time(self, moment: float) -> str:
        """A moment in monotonic seconds, for a sentence."""
        at = datetime.fromtimestamp(self._wall_clock() - (self._clock() - moment), UTC)
        return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def default_query(worker: Worker) -> str | None:
    """Counts the table that the worker's queries fill; None if none does."""
    for query in worker.queries:
        table = worker.tables.get(query.target or "")
        if table is not None:
            return f"RETURN LENGTH(`{table.collection}`)"
    return None


def shown_query(query: str) -> str:
    """A query fit for a sentence: on one line, and cut."""
    return _cut(" ".join(query.split()))


def shown(value: Any) -> str:
    """A result fit for a sentence."""
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(value: Any, wanted: str | float | bool) -> bool:
    """Equal, and of a kind: in Python True is 1."""
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _rows(rest: CheckedGdn, query: str) -> tuple[Any, ...] | str:
    """The query's rows, or why there are none yet."""
    try:
        return tuple(rest.query(query, max_rows=MAX_ROWS, check=True))
    except GdnRejected as exc:
        if exc.status != MISSING:
            raise
        return f"the collection isn't there yet; it is made when the worker is activated ({exc})"
