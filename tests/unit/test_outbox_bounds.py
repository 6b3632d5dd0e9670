"""The records of each stream, and what each gives up when there are too many bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.outbox.bounds import Shares, StreamUsage, Usage

sizes = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), min_size=1)


def usage(sizes: dict[str, int]) -> StreamUsage:
    return StreamUsage({stream: Usage(1, size) for stream, size in sizes.items()})


@given(sizes, st.integers(0, 3000))
def test_the_largest_streams_come_down_to_the_same_size_and_the_others_lose_nothing(
    sizes: dict[str, int], target: int
) -> None:
    excess = usage(sizes).excess(target, dict.fromkeys(sizes, 100))
    left = {stream: size - excess.get(stream, 0) for stream, size in sizes.items()}

    if sum(sizes.values()) <= target:
        assert excess == {}
        return
    assert target - len(sizes) < sum(left.values()) <= target, "rounded down by less than a byte for each stream"
    (level,) = {left[stream] for stream in excess}
    assert all(left[stream] <= level for stream in sizes)


@given(sizes, st.integers(0, 3000), st.lists(st.integers(1, 100), min_size=6, max_size=6))
def test_streams_give_up_bytes_in_proportion_to_their_share_and_those_within_it_nothing(
    sizes: dict[str, int], target: int, parts: list[int]
) -> None:
    shares = dict(zip("abcdef", parts, strict=True))
    excess = usage(sizes).excess(target, shares)
    left = {stream: size - excess.get(stream, 0) for stream, size in sizes.items()}

    if sum(sizes.values()) <= target:
        assert excess == {}
        return
    assert target - len(sizes) < sum(left.values()) <= target
    fullest = max(left[stream] / shares[stream] for stream in excess)
    assert all(left[stream] / shares[stream] <= fullest + 1 for stream in excess), "the same multiple, but for a byte"
    total = sum(shares.values())
    within = [stream for stream in sizes if sizes[stream] * total <= target * shares[stream]]
    assert excess.keys().isdisjoint(within)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, {"a": 333, "b": 333, "c": 333}),
        ({"a": 0.5}, {"a": 500, "b": 250, "c": 250}),
        ({"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 700, "b": 200, "c": 100}),
        ({"a": 0.7, "elsewhere": 0.1}, {"a": 700, "b": 100, "c": 100}),
        ({"a": 1}, {"a": 1000, "b": 1, "c": 1}),
    ],
)
def test_a_stream_has_its_own_share_or_an_equal_part_of_the_rest(
    named: dict[str, float], expected: dict[str, int]
) -> None:
    assert Shares(1000, named).of("abc") == expected


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100))))
def test_what_is_added_and_removed_again_leaves_nothing(added: list[tuple[str, int]]) -> None:
    kept = usage({"a": 5})
    for stream, size in added:
        kept.add({stream: Usage(1, size)})
    assert kept.total == Usage(1 + len(added), 5 + sum(size for _, size in added))

    for stream, size in added:
        kept.remove({stream: Usage(1, size)})
    assert (kept.by_stream, kept.total) == ({"a": Usage(1, 5)}, Usage(1, 5))
