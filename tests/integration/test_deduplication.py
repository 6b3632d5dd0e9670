"""Effectively once (docs/reliability.md, P8): the real delivery and outbox against a model of a deduplicating broker.

The model may cut connections, lose what is under way in both directions, answer out of order, refuse sends with and
without using up their number, and crash the bridge between any two steps. No record may be lost, and none may be
stored twice unless its number could not be used again.

One thing the model may not do: refuse a single send, store a later one of the same connection, *and* lose the refusal.
No client could distinguish that from a stored record; with ``sendTimeoutMillis=0`` Pulsar fails single sends only for
reasons that the bridge rules out beforehand (docs/reliability.md).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bridge.gdn.protocol import ProducerProtocol, reusable_from
from bridge.message import Row
from bridge.outbox import Commit, Outbox
from bridge.path import delivery as delivery_module
from bridge.path.delivery import Delivery, RecordMemory
from bridge.timing import Backoff

pytestmark = pytest.mark.integration

STREAM = "s"


@dataclass
class Broker:
    """Stores what has a number above the highest that it has stored."""

    highest: int = 0
    log: list[bytes] = field(default_factory=list)

    def take(self, number: int, payload: bytes) -> None:
        if number > self.highest:
            self.highest = number
            self.log.append(payload)


@dataclass
class Connection:
    """Numbers the sends by itself, as Pulsar's WebSocket producer does: the first is ``initial + 1``."""

    initial: int
    protocol: ProducerProtocol
    on_the_way: list[dict[str, str]] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)


class Deduplication(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="gdn-bridge-test-"))
        self.broker = Broker()
        self.connection: Connection | None = None
        self.published: list[bytes] = []
        self.may_be_doubled: set[bytes] = set()
        self.start_bridge()

    def start_bridge(self) -> None:
        self.outbox = Outbox(self.directory / "outbox.db")
        self.outbox.open()
        outbox = self.outbox
        self.delivery = Delivery(
            stream=STREAM,
            read=lambda **page: outbox.read(STREAM, **page),
            memory=RecordMemory(),
            deduplicates=True,
            backoff=Backoff(base=0.0, cap=0.0),
        )
        self.delivery.resume(*self.outbox.numbered(STREAM))

    # --- what the bridge does ------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4))
    def store(self, count: int) -> None:
        payloads = [b"%d" % (len(self.published) + n) for n in range(count)]
        self.published += payloads
        self.delivery.offer(self.outbox.commit(Commit(rows=[Row(STREAM, payload) for payload in payloads])))

    @precondition(lambda self: self.connection is None)
    @rule()
    def connect(self) -> None:
        self.connection = Connection(self.delivery.initial_sequence_id, ProducerProtocol(window=6))

    @precondition(lambda self: self.connection is not None)
    @rule(count=st.integers(1, 6), stops_before_sending=st.booleans())
    def send(self, count: int, stops_before_sending: bool) -> None:
        assert self.connection is not None
        records = self.delivery.take(min(count, self.connection.protocol.room), 0.0)
        numbers = self.delivery.number(records)
        if numbers:
            self.outbox.number(STREAM, numbers)
        if stops_before_sending:
            self.crash()
            return
        self.connection.on_the_way += [json.loads(text) for text in self.connection.protocol.send(records, 0.0)]

    @rule()
    def commit(self) -> None:
        d = self.delivery
        outcomes = d.outcomes()
        self.outbox.commit(Commit(released=outcomes.released, refused=outcomes.refused, unnumbered=outcomes.unnumbered))
        d.confirm(outcomes)

    # --- what the broker does ------------------------------------------------------------------------------

    @precondition(lambda self: self.connection is not None and self.connection.on_the_way)
    @rule(count=st.integers(1, 6))
    def broker_takes(self, count: int) -> None:
        assert self.connection is not None
        for _ in range(min(count, len(self.connection.on_the_way))):
            send = self.connection.on_the_way.pop(0)
            self.connection.initial += 1
            self.broker.take(self.connection.initial, b64decode(send["payload"]))
            self.connection.answers.append(json.dumps({"result": "ok", "context": send["context"]}).encode())

    @precondition(lambda self: self.connection is not None and self.connection.on_the_way)
    @rule(uses_up_its_number=st.booleans(), still_arrive=st.integers(0, 6))
    def broker_refuses_one(self, uses_up_its_number: bool, still_arrive: int) -> None:
        """A single send fails. The refusal arrives and is on disk before the broker continues, if it does."""
        assert self.connection is not None
        send = self.connection.on_the_way.pop(0)
        self.connection.initial += uses_up_its_number
        self.connection.answers.append(json.dumps({"result": "send-error:8", "context": send["context"]}).encode())
        self.receive(range(len(self.connection.answers)))
        self.commit()
        self.cut(still_arrive)

    @precondition(lambda self: self.connection is not None and self.connection.answers)
    @rule(data=st.data())
    def answers_arrive(self, data: st.DataObject) -> None:
        """Receipts for some sends, in any order."""
        assert self.connection is not None
        every = list(range(len(self.connection.answers)))
        self.receive(data.draw(st.lists(st.sampled_from(every), unique=True)))

    def receive(self, which: range | list[int]) -> None:
        assert self.connection is not None
        answers = self.connection.answers
        receipts = self.connection.protocol.receive([answers[n] for n in which])
        self.connection.answers = [answer for n, answer in enumerate(answers) if n not in which]
        numbers = self.delivery._numbers
        highest = max((numbers[record_id] for record_id in receipts.receipted), default=0)
        # A record behind which another was receipted can't use its number again.
        behind = {record_id for record_id, number in numbers.items() if number < highest or receipts.refused}
        self.may_be_doubled.update(b"%d" % (record_id - 1) for record_id in behind - set(receipts.receipted))
        self.delivery.take_receipts(receipts.receipted, receipts.payload_bytes)
        self.delivery.refuse(receipts.refused, 0.0, 0)

    # --- what goes wrong ------------------------------------------------------------------------------------

    @precondition(lambda self: self.connection is not None)
    @rule(still_arrive=st.integers(0, 6))
    def cut(self, still_arrive: int) -> None:
        assert self.connection is not None
        if self.connection.on_the_way and still_arrive:
            self.broker_takes(still_arrive)
        self.delivery.link_lost(self.connection.protocol.unreceipted())
        self.connection = None

    @rule(still_arrive=st.integers(0, 6))
    def crash_bridge(self, still_arrive: int) -> None:
        if self.connection is not None and self.connection.on_the_way and still_arrive:
            self.broker_takes(still_arrive)
        self.crash()

    def crash(self) -> None:
        self.connection = None
        self.outbox._disconnect_and_unlock()
        self.start_bridge()

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_stored_twice_without_reason(self) -> None:
        doubled = {payload for payload, n in Counter(self.broker.log).items() if n > 1}

        assert doubled <= self.may_be_doubled

    @invariant()
    def the_books_balance(self) -> None:
        assert self.outbox.books().balanced

    def teardown(self) -> None:
        """After all faults everything published is stored, and nothing waits."""
        try:
            for _ in range(len(self.published) + 50):
                if self.connection is None:
                    self.connect()
                self.send(6, False)
                assert self.connection is not None
                if self.connection.on_the_way:
                    self.broker_takes(6)
                self.receive(range(len(self.connection.answers)))
                self.commit()
            self.nothing_is_stored_twice_without_reason()

            assert set(self.broker.log) == set(self.published)
            assert self.outbox.books().outbox == 0
        finally:
            self.outbox._disconnect_and_unlock()
            shutil.rmtree(self.directory)


MACHINE = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.long
def test_no_fault_of_broker_or_links_loses_or_duplicates_a_record() -> None:
    run_state_machine_as_test(Deduplication, settings=MACHINE)


def lose_receipts_before_others_and_then_the_link() -> None:
    machine = Deduplication()
    machine.store(4)
    machine.connect()
    machine.send(4, False)
    machine.broker_takes(3)
    machine.receive([2])
    machine.cut(0)
    machine.teardown()


def test_a_number_behind_a_gap_in_the_receipts_is_not_used_again() -> None:
    lose_receipts_before_others_and_then_the_link()


def test_the_model_finds_numbers_that_are_used_again_behind_a_gap() -> None:
    def careless(numbers: list[int], last: int) -> int:
        return min(numbers, default=last + 1)

    with mock.patch.object(delivery_module, "reusable_from", careless), pytest.raises(AssertionError):
        lose_receipts_before_others_and_then_the_link()


def lose_every_receipt_and_the_bridge() -> None:
    machine = Deduplication()
    machine.store(3)
    machine.connect()
    machine.send(3, False)
    machine.broker_takes(2)
    machine.crash()
    machine.teardown()


def test_after_a_crash_the_numbers_without_receipt_are_used_again() -> None:
    lose_every_receipt_and_the_bridge()


def test_the_model_finds_numbers_that_are_not_used_again() -> None:
    never = mock.patch.object(delivery_module, "reusable_from", lambda _numbers, last: last + 1)
    with never, pytest.raises(AssertionError):
        lose_every_receipt_and_the_bridge()


@pytest.mark.parametrize(
    ("numbers", "last", "start"),
    [([], 0, 1), ([], 7, 8), ([1, 2, 3], 3, 1), ([1, 2, 3], 4, 5), ([1, 3, 4], 4, 3), ([4], 4, 4), ([2], 4, 5)],
)
def test_only_the_unbroken_run_at_the_end_is_used_again(numbers: list[int], last: int, start: int) -> None:
    assert reusable_from(numbers, last) == start
