"""Which messages a slice maps, and which of them may be acknowledged. A topic names its lanes: ``x+y`` has two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.message import MqttMessage, SessionChanges
from bridge.mqtt.brokers import Brokers
from bridge.mqtt.qos2 import Qos2Exchanges
from bridge.path import arrivals
from bridge.path.arrivals import BUSY_SHARE, Arrivals, Measure
from bridge.path.intake import Intake


def messages(*topics: str, first: int = 1) -> list[MqttMessage]:
    """With packet ids from ``first`` on."""
    return [MqttMessage(topic, b"", 1, False, n, 0) for n, topic in enumerate(topics, first)]


def holding(*topics: str, may_overtake: bool = True) -> Arrivals:
    made = Arrivals(may_overtake=may_overtake)
    arrived = messages(*topics)
    made.add(arrived, arrived)
    return made


def ids(of: Iterable[MqttMessage]) -> list[int]:
    return [message.packet_id for message in of]


def lanes(topic: str) -> frozenset[str]:
    return frozenset(topic.split("+"))


def filling(*shares: float) -> Callable[[Sequence[MqttMessage]], list[Measure]]:
    """Maps messages; after each so much of the slice is used, after the last of these nothing more."""

    def fill(chosen: Sequence[MqttMessage]) -> list[Measure]:
        used = [*shares, *[shares[-1] if shares else 0.0] * len(chosen)][: len(chosen)]
        full = next((n for n, share in enumerate(used, start=1) if share >= 1), len(chosen))
        return [Measure(n, share) for n, share in enumerate(used[:full], start=1)] or [Measure(0, 0.0)]

    return fill


def slice_of(held: Arrivals, *shares: float) -> list[int]:
    return ids(held.map_slice(filling(*shares), lanes))


def test_without_a_full_slice_everything_is_mapped_in_arrival_order_and_complete() -> None:
    held = holding("x", "y", "x")
    assert ids(held.complete()) == []

    assert slice_of(held) == [1, 2, 3]

    assert not held.is_waiting
    assert ids(held.complete()) == [1, 2, 3]
    assert ids(held.remove_complete()) == [1, 2, 3]
    assert held.remove_complete() == []


def test_a_slice_ends_with_the_message_that_fills_it_and_only_what_arrived_before_the_rest_is_complete() -> None:
    held = holding("x", "x", "x", may_overtake=False)

    assert slice_of(held, 0.6, 1.0) == [1, 2]

    assert held.is_waiting
    assert ids(held.remove_complete()) == [1, 2]
    assert slice_of(held) == [3]
    assert ids(held.remove_complete()) == [3]


def test_lanes_that_fill_slices_take_turns_with_all_others() -> None:
    held = holding("x", "x", "y", "x", "z")

    assert slice_of(held, 1.0) == [1]
    assert slice_of(held, 1.0) == [3]
    assert slice_of(held, 1.0) == [2]
    assert ids(held.remove_complete()) == [1, 2, 3], "acknowledged in arrival order, whatever was mapped first"
    assert slice_of(held, 0.5) == [5]
    assert slice_of(held) == [4]


def test_a_message_never_overtakes_an_earlier_one_with_which_it_shares_a_lane() -> None:
    held = holding("x", "x", "x+y", "y", "z")

    assert slice_of(held, 1.0) == [1]
    assert slice_of(held) == [5], "the fourth waits for the third, which waits for the busy lane x"
    assert slice_of(held) == [2, 3]
    assert slice_of(held) == [4]


def test_only_a_lane_that_used_its_share_of_a_slice_is_busy() -> None:
    held = holding("x", "y", "x", "y", "z")

    assert slice_of(held, 1 - BUSY_SHARE - 0.01, 1.0) == [1, 2]
    assert slice_of(held) == [3, 5], "only y is busy"
    assert slice_of(held) == [4]


def test_a_lane_that_used_exactly_its_share_is_busy() -> None:
    held = holding("x", "y", "x", "z")

    assert slice_of(held, BUSY_SHARE, 1.0) == [1, 2]
    assert slice_of(held) == [4], "x and y are busy"


def test_with_only_busy_lanes_their_messages_are_mapped_without_a_pause() -> None:
    held = holding("x", "x", "x")

    assert [slice_of(held, 1.0) for _ in range(3)] == [[1], [2], [3]]


def test_once_nothing_waits_no_lane_is_busy() -> None:
    held = holding("x", "x")
    assert [slice_of(held, 1.0) for _ in range(2)] == [[1], [2]]

    later = messages("x", "y", first=3)
    held.add(later, later)

    assert slice_of(held) == [3, 4]


def test_where_nothing_may_overtake_the_order_of_arrival_is_kept() -> None:
    held = holding("x", "y", "x", may_overtake=False)

    assert [slice_of(held, 1.0) for _ in range(3)] == [[1], [2], [3]]


def test_messages_that_are_stored_already_are_acknowledged_in_their_place_and_not_mapped() -> None:
    held = Arrivals(may_overtake=False)
    arrived = messages("x", "x", "x")
    held.add(arrived, arrived[1:2])

    assert ids(held.complete()) == [1]
    assert slice_of(held) == [2]
    assert ids(held.remove_complete()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "bound"), [("READ_AHEAD_BYTES", 3 * (arrivals.MESSAGE_BYTES + len("x"))), ("READ_AHEAD_MESSAGES", 3)]
)
def test_nothing_more_is_read_beyond_a_bound_while_messages_wait(
    monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(arrivals, name, bound)
    held = holding("x", "x")
    slice_of(held, 1.0)
    assert held.has_room

    third = messages("x", first=3)
    held.add(third, third)
    assert not held.has_room

    assert ids(held.remove_complete()) == [1]
    assert held.has_room, "what is acknowledged doesn't count"
    fourth = messages("x", first=4)
    held.add(fourth, fourth)
    assert not held.has_room
    slice_of(held)
    assert held.has_room, "nothing waits"


def test_nothing_more_is_read_if_it_would_only_wait() -> None:
    held = holding("x", "x", may_overtake=False)
    assert held.has_room

    slice_of(held, 1.0)
    assert not held.has_room

    slice_of(held)
    assert held.has_room


def test_when_the_link_is_gone_all_messages_are_forgotten() -> None:
    held = holding("x", "x", "y")
    slice_of(held, 1.0)

    held.clear()

    assert not held.is_waiting
    assert held.remove_complete() == []
    again = messages("x", "y", first=4)
    held.add(again, again)
    assert slice_of(held) == [4, 5], "no lane is busy"


class ReadableLink:
    """A link that brings these messages, one read after the other."""

    session_present = True
    broker_dropped = None

    def __init__(self, *reads: list[MqttMessage]) -> None:
        self._reads = list(reads)

    def read(self, _received_at: int) -> list[MqttMessage]:
        return self._reads.pop(0) if self._reads else []

    def take_pubrels(self) -> list[int]:
        return []


def intake_over(*reads: list[MqttMessage]) -> Intake:
    def none(*_: Any) -> Any:
        raise AssertionError

    session = SimpleNamespace(name="c at b", broker="b", redelivery=None, qos_2=Qos2Exchanges(session="c"))
    made = Intake(Brokers([session]), filters=(), connect=none, hand_over=none)  # type: ignore[list-item]
    made.link = ReadableLink(*reads)  # type: ignore[assignment]
    return made


def mapped(intake: Intake, share: float) -> list[int]:
    return ids(intake.map_slice(filling(share), lanes))


def test_one_read_is_mapped_in_a_turn_if_nothing_waits() -> None:
    intake = intake_over(messages("x", "x"), messages("y", first=3))

    intake.receive(0, 0.0, is_readable=False)
    assert mapped(intake, 0.0) == []
    intake.receive(0, 0.0, is_readable=True)
    assert mapped(intake, 0.0) == [1, 2]
    assert ids(intake.committed(SessionChanges())) == [1, 2]
    assert intake.messages == 2


def test_while_messages_wait_all_that_has_arrived_is_read_because_it_may_overtake_them() -> None:
    intake = intake_over(messages("x", "x"), messages("y", first=3), messages("z", first=4))
    intake.receive(0, 0.0, is_readable=True)
    assert mapped(intake, 1.0) == [1]

    intake.receive(0, 0.0, is_readable=True)

    assert intake.messages == 4
    assert mapped(intake, 0.0) == [3, 4]
    assert mapped(intake, 0.0) == [2]
    assert ids(intake.committed(SessionChanges())) == [1, 2, 3, 4]
