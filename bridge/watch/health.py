"""Whether the far end works: checks that are made in turn, and what their outcome makes of the whole bridge.

One thread asks GDN; everyone else reads values that it swaps whole. The acknowledgement of a send says nothing about
the worker (gdn-api.md H.17), so this is the only way to know. What is asked stands in ``checks`` and ``canary``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from bridge.errors import GdnError
from bridge.log import get_logger
from bridge.parts import PartStatus
from bridge.timing import Pace, PacedBackoff

CheckOutcome = Literal["passed", "failed", "unasked"]
"""Of a check: as expected, not as expected, or GDN could not be asked."""

CHECK_OUTCOMES: tuple[CheckOutcome, ...] = ("passed", "failed", "unasked")

BEGIN_TURN = 0.1
"""Seconds between two looks whether the checks may begin."""

LEAST_WAIT = 1.0
"""Seconds between two tries of a check: it only looks, so it can always wait that long."""

SLOW = 2.0
"""Seconds that GDN may take for a check before it is said: a hundred times of what was recorded (gdn-api.md B)."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """What the canary's rounds gave."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of the last round that came through, by hop: ``mqtt``, ``receipt``, ``row``."""
    rounds: Mapping[str, int] = field(default_factory=dict)
    """By how they ended: ``found``, ``lost`` or ``not_published``."""
    removed: int = 0
    """Rows that were cleaned up, or may have been: GDN did not say."""
    found_from: float = 0.0
    """When the last message that came through was sent, in monotonic seconds."""
    found_after: int | None = None
    """Rows that must have come out with it, since the start; None: no message came through."""


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What GDN last said."""

    worker_active: bool | None = None
    """None before the first answer, or while GDN shows no such worker."""
    rows: tuple[Any, ...] | None = None
    """Of the last default query, the first ones."""
    queried_at: float | None = None
    rows_behind: int | None = None
    """Rows that GDN receipted and that have not come out, see ``Lag``; None where that isn't known."""
    canary: CanaryStatus | None = None
    """None without a canary."""
    outcomes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How often each check ended how, since the start."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """How long GDN took for each check, the last time."""
    rows_lost: int | None = None
    """Rows that GDN receipted and that never come out, as far as was noticed since the start; None as ``rows_behind``.
    """

    @property
    def count(self) -> int | None:
        """The query's result if it is one number, as with the default query."""
        if self.rows is not None and len(self.rows) == 1 and type(self.rows[0]) is int:
            return self.rows[0]
        return None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found."""

    known: HealthStatus
    """With what it found out."""
    error: str | None = None
    """What isn't as expected, in a sentence."""
    note: str | None = None
    """What is odd and costs no readiness, in a sentence; not beside ``error``."""
    pending: bool = False
    """Whether that can't be said yet."""
    wait: float | None = None
    """Seconds until it wants to look again; None: as usual."""
    then: str | None = None
    """The check that is due at once, if there is one of that name."""


class Check(Protocol):
    """Something that is looked at periodically."""

    @property
    def name(self) -> str:
        """Of the part of the bridge that it is."""

    @property
    def interval(self) -> float:
        """Seconds between two looks while all is well."""

    def ask(self, known: HealthStatus) -> CheckResult:
        """Look. ``known``: what is known so far.

        Raises:
            GdnError: GDN can't be asked.
        """


class Health:
    """Makes checks periodically.

    Args:
        checks: made in the health thread only, in this order where several are due. Their names differ.
        refresh: called before each check: the credentials may be new.
        begins: waited for before the first check; None: nothing is.
    """

    def __init__(
        self,
        *,
        checks: Sequence[Check],
        refresh: Callable[[], object] = lambda: None,
        begins: threading.Event | None = None,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._checks = {check.name: check for check in checks}
        self._refresh = refresh
        self._begins = begins
        self._clock = clock
        self._wall_clock = wall_clock
        self._stop = threading.Event()
        self._backoffs = {name: PacedBackoff(rng=rng) for name in self._checks}
        self._due = dict.fromkeys(self._checks, 0.0)
        now = wall_clock()
        self._parts = {name: PartStatus(name, "starting", now, None, None) for name in self._checks}
        self._made = 0
        outcomes: dict[tuple[str, str], int] = {
            (name, outcome): 0 for name in self._checks for outcome in CHECK_OUTCOMES
        }
        self.status = HealthStatus(outcomes=outcomes)  # swapped whole
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
        while self._begins is not None and not self._begins.is_set() and not self._stop.wait(BEGIN_TURN):
            pass
        while not self._stop.is_set():
            self.step()
            self._stop.wait(max(0.05, min(self._due.values()) - self._clock()))

    def step(self) -> None:
        """Make the checks that are due."""
        for name, check in self._checks.items():
            if self._clock() >= self._due[name]:
                self._made += 1
                self.beat = self._made
                wait = self._make(check)
                self.beat = None
                self._due[name] = self._clock() + wait

    def _make(self, check: Check) -> float:
        """One check; returns the seconds until the next."""
        name = check.name
        pace, asked_to_wait = Pace.MISSING, None
        outcome: CheckOutcome = "passed"
        self._refresh()
        begun = self._clock()
        try:
            finding = check.ask(self.status)
        except GdnError as exc:
            outcome, pace, asked_to_wait = "unasked", exc.pace, exc.retry_after
            finding = CheckResult(self.status, error=str(exc))
        taken = self._clock() - begun
        self.status = finding.known
        if finding.then in self._due:
            self._due[finding.then] = self._clock()
        if finding.pending:
            return check.interval if finding.wait is None else finding.wait
        if finding.error is not None and outcome == "passed":
            outcome = "failed"
        self._count(name, outcome, taken)
        now = self._wall_clock()
        before = self._parts[name]
        if finding.error is None:
            self._backoffs[name].reset()
            if before.state == "failing":
                log.info("health.recovered", check=name)
            note = finding.note or (f"GDN is slow: it took {taken:.1f} s to answer" if taken >= SLOW else None)
            if note is not None and (before.error is None or before.state == "failing"):
                log.warning("health.odd", check=name, note=note)
            self._parts[name] = before.moved("connected", at=now, error=note)
            return check.interval if finding.wait is None else finding.wait
        if finding.wait is None:
            wait = self._backoffs[name].next(pace)
            if pace in {Pace.UNREACHABLE, Pace.MISSING}:
                # These mend by themselves: that is to be seen no later than a failure would have been.
                wait = min(wait, check.interval)
            wait = max(LEAST_WAIT, wait, asked_to_wait or 0.0)
        else:
            wait = finding.wait
        if before.state != "failing":
            log.warning("health.failing", check=name, error=finding.error)
        self._parts[name] = before.moved("failing", at=now, error=finding.error, next_attempt_at=now + wait)
        return wait

    def _count(self, name: str, outcome: CheckOutcome, seconds: float) -> None:
        outcomes = self.status.outcomes
        self.status = replace(
            self.status,
            outcomes={**outcomes, (name, outcome): outcomes.get((name, outcome), 0) + 1},
            seconds={**self.status.seconds, name: seconds},
        )
