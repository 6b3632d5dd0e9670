"""The two links on real sockets with a scripted peer, for cases that real peers rarely produce."""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import paho.mqtt.client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import MQTTException

from bridge.errors import RemoteProtocolError
from bridge.gdn.producer import ProducerLink
from bridge.links.link import LinkEnd
from bridge.message import MqttMessage, OutboxRecord
from bridge.mqtt.hosted import HostedBroker, hosted_broker
from bridge.mqtt.link import MAX_OTHER, MAX_PACKET, MqttLink, MqttOptions, packet_id
from bridge.mqtt.packets import KEPT_BYTES
from bridge.mqtt.silence import ANSWER_TIMEOUT
from bridge.mqtt.subscriptions import DROPPED_TOPIC
from tests.conftest import wait_for

pytestmark = pytest.mark.integration

RECORDS = [OutboxRecord(n, "s", b"{}") for n in (1, 2)]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    yield ours, theirs
    ours.close()
    theirs.close()


# --- producer ------------------------------------------------------------------------------------------


def producer(sock: socket.socket) -> ProducerLink:
    return ProducerLink(sock=sock, window=10, receipt_timeout=30, ping_interval=20, clock=lambda: 0.0)


def test_a_missing_receipt_ends_the_link_and_returns_its_records(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    link.send(RECORDS, 1.0)
    pair[1].sendall(b"\x81\x1f" + b'{"result":"ok", "context": "1"}')
    link.read(19.0)

    link.tick(31.0)
    assert link.error is None
    link.tick(31.1)
    assert "no receipt for 30 s" in (link.error or "")
    assert link.end is LinkEnd.TIMED_OUT
    assert link.close() == [RECORDS[1]]


def test_pings_are_sent_and_silence_ends_the_link(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])

    link.tick(19.9)
    link.tick(20.0)
    assert pair[1].recv(100)[:2] == b"\x89\x80"
    link.tick(40.1)
    assert "silent for 40 s" in (link.error or "")
    assert link.end is LinkEnd.TIMED_OUT


def test_a_ping_is_answered_and_a_close_ends_the_link(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    pair[1].sendall(b"\x89\x02hi" + b"\x88\x09\x03\xf3 broken")

    link.read(1.0)

    assert link.wants_write
    assert link.error == "GDN closed the producer connection: 1011 ' broken'"
    assert link.end is LinkEnd.DISCONNECTED


def test_a_request_for_a_new_token_is_answered_once_it_has_been_read_and_the_link_goes_on(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    may_read, read = threading.Event(), []

    def read_token() -> str:
        assert may_read.wait(10)
        read.append(threading.current_thread())
        return "a.new.token"

    link = ProducerLink(sock=pair[0], window=10, receipt_timeout=30, ping_interval=20, read_token=read_token)
    link.send(RECORDS, 1.0)
    pair[1].recv(1000)
    challenge = b'{"type":"AUTH_CHALLENGE"}'
    pair[1].sendall((b"\x81%c" % len(challenge) + challenge) * 2 + b"\x81\x1f" + b'{"result":"ok", "context": "1"}')

    assert link.read(1.0).receipted == [1]
    link.tick(1.0)
    assert not select.select([pair[1]], [], [], 0)[0], "the token hasn't been read"
    may_read.set()

    def is_answered() -> bool:
        link.tick(1.0)
        return bool(select.select([pair[1]], [], [], 0)[0])

    wait_for(is_answered, seconds=10, what="the token")
    size = pair[1].recv(2)[1] & 0x7F
    length = int.from_bytes(pair[1].recv(2), "big") if size == 126 else size
    mask, masked = pair[1].recv(4), pair[1].recv(1000)
    assert len(masked) == length
    answer = json.loads(bytes(byte ^ mask[n % 4] for n, byte in enumerate(masked)))
    assert answer["authResponse"]["response"]["authData"] == "a.new.token"
    assert len(read) == 1
    assert threading.current_thread() not in read
    assert link.end is None


def test_a_binary_message_is_a_protocol_error(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    pair[1].sendall(b"\x82\x01x")

    with pytest.raises(RemoteProtocolError):
        link.read(1.0)


@pytest.mark.parametrize("data", [b"\x81\x01{", b"\x81\x0b<html></..>"])
def test_an_invalid_receipt_ends_the_link_after_the_receipts_before_it(
    pair: tuple[socket.socket, socket.socket], data: bytes
) -> None:
    link = producer(pair[0])
    link.send(RECORDS, 0.0)
    pair[1].sendall(b"\x81\x1f" + b'{"result":"ok", "context": "1"}' + data)

    assert link.read(1.0).receipted == [1]
    assert "can't be read" in (link.error or "")
    assert link.end is LinkEnd.PROTOCOL
    assert link.close() == [RECORDS[1]]


def test_a_closed_connection_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    pair[1].close()

    assert link.read(1.0).receipted == []
    assert link.error == "GDN closed the producer connection"
    assert link.end is LinkEnd.CLOSED_BY_PEER


def test_the_first_reason_wins_and_nothing_is_written_after_it(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])

    link.fail("first", LinkEnd.PROTOCOL)
    link.fail("second", LinkEnd.GIVEN_UP)
    link.send(RECORDS, 0.0)
    pair[1].close()
    link.read(1.0)

    assert (link.error, link.end) == ("first", LinkEnd.PROTOCOL)
    assert link.wants_write


@pytest.mark.parametrize(
    ("raised", "end"),
    [
        (ConnectionResetError(), LinkEnd.CLOSED_BY_PEER),
        (BrokenPipeError(), LinkEnd.CLOSED_BY_PEER),
        (TimeoutError(), LinkEnd.FAILED),
        (ssl.SSLEOFError(), LinkEnd.FAILED),
        (OSError("network unreachable"), LinkEnd.FAILED),
    ],
)
def test_a_close_by_the_peer_and_a_socket_error_are_distinguished(raised: OSError, end: LinkEnd) -> None:
    class Broken(Wire):
        def send(self, data: bytes) -> int:
            raise raised

        def recv(self, _size: int) -> bytes:
            raise raised

    reading, writing = mqtt(Broken()), mqtt(Broken())
    reading.read(0)
    writing.flush()

    assert reading.end is end
    assert writing.end is end


# --- broker --------------------------------------------------------------------------------------------

Pair = tuple[socket.socket, socket.socket]

AWS = "a1b2c3-ats.iot.eu-central-1.amazonaws.com"


def mqtt(
    sock: Any,
    version: int = 4,
    filters: tuple[str, ...] = ("a/+", "b"),
    *,
    known: tuple[str, ...] = (),
    keepalive: int = 0,
    clock: Callable[[], float] = time.monotonic,
    hosted: HostedBroker | None = None,
    **options: Any,
) -> MqttLink:
    asked = MqttOptions(
        client_id="c", version=version, keepalive=keepalive, session_expiry=3600, receive_maximum=100, **options
    )
    return MqttLink(sock=sock, options=asked, filters=filters, known=known, hosted=hosted, clock=clock)


def packet(head: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([head]) + length + body


def text(string: str) -> bytes:
    return len(string).to_bytes(2, "big") + string.encode()


def connack(version: int, code: int = 0, *, session: bool = False, properties: bytes = b"") -> bytes:
    tail = bytes([len(properties)]) + properties if version == 5 else b""
    return packet(0x20, bytes([session, code]) + tail)


def id_of(request: int) -> bytes:
    """The packet id of a link's request with this number, from 1."""
    return packet_id(request).to_bytes(2, "big")


def acknowledgement(head: int, version: int, request: int, codes: tuple[int, ...]) -> bytes:
    return packet(head, id_of(request) + (b"\0" if version == 5 else b"") + bytes(codes))


def suback(version: int, request: int, *codes: int) -> bytes:
    return acknowledgement(0x90, version, request, codes)


def unsuback(version: int, request: int, *codes: int) -> bytes:
    return acknowledgement(0xB0, version, request, codes if version == 5 else ())


def publish(version: int, topic: str, payload: bytes = b"x", *, packet_id: int = 0) -> bytes:
    head = 0x32 if packet_id else 0x30
    number = packet_id.to_bytes(2, "big") if packet_id else b""
    return packet(head, text(topic) + number + (b"\0" if version == 5 else b"") + payload)


def subscribe(version: int, request: int, *filters: str, options: int | None = None) -> bytes:
    # MQTT 5, 3.8.3.1: 0x11 is QoS 1 with Retain Handling 1
    options = options if options is not None else 0x11 if version == 5 else 1
    properties = b"\0" if version == 5 else b""
    return packet(0x82, id_of(request) + properties + b"".join(text(f) + bytes([options]) for f in filters))


def unsubscribe(version: int, request: int, *filters: str) -> bytes:
    properties = b"\0" if version == 5 else b""
    return packet(0xA2, id_of(request) + properties + b"".join(text(f) for f in filters))


def sent(link: MqttLink, peer: socket.socket) -> bytes:
    """The bytes that the link has written since the last call."""
    link.flush()
    readable, _, _ = select.select([peer], [], [], 0)
    return peer.recv(65536) if readable else b""


def receive(link: MqttLink, peer: socket.socket, *packets: bytes) -> list[MqttMessage]:
    peer.sendall(b"".join(packets))
    return link.read(0)


def connected(pair: Pair, version: int, *packets: bytes, **options: Any) -> MqttLink:
    """A link after its CONNACK and these packets; the bytes that it wrote until then are read."""
    link = mqtt(pair[0], version, **options)
    receive(link, pair[1], connack(version), *packets)
    sent(link, pair[1])
    return link


def whole_now() -> float:
    """Monotonic seconds, whole: with a fraction, ``start + 60 - start`` may round to less than 60."""
    return float(int(time.monotonic()) + 1)


PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"

both_versions = pytest.mark.parametrize("version", [4, 5])


def test_a_link_resumes_its_session_and_subscribes_after_the_connack(pair: Pair) -> None:
    link = mqtt(pair[0], version=5)
    connect = sent(link, pair[1])
    assert connect[0] == 0x10
    assert connect[9] & 2 == 0  # clean start isn't set

    receive(link, pair[1], connack(5, session=True))

    assert link.session_present is True
    assert sent(link, pair[1]) == subscribe(5, 1, "a/+", "b")
    assert not link.subscribed


def test_mqtt_5_asks_for_the_session_expiry_the_window_and_the_largest_packet(pair: Pair) -> None:
    connect = sent(mqtt(pair[0], version=5), pair[1])

    # MQTT 5, 3.1.2.11: 0x11 Session Expiry Interval, 0x21 Receive Maximum, 0x27 Maximum Packet Size
    for asked in (struct.pack(">BI", 0x11, 3600), struct.pack(">BH", 0x21, 100), struct.pack(">BI", 0x27, MAX_PACKET)):
        assert asked in connect


def test_messages_may_arrive_in_pieces_and_are_acknowledged_in_order(pair: Pair) -> None:
    link = connected(pair, 4)
    data = b"".join(publish(4, "b", packet_id=n) for n in (1, 2, 3))
    messages: list[MqttMessage] = []
    for byte in data:
        messages += receive(link, pair[1], bytes([byte]))

    link.ack(messages)

    assert [m.packet_id for m in messages] == [1, 2, 3]
    assert sent(link, pair[1]) == b"\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03"


@both_versions
def test_closing_writes_what_is_left_and_disconnects(pair: Pair, version: int) -> None:
    link = connected(pair, version)
    link.ack(receive(link, pair[1], publish(version, "b", packet_id=7)))

    link.close()

    assert pair[1].recv(100) == b"\x40\x02\x00\x07" + b"\xe0\x00"


def test_a_link_ends_if_the_broker_never_answers(pair: Pair) -> None:
    link = mqtt(pair[0])
    link.tick(100.0)
    link.tick(100.0 + ANSWER_TIMEOUT)
    assert link.error is None
    link.tick(100.1 + ANSWER_TIMEOUT)

    assert link.error == "the broker did not answer CONNECT within 10 s"
    assert link.end is LinkEnd.TIMED_OUT


# --- subscriptions --------------------------------------------------------------------------------------


@both_versions
def test_a_removed_filter_is_unsubscribed_and_stays_in_the_session_until_the_unsuback(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version, known=("b", "old/#", "a/+", "older"))
    sent(link, pair[1])

    receive(link, pair[1], connack(version, session=True))
    asked = sent(link, pair[1])
    assert asked.startswith(unsubscribe(version, 1, "old/#", "older"))
    assert list(link.held) == ["a/+", "b", "old/#", "older"]

    receive(link, pair[1], unsuback(version, 1, 0, 0x11))
    assert link.held == ("a/+", "b")


def test_a_filter_that_the_broker_does_not_unsubscribe_stays_in_the_session(pair: Pair) -> None:
    link = mqtt(pair[0], 5, known=("a", "c", "d"), filters=("b",))
    receive(link, pair[1], connack(5, session=True), unsuback(5, 1, 0, 0x87), suback(5, 2, 1))

    assert link.held == ("b", "c", "d")  # c was refused, d isn't answered: the next connect tries both again


@both_versions
def test_after_a_lost_session_all_filters_are_subscribed_and_none_is_unsubscribed(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version, known=("b", "old"))
    sent(link, pair[1])

    receive(link, pair[1], connack(version, session=False))

    assert sent(link, pair[1]) == subscribe(version, 1, "a/+", "b")
    assert not link.held
    receive(link, pair[1], suback(version, 1, 1, 1))
    assert link.held == ("a/+", "b")


def test_with_3_1_1_a_resumed_session_subscribes_only_new_filters(pair: Pair) -> None:
    link = mqtt(pair[0], known=("b",))
    sent(link, pair[1])

    receive(link, pair[1], connack(4, session=True))
    assert sent(link, pair[1]) == subscribe(4, 1, "a/+")
    assert not link.subscribed

    receive(link, pair[1], suback(4, 1, 1))
    assert link.subscribed
    assert link.held == ("a/+", "b")


def test_with_3_1_1_a_resumed_session_without_new_filters_is_subscribed_at_once(pair: Pair) -> None:
    link = mqtt(pair[0], known=("b", "a/+"))
    sent(link, pair[1])

    receive(link, pair[1], connack(4, session=True))

    assert sent(link, pair[1]) == b""
    assert link.subscribed
    assert (link.held, link.refused) == (("a/+", "b"), {})


def test_with_5_each_connect_subscribes_all_filters_without_retained_messages(pair: Pair) -> None:
    link = mqtt(pair[0], 5, known=("b", "a/+"))
    sent(link, pair[1])

    receive(link, pair[1], connack(5, session=True))

    assert sent(link, pair[1]) == subscribe(5, 1, "a/+", "b", options=0x11)
    assert not link.subscribed


@both_versions
@pytest.mark.parametrize(("code", "says"), [(0x80, "Unspecified error"), (0, "QoS 0")])
def test_refused_and_downgraded_filters_are_named(pair: Pair, version: int, code: int, says: str) -> None:
    link = connected(pair, version, suback(version, 1, 1, code))

    assert link.subscribed
    ((filter_, reason),) = link.refused.items()
    assert filter_ == "b"
    assert says in reason
    assert link.downgraded == ({"b"} if code == 0 else set())


@both_versions
def test_filters_that_a_suback_leaves_out_count_as_refused(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1))

    assert link.refused == {"b": "not answered in the broker's SUBACK"}
    assert link.held == ("a/+",)


def test_with_3_1_1_a_filter_granted_at_qos_0_is_subscribed_again(pair: Pair) -> None:
    old = connected(pair, 4, suback(4, 1, 1, 0))

    assert old.held == ("a/+",)


@both_versions
def test_a_refused_filter_is_no_longer_in_the_session(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version, known=("a/+",))
    code = 0x87 if version == 5 else 0x80
    codes = (1, code) if version == 5 else (code,)
    receive(link, pair[1], connack(version, session=True), suback(version, 1, *codes))

    assert link.held == ("a/+",)
    assert len(link.refused) == 1


# --- packet ids -----------------------------------------------------------------------------------------


def test_requests_use_every_packet_id_and_never_neighbours() -> None:
    ids = [packet_id(n) for n in range(1, 65536)]

    assert set(ids) == set(range(1, 65536))
    assert min(abs(a - b) for a, b in pairwise(ids)) > 8000


def test_a_subscribe_whose_packet_id_is_in_use_is_sent_again_with_another(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 0x91, 0x91))

    assert not link.subscribed
    link = mqtt(pair[0], 5)
    receive(link, pair[1], connack(5))
    sent(link, pair[1])
    receive(link, pair[1], suback(5, 1, 0x91, 0x91))
    assert sent(link, pair[1]) == subscribe(5, 2, "a/+", "b")
    receive(link, pair[1], suback(5, 2, 1, 1))
    assert link.subscribed
    assert (link.refused, link.held) == ({}, ("a/+", "b"))


def test_an_unsubscribe_whose_packet_id_is_in_use_is_sent_again_with_another(pair: Pair) -> None:
    link = mqtt(pair[0], 5, known=("old",))
    receive(link, pair[1], connack(5, session=True))
    sent(link, pair[1])

    receive(link, pair[1], unsuback(5, 1, 0x91))
    assert sent(link, pair[1]) == unsubscribe(5, 3, "old")
    receive(link, pair[1], suback(5, 2, 1, 1), unsuback(5, 3, 0))
    assert link.held == ("a/+", "b")


# --- the broker's counter of dropped messages -----------------------------------------------------------


@both_versions
def test_the_counter_has_its_own_subscribe_and_the_link_does_not_wait_for_it(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version, watch_drops=True)
    sent(link, pair[1])
    receive(link, pair[1], connack(version))

    assert sent(link, pair[1]) == subscribe(version, 1, "a/+", "b")
    receive(link, pair[1], suback(version, 1, 1, 1))
    assert link.subscribed
    assert list(link.held) == ["a/+", "b"]
    assert sent(link, pair[1]) == subscribe(version, 2, DROPPED_TOPIC, options=0)
    receive(link, pair[1], suback(version, 2, 0))
    assert (link.held, link.refused) == ((DROPPED_TOPIC, "a/+", "b"), {})
    pair[1].close()
    link.read(0)
    assert not link.ended_by_counter


@both_versions
def test_a_refused_counter_is_not_an_error(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1), watch_drops=True)

    receive(link, pair[1], suback(version, 2, 0x80))

    assert link.subscribed
    assert (link.held, link.refused, link.error) == (("a/+", "b"), {}, None)


@both_versions
def test_a_broker_that_closes_the_connection_because_of_the_counter_is_recognised(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1), watch_drops=True)
    pair[1].close()
    link.read(0)

    assert link.ended_by_counter


def test_a_broker_that_gives_a_reason_when_asked_for_the_counter_is_recognised(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), watch_drops=True)
    assert not link.ended_by_counter

    receive(link, pair[1], packet(0xE0, b"\x8f\0"))

    assert link.end is LinkEnd.DISCONNECTED
    assert link.ended_by_counter


def test_aws_is_not_asked_for_the_counter(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), watch_drops=True, hosted=hosted_broker(AWS))

    assert link.subscribed
    assert link.held == ("a/+", "b")
    pair[1].close()
    link.read(0)
    assert not link.ended_by_counter


def test_a_hosted_broker_that_closes_without_a_reason_has_what_to_check(pair: Pair) -> None:
    link = mqtt(pair[0], hosted=hosted_broker(AWS))
    sent(link, pair[1])
    pair[1].close()
    link.read(0)

    assert "iot:Connect for the client id 'c'" in (link.error or "")
    assert "iot:Subscribe" not in (link.error or "")


def test_a_hosted_broker_that_closes_later_has_other_things_to_check(pair: Pair) -> None:
    link = connected(pair, 4, hosted=hosted_broker(AWS))
    pair[1].close()
    link.read(0)

    assert "iot:Subscribe" in (link.error or "")
    assert "iot:Connect" not in (link.error or "")


@both_versions
def test_a_counter_no_longer_watched_is_unsubscribed(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version, known=(DROPPED_TOPIC, "b"))
    sent(link, pair[1])
    receive(link, pair[1], connack(version, session=True))

    assert sent(link, pair[1]).startswith(unsubscribe(version, 1, DROPPED_TOPIC))


@both_versions
def test_the_counter_is_read_and_is_not_among_the_messages(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1), suback(version, 2, 0), watch_drops=True)
    assert link.broker_dropped is None

    messages = receive(
        link,
        pair[1],
        publish(version, "b", b"1", packet_id=1),
        publish(version, DROPPED_TOPIC, b"17"),
        publish(version, "b", b"$SYS/", packet_id=2),
        publish(version, "$SYS/broker/uptime", b"99 seconds"),
        publish(version, DROPPED_TOPIC, b"18"),
        publish(version, "a/$SYS/", b"3"),
    )

    assert [m.payload for m in messages] == [b"1", b"$SYS/", b"3"]
    assert link.broker_dropped == 18


@pytest.mark.parametrize("payload", [b"", b"-1", b"1.5", b"many", b"\xff", b"9" * 5000])
def test_a_counter_that_is_not_a_number_is_ignored(pair: Pair, payload: bytes) -> None:
    link = connected(pair, 4, publish(4, DROPPED_TOPIC, b"5"), watch_drops=True)

    assert receive(link, pair[1], publish(4, DROPPED_TOPIC, payload)) == []
    assert link.broker_dropped == 5


def test_a_broker_message_at_qos_1_is_passed_on_to_be_acknowledged(pair: Pair) -> None:
    link = connected(pair, 4, watch_drops=True)

    (message,) = receive(link, pair[1], publish(4, "$SYS/old/route", packet_id=9))

    assert message.packet_id == 9


@pytest.mark.parametrize("filter_", ["$SYS/#", "$share/g/$SYS/+/x"])
def test_a_route_can_read_the_brokers_own_topics(pair: Pair, filter_: str) -> None:
    link = mqtt(pair[0], filters=("b", filter_), watch_drops=True)
    sent(link, pair[1])
    receive(link, pair[1], connack(4))
    assert sent(link, pair[1]) == subscribe(4, 1, "b", filter_)

    messages = receive(link, pair[1], publish(4, DROPPED_TOPIC, b"4"), publish(4, "$SYS/x/x"))

    assert [m.topic for m in messages] == [DROPPED_TOPIC, "$SYS/x/x"]
    assert link.broker_dropped == 4


# --- silence --------------------------------------------------------------------------------------------


@both_versions
def test_after_a_silence_the_subscribe_is_repeated(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1), silence_timeout=60)
    start = whole_now()

    link.tick(start)
    link.tick(start + 59)
    assert sent(link, pair[1]) == b""
    link.tick(start + 60)
    assert sent(link, pair[1]) == subscribe(version, 2, "a/+", "b")

    receive(link, pair[1], suback(version, 2, 1, 1))
    link.tick(start + 65)
    link.tick(start + 124)
    assert sent(link, pair[1]) == b""
    link.tick(start + 125)
    assert sent(link, pair[1]) == subscribe(version, 3, "a/+", "b")
    assert link.error is None


def test_messages_end_the_silence_and_the_counter_does_not(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1), suback(4, 2, 0), silence_timeout=60, watch_drops=True)
    start = whole_now()
    link.tick(start)

    receive(link, pair[1], publish(4, "b"))
    link.tick(start + 50)
    link.tick(start + 109)
    assert sent(link, pair[1]) == b""
    receive(link, pair[1], publish(4, DROPPED_TOPIC, b"1"))
    link.tick(start + 110.1)
    assert sent(link, pair[1]) == subscribe(4, 3, "a/+", "b")


@both_versions
def test_a_link_ends_if_the_repeated_subscribe_is_not_answered(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1), silence_timeout=60)
    start = whole_now()
    link.tick(start)
    link.tick(start + 60)

    link.tick(start + 60 + ANSWER_TIMEOUT)
    assert link.error is None
    link.tick(start + 60.1 + ANSWER_TIMEOUT)
    assert "connected, but no message came for 70 s" in (link.error or "")
    assert not link.closed_silently


def test_a_message_instead_of_the_suback_shows_that_the_subscriptions_work(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1), silence_timeout=60)
    start = whole_now()
    link.tick(start)
    link.tick(start + 60)
    receive(link, pair[1], publish(4, "b"))

    link.tick(start + 65)
    link.tick(start + 65 + 2 * ANSWER_TIMEOUT)

    assert link.error is None


def test_without_a_timeout_silence_has_no_effect(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1), silence_timeout=0)
    for hours in range(3):
        link.tick(time.monotonic() + 3600 * hours)

    assert (sent(link, pair[1]), link.error) == (b"", None)


@both_versions
def test_a_later_suback_updates_the_refused_filters(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 0x80, 1), silence_timeout=60)
    assert list(link.refused) == ["a/+"]
    start = whole_now()
    link.tick(start)
    link.tick(start + 60)

    receive(link, pair[1], suback(version, 2, 1, 0x80))

    assert list(link.refused) == ["b"]
    assert link.held == ("a/+",)


# --- ends -----------------------------------------------------------------------------------------------


def test_a_take_over_names_the_client_id_and_what_to_do(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), b"\xe0\x02\x8e\x00")

    assert link.taken_over
    assert "client id 'c'" in (link.error or "")
    assert "mqtt.client_id" in (link.error or "")
    assert not link.closed_silently


def test_the_reason_of_a_disconnect_is_quoted(pair: Pair) -> None:
    words = b"\x1f" + text("back at noon")
    link = connected(pair, 5, suback(5, 1, 1, 1), packet(0xE0, b"\x8b" + bytes([len(words)]) + words))

    assert link.error == "the broker closed the session: Server shutting down, 'back at noon'"
    assert not link.taken_over
    assert not link.closed_silently


@both_versions
def test_a_broker_that_ends_before_its_connack_may_want_tls(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version)

    pair[1].close()
    link.read(0)

    assert "mqtts://" in (link.error or "")


@both_versions
def test_a_peer_that_does_not_speak_mqtt_is_named_as_such(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version)

    with pytest.raises(RemoteProtocolError, match=r"not MQTT, it begins with b'HTTP/1.1 400 Bad'.*port in mqtt\.url"):
        receive(link, pair[1], b"HTTP/1.1 400 Bad Request\r\n\r\n")


@both_versions
def test_a_close_without_a_reason_is_recognised(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1))
    assert not link.closed_silently

    pair[1].close()
    link.read(0)

    assert link.error == "the broker closed the connection"
    assert link.closed_silently


def test_a_reset_is_a_close_without_a_reason(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1))
    link.ack([MqttMessage("b", b"", 1, False, 1, 0)])
    link.flush()
    pair[1].close()  # with bytes unread: a reset

    link.read(0)

    assert "reset" in (link.error or "")
    assert link.closed_silently


def test_a_write_to_a_closed_connection_is_a_close_without_a_reason(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1))
    pair[1].close()
    link.ack([MqttMessage("b", b"", 1, False, 1, 0)])
    link.flush()

    assert link.closed_silently


def test_an_end_before_the_suback_or_by_the_bridge_does_not_count_as_a_close_without_a_reason(pair: Pair) -> None:
    link = connected(pair, 4)
    pair[1].close()
    link.read(0)
    assert link.error is not None
    assert not link.closed_silently

    ours, theirs = socket.socketpair()
    with ours, theirs:
        link = connected((ours, theirs), 4, suback(4, 1, 1, 1))
        link.fail("the outbox can't be written: nothing is acknowledged until it can", LinkEnd.GIVEN_UP)
        assert link.subscribed
        assert not link.closed_silently


@pytest.mark.parametrize(
    ("version", "code", "is_auth", "says"),
    [
        (4, 1, False, "Set mqtt.protocol to 5"),
        (4, 2, False, "client id 'c'"),
        (4, 3, False, "accepts no connections now"),
        (4, 4, True, "Check mqtt.username and mqtt.password"),
        (4, 5, True, "Not authorized"),
        (4, 77, False, "Unspecified error"),
        (5, 0x80, False, "Unspecified error"),
        (5, 0x84, False, "Set mqtt.protocol to 3.1.1"),
        (5, 0x85, False, "client id 'c'"),
        (5, 0x86, True, "Check mqtt.username and mqtt.password"),
        (5, 0x87, True, "Not authorized"),
        (5, 0x88, False, "accepts no connections now"),
        (5, 0x89, False, "accepts no connections now"),
        (5, 0x9F, False, "accepts no connections now"),
        (5, 0x9D, False, "Set mqtt.url"),
    ],
)
def test_a_refused_connection_says_why_and_what_to_do(
    pair: Pair, version: int, code: int, is_auth: bool, says: str
) -> None:
    link = mqtt(pair[0], version)
    sent(link, pair[1])
    receive(link, pair[1], connack(version, code))

    assert says in (link.error or "")
    assert link.is_auth_error is is_auth
    assert not link.subscribed
    assert not link.closed_silently
    assert sent(link, pair[1]) == b""


def test_a_broker_that_supports_only_3_1_1_gets_a_hint(pair: Pair) -> None:
    link = mqtt(pair[0], 5)
    receive(link, pair[1], connack(4, 1))

    assert "Set mqtt.protocol to 3.1.1" in (link.error or "")


def test_a_refusal_quotes_the_brokers_reason_and_server_reference(pair: Pair) -> None:
    link = mqtt(pair[0], 5)
    receive(
        link,
        pair[1],
        connack(5, 0x9C, properties=b"\x1f" + text("moving\nhouse") + b"\x1c" + text("mqtt.example:1884")),
    )

    assert "'moving\\nhouse'" in (link.error or "")
    assert "mqtt.example:1884" in (link.error or "")


# --- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "noted"),
    [(b"", False), (b"\x11\x00\x00\x00\x3c", True), (b"\x11\x00\x00\x0e\x10", False)],
)
def test_a_session_kept_shorter_than_requested_is_reported_and_not_an_error(
    pair: Pair, properties: bytes, noted: bool
) -> None:
    link = mqtt(pair[0], 5)
    receive(link, pair[1], connack(5, properties=properties))

    assert bool(link.notes) is noted
    assert not noted or "keeps the session 60 s, not 3600 s" in link.notes[0]
    assert link.error is None


def test_a_broker_that_supports_only_qos_0_is_reported(pair: Pair) -> None:
    link = mqtt(pair[0], 5)
    receive(link, pair[1], connack(5, properties=b"\x24\x00"), suback(5, 1, 0, 0))

    assert link.refused == dict.fromkeys(("a/+", "b"), "granted at QoS 0: messages may be lost")
    assert set(link.advice.values()) == {"The broker grants no more than QoS 0: raise its maximum QoS"}
    assert "supports QoS 0 only" in link.notes[0]
    assert link.error is None


@both_versions
def test_a_silent_broker_is_pinged_after_half_a_keepalive_and_is_gone_after_one_and_a_half(
    pair: Pair, version: int
) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1), keepalive=30)
    link.tick(100.0)

    link.tick(114.9)
    assert sent(link, pair[1]) == b""
    link.tick(115.0)
    assert sent(link, pair[1]) == PINGREQ
    receive(link, pair[1], PINGRESP)
    link.tick(116.0)
    link.tick(131.0)
    assert sent(link, pair[1]) == PINGREQ
    link.tick(160.9)
    assert sent(link, pair[1]) == b"", "one answer is awaited"
    link.tick(161.0)
    assert link.error is None
    link.tick(161.1)
    assert link.error == "nothing came from the broker for 45 s, not even answers to pings"
    assert link.end is LinkEnd.TIMED_OUT


def test_a_broker_that_does_not_answer_a_ping_is_unheard_until_something_comes(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), keepalive=30)
    link.tick(100.0)
    link.tick(115.0)
    assert sent(link, pair[1]) == PINGREQ, "half of the interval without a byte"
    assert link.unheard_for(119.9) is None
    assert link.unheard_for(120.0) == 20.0

    receive(link, pair[1], publish(5, "b", b"{}"))
    link.tick(121.0)
    assert link.unheard_for(130.0) is None


def test_while_a_broker_sends_messages_pings_go_out_each_keepalive(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), keepalive=30)
    link.tick(100.0)
    pings = []
    for second in range(101, 195):
        receive(link, pair[1], publish(5, "b", b"{}"))
        link.tick(float(second))
        if PINGREQ in sent(link, pair[1]):
            pings.append(second)

    assert pings == [130, 160, 190]


def test_bytes_of_a_large_message_on_a_slow_link_are_as_good_as_answers_to_pings(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1), keepalive=30)
    link.tick(100.0)
    data = publish(4, "b", bytes(5000))

    for second, byte in enumerate(data[:400]):
        receive(link, pair[1], bytes([byte]))
        link.tick(100.0 + second)

    assert link.error is None


def test_the_brokers_keepalive_replaces_ours(pair: Pair) -> None:
    link = mqtt(pair[0], 5, keepalive=30)
    receive(link, pair[1], connack(5, properties=b"\x13\x00\x08"), suback(5, 1, 1, 1))
    sent(link, pair[1])
    link.tick(100.0)

    link.tick(103.9)
    assert sent(link, pair[1]) == b""
    link.tick(104.0)
    assert sent(link, pair[1]) == PINGREQ
    link.tick(112.1)
    assert link.end is LinkEnd.TIMED_OUT


def test_answers_to_pings_are_counted_and_answers_without_a_ping_are_not(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), keepalive=30)
    link.tick(100.0)
    receive(link, pair[1], PINGRESP)
    assert link.pings_answered == 0

    assert [link.ping(115.0), link.ping(116.0)] == [1, 2]
    assert sent(link, pair[1]) == 2 * PINGREQ
    receive(link, pair[1], PINGRESP)
    assert link.pings_answered == 1
    receive(link, pair[1], PINGRESP)
    assert link.pings_answered == 2


def test_a_ping_that_the_owner_asked_for_is_watched_and_serves_as_keepalive(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), keepalive=30)
    link.tick(100.0)
    link.ping(110.0)
    assert sent(link, pair[1]) == PINGREQ

    link.tick(139.9)
    assert sent(link, pair[1]) == b""
    assert link.unheard_for(115.0) == 15.0
    link.tick(145.1)
    assert link.end is LinkEnd.TIMED_OUT


# --- a slow link ----------------------------------------------------------------------------------------


def slow(pair: Pair, version: int = 4, **options: Any) -> tuple[MqttLink, float]:
    """A link that was just connected and awaits its SUBACK, and the time."""
    link = connected(pair, version, **options)
    now = time.monotonic()
    link.tick(now)
    return link, now


def arrive(link: MqttLink, peer: socket.socket, now: float, *, rate: int, seconds: float) -> float:
    """Part of a large message arrives at ``rate`` bytes a second; returns the time afterwards."""
    if not link._rest:
        receive(link, peer, publish(4, "b", bytes(1_000_000))[:1000])
    for _ in range(int(seconds)):
        now += 1.0
        receive(link, peer, bytes(rate))
        link.tick(now)
    return now


def test_a_backlog_before_the_suback_takes_the_time_that_it_takes(pair: Pair) -> None:
    """Mosquitto sends it as soon as the session is back, before it reads the SUBSCRIBE."""
    link, now = slow(pair)

    now = arrive(link, pair[1], now, rate=1000, seconds=60)
    assert link.error is None

    link.tick(now + ANSWER_TIMEOUT + 1.1)
    assert link.error == "the broker did not answer SUBSCRIBE, and sent less than 1000 bytes a second for 11 s"


def test_less_than_the_least_rate_before_the_suback_is_no_progress(pair: Pair) -> None:
    link, now = slow(pair)

    now = arrive(link, pair[1], now, rate=500, seconds=18)
    assert link.error is None
    arrive(link, pair[1], now, rate=500, seconds=5)
    assert "did not answer SUBSCRIBE" in (link.error or "")


def test_a_broker_that_answers_many_subscribes_one_by_one_is_not_late(pair: Pair) -> None:
    now = 1000.0
    link = connected(pair, 4, filters=tuple(f"f{n}" for n in range(40)), clock=lambda: now)
    link.tick(now)
    for request in range(1, 6):
        assert not link.subscribed
        now += 0.9 * ANSWER_TIMEOUT
        receive(link, pair[1], suback(4, request, *[1] * 8))
        link.tick(now)
        assert link.error is None

    assert link.subscribed
    assert len(link.granted) == 40


def test_the_last_of_many_subscribes_must_be_answered_too(pair: Pair) -> None:
    now = 1000.0
    link = connected(pair, 4, filters=tuple(f"f{n}" for n in range(9)), clock=lambda: now)
    link.tick(now)
    receive(link, pair[1], suback(4, 1, *[1] * 8))
    link.tick(now)

    now += ANSWER_TIMEOUT + 1
    link.tick(now)

    assert "did not answer SUBSCRIBE" in (link.error or "")


def test_the_refusals_of_thousands_of_filters_may_explain_themselves_in_one_read(pair: Pair) -> None:
    filters = tuple(f"site/{n}" for n in range(4000))
    link = connected(pair, 5, filters=filters)
    why = b"\x1f" + text("not allowed for this client, see the access rules of the broker. " * 4)
    body = bytes([len(why) & 0x7F | 0x80, len(why) >> 7]) + why + b"\x87" * 8
    answers = b"".join(packet(0x90, id_of(n) + body) for n in range(1, 501))
    pair[1].setblocking(False)
    while answers:
        answers = answers[pair[1].send(answers) :]
        link.read(0)

    assert link.subscribed
    assert len(link.refused) == 4000


def test_bytes_before_the_connack_give_a_broker_no_time(pair: Pair) -> None:
    link = mqtt(pair[0])
    now = time.monotonic()
    link.tick(now)

    receive(link, pair[1], b"\x20\xff\xff\x03")  # a CONNACK of 65,535 bytes
    arrive(link, pair[1], now, rate=5000, seconds=12)

    assert link.error == "the broker did not answer CONNECT within 10 s"


def test_after_a_change_of_filters_a_backlog_takes_the_time_that_it_takes(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1))
    link.want(["a/+", "b", "c"])
    now = time.monotonic()
    link.tick(now)

    now = arrive(link, pair[1], now, rate=1000, seconds=60)
    assert link.error is None

    link.tick(now + ANSWER_TIMEOUT + 1.1)
    assert "did not answer SUBSCRIBE" in (link.error or "")


def test_a_message_that_takes_longer_than_the_silence_timeout_is_no_silence(pair: Pair) -> None:
    link = connected(pair, 4, suback(4, 1, 1, 1), silence_timeout=20)
    now = time.monotonic()
    link.tick(now)

    now = arrive(link, pair[1], now, rate=1000, seconds=100)
    assert sent(link, pair[1]) == b"", "nothing is requested again"
    link.tick(now + 21)
    assert sent(link, pair[1]) == subscribe(4, 2, "a/+", "b")
    now = arrive(link, pair[1], now + 21, rate=1000, seconds=30)
    assert link.error is None
    link.tick(now + ANSWER_TIMEOUT + 1.1)
    assert "no message came" in (link.error or "")


@pytest.mark.parametrize("awaited", ["CONNACK", "SUBACK", "change", "keepalive", "silence"])
def test_a_socket_that_is_left_unread_is_no_silence(pair: Pair, awaited: str) -> None:
    link = mqtt(pair[0], keepalive=30 if awaited == "keepalive" else 0, silence_timeout=20)
    now = time.monotonic()
    link.tick(now)
    if awaited != "CONNACK":
        receive(link, pair[1], connack(4))
    if awaited in {"change", "keepalive", "silence"}:
        receive(link, pair[1], suback(4, 1, 1, 1))
    if awaited == "change":
        link.want(["a/+", "b", "c"])
    link.tick(now)
    if awaited == "silence":
        link.tick(now + 20)
    sent(link, pair[1])

    pair[1].sendall(
        {"CONNACK": connack(4), "SUBACK": suback(4, 1, 1, 1), "change": suback(4, 2, 1)}.get(awaited, PINGRESP)
    )
    for seconds in (21, 100, 200):
        link.tick(now + seconds)
    assert link.error is None

    link.read(0)
    link.tick(time.monotonic())
    assert link.error is None


# --- protocol errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(packet(0x90, bytes(MAX_OTHER))[:9], id="an endless SUBACK"),
        pytest.param(packet(0xD0, b"") * (MAX_OTHER // 2 + 1), id="too much that is no message"),
    ],
)
def test_packets_beyond_the_memory_bound_are_refused_before_they_are_read(pair: Pair, data: bytes) -> None:
    link = mqtt(pair[0])
    pair[1].sendall(data)

    with pytest.raises(RemoteProtocolError):
        link.read(0)


@both_versions
def test_a_message_over_the_limit_is_discarded_as_it_arrives(
    pair: Pair, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.mqtt.link.MAX_PACKET", KEPT_BYTES)
    link = connected(pair, version, suback(version, 1, 1, 1))
    packets = [publish(version, "b", bytes(n), packet_id=n) for n in (1, 30_000, 2)]
    packets.insert(1, publish(version, "b", bytes(2_000_000), packet_id=7))
    data = b"".join(packets)
    messages: list[MqttMessage] = []

    tracemalloc.start()
    for at in range(0, len(data), 50_000):
        messages += receive(link, pair[1], data[at : at + 50_000])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [(m.packet_id, len(m.payload) + m.omitted, m.omitted > 0) for m in messages] == [
        (1, 1, False),
        (7, 2_000_000, True),
        (30_000, 30_000, False),
        (2, 2, False),
    ]
    assert peak < 1_000_000
    link.ack(messages)
    assert len(sent(link, pair[1])) == 4 * 4


@both_versions
@pytest.mark.parametrize(
    "data",
    [
        pytest.param((0x20, b""), id="CONNACK without content"),
        pytest.param((0x20, b"\x00\x00\x00"), id="second CONNACK"),
        pytest.param((0x90, b"\x00"), id="SUBACK without packet id"),
        pytest.param((0x90, b"\x00\x02\x00\x01"), id="SUBACK for no SUBSCRIBE"),
        pytest.param((0x90, b"\x00\x01\x00\x77"), id="SUBACK with an unknown reason"),
        pytest.param((0xB0, b"\x00\x01\x00\x00"), id="UNSUBACK for no UNSUBSCRIBE"),
        pytest.param((0xB0, b"\x00"), id="UNSUBACK without packet id"),
        pytest.param((0xE0, b"\x77"), id="DISCONNECT with an unknown reason"),
        pytest.param((0xE0, b"\x8b\x09\x1f"), id="DISCONNECT with properties that end early"),
        pytest.param((0xF0, b""), id="AUTH"),
        pytest.param((0x10, b""), id="CONNECT"),
        pytest.param((0x00, b""), id="the reserved type"),
    ],
)
def test_a_protocol_error_ends_the_link(pair: Pair, version: int, data: tuple[int, bytes]) -> None:
    link = connected(pair, version)

    with pytest.raises(RemoteProtocolError):
        receive(link, pair[1], packet(*data))


@both_versions
def test_an_answer_without_a_request_is_named(pair: Pair, version: int) -> None:
    link = connected(pair, version)

    with pytest.raises(RemoteProtocolError, match=f"SUBACK for packet id {packet_id(2)}"):
        receive(link, pair[1], suback(version, 2, 1))


@pytest.mark.parametrize(
    "raised",
    [
        struct.error(),
        IndexError(),
        KeyError(),
        AssertionError(),
        MQTTException(),
        UnicodeDecodeError("a", b"", 0, 1, ""),
    ],
)
def test_any_exception_of_paho_is_a_protocol_error(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    """paho 2.2 raises few of these, 2.1 most."""

    def loop_read(*_: Any) -> None:
        raise raised

    link = connected(pair, 5)
    monkeypatch.setattr(paho.mqtt.client.Client, "loop_read", loop_read)

    with pytest.raises(RemoteProtocolError, match="can't be read"):
        receive(link, pair[1], suback(5, 1, 1, 1))


def test_a_malformed_refusal_of_the_version_causes_no_second_connect(pair: Pair) -> None:
    link = mqtt(pair[0])
    sent(link, pair[1])

    with pytest.raises(RemoteProtocolError):
        receive(link, pair[1], connack(4, 1, session=True))
    assert sent(link, pair[1]) == b""


def test_messages_of_a_read_that_ends_the_link_are_not_lost(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1))

    messages = receive(link, pair[1], publish(5, "b", packet_id=1), b"\xe0\x01\x8b")

    assert len(messages) == 1
    assert link.error is not None


class Wire:
    """A socket without a network: discards what is sent, returns the given bytes."""

    def __init__(self) -> None:
        self.incoming: list[bytes] = []

    def setblocking(self, _flag: bool) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, _size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        return self.incoming.pop(0)


any_packet = st.one_of(
    st.builds(packet, st.integers(0, 255), st.binary(max_size=30)),
    # Acknowledgements with packet ids that may be right, properties and reason codes that may not.
    st.builds(
        lambda head, number, rest: packet(head, id_of(number) + rest),
        st.sampled_from([0x40, 0x50, 0x62, 0x70, 0x90, 0xB0]),
        st.integers(0, 3),
        st.binary(max_size=20),
    ),
    st.builds(lambda code, rest: packet(0xE0, bytes([code]) + rest), st.integers(0, 255), st.binary(max_size=20)),
    st.builds(lambda rest: packet(0x20, b"\x00\x00" + rest), st.binary(max_size=20)),
    st.binary(max_size=8),
)


@given(
    st.sampled_from([4, 5]),
    st.booleans(),
    st.lists(any_packet, max_size=6).map(b"".join),
    st.lists(st.integers(0, 200), max_size=3),
)
def test_any_bytes_give_messages_an_error_or_a_protocol_error(
    version: int, answered: bool, data: bytes, cuts: list[int]
) -> None:
    wire = Wire()
    link = mqtt(wire, version, known=("a/+", "x"), watch_drops=True, silence_timeout=1)
    data = (connack(version, session=True) if answered else b"") + data
    edges = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    wire.incoming = [data[start:stop] for start, stop in pairwise(edges)]

    try:
        while wire.incoming and link.error is None:
            link.read(0)
            link.tick(time.monotonic() + 5)
            link.flush()
    except RemoteProtocolError:
        return

    assert link.error is None or link.error.isprintable()
    assert set(link.held) <= {"a/+", "b", "x", DROPPED_TOPIC}
