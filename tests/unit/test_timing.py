from __future__ import annotations

from bridge.timing import Backoff, Deadline


def test_waits_double_up_to_their_cap_and_are_fully_jittered() -> None:
    backoff = Backoff(base=1, cap=5, rng=lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1
    assert Backoff(rng=lambda: 0.0).next() == 0


def test_a_thousand_failures_are_no_overflow() -> None:
    backoff = Backoff(cap=5, rng=lambda: 1.0)

    assert [backoff.next() for _ in range(2000)][-1] == 5


def test_a_deadline_is_never_in_debt() -> None:
    now = [10.0]
    deadline = Deadline(2, clock=lambda: now[0])
    assert deadline.left() == 2
    now[0] = 13
    assert deadline.left() == 0
