"""Whether the far end works: is the worker active, do rows come out? And what that makes of the whole bridge.

One thread asks GDN; everyone else reads values that it swaps whole. The acknowledgement of a send says nothing about
the worker (gdn-api.md H.17), so this is the only way to know.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bridge.errors import GdnError, GdnRejected, GdnUnavailable
from bridge.log import get_logger
from bridge.streamql.syntax import Worker
from bridge.timing import Backoff

State = Literal["starting", "connecting", "connected", "waiting", "failing"]

MAX_ROWS = 100
"""Rows of a health query that are read; it should return few."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part of the bridge at one moment. Times are seconds since the epoch."""

    name: str
    state: State
    since: float
    error: str | None
    """The last error, kept while the next attempt is under way; None once the part works."""
    next_attempt_at: float | None


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What GDN last said."""

    worker_active: bool | None = None
    """None before the first answer, or while GDN shows no such worker."""
    rows: tuple[Any, ...] | None = None
    """Of the last health query, the first ``MAX_ROWS``."""
    queried_at: float | None = None

    @property
    def count(self) -> int | None:
        """The query's result if it is one number, as with the default query."""
        if self.rows is not None and len(self.rows) == 1 and type(self.rows[0]) is int:
            return self.rows[0]
        return None


class Far(Protocol):
    """What is asked of GDN (``GdnRest`` has it)."""

    def get_worker(self, name: str) -> Any:
        """The worker's state, or None."""

    def query(self, c8ql: str, *, max_rows: int = ...) -> list[Any]:
        """The query's rows."""


def default_query(worker: Worker) -> str | None:
    """Counts the table that the worker's queries fill; None if none does."""
    for query in worker.queries:
        table = worker.tables.get(query.target or "")
        if table is not None:
            return f"RETURN LENGTH(`{table.collection}`)"
    return None


def is_ready(parts: Sequence[PartStatus]) -> bool:
    """Whether messages go all the way now: every part connected."""
    return all(part.state == "connected" for part in parts)


class Health:
    """Asks GDN periodically.

    Args:
        rest: asked from the health thread only.
        worker_name: the worker to look at.
        query: C8QL to run; None runs none.
        worker_interval: seconds between looks at the worker.
        query_interval: seconds between queries.
    """

    def __init__(
        self,
        *,
        rest: Far,
        worker_name: str,
        query: str | None,
        worker_interval: float,
        query_interval: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rest = rest
        self._worker_name = worker_name
        self._query = query
        self._intervals = {"worker active": worker_interval, "query": query_interval}
        self._clock = clock
        self._wall_clock = wall_clock
        self._stop = threading.Event()
        self._backoffs = {name: Backoff(base=1.0, cap=interval) for name, interval in self._intervals.items()}
        self._due = dict.fromkeys(self._intervals, 0.0)
        if query is None:
            del self._due["query"]
        now = wall_clock()
        self._parts = {name: PartStatus(name, "starting", now, None, None) for name in self._due}
        self.status = HealthStatus()  # swapped whole

    def request_stop(self) -> None:
        """Ask no more; a question under way is not waited for."""
        self._stop.set()

    def parts(self) -> list[PartStatus]:
        """The checks as parts of the bridge."""
        return list(self._parts.values())

    def run(self) -> None:
        """The thread's body: check until asked to stop."""
        while not self._stop.is_set():
            self.step()
            self._stop.wait(max(0.05, min(self._due.values()) - self._clock()))

    def step(self) -> None:
        """Make the checks that are due."""
        for name in list(self._due):
            if self._clock() >= self._due[name]:
                self._due[name] = self._clock() + self._check(name)

    def _check(self, name: str) -> float:
        """One check; returns the seconds until the next."""
        asked_to_wait = 0.0
        try:
            error = self._look_at_worker() if name == "worker active" else self._run_query()
        except GdnError as exc:
            error = str(exc)
            if isinstance(exc, GdnUnavailable):
                asked_to_wait = exc.retry_after or 0.0
            if name == "query" and isinstance(exc, GdnRejected) and exc.status == 404:
                error = f"the collection isn't there yet; it is made when the worker is activated ({exc})"
        now = self._wall_clock()
        before = self._parts[name]
        if error is None:
            wait = self._intervals[name]
            self._backoffs[name].reset()
            since = before.since if before.state == "connected" else now
            self._parts[name] = PartStatus(name, "connected", since, None, None)
            return wait
        wait = max(1.0, asked_to_wait, self._backoffs[name].next())
        since = before.since if before.state == "failing" else now
        if before.state != "failing":
            log.warning("health.failing", check=name, error=error)
        self._parts[name] = PartStatus(name, "failing", since, error, now + wait)
        return wait

    def _look_at_worker(self) -> str | None:
        state = self._rest.get_worker(self._worker_name)
        active = None if state is None else state.is_active
        self.status = HealthStatus(active, self.status.rows, self.status.queried_at)
        if state is None:
            return f"GDN shows no stream worker {self._worker_name}"
        return None if active else f"stream worker {self._worker_name} is not active: what is sent is not worked on"

    def _run_query(self) -> str | None:
        assert self._query is not None
        rows = tuple(self._rest.query(self._query, max_rows=MAX_ROWS))
        self.status = HealthStatus(self.status.worker_active, rows, self._wall_clock())
        return None
