"""Rows out against rows in: what is behind, what is late, and what is lost."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.streamql import parse
from bridge.watch.row_loss import LATE, STILL, Behind, RowLag, RowsIn, streams_of_single_rows, works_in_order


class Far:
    """A stream, the worker behind it that takes its rows in order, and the bridge's counts of both."""

    def __init__(self, *, before: int = 0, keeps_order: bool = True) -> None:
        self.now = 1000.0
        self.queue: deque[str] = deque()
        self.receipted = self.waiting = 0
        self.out = before
        self.swallows = False
        self.swallowed = 0
        self.canary_after = 0
        self.proven: int | None = None
        self.lag = RowLag(self.rows_in, keeps_order=keeps_order)

    def rows_in(self) -> RowsIn:
        return RowsIn(self.receipted, self.waiting)

    def send(self, rows: int) -> None:
        self.queue.extend(["row"] * rows)
        self.waiting += rows

    def receipt(self) -> None:
        self.receipted += self.waiting
        self.waiting = 0

    def put(self, rows: int) -> None:
        self.send(rows)
        self.receipt()

    def sing(self) -> None:
        if "canary" not in self.queue:
            self.canary_after = self.receipted
            self.queue.append("canary")
            self.receipted += 1  # at once

    def work(self, rows: int) -> None:
        for _ in range(min(rows, len(self.queue))):
            kind = self.queue.popleft()
            if kind == "canary":
                self.proven = self.canary_after + 1
            elif self.swallows:
                self.swallowed += 1
                continue
            self.out += 1

    def count(self, seconds: float = 60.0) -> Behind:
        self.now += seconds
        now = self.rows_in()
        return self.lag.count(at=self.now, before=now, after=now, rows_out=self.out, proven=self.proven)

    def round(self) -> Behind:
        """A canary that comes out, and two counts."""
        self.sing()
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


def test_a_worker_that_was_behind_at_the_start_shows_it_once_it_has_caught_up() -> None:
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
    far.swallows = True
    far.put(7)
    far.work(7)
    far.swallows = False
    assert (far.count().rows, far.count().lost) == (7, 0)  # they may still come

    far.sing()
    far.work(1)

    first, second = far.count(), far.count()
    assert (first.rows, first.suspected, first.lost) == (7, 7, 0)
    assert (second.rows, second.suspected, second.lost) == (0, 0, 7)
    assert far.count().lost == 0


def test_each_loss_is_said_once() -> None:
    far = Far()
    far.count()
    said = []
    for lost in (3, 0, 5):
        far.swallows = True
        far.put(lost)
        far.work(lost)
        far.swallows = False
        said.append(far.round().lost)

    assert said == [3, 0, 5]


def test_under_steady_load_a_loss_shows_once_it_outnumbers_what_comes_in_while_the_canary_flies() -> None:
    """One row of ten is lost; twelve come in between a canary's start and the count after it."""
    far = Far()
    far.count()
    said = []
    for _ in range(4):
        for kind in (False, True):
            far.swallows = kind
            far.put(5 if kind else 45)
            far.work(50)
        far.swallows = False
        far.sing()
        far.put(6)
        far.work(7)
        far.count(1)
        far.put(6)
        far.work(6)
        said.append(far.count(2).lost)

    assert said == [0, 0, 3, 5]


def test_a_canary_says_nothing_of_what_came_after_it_was_sent() -> None:
    far = Far()
    far.count()
    far.sing()
    far.put(100)
    far.work(1)

    assert [far.count().lost for _ in range(5)] == [0] * 5


def test_where_order_is_not_kept_no_row_is_said_to_be_lost() -> None:
    far = Far(keeps_order=False)
    far.count()
    far.swallows = True
    far.put(7)
    far.work(7)

    assert far.round().lost == 0


def test_a_count_that_lags_for_a_moment_is_no_loss() -> None:
    far = Far()
    far.count()
    far.put(5)
    far.sing()
    far.work(6)
    far.out -= 4
    assert far.count().suspected == 4
    far.out += 4

    assert far.count() == Behind(0)


def test_rows_that_somebody_deletes_are_not_lost() -> None:
    far = Far()
    far.put(50)
    far.work(50)
    far.count()
    far.out = 0

    assert (far.round().lost, far.count().rows) == (0, 0)


def test_nothing_that_comes_out_is_no_slowness_after_a_while() -> None:
    far = Far()
    far.count()
    far.put(3)
    found = [far.count(STILL / 4) for _ in range(6)]

    assert [behind.stands_still for behind in found] == [False] * 4 + [True] * 2
    assert found[-1].overdue == 3


@pytest.mark.parametrize("inflow", [0, 10])
def test_a_worker_that_is_slow_and_goes_on_does_not_stand_still(inflow: int) -> None:
    far = Far()
    far.count()
    far.put(1000)
    found = []
    for _ in range(30):
        far.put(inflow)
        far.work(5)
        found.append(far.count())

    assert not any(behind.stands_still or behind.lost for behind in found)
    assert [behind.is_late for behind in found] == [behind.age >= LATE for behind in found]
    assert found[-1].is_late


def test_a_quick_worker_under_steady_load_is_neither_late_nor_behind() -> None:
    far = Far()
    found = []
    for _ in range(100):
        far.work(20)
        far.put(20)
        found.append(far.count())

    assert not any(behind.is_late or behind.stands_still or behind.lost for behind in found)
    assert max(behind.rows for behind in found) <= 20


def test_receipts_that_are_under_way_make_no_row_look_lost() -> None:
    """During a burst rows come out before the bridge has read their receipts; that moment is no measure."""
    far = Far()
    far.count()
    far.send(300)
    far.work(300)
    far.count()
    far.receipt()

    assert far.round() == Behind(0, still_for=60.0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "receipt", "work", "sing", "count"]), st.integers(0, 20)), max_size=80
)


@given(STEPS)
def test_an_honest_worker_is_never_said_to_lose_rows_nor_to_be_further_behind_than_it_is(
    steps: list[tuple[str, int]],
) -> None:
    far = Far(before=5)
    for step, number in steps:
        if step == "count":
            behind = far.count(number)
            assert behind.lost == 0
            assert behind.rows <= len(far.queue)
        elif step in ("send", "work"):
            getattr(far, step)(number)
        else:
            getattr(far, step)()


@given(STEPS, st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_every_row_that_was_swallowed_is_said_to_be_lost_in_the_end(
    steps: list[tuple[str, int]], losses: list[int]
) -> None:
    far = Far()
    far.count()
    said = 0
    for (step, number), swallowed in zip(steps, losses * 80, strict=False):
        far.swallows = swallowed > 6
        if step == "count":
            said += far.count(number).lost
        elif step in ("send", "work"):
            getattr(far, step)(number)
        else:
            getattr(far, step)()
    far.swallows = False
    far.receipt()
    far.work(10**6)
    for _ in range(3):
        far.sing()
        far.work(1)
        said += far.count().lost + far.count().lost

    assert said == far.swallowed


# --- where rows can be compared ---------------------------------------------------------------------------

HEADER = "@App:name('w') @App:qlVersion('2')\nCREATE STREAM s (a string); CREATE STREAM z (a string);\n"
PLAIN = "INSERT INTO t SELECT a FROM s;"


@pytest.mark.parametrize(
    ("text", "streams"),
    [
        (f"{HEADER}CREATE TABLE t (a string); {PLAIN}", ("s",)),
        (f"{HEADER}CREATE TABLE t (a string); {PLAIN} INSERT INTO t SELECT a FROM z;", ("s", "z")),
        (f"{HEADER}CREATE TABLE t (a string); {PLAIN} {PLAIN}", ()),
        (f"{HEADER}CREATE TABLE t (a string); INSERT INTO t SELECT a FROM s[a == 'x'];", ()),
        (f"{HEADER}CREATE TABLE t (a string); INSERT INTO t SELECT a FROM s WINDOW TUMBLING_LENGTH(5);", ()),
        (f"{HEADER}CREATE TABLE t (_key string); INSERT INTO t SELECT a AS _key FROM s;", ()),
        (f"{HEADER}CREATE STORE t WITH (type='database', PrimaryKey='a') (a string); {PLAIN}", ()),
        (f"{HEADER}CREATE STORE t WITH (type='database', batch.size='50') (a string); {PLAIN}", ()),
        (f"{HEADER}CREATE TABLE t (a string); INSERT INTO z SELECT a FROM s; INSERT INTO t SELECT a FROM z;", ()),
        (f"{HEADER}INSERT INTO z SELECT a FROM s;", ()),
    ],
)
def test_rows_are_compared_only_where_each_becomes_exactly_one(text: str, streams: tuple[str, ...]) -> None:
    assert streams_of_single_rows(parse(text)) == streams


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
    assert works_in_order(parse(text)) is in_order
