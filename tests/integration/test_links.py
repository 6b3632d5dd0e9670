"""The two links on real sockets, with a scripted peer on the other end: the exact cases that real peers rarely show."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bridge.errors import RemoteProtocolError
from bridge.gdn.producer import ProducerLink
from bridge.message import MqttMessage, OutboxRecord
from bridge.mqtt_source import MAX_PACKET, MqttLink

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


def test_a_missing_receipt_ends_the_link_and_hands_its_records_back(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    link.send(RECORDS, 1.0)
    pair[1].sendall(b"\x81\x1f" + b'{"result":"ok", "context": "1"}')
    link.read(19.0)

    link.tick(31.0)
    assert link.error is None
    link.tick(31.1)
    assert "no receipt for 30 s" in (link.error or "")
    assert link.close() == [RECORDS[1]]


def test_pings_go_out_and_silence_ends_the_link(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])

    link.tick(19.9)
    link.tick(20.0)
    assert pair[1].recv(100)[:2] == b"\x89\x80"
    link.tick(40.1)
    assert "silent for 40 s" in (link.error or "")


def test_a_ping_is_answered_and_a_close_is_understood(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    pair[1].sendall(b"\x89\x02hi" + b"\x88\x09\x03\xf3 broken")

    link.read(1.0)

    assert link.wants_write
    assert link.error == "GDN closed the producer connection: 1011 ' broken'"


@pytest.mark.parametrize("data", [b"\x82\x01x", b"\x81\x01{", b"\x81\x0b<html></..>"])
def test_what_is_no_receipt_is_a_broken_protocol(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    link = producer(pair[0])
    pair[1].sendall(data)

    with pytest.raises(RemoteProtocolError):
        link.read(1.0)


def test_an_end_of_the_stream_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    pair[1].close()

    assert link.read(1.0).receipted == []
    assert link.error == "GDN closed the producer connection"


# --- broker --------------------------------------------------------------------------------------------


def mqtt(sock: socket.socket, version: int = 4, filters: tuple[str, ...] = ("a/+", "b")) -> MqttLink:
    return MqttLink(
        sock=sock,
        filters=filters,
        client_id="c",
        version=version,
        username=None,
        password=None,
        keepalive=30,
        session_expiry=3600,
        receive_maximum=100,
    )


def test_it_asks_for_the_kept_session_and_subscribes_once_connected(pair: tuple[socket.socket, socket.socket]) -> None:
    link = mqtt(pair[0], version=5)
    link.flush()
    connect = pair[1].recv(1000)
    assert connect[0] == 0x10
    assert connect[9] & 2 == 0  # clean start isn't set

    pair[1].sendall(b"\x20\x03\x01\x00\x00")
    link.read(0)
    link.flush()
    subscribe = pair[1].recv(1000)

    assert link.session_present is True
    assert subscribe[0] == 0x82
    assert b"a/+" + b"\x11" in subscribe  # QoS 1, Retain Handling 1 (MQTT 5, 3.8.3.1)
    assert not link.subscribed


def test_a_refused_connection_says_why(pair: tuple[socket.socket, socket.socket]) -> None:
    link = mqtt(pair[0])
    pair[1].sendall(b"\x20\x02\x00\x05")
    link.read(0)

    assert "Not authorized" in (link.error or "")


def test_refused_and_downgraded_filters_are_named(pair: tuple[socket.socket, socket.socket]) -> None:
    link = mqtt(pair[0])
    pair[1].sendall(b"\x20\x02\x00\x00")
    link.read(0)
    pair[1].sendall(b"\x90\x04\x00\x01\x80\x00")
    link.read(0)

    assert link.subscribed
    assert [text.split(" ")[0] for text in link.refused] == ["a/+", "b"]
    assert "QoS 0" in link.refused[1]


def test_messages_are_read_in_pieces_and_acked_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    link = mqtt(pair[0])
    link.flush()
    pair[1].recv(1000)
    data = b"".join(bytes((0x32, 6, 0, 1)) + b"b" + bytes((0, n)) + b"x" for n in (1, 2, 3))
    messages: list[MqttMessage] = []
    for byte in data:
        pair[1].sendall(bytes((byte,)))
        messages += link.read(5)

    link.ack(messages)
    link.flush()

    assert [m.packet_id for m in messages] == [1, 2, 3]
    assert pair[1].recv(100) == b"\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03"


def test_a_packet_beyond_the_memory_bound_is_refused_before_it_has_come(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    link = mqtt(pair[0])
    pair[1].sendall(b"\x32\xff\xff\xff\x7f" + b"\x00\x01b")
    assert MAX_PACKET < 0xFFFFFFF

    with pytest.raises(RemoteProtocolError, match="Limit the message size"):
        link.read(0)


def test_a_broker_that_never_answers_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    link = mqtt(pair[0])
    link.tick(1e9)

    assert link.error is not None


def test_a_broker_that_takes_the_session_over_says_so(pair: tuple[socket.socket, socket.socket]) -> None:
    link = mqtt(pair[0], version=5)
    pair[1].sendall(b"\x20\x03\x00\x00\x00" + b"\x90\x05\x00\x01\x00\x01\x01" + b"\xe0\x02\x8e\x00")
    link.read(0)

    assert link.subscribed
    assert "Session taken over" in (link.error or "")
