from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable
from bridge.gdn.rest import WorkerState
from bridge.parts import PartStatus, is_ready
from bridge.streamql import parse
from bridge.timing import Pace
from bridge.watch.checks import CountCheck, WorkerCheck, default_query
from bridge.watch.health import SLOW_AFTER, Check, CheckResult, CheckTimes, Health, HealthStatus


class Far:
    """A scripted GDN: returns or raises what is set."""

    def __init__(self) -> None:
        self.worker: Any = WorkerState("w", "", ("here",), True)
        self.rows: Any = [7]
        self.asked: list[str] = []

    def get_worker(self, name: str, *, check: bool = False) -> Any:
        assert check, "a check must not take the budget of reconnects"
        self.asked.append("worker")
        if isinstance(self.worker, Exception):
            raise self.worker
        return self.worker

    def query(self, c8ql: str, *, max_rows: int = 1000, check: bool = False) -> list[Any]:
        assert check, "a check must not take the budget of reconnects"
        self.asked.append(c8ql)
        if isinstance(self.rows, Exception):
            raise self.rows
        return list(self.rows)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def health(far: Far, clock: Clock, query: str | None = "RETURN LENGTH(t)", **changes: Any) -> Health:
    checks: list[Check] = [WorkerCheck(gdn=far, worker_name="w", interval=10)]
    if query is not None:
        checks.append(CountCheck(gdn=far, query=query, interval=60))
    options: dict[str, Any] = {"rng": lambda: 1.0, "clock": clock, "wall_clock": clock} | changes
    return Health(checks=checks, **options)


def states(h: Health) -> dict[str, str]:
    return {part.name: part.state for part in h.parts()}


def test_checks_that_pass_run_at_their_intervals_and_no_more_often() -> None:
    far, clock = Far(), Clock()
    h = health(far, clock)

    for _ in range(61):
        h.step()
        clock.now += 1

    assert far.asked.count("worker") == 7
    assert far.asked.count("RETURN LENGTH(t)") == 2
    assert states(h) == {"worker active": "connected", "query": "connected"}
    assert (h.status.worker_active, h.status.count) == (True, 7)
    assert h.status.outcomes["query", "passed"] == 2


def test_an_inactive_worker_fails_the_check() -> None:
    far, clock = Far(), Clock()
    far.worker = WorkerState("w", "", (), False)
    h = health(far, clock)
    h.step()

    part = h.parts()[0]
    assert part.state == "failing"
    assert "not active" in (part.error or "")
    assert not is_ready(h.parts())


def test_a_missing_worker_and_an_unreachable_gdn_give_different_errors() -> None:
    far, clock = Far(), Clock()
    far.worker = None
    h = health(far, clock)
    h.step()
    assert "no stream worker w" in (h.parts()[0].error or "")

    far.worker = GdnUnavailable("GET /x: no connection")
    clock.now += 100
    h.step()
    assert h.parts()[0].error == "GET /x: no connection"


def test_a_failing_part_keeps_its_time_and_recovers() -> None:
    far, clock = Far(), Clock()
    far.rows = GdnRejected("404 collection not found", status=404)
    h = health(far, clock)
    h.step()
    clock.now += 100
    h.step()
    failing = h.parts()[1]
    assert (failing.state, failing.since) == ("failing", 1000.0)
    assert "doesn't exist yet" in (failing.error or "")

    far.rows = [1]
    clock.now += 100
    h.step()
    assert states(h)["query"] == "connected"


def test_it_is_known_when_each_check_was_asked_and_last_answered() -> None:
    far, clock = Far(), Clock()
    h = health(far, clock)
    assert h.status.times["query"] == CheckTimes("RETURN LENGTH(t)", 60)
    h.step()
    assert h.status.times["query"] == CheckTimes("RETURN LENGTH(t)", 60, 1000.0, 1000.0)

    far.rows = GdnUnavailable("no answer")
    clock.now += 60
    h.step()

    assert h.status.times["query"] == CheckTimes("RETURN LENGTH(t)", 60, 1060.0, 1000.0)
    assert h.status.times["worker active"].answered_at == 1060.0


def test_without_a_query_none_is_asked() -> None:
    far, clock = Far(), Clock()
    h = health(far, clock, query=None)
    h.step()

    assert far.asked == ["worker"]
    assert is_ready(h.parts())


def test_the_default_query_counts_the_table_that_the_worker_fills() -> None:
    worker = parse(Path("config/worker.sql").read_text())

    assert default_query(worker) == "RETURN LENGTH(`tutorialAppOutputTable`)"


def test_ready_means_every_part_connected() -> None:
    good, bad = PartStatus("a", "connected", 0, None, None), PartStatus("b", "connecting", 0, None, None)

    assert is_ready([good])
    assert not is_ready([good, bad])


def test_gdn_is_not_asked_again_before_its_retry_after() -> None:
    far, clock = Far(), Clock()
    far.worker = GdnUnavailable("429", retry_after=120)
    h = health(far, clock, query=None)

    for _ in range(120):
        h.step()
        clock.now += 1

    assert far.asked == ["worker"]


@pytest.mark.parametrize(
    ("failure", "waits"),
    [
        (GdnUnavailable("away"), [1.0, 1.0, 2.0, 4.0, *[5.0] * 11, 8.0, 10.0, 10.0]),
        (GdnUnavailable("429", pace=Pace.LIMITED), [20.0, 20.0, 40.0, 80.0, 120.0]),
        (GdnAuthError("401"), [*[5.0] * 12, 30.0, 30.0, 60.0, 120.0, 240.0, 300.0]),
        (GdnRejected("400", status=400), [*[5.0] * 12, 30.0, 60.0, 120.0, 240.0, 300.0]),
    ],
)
def test_a_failed_check_runs_again_at_the_pace_of_its_failure(failure: GdnError, waits: list[float]) -> None:
    """After a failure that may go away by itself the check runs at least as often as while it passes."""
    far, clock = Far(), Clock()
    far.worker = failure
    h = health(far, clock, query=None)
    found: list[float] = []
    for _ in waits:
        h.step()
        wait = (h.parts()[0].next_attempt_at or 0.0) - clock.now
        found.append(wait)
        clock.now += wait

    assert found == waits
    assert len(far.asked) == len(waits)


def test_an_inactive_worker_is_checked_again_within_the_interval() -> None:
    far, clock = Far(), Clock()
    far.worker = WorkerState("w", "", (), False)
    h = health(far, clock, query=None)
    for _ in range(20):
        h.step()
        clock.now = h.parts()[0].next_attempt_at or 0.0

    assert clock.now - 1000.0 == 2 + 4 + 11 * 5 + 8 + 6 * 10


def test_credentials_are_refreshed_before_each_check() -> None:
    far, clock = Far(), Clock()
    h = health(far, clock, refresh=lambda: far.asked.append("refresh"))

    h.step()

    assert far.asked == ["refresh", "worker", "refresh", "RETURN LENGTH(t)"]


class SlowCheck:
    """A check that takes a while and passes, perhaps with a note."""

    name, interval, query = "slow", 10.0, ""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.note: str | None = None
        self.triggers: str | None = None

    def run(self, status: HealthStatus) -> CheckResult:
        self._clock.now += self.seconds
        return CheckResult(status, note=self.note, triggers=self.triggers)


def test_a_slow_gdn_is_reported_and_the_bridge_stays_ready() -> None:
    clock = Clock()
    check = SlowCheck(clock)
    h = Health(checks=[check], clock=clock, wall_clock=clock)
    found, measured = [], []
    for seconds in (SLOW_AFTER - 0.5, SLOW_AFTER + 0.5, 0.0):
        check.seconds = seconds
        with capture_logs() as logs:
            h.step()
        found.append((h.parts()[0].state, h.parts()[0].error, [entry["event"] for entry in logs]))
        measured.append(h.status.seconds["slow"])
        clock.now += 20

    sentence = "GDN is slow: it took 2.5 s to answer"
    assert found == [("connected", None, []), ("connected", sentence, ["health.degraded"]), ("connected", None, [])]
    assert measured == pytest.approx([1.5, 2.5, 0.0])


def test_a_degraded_part_is_logged_once_and_keeps_its_note() -> None:
    clock = Clock()
    check = SlowCheck(clock)
    check.note = "rows are late"
    h = Health(checks=[check], clock=clock, wall_clock=clock)

    with capture_logs() as logs:
        for _ in range(3):
            h.step()
            clock.now += 20

    assert h.parts()[0].error == "rows are late"
    assert is_ready(h.parts())
    assert [entry["event"] for entry in logs] == ["health.degraded"]


def test_a_check_that_failed_is_logged_once_and_once_more_when_it_recovers() -> None:
    far, clock = Far(), Clock()
    h = health(far, clock, query=None)
    with capture_logs() as logs:
        for inactive in (False, True, True, False, False):
            far.worker = WorkerState("w", "", (), not inactive)
            h.step()
            clock.now += 100

    assert [entry["event"] for entry in logs] == ["health.failing", "health.recovered"]
    assert logs[1]["check"] == "worker active"


def test_a_check_can_trigger_another() -> None:
    far, clock = Far(), Clock()
    check = SlowCheck(clock)
    check.triggers = "query"
    h = Health(checks=[CountCheck(gdn=far, query="q", interval=60), check], clock=clock, wall_clock=clock)
    h.step()
    assert far.asked == ["q"]

    h.step()
    assert far.asked == ["q", "q"]


def test_there_is_a_beat_only_during_a_check() -> None:
    far, clock = Far(), Clock()
    beats: list[int | None] = []
    h: Health = health(far, clock, refresh=lambda: beats.append(h.beat))
    beats.append(h.beat)

    h.step()
    beats.append(h.beat)
    clock.now += 60
    h.step()

    assert beats == [None, 1, 2, None, 3, 4]


def test_since_changes_only_with_the_state() -> None:
    status = PartStatus("a", "waiting", 5.0, "one", 7.0)

    assert status.moved("waiting", at=9.0, error="two") == PartStatus("a", "waiting", 5.0, "two", None)
    assert status.moved("connected", at=9.0) == PartStatus("a", "connected", 9.0, None, None)
