"""Whether the far end works: is the worker active, do rows come out? And what that makes of the whole bridge.

One thread asks GDN; everyone else reads values that it swaps whole. The acknowledgement of a send says nothing about
the worker (gdn-api.md H.17), so this is the only way to know.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bridge.errors import GdnError, GdnRejected
from bridge.log import get_logger
from bridge.streamql.syntax import Worker
from bridge.timing import Pace, PacedBackoff

State = Literal["starting", "connecting", "connected", "waiting", "failing"]

MAX_ROWS = 100
"""Rows of a health query that are read; it should return few."""

LEAST_WAIT = 1.0
"""Seconds between two tries of a check: it only looks, so it can always wait that long."""

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

    def moved(
        self, state: State, *, at: float, error: str | None = None, next_attempt_at: float | None = None
    ) -> PartStatus:
        """The part's status at a later moment. ``since`` stays while the state does."""
        since = self.since if state == self.state else at
        return PartStatus(self.name, state, since, error, next_attempt_at)


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

    def get_worker(self, name: str, *, check: bool = ...) -> Any:
        """The worker's state, or None."""

    def query(self, c8ql: str, *, max_rows: int = ..., check: bool = ...) -> list[Any]:
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
        refresh: called before each check: the credentials may be new.
    """

    def __init__(
        self,
        *,
        rest: Far,
        worker_name: str,
        query: str | None,
        worker_interval: float,
        query_interval: float,
        refresh: Callable[[], object] = lambda: None,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rest = rest
        self._worker_name = worker_name
        self._query = query
        self._intervals = {"worker active": worker_interval, "query": query_interval}
        self._refresh = refresh
        self._clock = clock
        self._wall_clock = wall_clock
        self._stop = threading.Event()
        self._backoffs = {name: PacedBackoff(rng=rng) for name in self._intervals}
        self._due = dict.fromkeys(self._intervals, 0.0)
        if query is None:
            del self._due["query"]
        now = wall_clock()
        self._parts = {name: PartStatus(name, "starting", now, None, None) for name in self._due}
        self._checks = 0
        self.status = HealthStatus()  # swapped whole
        self.beat: int | None = None
        """The number of the check under way, None while there is none; for the watchdog."""

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
                self._checks += 1
                self.beat = self._checks
                wait = self._check(name)
                self.beat = None
                self._due[name] = self._clock() + wait

    def _check(self, name: str) -> float:
        """One check; returns the seconds until the next."""
        pace, asked_to_wait = Pace.MISSING, None
        self._refresh()
        try:
            error = self._look_at_worker() if name == "worker active" else self._run_query()
        except GdnError as exc:
            error, pace, asked_to_wait = str(exc), exc.pace, exc.retry_after
            if name == "query" and isinstance(exc, GdnRejected) and exc.status == 404:
                error = f"the collection isn't there yet; it is made when the worker is activated ({exc})"
                pace = Pace.MISSING
        now = self._wall_clock()
        before = self._parts[name]
        if error is None:
            self._backoffs[name].reset()
            self._parts[name] = before.moved("connected", at=now)
            return self._intervals[name]
        wait = self._backoffs[name].next(pace)
        if pace in {Pace.UNREACHABLE, Pace.MISSING}:
            # These mend by themselves: that is to be seen no later than a failure would have been.
            wait = min(wait, self._intervals[name])
        wait = max(LEAST_WAIT, wait, asked_to_wait or 0.0)
        if before.state != "failing":
            log.warning("health.failing", check=name, error=error)
        self._parts[name] = before.moved("failing", at=now, error=error, next_attempt_at=now + wait)
        return wait

    def _look_at_worker(self) -> str | None:
        state = self._rest.get_worker(self._worker_name, check=True)
        active = None if state is None else state.is_active
        self.status = HealthStatus(active, self.status.rows, self.status.queried_at)
        if state is None:
            return f"GDN shows no stream worker {self._worker_name}"
        return None if active else f"stream worker {self._worker_name} is not active: what is sent is not worked on"

    def _run_query(self) -> str | None:
        assert self._query is not None
        rows = tuple(self._rest.query(self._query, max_rows=MAX_ROWS, check=True))
        self.status = HealthStatus(self.status.worker_active, rows, self._wall_clock())
        return None
