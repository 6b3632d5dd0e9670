"""Redelivery against a model of a broker that may choose which packet ids it uses, how much of what was written to it
it has read, when the link is cut, and when the session is lost. It sends more as soon as its window has room, or only
once everything is acknowledged. Devices send the same few payloads over and over.

Nothing that the broker lets go of may be missing in the store, and nothing may stay at the broker for ever. Nothing may
be stored twice, except a fence that was lifted and whose PUBACK the broker never got: one message at a time.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.message import MqttMessage, SeenMessages
from bridge.mqtt import redelivery
from bridge.mqtt.redelivery import ENTRY_BYTES, FENCE_TIMEOUT, MIN_REMEMBERED, PATIENCE, PROMPT, RedeliveryFilter

Allocate = Callable[[set[int], int], int]

CONTENTS = st.sampled_from([b"on", b"off"])

PINGREQ = 0
"""Among the packet ids that are written to the broker."""


def lowest_free(used: set[int], _last: int) -> int:
    return next(n for n in range(1, 100) if n not in used)


def counting_up(highest: int) -> Allocate:
    return lambda used, last: next(
        n for step in range(1, highest + 1) if (n := (last + step - 1) % highest + 1) not in used
    )


@dataclass
class Published:
    """One message; ``number`` is what nobody on the wire can see."""

    number: int
    content: bytes
    packet_id: int = 0
    was_sent: bool = False
    qos: int = 1


@dataclass
class Broker:
    """The session, and the two directions of the link."""

    allocate: Allocate
    window: int
    waits_for_all: bool  # sends nothing more until everything is acknowledged, as HiveMQ does
    resends_in_order: bool
    queue: list[Published] = field(default_factory=list)
    in_flight: list[Published] = field(default_factory=list)
    last_id: int = 0
    to_bridge: list[tuple[Published, bool] | None] = field(default_factory=list)  # None: PINGRESP
    to_broker: list[int] = field(default_factory=list)

    def fill(self) -> None:
        if self.waits_for_all and self.in_flight:
            return
        while self.queue and len(self.in_flight) < self.window:
            message = self.queue.pop(0)
            message.packet_id = self.last_id = self.allocate({m.packet_id for m in self.in_flight}, self.last_id)
            self.in_flight.append(message)
            self.send(message)

    def send(self, message: Published) -> None:
        self.to_bridge.append((message, message.was_sent))
        message.was_sent = True

    def read(self) -> Published | None:
        """Read a packet; the message that it acknowledges."""
        packet_id = self.to_broker.pop(0)
        if packet_id == PINGREQ:
            self.to_bridge.append(None)
            return None
        found = [m for m in self.in_flight if m.packet_id == packet_id]
        assert found, "acknowledged twice: by now the packet id may belong to another message"
        self.in_flight.remove(found[0])
        return found[0]

    def cut(self) -> None:
        self.to_bridge.clear()
        self.to_broker.clear()


class HandingOver(RuleBasedStateMachine):
    allocate: Allocate = staticmethod(lowest_free)
    resends_in_order = True

    def __init__(self) -> None:
        super().__init__()
        self.published = 0
        self.stored: Counter[int] = Counter()
        self.on_disk: dict[int, bytes] = {}
        self.may_be_doubled: set[int] = set()
        self.let_go: set[int] = set()
        self.linked = False
        self.lost_session = True
        self.subscribed = False
        self.now = 0.0
        self.start_bridge()

    @initialize(window=st.integers(1, 5), waits_for_all=st.booleans(), repeats=st.booleans())
    def begin(self, window: int, waits_for_all: bool, repeats: bool) -> None:
        self.broker = Broker(type(self).allocate, window, waits_for_all, self.resends_in_order)
        self.broker_repeats = repeats and self.resends_in_order
        self.link_begins([])
        self.turn(0, False, "goes on")

    def start_bridge(self) -> None:
        self.bridge = RedeliveryFilter(session="s", batches=sorted(self.on_disk.items()))
        self.linked = False

    @rule(contents=st.lists(CONTENTS, min_size=1, max_size=4))
    def publish(self, contents: list[bytes]) -> None:
        for content in contents if self.subscribed else ():
            self.published += 1
            self.broker.queue.append(Published(self.published, content))
        if self.linked:
            self.broker.fill()

    @precondition(lambda self: not self.linked)
    @rule(data=st.data())
    def connect(self, data: st.DataObject) -> None:
        again = list(self.broker.in_flight)
        if not self.broker.resends_in_order:
            again = data.draw(st.permutations(again))
        self.link_begins(again)

    def link_begins(self, again: list[Published]) -> None:
        self.linked = True
        self.pings = self.pings_answered = 0
        self.session_present = not self.lost_session
        self.lost_session = False
        for message in again:
            self.broker.send(message)
        self.broker.fill()

    @precondition(lambda self: self.linked)
    @rule(
        contents=st.lists(CONTENTS, max_size=4),
        read=st.integers(0, 3),
        fate=st.sampled_from(["goes on"] * 6 + ["after", "before", "store"]),
    )
    def publish_and_turn(self, contents: list[bytes], read: int, fate: str) -> None:
        self.publish(contents)
        self.turn(read, False, fate)

    @precondition(lambda self: self.linked)
    @rule(
        read=st.integers(0, 6),
        due=st.booleans(),
        fate=st.sampled_from(["goes on"] * 6 + ["after", "before", "store"]),
    )
    def turn(self, read: int, due: bool, fate: str) -> None:
        """One turn of the data path, perhaps one that ends in a SIGKILL or finds the disk full."""
        came = [self.broker.to_bridge.pop(0) for _ in range(min(read, len(self.broker.to_bridge)))]
        messages = [
            MqttMessage("t", message.content, message.qos, False, message.packet_id, message.number, dup)
            for message, dup in [sent for sent in came if sent is not None]
        ]
        self.pings_answered += came.count(None)
        if not came and not self.broker.to_bridge:
            self.now += 1.1 * FENCE_TIMEOUT * due  # a broker that has nothing to say takes its time
        arrived, new = self.bridge.split(messages, session_present=self.session_present, now=self.now)
        self.bridge.pings_answered(self.pings_answered, self.now)
        stored = self.bridge.to_store(arrived, new, may_lift=due and self.now >= self.bridge.lift_at)
        if fate == "before":
            self.kill()
            return
        if fate == "store" and stored is not None:
            self.cut()
            return
        self.stored.update(message.received_at for message in new if message.qos == 1)
        self.write(stored)
        acked = self.bridge.committed(stored, arrived, self.now)
        if stored is not None and not stored.messages:
            self.may_be_doubled.update(message.received_at for message in acked)
        if fate == "after":
            self.kill()
            return
        self.broker.to_broker += [message.packet_id for message in acked]
        if self.bridge.wants_barrier:
            self.ping()
            self.bridge.barrier_sent(self.pings)
        if self.bridge.may_subscribe:
            self.subscribed = True
        self.broker.fill()

    @precondition(lambda self: self.linked and self.broker.queue)
    @rule()
    def everything_goes_through(self) -> None:
        """Without another fault nothing stays at the broker, except one message that is stored."""
        for _ in range(3 * self.published + 10):
            self.broker.fill()
            self.turn(6, True, "goes on")
            self.broker_reads(6)
            left = self.broker.in_flight
            if not self.broker.queue and len(left) <= 1 and all(self.stored[message.number] for message in left):
                return
        raise AssertionError(f"stalled: {self.broker.queue} {self.broker.in_flight}")

    @precondition(lambda self: self.linked)
    @rule()
    def the_bridge_reads_everything_and_time_passes(self) -> None:
        for _ in range(3):
            if self.linked:
                self.turn(6, True, "goes on")

    def write(self, stored: SeenMessages | None) -> None:
        if stored is not None:
            self.on_disk = {n: messages for n, messages in self.on_disk.items() if n >= stored.oldest}
            if stored.messages:
                self.on_disk[stored.batch] = stored.messages

    @precondition(lambda self: self.linked)
    @rule(count=st.integers(1, 6))
    def broker_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.broker.to_broker))):
            message = self.broker.read()
            if message is not None:
                self.let_go.add(message.number)
                self.may_be_doubled.discard(message.number)
        self.broker.fill()

    @precondition(lambda self: self.linked)
    @rule(what=st.sampled_from(["keepalive", "QoS 0", "QoS 2"]))
    def something_else_is_sent(self, what: str) -> None:
        if what == "keepalive":
            self.ping()
        else:
            qos = int(what[-1])
            self.broker.to_bridge.append((Published(0, b"on", packet_id=qos, qos=qos), False))

    def ping(self) -> None:
        self.pings += 1
        self.broker.to_broker.append(PINGREQ)

    @precondition(lambda self: self.linked and self.broker_repeats)
    @rule()
    def broker_repeats_its_first_unacknowledged_message(self) -> None:
        """Some 3.1.1 brokers send an unacknowledged message again on the same link."""
        if self.broker.in_flight and not self.broker.to_bridge and not self.broker.to_broker:
            self.broker.send(self.broker.in_flight[0])

    @rule(is_kill=st.booleans())
    def link_ends(self, is_kill: bool) -> None:
        if is_kill:
            self.kill()
        elif self.linked:
            self.cut()

    def cut(self) -> None:
        self.broker.cut()
        self.bridge.link_ended()
        self.linked = False

    def kill(self) -> None:
        self.broker.cut()
        self.start_bridge()

    @precondition(lambda self: not self.linked)
    @rule()
    def lose_session(self) -> None:
        """The broker loses the session; its packet ids start again."""
        self.lost_session = True
        self.subscribed = False
        self.may_be_doubled.clear()
        self.let_go.update(message.number for message in self.broker.in_flight if self.stored[message.number])
        self.broker.in_flight.clear()
        self.broker.queue.clear()
        self.broker.last_id = 0

    @invariant()
    def nothing_let_go_is_missing(self) -> None:
        assert all(self.stored[number] for number in self.let_go)

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        if self.resends_in_order:
            doubled = {number for number, n in self.stored.items() if n > 1}
            assert doubled <= self.doubtful()
            assert len(self.may_be_doubled) <= 1

    def doubtful(self) -> set[int]:
        self.ever_doubtful = getattr(self, "ever_doubtful", set()) | self.may_be_doubled
        return self.ever_doubtful

    def teardown(self) -> None:
        """Healed, everything goes through; all the broker may be left with is one message that is stored."""
        if not hasattr(self, "broker"):
            return
        if not self.linked:
            self.link_begins(list(self.broker.in_flight))
        self.everything_goes_through()
        self.nothing_let_go_is_missing()
        self.nothing_is_stored_twice()


class CountingUp(HandingOver):
    allocate = staticmethod(counting_up(7))


class OutOfOrder(HandingOver):
    """A broker that breaks the rule of order, but doesn't use a packet id again soon: duplicates, never a loss."""

    allocate = staticmethod(counting_up(60_000))
    resends_in_order = False


@pytest.mark.long
@pytest.mark.parametrize("machine", [HandingOver, CountingUp, OutOfOrder])
def test_nothing_new_is_skipped_and_nothing_stored_is_stored_again(machine: type[HandingOver]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=400, stateful_step_count=40))


# --- single cases -----------------------------------------------------------------------------------------


def message(packet_id: int, content: bytes = b"on", *, dup: bool = False, qos: int = 1) -> MqttMessage:
    return MqttMessage("t", content, qos, False, packet_id if qos else 0, 0, dup)


def commit(bridge: RedeliveryFilter, *messages: MqttMessage, now: float = 0.0) -> list[MqttMessage]:
    """One turn with a commit: what may be acknowledged after it."""
    arrived, new = bridge.split(messages, session_present=True, now=now)
    return bridge.committed(bridge.to_store(arrived, new, may_lift=True), arrived, now)


def answer_barrier(bridge: RedeliveryFilter, number: int = 1, *, now: float = 0.0) -> None:
    """Send a PINGREQ, which the broker answers at once."""
    assert bridge.wants_barrier
    bridge.barrier_sent(number)
    bridge.pings_answered(number, now)


def passes_at_once(bridge: RedeliveryFilter) -> bool:
    """Whether what arrives doesn't have to wait for the fence."""
    return bridge.split([message(0, qos=0)], session_present=True, now=0) == ([message(0, qos=0)],) * 2


def on_disk_after(*messages: MqttMessage, session: str = "s") -> list[tuple[int, bytes]]:
    """What is on disk after one commit of these."""
    bridge = RedeliveryFilter(session=session)
    arrived, new = bridge.split(messages, session_present=True, now=0)
    stored = bridge.to_store(arrived, new, may_lift=False)
    assert stored is not None
    return [(stored.batch, stored.messages)]


def test_the_last_message_of_a_commit_is_acknowledged_after_the_next_one() -> None:
    bridge = RedeliveryFilter(session="s")
    first, second = [message(1), message(2)], [message(3)]

    arrived, new = bridge.split(first, session_present=True, now=0)
    acked = bridge.committed(bridge.to_store(arrived, new, may_lift=False), arrived, 0)
    assert [m.packet_id for m in acked] == [1]

    arrived, new = bridge.split(second, session_present=True, now=0)
    acked = bridge.committed(bridge.to_store(arrived, new, may_lift=False), arrived, 0)
    assert [m.packet_id for m in acked] == [2]


def test_a_fence_is_lifted_by_a_commit_without_entries_once_the_broker_has_all_other_pubacks() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    assert bridge.to_store([], [], may_lift=True) is None

    answer_barrier(bridge, now=5)

    assert bridge.lift_at == 5 + PATIENCE
    stored = bridge.to_store([], [], may_lift=True)
    assert stored is not None
    assert stored.messages == b""
    assert bridge.committed(stored, [], 6) == [message(2)]
    assert bridge.lift_at == math.inf
    assert not bridge.wants_barrier


def test_a_fence_is_not_lifted_before_the_answer_to_its_barrier() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    bridge.barrier_sent(3)

    bridge.pings_answered(2, 0)

    assert bridge.lift_at == math.inf
    assert not bridge.wants_barrier, "one at a time"
    bridge.pings_answered(3, 0)
    assert bridge.lift_at == PATIENCE


def test_a_message_before_the_answer_to_the_barrier_does_not_show_that_the_broker_does_not_wait() -> None:
    """It may be one of those that the broker sends before it waits."""
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    bridge.barrier_sent(1)

    commit(bridge, message(3))
    bridge.pings_answered(1, 0)

    answer_barrier(bridge, 2)
    assert bridge.lift_at == PATIENCE


def test_a_barrier_is_void_if_another_fence_has_followed() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    bridge.barrier_sent(1)
    commit(bridge, message(3))

    bridge.pings_answered(1, 0)

    assert bridge.lift_at == math.inf
    assert bridge.wants_barrier


@pytest.mark.parametrize("other", [message(0, qos=0), message(9, qos=2), message(9, dup=True)])
def test_only_a_new_qos_1_message_shows_that_the_broker_does_not_wait_for_the_fence(other: MqttMessage) -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    answer_barrier(bridge)

    bridge.split([other], session_present=True, now=0)
    assert bridge.lift_at == PATIENCE

    bridge.split([message(3)], session_present=True, now=0)
    assert bridge.lift_at == math.inf


def test_the_fence_of_a_broker_that_sends_on_without_its_puback_waits_for_the_next_commit() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1))
    answer_barrier(bridge)

    assert commit(bridge, message(2)) == [message(1)]
    assert not bridge.wants_barrier
    bridge.link_ended()
    commit(bridge, message(2, dup=True))
    assert bridge.wants_barrier, "the next link may lead to another broker"


def test_a_broker_that_sends_at_once_after_a_fence_was_lifted_needs_no_patience() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1))
    answer_barrier(bridge, 1)
    assert commit(bridge, now=PATIENCE) == [message(1)]

    commit(bridge, message(1), now=PATIENCE + PROMPT)
    answer_barrier(bridge, 2, now=7)

    assert bridge.lift_at == 7


def test_a_message_long_after_a_fence_was_lifted_does_not_show_that_the_broker_waited_for_it() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1))
    answer_barrier(bridge, 1)
    commit(bridge, now=PATIENCE)

    commit(bridge, message(1), now=PATIENCE + PROMPT + 0.1)
    answer_barrier(bridge, 2, now=7)

    assert bridge.lift_at == 7 + PATIENCE


def test_a_fence_is_not_lifted_together_with_redelivered_messages() -> None:
    """Without entries they would be stored again if their PUBACKs were lost."""
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1))
    answer_barrier(bridge)

    assert bridge.to_store([message(5, dup=True)], [], may_lift=True) is None


def test_the_fence_of_a_broker_that_repeats_it_is_lifted_without_patience() -> None:
    """That another message comes with the repeated one doesn't show that the broker doesn't wait."""
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    answer_barrier(bridge, 1)
    commit(bridge, message(3))

    commit(bridge, message(3, dup=True), message(4))
    answer_barrier(bridge, 2, now=7)

    assert bridge.lift_at == 7
    bridge.split([message(5)], session_present=True, now=7)
    assert bridge.lift_at == 7


def test_a_lifted_fence_is_not_waited_for() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1))
    answer_barrier(bridge)
    assert commit(bridge) == [message(1)]

    bridge.link_ended()

    assert passes_at_once(bridge)
    assert bridge.may_subscribe


def test_messages_of_another_session_prove_nothing() -> None:
    bridge = RedeliveryFilter(session="another", batches=on_disk_after(message(1), message(2)))

    arrived, new = bridge.split([message(1, dup=True), message(2, dup=True)], session_present=True, now=0)

    assert (arrived, new) == ([], [])  # not known, and the fence may still come
    assert len(bridge.split([message(3)], session_present=True, now=0)[1]) == 3


def test_entries_that_an_earlier_version_stored_are_known() -> None:
    stored = bytes.fromhex("0001a1f8a0b77f3e1f2b 0002a1f8a0b77f3e1f2b")
    assert on_disk_after(message(1), message(2)) == [(1, stored)]

    bridge = RedeliveryFilter(session="s", batches=[(1, stored)])

    again = [message(1, dup=True), message(2, dup=True)]
    assert bridge.split(again, session_present=True, now=0) == (again, [])


def test_a_fence_that_does_not_come_is_waited_for_in_bounds() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))

    assert bridge.split([message(1, dup=True)], session_present=True, now=0) == ([], [])
    assert bridge.split([], session_present=True, now=FENCE_TIMEOUT) == ([], [])
    arrived, new = bridge.split([], session_present=True, now=FENCE_TIMEOUT + 1)

    assert arrived == new == [message(1, dup=True)]
    assert passes_at_once(bridge)


def test_each_message_that_arrives_extends_the_wait_for_the_fence() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))

    assert bridge.split([], session_present=True, now=0) == ([], [])
    assert bridge.split([message(1, dup=True)], session_present=True, now=FENCE_TIMEOUT) == ([], [])
    assert bridge.split([], session_present=True, now=2 * FENCE_TIMEOUT) == ([], [])


def test_a_new_message_ends_the_wait_for_the_fence_and_everything_is_stored() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    came = [message(1, dup=True), message(3), message(4), message(5)]

    assert bridge.split(came, session_present=True, now=0) == (came, came)


def test_after_a_wait_in_vain_the_old_entries_leave_the_disk_before_subscriptions_are_requested() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    assert bridge.split([], session_present=True, now=0) == ([], [])
    assert bridge.split([], session_present=True, now=FENCE_TIMEOUT + 1) == ([], [])
    assert not bridge.may_subscribe

    stored = bridge.to_store([], [], may_lift=False)

    assert stored is not None
    assert stored.messages == b""
    bridge.committed(stored, [], 0)
    assert bridge.may_subscribe


def test_messages_that_wait_for_the_fence_take_bounded_memory() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    large = [message(n, bytes(1 << 20), dup=True) for n in range(10, 26)]
    one_more = message(30, b"x", dup=True)

    assert bridge.split(large, session_present=True, now=0) == ([], [])
    assert bridge.split([one_more], session_present=True, now=0) == ([*large, one_more],) * 2


def test_a_bounded_number_of_messages_waits_for_the_fence() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    small = [message(3, dup=True)] * (2 * MIN_REMEMBERED)

    assert bridge.split(small, session_present=True, now=0) == ([], [])
    assert len(bridge.split(small[:1], session_present=True, now=0)[1]) == len(small) + 1


def test_qos_0_messages_go_through_and_keep_their_place() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    again = [message(1, dup=True), message(0, qos=0), message(2, dup=True), message(3)]

    arrived, new = bridge.split(again, session_present=True, now=0)

    assert arrived == again
    assert new == [message(0, qos=0), message(3)]


def test_before_the_fence_only_what_is_known_is_skipped() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    unknown = message(5, dup=True)

    arrived, new = bridge.split(
        [message(1, dup=True), unknown, message(2, dup=True)], session_present=True, now=FENCE_TIMEOUT
    )

    assert new == [unknown]
    assert bridge.skipped == 2
    assert len(arrived) == 3


def test_a_redelivered_fence_is_the_fence_of_the_next_commit_too() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))

    acked = commit(bridge, message(5, dup=True), message(2, dup=True))

    assert [m.packet_id for m in acked] == [5]
    bridge.link_ended()
    assert bridge.split([message(2, dup=True), message(6)], session_present=True, now=0)[1] == [message(6)]


def test_each_message_of_a_commit_has_one_entry() -> None:
    assert [len(entries) for _, entries in on_disk_after(message(1), message(2))] == [2 * ENTRY_BYTES]


def test_the_fence_of_a_broker_that_repeats_it_on_the_same_link_is_skipped() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    others = [message(5, dup=True), message(2), message(6)]

    arrived, new = bridge.split([message(2, dup=True), *others], session_present=True, now=0)

    assert arrived == new == others
    assert bridge.skipped == 1


def test_a_new_session_is_subscribed_once_the_entries_of_the_old_one_have_left_the_disk() -> None:
    bridge = RedeliveryFilter(session="s")
    commit(bridge, message(1), message(2))
    bridge.link_ended()
    assert bridge.split([], session_present=False, now=0) == ([], [])
    assert not bridge.may_subscribe

    stored = bridge.to_store([], [], may_lift=False)

    assert stored is not None
    assert (stored.messages, stored.oldest) == (b"", stored.batch)
    bridge.committed(stored, [], 0)
    assert bridge.may_subscribe
    bridge.link_ended()
    assert bridge.split([], session_present=False, now=0) == ([], [])
    assert bridge.may_subscribe  # there is nothing to clear any more


def test_the_fence_of_an_old_session_is_not_waited_for_in_a_new_one() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    bridge.split([], session_present=False, now=0)

    bridge.link_ended()

    assert passes_at_once(bridge)


def test_in_a_new_session_what_the_old_one_delivered_is_not_known() -> None:
    bridge = RedeliveryFilter(session="s", batches=on_disk_after(message(1), message(2)))
    arrived, new = bridge.split([message(3), message(4)], session_present=False, now=0)
    stored = bridge.to_store(arrived, new, may_lift=True)
    assert stored is not None
    assert stored.oldest == stored.batch
    bridge.committed(stored, arrived, 0)
    assert bridge.may_subscribe

    bridge.link_ended()

    again = [message(1, dup=True), message(4, dup=True)]
    assert bridge.split(again, session_present=True, now=0)[1] == [message(1, dup=True)]


def test_what_is_stored_is_bounded() -> None:
    bridge = RedeliveryFilter(session="s")
    on_disk: dict[int, int] = {}
    for batch in range(300):
        came = [message(1 + (batch * 100 + n) % 60_000) for n in range(100)]
        arrived, new = bridge.split(came, session_present=True, now=0)
        stored = bridge.to_store(arrived, new, may_lift=False)
        assert stored is not None
        bridge.committed(stored, arrived, 0)
        on_disk = {n: size for n, size in on_disk.items() if n >= stored.oldest} | {stored.batch: 100}
        assert sum(on_disk.values()) < MIN_REMEMBERED + 100

    assert sum(on_disk.values()) >= MIN_REMEMBERED


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redelivery, "MIN_REMEMBERED", 100)
    bridge = RedeliveryFilter(session="s")
    sizes = []
    for _ in range(300):
        commit(bridge, message(1), message(2))
        sizes.append(len(pickle.dumps(bridge)))

    assert sizes[-1] < 1.1 * sizes[100]
