from __future__ import annotations

import pytest

from bridge.timing import Backoff, Deadline, Pace, PacedBackoff


def test_waits_double_up_to_the_cap_with_full_jitter() -> None:
    backoff = Backoff(base=1, cap=5, rng=lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1
    assert Backoff(rng=lambda: 0.0).next() == 0


def test_thousands_of_failures_cause_no_overflow() -> None:
    backoff = Backoff(cap=5, rng=lambda: 1.0)

    assert [backoff.next() for _ in range(2000)][-1] == 5


def test_the_time_left_is_never_negative() -> None:
    now = [10.0]
    deadline = Deadline(2, clock=lambda: now[0])
    assert deadline.left() == 2
    now[0] = 13
    assert deadline.left() == 0


@pytest.mark.parametrize("pace", Pace)
def test_every_wait_has_jitter_and_stays_within_the_bounds_of_its_pace(pace: Pace) -> None:
    shortest, longest = PacedBackoff(rng=lambda: 0.0), PacedBackoff(rng=lambda: 1.0)

    for _ in range(60):
        least, most = shortest.next(pace), longest.next(pace)
        assert least in (pace.floor, pace.early / 2)
        assert least < most <= pace.cap
    assert most == pace.cap


def test_the_first_wait_of_a_pace_without_a_floor_ends_at_its_base() -> None:
    backoff = PacedBackoff(rng=lambda: 1.0)

    assert {pace: backoff.next(pace) for pace in Pace if not pace.floor} == {
        Pace.UNREACHABLE: 0.5,
        Pace.MISSING: 2.0,
        Pace.NAME_TAKEN: 1.0,
        Pace.REFUSED: 5.0,
    }


SOON = [pace for pace in Pace if pace not in (Pace.LIMITED, Pace.SWITCHED_OFF, Pace.TAKEN_OVER)]


@pytest.mark.parametrize("pace", SOON)
def test_in_the_first_minute_the_next_attempt_comes_within_5_seconds_and_then_later_and_later(pace: Pace) -> None:
    backoff = PacedBackoff(rng=lambda: 1.0)

    waited = 0.0
    while waited < 60:
        wait = backoff.next(pace)
        assert wait <= 5
        waited += wait

    later = [backoff.next(pace) for _ in range(12)]
    assert min(later) > 5
    assert later == sorted(later)
    assert later[-1] == pace.cap

    backoff.reset()
    assert backoff.next(pace) <= 5


@pytest.mark.parametrize("pace", SOON)
def test_in_the_first_minute_there_are_at_most_24_attempts_with_wrong_credentials_and_each_has_jitter(
    pace: Pace,
) -> None:
    shortest, longest = PacedBackoff(rng=lambda: 0.0), PacedBackoff(rng=lambda: 1.0)

    assert shortest.next(pace) < longest.next(pace)
    if pace is Pace.CREDENTIALS:
        assert shortest.next(pace) >= 60 / 24


def test_each_pace_counts_its_own_failures() -> None:
    backoff = PacedBackoff(rng=lambda: 1.0)

    waits = [backoff.next(pace) for pace in (Pace.UNREACHABLE, Pace.MISSING) * 3]

    assert waits == [0.5, 2.0, 1.0, 4.0, 2.0, 5.0]


def test_a_wait_is_at_least_the_retry_after() -> None:
    backoff = PacedBackoff(rng=lambda: 1.0)

    assert backoff.next(Pace.LIMITED, 300.0) == 300.0
    assert backoff.next(Pace.LIMITED, 1.0) == 20.0


def test_a_reset_can_except_one_pace() -> None:
    backoff = PacedBackoff(rng=lambda: 1.0)
    for pace in (Pace.TAKEN_OVER, Pace.UNREACHABLE) * 2:
        backoff.next(pace)

    backoff.reset(except_for=Pace.TAKEN_OVER)

    assert (backoff.next(Pace.UNREACHABLE), backoff.next(Pace.TAKEN_OVER)) == (0.5, 40.0)
