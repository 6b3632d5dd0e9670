"""Rows out compared with rows in: which are behind, late or lost."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.streamql import parse
from bridge.watch.row_loss import (
    LATE_AFTER,
    STALLED_AFTER,
    InputRows,
    RowLag,
    RowLagTracker,
    countable_tables,
    keeps_row_order,
)


class Far:
    """A stream, a worker that processes its rows in order, and the counts of both ends."""

    def __init__(self, *, before: int = 0, keeps_order: bool = True) -> None:
        self.now = 1000.0
        self.queue: deque[str] = deque()
        self.receipted = self.waiting = 0
        self.out = before
        self.drops_rows = False
        self.dropped = 0
        self.canary_after = 0
        self.due_rows: int | None = None
        self.lag = RowLagTracker(self.input_rows, keeps_order=keeps_order)

    def input_rows(self) -> InputRows:
        return InputRows(self.receipted, self.waiting)

    def send(self, rows: int) -> None:
        self.queue.extend(["row"] * rows)
        self.waiting += rows

    def receipt(self) -> None:
        self.receipted += self.waiting
        self.waiting = 0

    def put(self, rows: int) -> None:
        self.send(rows)
        self.receipt()

    def send_canary(self) -> None:
        if "canary" not in self.queue:
            self.canary_after = self.receipted
            self.queue.append("canary")
            self.receipted += 1  # at once

    def work(self, rows: int) -> None:
        for _ in range(min(rows, len(self.queue))):
            kind = self.queue.popleft()
            if kind == "canary":
                self.due_rows = self.canary_after + 1
            elif self.drops_rows:
                self.dropped += 1
                continue
            self.out += 1

    def count(self, seconds: float = 60.0) -> RowLag:
        self.now += seconds
        now = self.input_rows()
        return self.lag.count(at=self.now, before=now, after=now, rows_out=self.out, due_rows=self.due_rows)

    def round(self) -> RowLag:
        """A canary that comes out, and two counts."""
        self.send_canary()
        self.work(10**6)
        self.count()
        return self.count()


def test_rows_are_behind_until_they_come_out() -> None:
    far = Far(before=500)
    far.count()
    far.put(10)
    assert far.count().rows == 10

    far.work(4)
    assert far.count().rows == 6
    far.work(6)
    assert far.count().rows == 0


def test_a_worker_that_was_behind_at_the_start_shows_its_lag_once_it_has_caught_up() -> None:
    far = Far(before=90)
    far.queue.extend(["row"] * 10)  # of an earlier run: nobody can know of them

    assert far.count().rows == 0
    far.work(10)
    assert far.count().rows == 0
    far.put(10)
    assert far.count().rows == 10


def test_rows_that_a_canary_overtook_are_lost_and_count_as_behind_no_more() -> None:
    far = Far()
    far.count()
    far.drops_rows = True
    far.put(7)
    far.work(7)
    far.drops_rows = False
    assert (far.count().rows, far.count().lost) == (7, 0)  # they may still come

    far.send_canary()
    far.work(1)

    first, second = far.count(), far.count()
    assert (first.rows, first.suspected, first.lost) == (7, 7, 0)
    assert (second.rows, second.suspected, second.lost) == (0, 0, 7)
    assert far.count().lost == 0


def test_each_loss_is_reported_once() -> None:
    far = Far()
    far.count()
    reported = []
    for lost in (3, 0, 5):
        far.drops_rows = True
        far.put(lost)
        far.work(lost)
        far.drops_rows = False
        reported.append(far.round().lost)

    assert reported == [3, 0, 5]


def test_under_steady_load_a_loss_shows_once_it_outnumbers_what_comes_in_while_the_canary_flies() -> None:
    """One row of ten is lost; twelve come in between a canary's start and the count after it."""
    far = Far()
    far.count()
    reported = []
    for _ in range(4):
        for kind in (False, True):
            far.drops_rows = kind
            far.put(5 if kind else 45)
            far.work(50)
        far.drops_rows = False
        far.send_canary()
        far.put(6)
        far.work(7)
        far.count(1)
        far.put(6)
        far.work(6)
        reported.append(far.count(2).lost)

    assert reported == [0, 0, 3, 5]


def test_a_canary_proves_nothing_about_rows_sent_after_it() -> None:
    far = Far()
    far.count()
    far.send_canary()
    far.put(100)
    far.work(1)

    assert [far.count().lost for _ in range(5)] == [0] * 5


def test_without_order_no_row_is_reported_as_lost() -> None:
    far = Far(keeps_order=False)
    far.count()
    far.drops_rows = True
    far.put(7)
    far.work(7)

    assert far.round().lost == 0


def test_a_count_that_is_outdated_for_a_moment_is_no_loss() -> None:
    far = Far()
    far.count()
    far.put(5)
    far.send_canary()
    far.work(6)
    far.out -= 4
    assert far.count().suspected == 4
    far.out += 4

    assert far.count() == RowLag(0)


def test_rows_that_somebody_deletes_are_not_lost() -> None:
    far = Far()
    far.put(50)
    far.work(50)
    far.count()
    far.out = 0

    assert (far.round().lost, far.count().rows) == (0, 0)


def test_a_worker_from_which_nothing_comes_out_counts_as_stalled_after_a_while() -> None:
    far = Far()
    far.count()
    far.put(3)
    found = [far.count(STALLED_AFTER / 4) for _ in range(6)]

    assert [lag.is_stalled for lag in found] == [False] * 4 + [True] * 2
    assert found[-1].overdue == 3


@pytest.mark.parametrize("inflow", [0, 10])
def test_a_slow_worker_does_not_count_as_stalled(inflow: int) -> None:
    far = Far()
    far.count()
    far.put(1000)
    found = []
    for _ in range(30):
        far.put(inflow)
        far.work(5)
        found.append(far.count())

    assert not any(lag.is_stalled or lag.lost for lag in found)
    assert [lag.is_late for lag in found] == [lag.age >= LATE_AFTER for lag in found]
    assert found[-1].is_late


def test_a_quick_worker_under_steady_load_is_neither_late_nor_behind() -> None:
    far = Far()
    found = []
    for _ in range(100):
        far.work(20)
        far.put(20)
        found.append(far.count())

    assert not any(lag.is_late or lag.is_stalled or lag.lost for lag in found)
    assert max(lag.rows for lag in found) <= 20


def test_unread_receipts_make_no_row_look_lost() -> None:
    """During a burst rows come out before the bridge has read their receipts; such a moment is no baseline."""
    far = Far()
    far.count()
    far.send(300)
    far.work(300)
    far.count()
    far.receipt()

    assert far.round() == RowLag(0, idle_for=60.0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "receipt", "work", "send_canary", "count"]), st.integers(0, 20)), max_size=80
)


@given(STEPS)
def test_a_worker_that_loses_no_rows_is_never_reported_to_nor_to_be_further_behind_than_it_is(
    steps: list[tuple[str, int]],
) -> None:
    far = Far(before=5)
    for step, number in steps:
        if step == "count":
            lag = far.count(number)
            assert lag.lost == 0
            assert lag.rows <= len(far.queue)
        elif step in ("send", "work"):
            getattr(far, step)(number)
        else:
            getattr(far, step)()


@given(STEPS, st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_every_dropped_row_is_reported_as_lost_in_the_end(steps: list[tuple[str, int]], losses: list[int]) -> None:
    far = Far()
    far.count()
    reported = 0
    for (step, number), lost_rows in zip(steps, losses * 80, strict=False):
        far.drops_rows = lost_rows > 6
        if step == "count":
            reported += far.count(number).lost
        elif step in ("send", "work"):
            getattr(far, step)(number)
        else:
            getattr(far, step)()
    far.drops_rows = False
    far.receipt()
    far.work(10**6)
    for _ in range(3):
        far.send_canary()
        far.work(1)
        reported += far.count().lost + far.count().lost

    assert reported == far.dropped


# --- where rows can be compared ---------------------------------------------------------------------------

HEADER = "@App:name('w') @App:qlVersion('2')\nCREATE STREAM s (a string); CREATE STREAM z (a string);\n"
PLAIN = "INSERT INTO t SELECT a FROM s;"


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        (f"{HEADER}CREATE TABLE t (a string); {PLAIN}", {"t": ("s",)}),
        (f"{HEADER}CREATE TABLE t (a string); {PLAIN} INSERT INTO t SELECT a FROM z;", {"t": ("s", "z")}),
        (
            f"{HEADER}CREATE TABLE t (a string); CREATE TABLE u (a string); {PLAIN} INSERT INTO u SELECT a FROM z;",
            {"t": ("s",), "u": ("z",)},
        ),
        (
            f"{HEADER}CREATE TABLE t (a string); CREATE TABLE u (a string);"
            f"INSERT INTO u SELECT a FROM s[a == 'x']; {PLAIN}",
            {"t": ("s",)},
        ),
        (
            f"{HEADER}CREATE TABLE t (a string); CREATE STORE u WITH (type='database', collection='t') (a string);"
            f"{PLAIN} INSERT INTO u SELECT a FROM z;",
            {},
        ),
        (
            f"{HEADER}CREATE SOURCE y WITH (type='stream', stream.list='g,h') (a string); CREATE TABLE t (a string);"
            "INSERT INTO t SELECT a FROM y;",
            {"t": ("g", "h")},
        ),
        (
            f"{HEADER}CREATE SOURCE y WITH (type='kafka', topic.list='k') (a string); CREATE TABLE t (a string);"
            f"{PLAIN} INSERT INTO t SELECT a FROM y;",
            {},
        ),
        (f"{HEADER}CREATE STORE t WITH (type='rdbms') (a string); {PLAIN}", {}),
        (
            f"{HEADER}CREATE TABLE t (a string); {PLAIN}"
            "PARTITION WITH (a OF z) BEGIN INSERT INTO t SELECT a FROM z; END;",
            {},
        ),
        (f"{HEADER}CREATE TABLE t (a string); {PLAIN} {PLAIN}", {}),
        (f"{HEADER}CREATE TABLE t (a string); INSERT INTO t SELECT a FROM s[a == 'x'];", {}),
        (f"{HEADER}CREATE TABLE t (a string); INSERT INTO t SELECT a FROM s WINDOW TUMBLING_LENGTH(5);", {}),
        (f"{HEADER}CREATE TABLE t (_key string); INSERT INTO t SELECT a AS _key FROM s;", {}),
        (f"{HEADER}CREATE STORE t WITH (type='database', PrimaryKey='a') (a string); {PLAIN}", {}),
        (f"{HEADER}CREATE STORE t WITH (type='database', batch.size='50') (a string); {PLAIN}", {}),
        (f"{HEADER}CREATE TABLE t (a string); INSERT INTO z SELECT a FROM s; INSERT INTO t SELECT a FROM z;", {}),
        (f"{HEADER}INSERT INTO z SELECT a FROM s;", {}),
    ],
)
def test_rows_are_compared_only_where_each_becomes_exactly_one(text: str, tables: dict[str, tuple[str, ...]]) -> None:
    assert dict(countable_tables(parse(text))) == tables


@pytest.mark.parametrize(
    ("text", "in_order"),
    [
        (f"{HEADER}CREATE TABLE t (a string); {PLAIN}", True),
        (f"@App:instances('2') {HEADER}CREATE TABLE t (a string); {PLAIN}", False),
        (
            f"{HEADER}CREATE SOURCE STREAM y WITH (type='stream', stream.list='y', num.consumers='2') (a string);"
            f"CREATE TABLE t (a string); {PLAIN}",
            False,
        ),
    ],
)
def test_rows_keep_their_order_only_with_one_reader(text: str, in_order: bool) -> None:
    assert keeps_row_order(parse(text)) is in_order
