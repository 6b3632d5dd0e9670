from __future__ import annotations

import pytest

from bridge.path.rate_limit import BURST_SECONDS, STEP_SECONDS, RateLimit


def sent_by_second(limit: RateLimit, *, seconds: int, row_size: int) -> list[int]:
    """Rows that a sender with an endless backlog sends in each second."""
    sent, now = [0] * seconds, 0.0
    while now < seconds:
        rows, size = limit.room(now)
        count = 0
        while count < rows and count * row_size < size and count < 1000:
            count += 1
        if count:
            limit.take(count, count * row_size, now)
            sent[int(now)] += count
        now = max(now, limit.ready_at)
    return sent


def test_rows_are_sent_at_the_rate_after_a_burst_of_a_second() -> None:
    sent = sent_by_second(RateLimit(rows=100), seconds=10, row_size=50)

    assert sum(sent) == pytest.approx(100 * (10 + BURST_SECONDS), abs=10)
    assert max(sent[1:]) <= 110


def test_bytes_are_sent_at_the_rate_whatever_the_size_of_the_rows() -> None:
    sent = sent_by_second(RateLimit(size=10_000), seconds=20, row_size=300)

    assert sum(sent) * 300 == pytest.approx(10_000 * (20 + BURST_SECONDS), rel=0.05)


def test_a_row_larger_than_the_bucket_is_sent_and_its_bytes_are_waited_for() -> None:
    limit = RateLimit(size=1000)
    assert limit.room(0.0)[1] > 0
    limit.take(1, 5000, 0.0)

    assert limit.ready_at == pytest.approx(4 + STEP_SECONDS)
    assert limit.room(3.9) == (0, 0)
    assert limit.room(limit.ready_at)[1] > 0


def test_the_lower_of_both_rates_counts() -> None:
    assert sum(sent_by_second(RateLimit(rows=100, size=1000), seconds=10, row_size=100)) == pytest.approx(110, abs=11)
    assert sum(sent_by_second(RateLimit(rows=10, size=100_000), seconds=10, row_size=100)) == pytest.approx(110, abs=11)


def test_a_rate_below_one_row_a_second_is_possible() -> None:
    assert sum(sent_by_second(RateLimit(rows=0.5), seconds=20, row_size=1)) == pytest.approx(11, abs=1)


def test_a_long_pause_earns_no_more_than_the_burst() -> None:
    limit = RateLimit(rows=100)
    limit.take(100, 0, 0.0)

    assert limit.room(1000.0)[0] == 100


def test_a_limited_sender_wakes_in_steps_and_not_for_each_row() -> None:
    limit = RateLimit(rows=1000)
    limit.take(1000, 0, 0.0)

    assert limit.ready_at == pytest.approx(STEP_SECONDS)
    assert limit.room(limit.ready_at)[0] == 1000 * STEP_SECONDS
