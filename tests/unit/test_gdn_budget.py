from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import GdnUnavailable
from bridge.gdn.budget import Budget
from bridge.timing import Pace

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def take_all(budget: Budget, *, check: bool = False) -> int:
    """How many requests are allowed now."""
    taken = 0
    while True:
        try:
            budget.take(check=check)
        except GdnUnavailable:
            return taken
        taken += 1


def test_as_many_requests_as_the_limit_are_allowed_and_not_one_more() -> None:
    budget = Budget(per_minute=7, per_day=0, clock=Clock())

    assert take_all(budget) == 7
    assert budget.used == {"minute": 7, "day": 7}


def test_expired_slots_are_dropped_even_without_a_look_at_the_usage() -> None:
    clock = Clock()
    budget = Budget(per_minute=0, per_day=0, clock=clock)
    for _ in range(1000):
        budget.take()
        clock.now += 600.0

    assert all(len(window._slots) < 200 for window in budget._windows.values())


def test_a_limit_of_0_is_no_limit() -> None:
    budget = Budget(per_minute=0, per_day=0, clock=Clock())
    for _ in range(10_000):
        budget.take()
        budget.take(check=True)

    assert budget.used == {"minute": 20_000, "day": 20_000}


@pytest.mark.parametrize(
    ("per_minute", "per_day", "setting", "seconds"),
    [(3, 100, "gdn.requests_per_minute", 61.0), (100, 3, "gdn.requests_per_day", DAY + 1440)],
)
def test_a_refusal_names_the_setting_and_the_wait(per_minute: int, per_day: int, setting: str, seconds: float) -> None:
    clock = Clock()
    budget = Budget(per_minute=per_minute, per_day=per_day, clock=clock)
    take_all(budget)

    with pytest.raises(GdnUnavailable) as caught:
        budget.take()

    assert f"{setting} (3)" in str(caught.value)
    assert caught.value.pace is Pace.LIMITED
    assert caught.value.retry_after is not None
    assert seconds - seconds / 60 < caught.value.retry_after <= seconds


def test_there_is_room_exactly_after_the_stated_wait() -> None:
    clock = Clock()
    budget = Budget(per_minute=3, per_day=0, clock=clock)
    budget.take()
    clock.now += 20
    assert take_all(budget) == 2

    with pytest.raises(GdnUnavailable) as caught:
        budget.take()
    assert caught.value.retry_after is not None
    clock.now += caught.value.retry_after - 0.01
    assert take_all(budget) == 0
    clock.now += 0.01
    assert take_all(budget) == 1


def test_health_checks_get_half_at_most() -> None:
    clock = Clock()
    budget = Budget(per_minute=9, per_day=0, clock=clock)

    assert take_all(budget, check=True) == 4
    assert take_all(budget) == 5
    with pytest.raises(GdnUnavailable, match="health checks get half"):
        budget.take(check=True)


def test_health_checks_get_nothing_once_the_budget_is_used_up() -> None:
    budget = Budget(per_minute=10, per_day=0, clock=Clock())
    take_all(budget)

    assert take_all(budget, check=True) == 0


def test_a_request_that_was_given_back_can_be_taken_again() -> None:
    budget = Budget(per_minute=4, per_day=0, clock=Clock())
    take_all(budget, check=True)

    budget.give_back(check=True)
    assert budget.used == {"minute": 1, "day": 1}
    assert take_all(budget, check=True) == 1


def test_giving_back_late_or_too_often_never_exceeds_the_limit() -> None:
    clock = Clock()
    budget = Budget(per_minute=4, per_day=4, clock=clock)
    budget.take()
    budget.give_back()
    budget.give_back()
    budget.give_back(check=True)

    assert budget.used == {"minute": 0, "day": 0}
    budget.take()
    budget.give_back(check=True)
    assert take_all(budget, check=True) == 2
    assert take_all(budget) == 2
    clock.now += 2 * DAY
    budget.give_back()
    assert take_all(budget) == 4


@given(st.integers(1, 8), st.lists(st.floats(0.0, 30.0), max_size=60), st.floats(0.0, 100.0))
def test_no_minute_has_more_requests_than_its_limit_wherever_it_begins(
    limit: int, pauses: list[float], start: float
) -> None:
    clock = Clock()
    clock.now = start
    budget = Budget(per_minute=limit, per_day=0, clock=clock)
    taken: list[float] = []
    for pause in pauses:
        clock.now += pause
        try:
            budget.take()
        except GdnUnavailable:
            continue
        taken.append(clock.now)

    assert all(sum(1 for at in taken if begin <= at < begin + 60.0) <= limit for begin in taken)


@given(st.integers(1, 8), st.lists(st.tuples(st.floats(0.0, 30.0), st.booleans()), max_size=60))
def test_after_the_stated_wait_a_request_is_allowed(limit: int, turns: list[tuple[float, bool]]) -> None:
    clock = Clock()
    budget = Budget(per_minute=2 * limit, per_day=0, clock=clock)
    for pause, check in turns:
        clock.now += pause
        try:
            budget.take(check=check)
        except GdnUnavailable as exc:
            clock.now += exc.retry_after or 0.0
            budget.take(check=check)

    assert sum(budget.made) == len(turns)


def test_threads_together_do_not_exceed_the_limit() -> None:
    budget = Budget(per_minute=500, per_day=0, clock=lambda: 0.0)
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(take_all(budget))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(taken) == 500
