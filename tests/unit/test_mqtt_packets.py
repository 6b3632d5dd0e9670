from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import RemoteProtocolError
from bridge.message import MqttMessage
from bridge.mqtt.packets import KEPT_BYTES, Block, Oversized, acknowledgements, pubcomps, split


def varint(n: int) -> bytes:
    out = b""
    while True:
        n, low = divmod(n, 128)
        out += bytes([low | (0x80 if n else 0)])
        if not n:
            return out


def publish(
    topic: bytes, payload: bytes, *, qos: int = 1, packet_id: int = 1, version: int = 5, props: bytes = b""
) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic
    if qos:
        body += packet_id.to_bytes(2, "big")
    if version == 5:
        body += varint(len(props)) + props
    body += payload
    return bytes([0x30 | qos << 1]) + varint(len(body)) + body


def take(data: bytes, version: int = 5) -> Block:
    return split(data, version=version, received_at=5)


@pytest.mark.parametrize("version", [4, 5])
def test_messages_and_other_packets_are_separated(version: int) -> None:
    pingresp, suback = b"\xd0\x00", b"\x90\x03\x00\x01\x01"
    data = pingresp + publish(b"a/b", b"{}", packet_id=258, version=version) + suback

    block = take(data, version)

    assert block.messages == [MqttMessage("a/b", b"{}", 1, False, 258, 5)]
    assert block.other == pingresp + suback
    assert block.consumed == len(data)


@given(
    st.lists(
        st.tuples(st.text("abc/é", min_size=1), st.binary(max_size=300), st.integers(0, 1), st.binary(max_size=200)),
        max_size=6,
    ),
    st.integers(0, 2000),
)
def test_a_block_cut_anywhere_gives_the_whole_packets_and_asks_for_the_rest(packets, cut) -> None:  # type: ignore[no-untyped-def]
    wire = [publish(t.encode(), p, qos=q, packet_id=9, props=b"\x26" + props) for t, p, q, props in packets]
    data = b"".join(wire)
    cut = min(cut, len(data))

    first = take(data[:cut])
    second = take(data[first.consumed :])

    assert [(m.topic, m.payload, m.qos) for m in first.messages + second.messages] == [
        (t, p, q) for t, p, q, _ in packets
    ]
    assert second.consumed == len(data) - first.consumed
    if first.needed:
        assert first.consumed + first.needed <= len(data)


@given(st.binary(max_size=200), st.sampled_from([4, 5]))
def test_random_bytes_are_split_or_refused_and_never_more(data: bytes, version: int) -> None:
    try:
        block = take(data, version)
    except RemoteProtocolError:
        return

    assert 0 <= block.consumed <= len(data)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 200, 16_383, 16_384])
def test_properties_of_any_length_are_separated_from_the_payload(size: int) -> None:
    props = bytes(size)
    data = publish(b"t", b"{}", packet_id=7, props=props)

    assert take(data).messages == [MqttMessage("t", b"{}", 1, False, 7, 5, properties=props)]


@pytest.mark.parametrize(("flags", "retain", "dup"), [(0, False, False), (1, True, False), (8, False, True)])
@pytest.mark.parametrize("qos", [0, 1])
def test_retained_and_redelivered_messages_are_marked(qos: int, flags: int, retain: bool, dup: bool) -> None:
    data = bytearray(publish(b"t", b"", qos=qos))
    data[0] |= flags

    (message,) = take(bytes(data)).messages

    assert (message.retain, message.dup) == (retain, dup)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 300])
def test_an_incomplete_packet_says_how_long_it_is_once_that_is_known(size: int) -> None:
    data = publish(b"t", bytes(size), version=4)
    head = 2 if data[1] < 0x80 else 3

    needed = [take(data[:cut], 4).needed for cut in range(len(data))]

    assert needed == [0] * head + [len(data)] * (len(data) - head)
    assert take(data + b"\xd0", 4)[1:] == (b"", len(data), 0, [], 0)


@pytest.mark.parametrize("size", [1, 255, 256, 65_535])
def test_topics_of_any_length_are_read(size: int) -> None:
    (message,) = take(publish(b"t" * size, b"{}")).messages

    assert (message.topic, message.payload) == ("t" * size, b"{}")


def test_a_topic_that_is_not_utf8_keeps_its_bytes() -> None:
    (message,) = take(publish(b"a/\xff", b"")).messages

    assert message.topic.encode("utf-8", "surrogateescape") == b"a/\xff"


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(publish(b"t", b"", qos=3), id="QoS 3"),
        pytest.param(b"\x62\x01\x00", id="a PUBREL without packet id"),
        pytest.param(b"\x32\x03\x00\x09a", id="topic longer than the packet"),
        pytest.param(b"\x32\x03\x00\x01a", id="no packet id"),
        pytest.param(b"\x32\x06\x00\x01a\x00\x00\x00", id="packet id 0"),
        pytest.param(b"\x30\x04\x00\x01a\x09", id="properties longer than the packet"),
        pytest.param(b"\x30\x04\x00\x01a\x80", id="incomplete length of the properties"),
        pytest.param(b"\x30\x03\x00\x01a", id="no length of the properties"),
        pytest.param(b"\x30\x00", id="nothing at all"),
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="length of five bytes"),
    ],
)
def test_malformed_publish_packets_are_refused(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        take(packet)


@given(st.lists(st.integers(1, 150_000)), st.integers(0, 70_000), st.sampled_from([4, 5]), st.sampled_from([0, 1]))
def test_a_packet_over_the_limit_keeps_its_beginning_however_it_is_cut(
    cuts: list[int], topic: int, version: int, qos: int
) -> None:
    name, payload, props = b"t" * min(topic, 65_535), bytes(range(256)) * 1500, b"\x26\0\x01a\0\x01b"
    packet = publish(name, payload, qos=qos, packet_id=9, version=version, props=props)
    oversized, data, at = Oversized(len(packet)), packet + b"next", 0
    left = b""
    for cut in [*cuts, len(data)]:
        left += oversized.feed(data[at : at + cut])
        at += cut

    message = oversized.message(version=version, received_at=5)

    kept = payload[: KEPT_BYTES - (len(packet) - len(payload))]
    expected = MqttMessage(name.decode(), kept, qos, False, 9 * qos, 5, properties=props * (version == 5))
    assert oversized.is_complete
    assert left == b"next"
    assert message == msgspec.structs.replace(expected, omitted=len(payload) - len(kept))


def test_properties_that_reach_beyond_what_is_kept_are_dropped() -> None:
    packet = publish(b"t", b"payload", props=bytes(KEPT_BYTES))
    oversized = Oversized(len(packet))
    oversized.feed(packet)

    message = oversized.message(version=5, received_at=5)

    assert (message.topic, message.payload, message.properties) == ("t", b"", b"")
    assert message.omitted == len(packet) - KEPT_BYTES


def test_pubacks_and_pubrecs_are_joined_in_order_and_qos_0_has_none() -> None:
    messages = [MqttMessage("t", b"", qos, False, n, 0) for qos, n in ((1, 1), (0, 0), (2, 2), (1, 65535))]

    assert acknowledgements(messages) == b"\x40\x02\x00\x01\x50\x02\x00\x02\x40\x02\xff\xff"
    assert pubcomps([1, 65535]) == b"\x70\x02\x00\x01\x70\x02\xff\xff"


@pytest.mark.parametrize("version", [4, 5])
def test_pubrels_are_read_in_both_their_forms(version: int) -> None:
    data = b"\x62\x02\x00\x05" + publish(b"t", b"", qos=2, packet_id=6, version=version) + b"\x62\x04\x01\x02\x92\x00"

    block = take(data, version)

    assert block.pubrels == [5, 258]
    assert [(m.qos, m.packet_id) for m in block.messages] == [(2, 6)]
    assert block.other == b""


def test_pingresps_are_counted() -> None:
    block = take(b"\xd0\x00" + publish(b"t", b"", packet_id=6, version=5) + b"\xd0\x00", 5)

    assert block.pingresps == 2
