"""Whether the far end works: runs checks periodically and keeps their results as parts of the bridge.

Checks are needed because the receipt of a row says nothing about the worker (gdn-api.md H.17). One thread asks GDN;
other threads read values that it replaces as a whole. The checks themselves are in ``checks`` and ``canary``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from bridge.errors import GdnError
from bridge.log import get_logger
from bridge.parts import PartStatus
from bridge.timing import Pace, PacedBackoff

CheckOutcome = Literal["passed", "failed", "unasked"]
"""Outcome of a check: as expected, not as expected, or GDN could not be asked."""

CHECK_OUTCOMES: tuple[CheckOutcome, ...] = ("passed", "failed", "unasked")

START_POLL = 0.1
"""Seconds between polls whether the checks may start."""

MIN_WAIT = 1.0
"""Minimum seconds before a failed check runs again."""

SLOW_AFTER = 2.0
"""Seconds. GDN is reported as slow if an answer takes this long: a hundred times the recorded values (gdn-api.md B)."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """Results of the canary's rounds since the start."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each hop of the last canary found: ``mqtt``, ``receipt``, ``row``."""
    rounds: Mapping[str, int] = field(default_factory=dict)
    """By ending: ``found``, ``lost`` or ``not_published``."""
    removed: int = 0
    """Canary rows that were removed from the table, or may have been: GDN's answer was lost."""
    found_sent_at: float = 0.0
    """When the last canary found was published, in monotonic seconds."""
    due_rows: int | None = None
    """Rows receipted since the start that must have come out with the last canary found; None if none was found."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """The latest count of a table, compared with the streams that feed it."""

    table: str
    """The collection in GDN."""
    streams: tuple[str, ...]
    rows_behind: int
    rows_lost: int


@dataclass(frozen=True, slots=True)
class CheckTimes:
    """When a check last ran, in monotonic seconds."""

    query: str
    """C8QL that it last asked; empty if it asks none."""
    interval: float
    asked_at: float | None = None
    answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What the checks have found."""

    worker_active: bool | None = None
    """None before the first answer, and if GDN has no such worker."""
    rows: tuple[Any, ...] | None = None
    """The first rows that the health query last returned; without one, the number of rows in all tables counted."""
    rows_behind: int | None = None
    """Sum over ``tables``; None if none is counted."""
    canary: CanaryStatus | None = None
    """None without a canary."""
    outcomes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Counts by check and outcome, since the start."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """How long GDN took for the last run of each check."""
    rows_lost: int | None = None
    """Sum over all tables since the start; None if ``rows_behind`` is."""
    tables: tuple[TableStatus, ...] = ()
    """The tables that are compared with streams, as far as they have been counted."""
    times: Mapping[str, CheckTimes] = field(default_factory=dict)
    """By check."""
    watched: frozenset[str] | None = None
    """The streams whose rows are counted, or that the canary goes through; None without checks (a plain Pulsar)."""

    def unwatched(self, streams: Iterable[str]) -> list[str]:
        """Those of the streams for which nothing shows whether their rows come out."""
        return [] if self.watched is None else sorted(set(streams) - self.watched)

    @property
    def count(self) -> int | None:
        """The result of the health query if it is a single integer."""
        if self.rows is not None and len(self.rows) == 1 and type(self.rows[0]) is int:
            return self.rows[0]
        return None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one run of a check."""

    status: HealthStatus
    """The given status, updated."""
    error: str | None = None
    """Why the check failed, as a sentence."""
    note: str | None = None
    """Why the part is degraded but connected, as a sentence. Not together with ``error``."""
    pending: bool = False
    """Whether there is no outcome yet."""
    wait: float | None = None
    """Seconds until the check wants to run again; None for the usual interval or back-off."""
    triggers: str | None = None
    """Name of another check to run at once, if there is one of that name."""


class Check(Protocol):
    """Something that is checked periodically."""

    @property
    def name(self) -> str:
        """The name of its part of the bridge."""

    @property
    def interval(self) -> float:
        """Seconds between two runs while the check passes."""

    @property
    def query(self) -> str:
        """C8QL that it last asked, or is going to ask; empty if none."""

    def run(self, status: HealthStatus) -> CheckResult:
        """Run the check. ``status`` is what all checks have found so far.

        Raises:
            GdnError: GDN could not be asked.
        """


@dataclass(frozen=True, slots=True)
class _Run:
    """A finished run of a check."""

    result: CheckResult
    outcome: CheckOutcome
    seconds: float
    pace: Pace = Pace.MISSING
    retry_after: float = 0.0


class Health:
    """Runs the checks.

    Args:
        checks: with different names. They run in the health thread only, in this order if several are due.
        watched: see ``HealthStatus``.
        refresh: called before each run: credentials may have changed.
        start_after: waited for before the first check, if given.
    """

    def __init__(
        self,
        *,
        checks: Sequence[Check],
        watched: frozenset[str] = frozenset(),
        refresh: Callable[[], object] = lambda: None,
        start_after: threading.Event | None = None,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._checks = {check.name: check for check in checks}
        self._refresh = refresh
        self._start_after = start_after
        self._clock = clock
        self._wall_clock = wall_clock
        self._stop = threading.Event()
        self._backoffs = {name: PacedBackoff(rng=rng) for name in self._checks}
        self._due = dict.fromkeys(self._checks, 0.0)
        now = wall_clock()
        self._parts = {name: PartStatus(name, "starting", now, None, None) for name in self._checks}
        self._runs = 0
        outcomes: dict[tuple[str, str], int] = {
            (name, outcome): 0 for name in self._checks for outcome in CHECK_OUTCOMES
        }
        times = {name: CheckTimes(check.query, check.interval) for name, check in self._checks.items()}
        # Replaced as a whole: readers need no lock.
        self.status = HealthStatus(outcomes=outcomes, times=times, watched=watched)
        self.beat: int | None = None
        """Number of the current run, None between runs; for the watchdog."""

    def request_stop(self) -> None:
        """Start no more checks. A running check isn't interrupted."""
        self._stop.set()

    def parts(self) -> list[PartStatus]:
        """The checks as parts of the bridge."""
        return list(self._parts.values())

    def run(self) -> None:
        """Run checks until asked to stop: the body of the health thread."""
        # Polled: a stop doesn't set the event.
        while self._start_after is not None and not self._start_after.is_set() and not self._stop.wait(START_POLL):
            pass
        while not self._stop.is_set():
            self.step()
            # A check may be overdue already, or ask to run at once: without a minimum wait the loop would spin.
            self._stop.wait(max(0.05, min(self._due.values()) - self._clock()))

    def step(self) -> None:
        """Run the checks that are due."""
        for name, check in self._checks.items():
            if self._clock() >= self._due[name]:
                self._runs += 1
                self.beat = self._runs
                wait = self._check(check)
                self.beat = None
                self._due[name] = self._clock() + wait  # from the end: a slow GDN isn't asked more often

    def _check(self, check: Check) -> float:
        """Run a check and record the result. Returns the seconds until its next run."""
        run = self._run_once(check)
        result = run.result
        self.status = result.status
        if result.triggers in self._due:
            self._due[result.triggers] = self._clock()
        # A canary on its way has no outcome yet: its part and its back-off stay as they are.
        if result.pending:
            return check.interval if result.wait is None else result.wait
        self._count(check.name, run)
        # If it was unasked, the results are as old as before.
        if run.outcome != "unasked":
            self._set_times(check, replace(self.status.times[check.name], answered_at=self._clock()))
        if result.error is None:
            return self._record_success(check, run)
        return self._record_failure(check, run, result.error)

    def _run_once(self, check: Check) -> _Run:
        self._refresh()
        started = self._clock()
        self._set_times(check, replace(self.status.times[check.name], asked_at=started))
        try:
            result = check.run(self.status)
        except GdnError as exc:
            result = CheckResult(self.status, error=str(exc))
            return _Run(result, "unasked", self._clock() - started, exc.pace, exc.retry_after or 0.0)
        return _Run(result, "passed" if result.error is None else "failed", self._clock() - started)

    def _set_times(self, check: Check, times: CheckTimes) -> None:
        times = replace(times, query=check.query)
        self.status = replace(self.status, times={**self.status.times, check.name: times})

    def _count(self, name: str, run: _Run) -> None:
        outcomes = self.status.outcomes
        self.status = replace(
            self.status,
            outcomes={**outcomes, (name, run.outcome): outcomes.get((name, run.outcome), 0) + 1},
            seconds={**self.status.seconds, name: run.seconds},
        )

    def _record_success(self, check: Check, run: _Run) -> float:
        name, note = check.name, run.result.note
        if note is None and run.seconds >= SLOW_AFTER:
            note = f"GDN is slow: it took {run.seconds:.1f} s to answer"
        before = self._parts[name]
        was_failing = before.state == "failing"
        # A part that is connected with an error is degraded (parts.py).
        was_degraded = before.error is not None and not was_failing
        self._backoffs[name].reset()
        if was_failing:
            log.info("health.recovered", check=name)
        if note is not None and not was_degraded:
            log.warning("health.degraded", check=name, note=note)
        self._parts[name] = before.moved("connected", at=self._wall_clock(), error=note)
        return check.interval if run.result.wait is None else run.result.wait

    def _record_failure(self, check: Check, run: _Run, error: str) -> float:
        name, now = check.name, self._wall_clock()
        wait = self._backoff(check, run) if run.result.wait is None else run.result.wait
        before = self._parts[name]
        # Only the change is logged: the part shows the latest error.
        if before.state != "failing":
            log.warning("health.failing", check=name, error=error)
        self._parts[name] = before.moved("failing", at=now, error=error, next_attempt_at=now + wait)
        return wait

    def _backoff(self, check: Check, run: _Run) -> float:
        wait = self._backoffs[check.name].next(run.pace)
        if run.pace in {Pace.UNREACHABLE, Pace.MISSING}:
            # Such failures often go away by themselves: a recovery is noticed as soon as a failure would have been.
            wait = min(wait, check.interval)
        return max(MIN_WAIT, wait, run.retry_after)
