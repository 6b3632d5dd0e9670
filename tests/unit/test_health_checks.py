"""Checks of query results: expectations, the errors they give, and the checks that the settings ask for."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridge.books import Books, Snapshot, Traffic
from bridge.config import Settings, load
from bridge.errors import ConfigError, GdnRejected
from bridge.histogram import BOUNDS, Durations
from bridge.local.c8ql import run as run_c8ql
from bridge.mapping import Route
from bridge.streamql import parse
from bridge.watch.checks import MAX_QUOTED, Expectation, QueryCheck
from bridge.watch.configured_checks import make_checks, unwatched_streams
from bridge.watch.health import CanaryStatus, CheckResult, HealthStatus
from bridge.watch.row_loss import CountableTable, InputRows, RowLagTracker
from bridge.watch.table_check import RECOUNT_WAIT, TABLES_PER_QUERY, TableCheck, WatchedTable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Far:
    """A GDN that answers every query with the same rows."""

    def __init__(self, *rows: Any) -> None:
        self.rows: Any = list(rows)

    def get_worker(self, name: str, *, check: bool = False) -> Any:
        raise AssertionError("a query asks for no worker")

    def query(self, c8ql: str, *, max_rows: int = 1000, check: bool = False) -> list[Any]:
        assert check, "a check must not take the budget of reconnects"
        if isinstance(self.rows, Exception):
            raise self.rows
        return list(self.rows)[:max_rows]


# --- expectations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expectation", "rows", "unmet"),
    [
        (Expectation(), [], None),
        (Expectation(), [1, 2], None),
        (Expectation(min=5), [5], None),
        (Expectation(min=5), [4.5], "expected at least 5, got 4.5"),
        (Expectation(min=1), [True], "expected at least 1, got true"),
        (Expectation(min=5), [None], "expected at least 5, got null"),
        (Expectation(min=5), [], "expected at least 5, got no rows"),
        (Expectation(min=5), [9, 9], "expected at least 5, got 2 rows"),
        (Expectation(equals="on"), ["on"], None),
        (Expectation(equals="on"), ["off"], 'expected "on", got "off"'),
        (Expectation(equals=1), [1.0], None),
        (Expectation(equals=1), [True], "expected 1, got true"),
        (Expectation(equals=False), [False], None),
        (Expectation(equals=False), [0], "expected false, got 0"),
        (Expectation(rows=0), [], None),
        (Expectation(rows=1), [], "expected 1 row, got 0"),
        (Expectation(rows=2), [{}], "expected 2 rows, got 1"),
        (Expectation(rows=2), [0] * 100, "expected 2 rows, got 100 or more"),
        (Expectation(rows=1, min=5), [4], "expected at least 5, got 4"),
    ],
)
def test_a_result_is_compared_with_what_is_expected(
    expectation: Expectation, rows: list[Any], unmet: str | None
) -> None:
    assert expectation.unmet(rows, unchanged_for=1e9) == unmet


@given(st.lists(JSON, max_size=4), st.sampled_from([Expectation(min=1), Expectation(equals="x"), Expectation(rows=9)]))
def test_an_unmet_expectation_is_one_short_line_whatever_the_rows_hold(
    rows: list[Any], expectation: Expectation
) -> None:
    """Rows hold data from devices, which must not forge lines of the log."""
    unmet = expectation.unmet(rows, unchanged_for=0.0) or ""

    assert unmet.isprintable()
    assert unmet.isascii() or "…" in unmet
    assert len(unmet) < MAX_QUOTED + 100


def test_a_result_that_stays_the_same_for_too_long_fails_until_it_changes() -> None:
    far, now = Far(1), [1000.0]
    check = QueryCheck(
        name="check x",
        gdn=far,
        query="RETURN\n 1",
        interval=10,
        expectation=Expectation(changes_within=30),
        clock=lambda: now[0],
    )
    errors = []
    for _ in range(5):
        errors.append(check.run(HealthStatus()).error)
        now[0] += 10
    assert errors == [None] * 4 + ["RETURN 1: expected a change within 30 s, got 1 for 40 s"]

    far.rows = [2]
    assert check.run(HealthStatus()).error is None


def test_a_missing_collection_fails_the_check_and_other_refusals_are_raised() -> None:
    far = Far()
    check = QueryCheck(name="check x", gdn=far, query="q", interval=1, expectation=Expectation())
    far.rows = GdnRejected("404", status=404)
    assert "doesn't exist yet" in (check.run(HealthStatus()).error or "")

    far.rows = GdnRejected("400 syntax", status=400)
    with pytest.raises(GdnRejected):
        check.run(HealthStatus())


def test_the_result_of_a_configured_check_is_not_the_count_of_rows() -> None:
    check = QueryCheck(name="check x", gdn=Far(7), query="q", interval=1, expectation=Expectation())

    assert check.run(HealthStatus()).status.count is None


# --- rows behind ------------------------------------------------------------------------------------------


class Compared:
    """A count that is compared with rows in, and its clock."""

    def __init__(self) -> None:
        self.rows_in = self.rows_out = 0
        self.now = 1000.0
        self.status = HealthStatus(canary=CanaryStatus())
        self.far = Far()
        table = CountableTable("t", ("s",))
        tracker = RowLagTracker(lambda: InputRows(self.rows_in), keeps_order=True)
        self.check = TableCheck(
            gdn=self.far,
            tables=[WatchedTable(table, tracker, is_cleaned=True)],
            used=lambda: ["s"],
            interval=60,
            clock=lambda: self.now,
            wall_clock=lambda: self.now + 1_700_000_000,
        )

    def look(self, *, rows_in: int = 0, rows_out: int = 0, seconds: float = 60.0) -> CheckResult:
        """Count again after some more rows and some time."""
        self.rows_in, self.rows_out, self.now = self.rows_in + rows_in, self.rows_out + rows_out, self.now + seconds
        self.far.rows = [self.rows_out]
        found = self.check.run(self.status)
        self.status = found.status
        return found

    def canary_comes_out(self) -> None:
        assert self.status.canary is not None
        rounds = {"found": self.status.canary.rounds.get("found", 0) + 1}
        self.rows_in, self.rows_out = self.rows_in + 1, self.rows_out + 1
        canary = replace(self.status.canary, rounds=rounds, found_sent_at=self.now, due_rows=self.rows_in)
        self.status = replace(self.status, canary=canary)


def test_rows_that_do_not_come_out_are_behind_until_they_do() -> None:
    compared = Compared()
    assert compared.look(rows_out=1000).status.rows_behind == 0

    assert compared.look(rows_in=20, rows_out=5).status.rows_behind == 15
    assert compared.look(rows_out=15).status.rows_behind == 0
    assert compared.status.rows_lost == 0


def test_rows_that_the_canary_removed_did_come_out() -> None:
    compared = Compared()
    compared.look(rows_out=100)
    compared.status = replace(compared.status, canary=CanaryStatus(removed=1))

    assert compared.look(rows_in=1).status.rows_behind == 0


def test_a_loss_is_reported_with_its_size_and_time_until_a_canary_shows_no_further_loss() -> None:
    compared = Compared()
    compared.look()
    compared.look(rows_in=30, rows_out=27)
    compared.canary_comes_out()
    first = compared.look()
    assert (first.error, first.wait) == (None, RECOUNT_WAIT)
    found = compared.look(seconds=RECOUNT_WAIT)

    assert (found.error or "").startswith(
        "stream s (table t): 3 of the rows that GDN had receipted by 2023-11-14 22:32:00 UTC are lost:"
    )
    assert (found.status.rows_lost, found.status.rows_behind, found.wait) == (3, 0, 60)
    assert compared.look(rows_in=10, rows_out=10).error == found.error
    compared.canary_comes_out()
    assert compared.look().error is None
    assert compared.status.rows_lost == 3


def test_further_losses_add_up_and_keep_the_check_failing() -> None:
    compared = Compared()
    compared.look()
    errors = []
    for _ in range(3):
        compared.look(rows_in=10, rows_out=9)
        compared.canary_comes_out()
        errors += [compared.look().error, compared.look().error]

    assert errors[0] is None
    assert all("1 of the rows" in (error or "") for error in errors[1:])
    assert compared.status.rows_lost == 3


def test_a_stalled_worker_fails_the_check_without_a_canary() -> None:
    compared = Compared()
    compared.look()
    errors = [compared.look(rows_in=4).error for _ in range(5)]

    assert errors[:2] == [None, None]
    assert "4 of the rows" in (errors[-1] or "")
    assert "no other row has for 300 s: the worker drops rows, or has stalled" in (errors[-1] or "")
    assert compared.look(rows_out=20).error is None


def test_a_slow_worker_is_reported_and_the_check_passes() -> None:
    compared = Compared()
    compared.look()
    compared.look(rows_in=1000, rows_out=1)
    found = [compared.look(rows_out=1) for _ in range(6)]

    assert [finding.error for finding in found] == [None] * 6
    assert [finding.note is None for finding in found] == [True] * 4 + [False] * 2
    assert "993 of the rows that GDN had receipted by" in (found[-1].note or "")
    assert "the worker is behind, or loses rows" in (found[-1].note or "")


class Tables:
    """Tables t0, t1, … each fed by a stream s0, s1, … and a far end that counts them."""

    def __init__(self, number: int) -> None:
        self.now = 1000.0
        self.rows_in = [0] * number
        self.rows_out = [0] * number
        self.used = {f"s{n}" for n in range(number)}
        self.asked: list[list[int]] = []
        self.status = HealthStatus(canary=CanaryStatus())
        self.check = TableCheck(
            gdn=self,
            tables=[
                WatchedTable(CountableTable(f"t{n}", (f"s{n}",)), RowLagTracker(partial(self.input_rows, n)))
                for n in range(number)
            ],
            used=lambda: self.used,
            interval=60,
            clock=lambda: self.now,
        )

    def input_rows(self, stream: int) -> InputRows:
        return InputRows(self.rows_in[stream])

    def get_worker(self, name: str, *, check: bool = False) -> Any:
        raise AssertionError("a count asks for no worker")

    def query(self, c8ql: str, *, max_rows: int = 1000, check: bool = False) -> list[Any]:
        assert check, "a check must not take the budget of reconnects"
        collections = {f"t{n}": ["row"] * rows for n, rows in enumerate(self.rows_out)}
        self.asked.append([int(number) for number in re.findall(r"`t(\d+)`", c8ql)])
        return run_c8ql(c8ql, {}, collections.__getitem__)  # type: ignore[arg-type]  # only their lengths matter

    def look(self, *, lost_by: int | None = None) -> CheckResult:
        """Count after a minute in which each stream got three rows."""
        for n in range(len(self.rows_in)):
            self.rows_in[n] += 3
            self.rows_out[n] += 0 if n == lost_by else 3
        self.now += 60
        found = self.check.run(self.status)
        self.status = found.status
        return found


def test_one_stream_of_eleven_that_loses_every_row_fails_the_check_and_is_named() -> None:
    tables = Tables(11)
    found = [tables.look(lost_by=7) for _ in range(5)]

    assert tables.asked == [list(range(11))] * 5
    assert [result.error is None for result in found] == [True, True, True, False, False]
    assert (found[-1].error or "").startswith("stream s7 (table t7): 3 of the rows that GDN had receipted by")
    assert "(table t6)" not in (found[-1].error or "")
    assert {table.table: table.rows_behind for table in tables.status.tables if table.rows_behind} == {"t7": 12}
    assert (tables.status.rows_behind, tables.status.rows_lost, tables.status.count) == (12, 0, 10 * 15)
    assert tables.look().error is None, "rows come out again"


def test_many_tables_are_counted_in_rotation_with_one_query_at_a_time() -> None:
    tables = Tables(TABLES_PER_QUERY + 2)
    found = [tables.look(lost_by=TABLES_PER_QUERY + 1) for _ in range(8)]

    first, second = list(range(TABLES_PER_QUERY)), [TABLES_PER_QUERY, TABLES_PER_QUERY + 1]
    assert tables.asked == [first, second] * 4
    assert found[0].status.count is None, "not all tables have been counted"
    assert "(table t51)" in (found[-1].error or "")
    assert (found[-2].error or "").startswith("stream s51"), "the error stays while other tables are counted"


def test_a_canary_has_its_table_counted_out_of_turn_and_the_rotation_goes_on() -> None:
    tables = Tables(TABLES_PER_QUERY * 2 + 1)
    tables.look()
    tables.status = replace(tables.status, canary=CanaryStatus(rounds={"found": 1}))
    for _ in range(3):
        tables.look()

    assert [asked[0] for asked in tables.asked] == [0, 0, TABLES_PER_QUERY, 2 * TABLES_PER_QUERY]


def test_only_tables_of_streams_in_use_are_counted() -> None:
    tables = Tables(3)
    tables.used = {"s2"}
    tables.look()
    tables.used = {"s1", "s2"}
    tables.look()

    assert tables.asked == [[2], [1, 2]]


def test_an_answer_that_is_no_count_fails_the_check() -> None:
    compared = Compared()
    compared.far.rows = ["many"]

    assert compared.check.run(compared.status).error == 'RETURN LENGTH(`t`): expected 1 numbers, got ["many"]'


# --- checks from the settings -----------------------------------------------------------------------------


def settings(**changes: str) -> Settings:
    environ = {"BRIDGE_GDN__API_KEY": "t.k.s", **{f"BRIDGE_{name.upper()}": value for name, value in changes.items()}}
    return load(config_file=Path("config/bridge.toml"), environ=environ, secret_directories=())


CANARY = {
    "canary__enabled": "true",
    "canary__topic": "devices/{marker}/rooms/0/telemetry",
    "canary__query": 'FOR d IN tutorialAppOutputTable FILTER d.id == "0-{marker}" RETURN 1',
}


def checks_of(
    found: Settings, snapshot: Snapshot | None = None, far: Far | None = None, text: str | None = None
) -> list[Any]:
    return make_checks(
        settings=found,
        worker=parse(text or Path("config/worker.sql").read_text()),
        routes=[Route(route.topic, route.stream) for route in found.routes],
        gdn=far or Far(),
        snapshot=lambda: snapshot or Snapshot(),
        used=lambda: [route.stream for route in found.routes],
        publish=lambda _message: None,
    )


def test_the_default_checks_are_the_worker_and_the_count_of_its_table() -> None:
    found = checks_of(settings())

    assert [(check.name, check.interval) for check in found] == [("worker active", 60), ("query", 60)]


def test_checks_and_canary_follow_the_settings() -> None:
    written = json.dumps([{"name": "a", "query": "RETURN 1", "period": 30, "equals": 2}, {"name": "b", "query": "q"}])
    found = checks_of(settings(health__checks=written, **CANARY), far=Far(1))

    assert [(c.name, c.interval) for c in found[2:]] == [("check a", 30), ("check b", 60), ("canary", 300)]
    assert found[2].run(HealthStatus()).error == "RETURN 1: expected 2, got 1"


def test_rows_in_are_those_receipted_for_the_streams_that_feed_the_table() -> None:
    durations = Durations((3, *[0] * len(BOUNDS)), 0.1)
    traffic = Traffic(receipt_durations={"tutorialAppInputStream": durations, "other": durations})
    (_, count) = checks_of(settings(), Snapshot(Books(outbox=2), traffic))

    assert count._tables[0].tracker.input_rows() == InputRows(3, 2)


@pytest.mark.parametrize(
    ("changes", "more", "proves"),
    [
        (CANARY, "", True),
        (CANARY, "@App:instances('2')\n", False),
        ({}, "", False),
        (CANARY | {"canary__query": 'FOR d IN elsewhere FILTER d.id == "0-{marker}" RETURN 1'}, "", False),
    ],
)
def test_a_canary_proves_a_loss_only_where_its_rows_take_the_same_way(
    changes: dict[str, str], more: str, proves: bool
) -> None:
    (_, count, *_) = checks_of(settings(**changes), text=more + Path("config/worker.sql").read_text())

    assert count._tables[0].tracker._keeps_order is proves


def test_the_result_of_a_configured_query_is_not_compared_with_rows_in() -> None:
    (_, count) = checks_of(settings(health__query="RETURN 1"), far=Far(1))

    assert count.run(HealthStatus()).status.rows_behind is None


@pytest.mark.parametrize(
    ("changes", "removes", "unwatched"),
    [
        ({}, "", []),
        ({}, "FROM tutorialAppInputStream", ["tutorialAppInputStream"]),
        ({"health__query": "RETURN 1"}, "", ["tutorialAppInputStream"]),
        (CANARY | {"health__query": "RETURN 1"}, "", []),
    ],
)
def test_a_stream_is_watched_if_its_rows_are_counted_or_the_canary_uses_it(
    changes: dict[str, str], removes: str, unwatched: list[str]
) -> None:
    found = settings(**changes)
    text = Path("config/worker.sql").read_text()
    worker = parse(text.replace(removes, f"{removes}[temperature > 0]") if removes else text)

    assert unwatched_streams(found, worker, [Route(route.topic, route.stream) for route in found.routes]) == unwatched


def test_a_canary_that_no_route_matches_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="no route matches it"):
        checks_of(settings(**CANARY | {"canary__topic": "elsewhere/{marker}"}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"health__checks": '[{"name": "a", "query": "q"}, {"name": "a", "query": "r"}]'}, "different names"),
        ({"health__checks": '[{"name": "a"}]'}, "query"),
        ({"health__checks": '[{"name": "a", "query": "q", "period": 0}]'}, "number from 1 to 86400"),
        ({"health__checks": '[{"name": "a", "query": "q", "most": 3}]'}, "no such setting"),
        ({"canary__enabled": "true"}, "canary.topic and canary.query isn't set"),
        (CANARY | {"canary__topic": "devices/x/rooms/0/telemetry"}, r"contains \{marker\}"),
        (CANARY | {"canary__topic": "devices/+/rooms/0/telemetry"}, r"without \+ and #"),
        (CANARY | {"canary__query": "RETURN 1"}, r"must contain \{marker\}"),
    ],
)
def test_wrong_checks_are_refused_with_the_problem(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        settings(**changes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"health__query": "RETURN 1"}, "health: query or checks"),
        ({"health__checks": '[{"name": "a", "query": "q"}]'}, "health: query or checks"),
        (CANARY, "canary: enabled"),
    ],
)
def test_checks_that_need_a_gdn_are_refused_without_one(changes: dict[str, str], what: str) -> None:
    pulsar = {"gdn__kind": "pulsar", "gdn__url": "http://pulsar:8080", "gdn__tenant": "public"}
    settings(**pulsar)  # valid without the changes

    with pytest.raises(ConfigError, match=f"{what}: a plain Pulsar has no queries"):
        settings(**pulsar, **changes)


def test_there_is_a_warning_if_checks_exceed_their_share_of_the_budget() -> None:
    with capture_logs() as logs:
        checks_of(settings(health__query_interval="5"))
    (warning,) = [entry for entry in logs if entry["event"] == "health.over_quota"]

    assert warning["allowed"] == 9000
    assert warning["requests_a_day"] == math.ceil(86400 / 5 + 86400 / 60)
