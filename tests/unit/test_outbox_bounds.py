"""The records of each stream, and what each gives up when there are too many bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.outbox.bounds import StreamUsage, Usage

sizes = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), min_size=1)


def usage(sizes: dict[str, int]) -> StreamUsage:
    return StreamUsage({stream: Usage(1, size) for stream, size in sizes.items()})


@given(sizes, st.integers(0, 3000))
def test_the_largest_streams_come_down_to_the_same_size_and_the_others_lose_nothing(
    sizes: dict[str, int], target: int
) -> None:
    excess = usage(sizes).excess(target)
    left = {stream: size - excess.get(stream, 0) for stream, size in sizes.items()}

    if sum(sizes.values()) <= target:
        assert excess == {}
        return
    assert target - len(sizes) < sum(left.values()) <= target, "rounded down by less than a byte for each stream"
    (level,) = {left[stream] for stream in excess}
    assert all(left[stream] <= level for stream in sizes)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100))))
def test_what_is_added_and_removed_again_leaves_nothing(added: list[tuple[str, int]]) -> None:
    kept = usage({"a": 5})
    for stream, size in added:
        kept.add({stream: Usage(1, size)})
    assert kept.total == Usage(1 + len(added), 5 + sum(size for _, size in added))

    for stream, size in added:
        kept.remove({stream: Usage(1, size)})
    assert (kept.by_stream, kept.total) == ({"a": Usage(1, 5)}, Usage(1, 5))
