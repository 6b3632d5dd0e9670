"""The checks that ask GDN: the worker's state, and queries with expected results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from http import HTTPStatus
from typing import Any, Protocol

from bridge.errors import GdnRejected
from bridge.streamql.syntax import Worker
from bridge.watch.health import CheckResult, HealthStatus

MAX_ROWS = 100
"""Rows read from the result of a query; a health query should return few."""

MAX_QUOTED = 200
"""Characters of a query or a result that are quoted in a sentence."""


class GdnApi(Protocol):
    """The part of GDN's API that the checks use; implemented by ``GdnRest``."""

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
        got = quote_result(rows[0]) if is_single else f"{len(rows) or 'no'} rows"
        if self.min is not None and not (is_single and _is_number(rows[0]) and rows[0] >= self.min):
            return f"expected at least {self.min:g}, got {got}"
        if self.equals is not None and not (is_single and _is_equal(rows[0], self.equals)):
            return f"expected {quote_result(self.equals)}, got {got}"
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
    query = ""

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
        self.query = query
        self._expectation = expectation
        self._clock = clock
        self._digest = b""
        self._changed_at = 0.0

    def run(self, status: HealthStatus) -> CheckResult:
        """See ``Check``."""
        rows = query_rows(self._gdn, self.query)
        if isinstance(rows, str):
            return CheckResult(status, rows)
        now = self._clock()
        # A digest is kept instead of the rows, which may take megabytes.
        digest = blake2b(json.dumps(rows, sort_keys=True).encode()).digest()
        if digest != self._digest:
            self._digest, self._changed_at = digest, now  # also on the first run: no digest is empty
        unmet = self._expectation.unmet(rows, unchanged_for=now - self._changed_at)
        return CheckResult(status, None if unmet is None else f"{quote_query(self.query)}: {unmet}")


class CountCheck:
    """Runs a query that should return a number that grows with the rows. Any result passes.

    Args:
        gdn: GDN's API.
        query: C8QL.
        interval: seconds between runs.
    """

    name = "query"

    def __init__(self, *, gdn: GdnApi, query: str, interval: float) -> None:
        self.interval = interval
        self.query = query
        self._gdn = gdn

    def run(self, status: HealthStatus) -> CheckResult:
        """See ``Check``."""
        rows = query_rows(self._gdn, self.query)
        if isinstance(rows, str):
            return CheckResult(status, rows)
        return CheckResult(replace(status, rows=rows))


def default_query(worker: Worker) -> str | None:
    """A query that counts the rows of the first table that the worker fills; None if it fills none."""
    for query in worker.queries:
        table = worker.tables.get(query.target or "")
        if table is not None and table.in_gdn:
            return f"RETURN LENGTH(`{table.collection}`)"
    return None


def quote_query(query: str) -> str:
    """A query as quoted in a sentence: on one line, and cut."""
    return _cut(" ".join(query.split()))


def quote_result(value: Any) -> str:
    """A result as quoted in a sentence: JSON, and cut."""
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_equal(value: Any, expected: str | float | bool) -> bool:
    """Whether both are equal and both or neither are booleans: in Python, True equals 1."""
    return isinstance(value, bool) == isinstance(expected, bool) and bool(value == expected)


def query_rows(gdn: GdnApi, query: str) -> tuple[Any, ...] | str:
    """The rows that the query returns, or a sentence if the collection doesn't exist yet."""
    try:
        return tuple(gdn.query(query, max_rows=MAX_ROWS, check=True))
    except GdnRejected as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        return f"the collection doesn't exist yet; it is created when the worker is activated ({exc})"
