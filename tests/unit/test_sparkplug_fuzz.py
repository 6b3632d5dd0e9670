"""Sparkplug B with arbitrary devices, brokers and crashes: no value ever gets the name of another metric."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bridge.mapping.sparkplug import MEMBERS, MESSAGE_TYPES, Sparkplug
from bridge.mapping.sparkplug_payload import message_class
from bridge.mapping.sparkplug_values import DATATYPES
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

UINT64 = next(number for number, name in DATATYPES.items() if name == "UInt64")

TOPICS = [f"spBv1.0/g/{type_}/n" + ("/d" if type_.startswith("D") else "") for type_ in MESSAGE_TYPES]

# --- payloads ---------------------------------------------------------------------------------------------------

numbers = st.integers(0, 2**64 - 1) | st.integers(0, 5)
small = st.integers(0, 2**32 - 1) | st.integers(0, 40)
plain_values = (
    st.fixed_dictionaries({"int_value": small})
    | st.fixed_dictionaries({"long_value": numbers})
    | st.fixed_dictionaries({"float_value": st.floats(width=32)})
    | st.fixed_dictionaries({"double_value": st.floats()})
    | st.fixed_dictionaries({"boolean_value": st.booleans()})
    | st.fixed_dictionaries({"string_value": st.text(max_size=5)})
)
datatypes = st.integers(0, 36)
datasets = st.fixed_dictionaries(
    {
        "columns": st.lists(st.text(max_size=2), max_size=3),
        "types": st.lists(datatypes, max_size=3),
        "rows": st.lists(st.fixed_dictionaries({"elements": st.lists(plain_values, max_size=3)}), max_size=3),
    }
)


def metrics(values: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    said = st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["a", "b", "bdSeq", ""]),
            "alias": st.integers(0, 3),
            "timestamp": numbers,
            "datatype": datatypes,
            "is_null": st.booleans(),
            "is_historical": st.booleans(),
        },
    )
    return st.builds(lambda head, value: {**head, **value}, said, values | st.just({}))


leaves = metrics(
    plain_values
    | st.fixed_dictionaries({"bytes_value": st.binary(max_size=20)})
    | st.fixed_dictionaries({"dataset_value": datasets})
    | st.just({"extension_value": {}})
)
any_metric = st.recursive(
    leaves,
    lambda inner: metrics(
        st.fixed_dictionaries(
            {"template_value": st.fixed_dictionaries({"metrics": st.lists(inner, max_size=3)}, optional={})}
        )
    ),
    max_leaves=5,
)
payloads = st.builds(
    lambda listed, timestamp, seq: message_class()(metrics=listed, timestamp=timestamp, seq=seq).SerializeToString(),
    st.lists(any_metric, max_size=4),
    st.none() | numbers,
    st.none() | numbers | st.integers(0, 255),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    sent = bytearray(draw(payloads))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(sent)))
        sent[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(sent)


@pytest.mark.long
@given(
    st.lists(
        st.tuples(
            st.sampled_from(TOPICS) | st.text("spBv1.0/ND+#\0\udcff", max_size=20),
            payloads | mutated() | st.binary(max_size=60),
        ),
        max_size=8,
    )
)
@settings(max_examples=300)
def test_any_messages_give_rows_or_a_reason_and_a_state_that_can_be_stored(messages: list[tuple[str, bytes]]) -> None:
    state = Sparkplug()
    kept: dict[str, str] = {}
    for topic, payload in messages:
        with contextlib.suppress(Unmappable):
            rows = state.decode(topic, payload)
            assert rows
            assert all(set(row) == set(MEMBERS) for row in rows)
        kept.update(state.changes())
        state.rebirths(0.0, 0)
    kept = {key: text for key, text in kept.items() if text}

    after = Sparkplug(kept)

    assert after.changes() == {}
    assert {node: entry.certificates for node, entry in after._nodes.items()} == {
        node: entry.certificates for node, entry in state._nodes.items()
    }
    assert after.bytes == state.bytes


@given(unit=st.binary(min_size=1, max_size=6), head=st.binary(max_size=6), type_=st.sampled_from(MESSAGE_TYPES))
@example(unit=b"\x12\0", head=b"", type_="NDATA")
@example(unit=b"\x12\x03\x0a\x01a", head=b"", type_="NBIRTH")
def test_the_same_bytes_over_and_over_give_rows_or_a_reason_soon(unit: bytes, head: bytes, type_: str) -> None:
    topic = f"spBv1.0/g/{type_}/n" + ("/d" if type_.startswith("D") else "")
    state = Sparkplug()
    started = time.process_time()
    tracemalloc.start()
    try:
        with contextlib.suppress(Unmappable):
            state.decode(topic, (head + unit * 60_000)[:60_000])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert time.process_time() - started < 1
    assert peak < 200 * 60_000


def test_deep_nesting_is_refused() -> None:
    template, metrics = b"\x92\x01", b"\x12"
    payload, tag = b"", metrics
    while len(payload) < 60_000 or tag == metrics:
        length, size = len(payload), b""
        while length > 0x7F:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        payload = tag + size + bytes([length]) + payload
        tag = template if tag == metrics else metrics

    with pytest.raises(Unmappable) as caught:
        Sparkplug().decode("spBv1.0/g/NDATA/n", payload)

    assert caught.value.reason is Reason.UNDECODABLE


# --- edge nodes, the broker and crashes ---------------------------------------------------------------------------


@dataclass
class Node:
    """An edge node with the aliases of its metrics in this session."""

    lives: bool = False
    bd_seq: int = -1
    seq: int = 0
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    """Alias by device that was born (empty: the edge node itself) and metric name."""


NAMES = ["a", "b"]
NODES = ["n"]
DEVICES = ["d"]
orders = st.sampled_from([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 1, 2, 0]])
"""In which aliases are given out."""


class Plant(RuleBasedStateMachine):
    """Edge nodes that follow the specification, QoS 1, and a broker that redelivers unacknowledged messages."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Sparkplug()
        self.nodes = {name: Node() for name in NODES}
        self.history: list[tuple[str, bytes]] = []
        self.acknowledged = 0
        self.kept: dict[str, str] = {}
        self.time = 1000
        self.meaning: dict[int, tuple[str, str | None, str]] = {}
        self.is_broken = False

    # what happens

    def publish(self, type_: str, node: str, device: str, names: list[tuple[str | None, int | None, str]]) -> None:
        """``names``: name as sent, alias as sent, what it means."""
        self.time += 1
        own = self.nodes[node]
        seq = None if type_ == "NDEATH" else own.seq
        own.seq = (own.seq + 1) % 256
        message = message_class()(timestamp=self.time, seq=seq)
        if type_ in ("NBIRTH", "NDEATH"):
            message.metrics.add(name="bdSeq", datatype=UINT64, long_value=own.bd_seq % 256)
        for name, alias, meaning in names:
            value = len(self.meaning) + 10**6
            self.meaning[value] = (node, device or None, meaning)
            datatype = UINT64 if type_.endswith("BIRTH") else None
            message.metrics.add(name=name, alias=alias, datatype=datatype, long_value=value)
        topic = f"spBv1.0/g/{type_}/{node}" + (f"/{device}" if device else "")
        self.history.append((topic, message.SerializeToString()))
        rows = self.take(self.history[-1])
        assert rows is not None, "what comes in order is read"
        if names:
            assert [row["metric"] for row in rows if row["metric"] != "bdSeq"] == [meaning for _, _, meaning in names]

    def take(self, message: tuple[str, bytes], *, is_replay: bool = False) -> list[dict[str, Any]] | None:
        try:
            rows = self.state.decode(*message, is_replay=is_replay)
        except Unmappable as exc:
            reason = exc.reason
            rows = None
        if rows is None:
            assert reason is Reason.UNKNOWN_ALIAS
            assert "DATA/" in message[0]
            return None
        for row in rows:
            if row["metric"] not in (None, "bdSeq"):
                assert self.meaning[row["value"]] == (row["node"], row["device"], row["metric"])
        return rows

    # rules

    def declare(self, node: str, device: str, order: list[int]) -> list[tuple[str | None, int | None, str]]:
        """New aliases, unique in the edge node, for a birth."""
        own = self.nodes[node]
        own.aliases.pop(device, None)
        taken = {alias for names in own.aliases.values() for alias in names.values()}
        free = [alias for alias in order if alias not in taken]
        own.aliases[device] = dict(zip(NAMES, free, strict=False))
        return [(name, alias, name) for name, alias in own.aliases[device].items()]

    @rule(node=st.sampled_from(NODES), order=orders)
    def node_birth(self, node: str, order: list[int]) -> None:
        """A new session, or a rebirth within the current one."""
        own = self.nodes[node]
        if not own.lives:
            own.bd_seq += 1
        own.lives, own.seq, own.aliases = True, 0, {}
        self.publish("NBIRTH", node, "", self.declare(node, "", order))
        self.readings(node, "")

    @rule(node=st.sampled_from(NODES), device=st.sampled_from(DEVICES), order=orders)
    def device_birth(self, node: str, device: str, order: list[int]) -> None:
        if self.nodes[node].lives:
            self.publish("DBIRTH", node, device, self.declare(node, device, order))
            self.readings(node, device)

    @rule(node=st.sampled_from(NODES), source=st.sampled_from(["", *DEVICES]))
    def readings(self, node: str, source: str) -> None:
        if aliases := self.nodes[node].aliases.get(source):
            self.publish(
                "DDATA" if source else "NDATA", node, source, [(None, aliases[name], name) for name in aliases]
            )

    @rule(node=st.sampled_from(NODES), device=st.sampled_from(DEVICES))
    def device_death(self, node: str, device: str) -> None:
        if self.nodes[node].aliases.pop(device, None):
            self.publish("DDEATH", node, device, [])

    @rule(node=st.sampled_from(NODES))
    def node_death(self, node: str) -> None:
        own = self.nodes[node]
        if own.lives:
            own.lives, own.aliases = False, {}
            self.publish("NDEATH", node, "", [])

    @rule(unacknowledged=st.integers(0, 6))
    def commit(self, unacknowledged: int) -> None:
        self.kept.update(self.state.changes())
        self.acknowledged = max(self.acknowledged, len(self.history) - unacknowledged)

    @rule(unacknowledged=st.integers(2, 6), survives=st.booleans())
    def break_off(self, unacknowledged: int, survives: bool) -> None:
        """The link breaks, or the bridge is killed."""
        if survives:
            self.commit(unacknowledged)
        else:
            self.state = Sparkplug({key: text for key, text in self.kept.items() if text})
        self.is_broken = True
        for message in self.history[self.acknowledged :]:
            self.take(message)

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """A dead letter of any age is replayed."""
        pending, wanted = dict(self.state._changed), dict(self.state._need_rebirth)
        self.take(data.draw(st.sampled_from(self.history)), is_replay=True)
        assert (self.state._changed, self.state._need_rebirth) == (pending, wanted)

    @invariant()
    def no_rebirth_is_asked_for_while_all_comes_in_order(self) -> None:
        if not self.is_broken:
            assert self.state.rebirths(0.0, 0) == []


@pytest.mark.long
def test_edge_nodes_that_follow_the_specification_are_understood_whatever_is_lost() -> None:
    run_state_machine_as_test(Plant, settings=settings(max_examples=400, stateful_step_count=30))
