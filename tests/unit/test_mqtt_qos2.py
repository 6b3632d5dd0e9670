"""QoS 2 against a model of a broker that may be cut off, lose its session or its CONNACK, and redeliver without DUP.

The bridge stores in slices and may be killed at any step; devices send the same two payloads over and over. Nothing
that the broker lets go of may be missing in the store. Nothing may be stored twice, unless the CONNACK was lost and the
broker doesn't mark what it redelivers.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from bridge.message import MqttMessage
from bridge.mqtt.qos2 import Qos2Exchanges

WINDOW = 3
STEPS = 1000

FATES = (*["goes on"] * 12, "killed before the commit", "killed after the commit", "commit fails", "link lost")
"""Of a turn."""


@dataclass
class Exchange:
    """One message at the broker; ``number`` is what nobody on the wire can see."""

    number: int
    packet_id: int
    content: bytes
    has_pubrec: bool = False


class Model:
    """The broker's session, both directions of the link, and the bridge."""

    def __init__(self, rng: random.Random, *, sets_dup: bool) -> None:
        self.rng = rng
        self.sets_dup = sets_dup
        self.published = 0
        self.exchanges: list[Exchange] = []
        self.to_bridge: list[MqttMessage | int] = []  # an int is a PUBREL's packet id
        self.to_broker: list[tuple[str, int]] = []
        self.on_disk: dict[int, bytes] = {}
        self.stored: Counter[int] = Counter()
        self.let_go: set[int] = set()
        self.may_be_doubled: set[int] = set()
        self.is_linked = self.is_session_lost = False
        self.is_loss_unnoticed = False  # the CONNACK that said so didn't come
        self.start()

    def start(self) -> None:
        self.bridge = Qos2Exchanges(session="s", stored=self.on_disk.items())
        self.arrived: list[MqttMessage] = []
        self.waiting: list[MqttMessage] = []

    def step(self) -> None:
        if not self.is_linked:
            if self.rng.random() < 0.2:
                self.exchanges.clear()
                self.is_session_lost = True
            self.connect(connack_comes=self.rng.random() < 0.8)
            return
        self.rng.choice([self.publish, self.read_answers, self.turn])()

    # --- the broker ---------------------------------------------------------------------------------------

    def publish(self) -> None:
        used = {exchange.packet_id for exchange in self.exchanges}
        free = [n for n in range(1, WINDOW + 1) if n not in used]
        for packet_id in free[: self.rng.randint(1, WINDOW)]:
            self.published += 1
            self.exchanges.append(Exchange(self.published, packet_id, self.rng.choice([b"on", b"off"])))
            self.send(self.exchanges[-1], again=False)

    def send(self, exchange: Exchange, *, again: bool) -> None:
        if exchange.has_pubrec:
            self.to_bridge.append(exchange.packet_id)
            return
        dup = again and self.sets_dup
        message = MqttMessage("t", exchange.content, 2, False, exchange.packet_id, exchange.number, dup)
        self.to_bridge.append(message)

    def read_answers(self) -> None:
        for _ in range(min(len(self.to_broker), self.rng.randint(1, 4))):
            kind, packet_id = self.to_broker.pop(0)
            (exchange,) = [exchange for exchange in self.exchanges if exchange.packet_id == packet_id]
            assert exchange.has_pubrec is (kind == "pubcomp")
            if kind == "pubrec":
                exchange.has_pubrec = True
                self.let_go.add(exchange.number)
                self.send(exchange, again=False)
            else:
                self.exchanges.remove(exchange)

    # --- the link -----------------------------------------------------------------------------------------

    def connect(self, *, connack_comes: bool) -> None:
        is_lost, self.is_session_lost = self.is_session_lost, False
        if not connack_comes:
            self.is_loss_unnoticed |= is_lost
            if not self.sets_dup:
                self.may_be_doubled.update(exchange.number for exchange in self.exchanges)
            self.bridge.link_ended()
            return
        self.is_linked = True
        self.is_loss_unnoticed &= not is_lost
        self.bridge.new([], session_present=not is_lost)
        self.store([], fate="goes on")
        assert self.bridge.may_subscribe
        for exchange in self.exchanges:
            self.send(exchange, again=True)

    def cut(self) -> None:
        self.is_linked = False
        self.to_bridge.clear()
        self.to_broker.clear()
        self.arrived, self.waiting = [], []
        self.bridge.link_ended()

    # --- the bridge ---------------------------------------------------------------------------------------

    def turn(self, fate: str | None = None) -> None:
        read, size = self.rng.randint(1, 6), self.rng.randint(1, 4)
        packets, self.to_bridge = self.to_bridge[:read], self.to_bridge[read:]
        self.bridge.pubrels_came([packet for packet in packets if isinstance(packet, int)])
        messages = [packet for packet in packets if isinstance(packet, MqttMessage)]
        self.arrived += messages
        self.waiting += self.bridge.new(messages, session_present=True)
        mapped, self.waiting = self.waiting[:size], self.waiting[size:]
        self.store(mapped, fate=fate or self.rng.choice(FATES))

    def store(self, mapped: list[MqttMessage], *, fate: str) -> None:
        # A bridge that is killed doesn't know of the lost CONNACK: docs/reliability.md excepts this.
        if fate.startswith("killed") and self.is_loss_unnoticed:
            fate = "goes on"
        changes = self.bridge.to_store(mapped)
        if fate in {"killed before the commit", "commit fails"}:
            self.cut()
            if fate != "commit fails":
                self.start()
            return
        if changes is not None:
            if changes.clears:
                self.on_disk.clear()
            for packet_id in changes.ended:
                del self.on_disk[packet_id]
            self.on_disk.update(changes.begun)
        self.stored.update(message.received_at for message in mapped)
        if fate == "killed after the commit":
            self.cut()
            self.start()
            return
        self.to_broker += [("pubcomp", packet_id) for packet_id in self.bridge.committed(changes)]
        complete = self.arrived[: self.arrived.index(self.waiting[0])] if self.waiting else list(self.arrived)
        self.arrived = self.arrived[len(complete) :]
        self.to_broker += [("pubrec", message.packet_id) for message in complete]
        if fate == "link lost":
            self.cut()

    # --- the promises -------------------------------------------------------------------------------------

    def check(self) -> None:
        assert all(self.stored[number] for number in self.let_go), "nothing let go is missing"
        assert {number for number, count in self.stored.items() if count > 1} <= self.may_be_doubled


@pytest.mark.parametrize("sets_dup", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_every_message_that_the_broker_lets_go_is_stored_once(seed: int, sets_dup: bool) -> None:
    model = Model(random.Random(seed), sets_dup=sets_dup)

    for _ in range(STEPS):
        model.step()
        model.check()

    while not model.is_linked:
        model.connect(connack_comes=True)
    for _ in range(10 * WINDOW):
        model.turn("goes on")
        model.read_answers()
    model.check()
    assert not model.exchanges, "every exchange ends"
    assert len(model.let_go) > STEPS / 20, "else this test proves nothing"
