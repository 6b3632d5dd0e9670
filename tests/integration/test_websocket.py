"""MQTT over WebSocket with a real Mosquitto (libwebsockets), and with a scripted server for what it never does."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paho.mqtt.publish as paho
import pytest

from bridge.errors import MqttUnavailable, RemoteProtocolError
from bridge.links.frames import Opcode
from bridge.links.link import LinkEnd
from bridge.links.websocket import WebSocketStream
from bridge.local.broker import free_port
from bridge.message import MqttMessage
from bridge.mqtt.link import MAX_PACKET, MqttLink, MqttOptions, dial
from tests.conftest import Mosquitto, is_listening, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The ports of a Mosquitto, for plain MQTT and for WebSocket."""
    port = free_port()
    # Without IPv4 alone libwebsockets needs IPv6.
    lines = ["allow_anonymous true", f"listener {port} 127.0.0.1", "protocol websockets", "socket_domain ipv4"]
    started = Mosquitto(tmp_path, *lines)
    wait_for(lambda: is_listening(port), what="the listener for WebSocket")
    yield started.port, port
    started.end()


def options(version: int = 5, **changed: Any) -> MqttOptions:
    return MqttOptions(
        client_id="bridge", version=version, keepalive=30, session_expiry=3600, receive_maximum=100, **changed
    )


def connect(port: int, *filters: str, version: int = 5) -> MqttLink:
    return dial(
        host="127.0.0.1",
        port=port,
        path="/mqtt",
        tls=None,
        connect_timeout=5,
        options=options(version),
        filters=filters,
    )


def run(link: MqttLink, until: Callable[[list[MqttMessage]], Any], *, seconds: float = 30) -> list[MqttMessage]:
    """Read and acknowledge until ``until`` is true for the messages received; returns them."""
    messages: list[MqttMessage] = []
    deadline = time.monotonic() + seconds
    while not until(messages):
        assert time.monotonic() < deadline, "timed out"
        assert link.error is None
        link.flush()
        select.select([link.sock], [link.sock] if link.wants_write else [], [], 0.05)
        came = link.read(time.time_ns())
        link.ack(came)
        link.tick(time.monotonic())
        messages += came
    link.flush()
    return messages


def publish(port: int, *payloads: bytes) -> None:
    paho.multiple([{"topic": "a/1", "payload": p, "qos": 1} for p in payloads], hostname="127.0.0.1", port=port)


@pytest.mark.parametrize("version", [4, 5])
def test_a_session_over_websocket_gets_each_message_once_and_is_kept(broker: tuple[int, int], version: int) -> None:
    plain, port = broker
    link = connect(port, "a/+", version=version)
    run(link, lambda _: link.subscribed)
    payloads = [bytes([n % 256]) * n for n in (0, 1, 100, 125, 126, 65535, 65536)]

    publish(plain, *payloads)
    assert [m.payload for m in run(link, lambda messages: len(messages) == len(payloads))] == payloads
    link.close()

    publish(plain, b"while away")
    again = connect(port, "a/+", version=version)
    assert [m.payload for m in run(again, len)] == [b"while away"]
    assert again.session_present is True
    again.close()


def test_a_take_over_without_a_reason_is_a_silent_close(broker: tuple[int, int]) -> None:
    _, port = broker
    link = connect(port, "a/+", version=4)
    run(link, lambda _: link.subscribed)
    other = connect(port, "a/+", version=4)
    run(other, lambda _: other.subscribed)

    def ended() -> bool:
        link.read(0)
        return link.end is not None

    wait_for(ended, what="the end of the link")
    assert link.closed_silently
    link.close()
    other.close()


def test_a_port_for_plain_mqtt_does_not_upgrade(broker: tuple[int, int]) -> None:
    plain, _ = broker

    with pytest.raises(MqttUnavailable, match=r"ws://127\.0\.0\.1:\d+/mqtt did not upgrade .* Check port and path"):
        connect(plain, "a")


def test_a_web_server_that_refuses_the_path_is_named_with_its_status() -> None:
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Sec-WebSocket-Protocol"] == "mqtt"
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever).start()
        with pytest.raises(MqttUnavailable, match="HTTP 404"):
            connect(server.server_port, "a")
        server.shutdown()


# --- a scripted server --------------------------------------------------------------------------------------

CONNACK, SUBACK, PUBLISH = b"\x20\x02\0\0", b"\x90\x03\xff\xff\1", b"\x30\x04\0\1ax"


class Server:
    """The server's end of an upgraded connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, payload: bytes, opcode: int = Opcode.BINARY, *, fin: bool = True) -> None:
        size = bytes([len(payload)]) if len(payload) < 126 else struct.pack(">BH", 126, len(payload))
        self.sock.sendall(bytes([(0x80 if fin else 0) | opcode]) + size + payload)

    def received(self) -> list[tuple[int, bytes]]:
        """Opcodes and payloads of the frames that have come; each must be whole, masked and short."""
        readable, _, _ = select.select([self.sock], [], [], 0)
        data = self.sock.recv(65536) if readable else b""
        frames = []
        while data:
            size, mask = data[1] & 0x7F, data[2:6]
            assert data[1] & 0x80
            assert size < 126
            payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data[6 : 6 + size]))
            frames.append((data[0] & 0x0F, payload))
            data = data[6 + size :]
        return frames


@pytest.fixture
def pair() -> Iterator[tuple[MqttLink, Server]]:
    ours, theirs = socket.socketpair()
    link = MqttLink(sock=ours, options=options(4), filters=["a"], known=(), stream=WebSocketStream())
    with ours, theirs:
        yield link, Server(theirs)


def test_packets_may_be_cut_by_frames_and_share_them(pair: tuple[MqttLink, Server]) -> None:
    link, server = pair
    stream = CONNACK + SUBACK + PUBLISH * 2
    messages = []
    for byte in stream[:-3]:
        server.send(bytes([byte]))
        messages += link.read(0)
    server.send(stream[-3:-2], fin=False)
    server.send(b"", Opcode.CONTINUATION, fin=False)
    server.send(stream[-2:], Opcode.CONTINUATION)
    messages += link.read(0)

    assert link.subscribed
    assert [m.payload for m in messages] == [b"x", b"x"]


def test_what_is_written_is_one_masked_binary_frame_and_wants_to_be_written_until_it_is(
    pair: tuple[MqttLink, Server],
) -> None:
    link, server = pair
    assert link.wants_write
    link.flush()
    assert not link.wants_write
    ((opcode, payload),) = server.received()
    assert (opcode, payload[:1]) == (Opcode.BINARY, b"\x10")

    while link.sock.send(os.urandom(65536)) == 65536:
        pass  # until the socket is full
    link.publish("b", b"")
    link.flush()
    assert link.wants_write


def test_a_ping_is_answered_and_is_no_sign_of_mqtt(pair: tuple[MqttLink, Server]) -> None:
    link, server = pair
    link.tick(1000.0)
    server.send(CONNACK + SUBACK)
    link.read(0)
    link.tick(1001.0)
    link.flush()
    server.received()

    for _ in range(50):
        server.send(b"?", Opcode.PING)
        link.read(0)
    link.flush()
    assert set(server.received()) == {(Opcode.PONG, b"?")}

    link.tick(1001.0 + 46.0)
    assert link.end is LinkEnd.TIMED_OUT


def test_what_came_before_a_close_frame_is_read_first(pair: tuple[MqttLink, Server]) -> None:
    """Such as the reason in a CONNACK: else the link would only say that it was closed."""
    link, server = pair
    server.send(b"\x20\x02\0\5")
    server.send(b"\x03\xe8bye", Opcode.CLOSE)

    link.read(0)
    assert link.end is LinkEnd.REFUSED_CREDENTIALS


def test_a_close_frame_ends_the_link_with_code_and_reason_and_is_answered(pair: tuple[MqttLink, Server]) -> None:
    link, server = pair
    server.send(CONNACK + SUBACK + PUBLISH)
    server.send(b"\x03\xe9bye", Opcode.CLOSE)

    assert [m.payload for m in link.read(0)] == [b"x"]
    assert link.error is None
    assert link.has_buffered
    assert link.has_unread
    link.flush()
    assert link.read(0) == []

    assert link.error == "the broker closed the connection: WebSocket close 1001 'bye'"
    assert link.closed_silently
    assert server.received()[-1] == (Opcode.CLOSE, b"\x03\xe9")


def test_a_close_before_the_connack_says_to_check_the_path(pair: tuple[MqttLink, Server]) -> None:
    link, server = pair
    server.send(b"", Opcode.CLOSE)
    link.read(0)
    link.read(0)

    assert "WebSocket close 1005 '' before it answered. Check that the path in mqtt.url" in (link.error or "")


def test_a_message_over_the_limit_in_one_frame_is_read_past_with_bounded_memory(
    pair: tuple[MqttLink, Server],
) -> None:
    link, server = pair
    size = MAX_PACKET + 1
    body = b"\0\1a" + bytes(size)
    length = b"\x84\x80\x80\x08"  # of the packet: 16 MiB + 4
    frame = b"\x82\x7f" + struct.pack(">Q", 5 + len(body)) + b"\x30" + length + body
    server.send(CONNACK + SUBACK)
    server.sock.setblocking(False)
    messages = []
    while frame:
        frame = frame[server.sock.send(frame[:131072]) :]
        messages += link.read(0)
    server.send(PUBLISH)
    messages += link.read(0)

    large, after = messages
    assert len(large.payload) + large.omitted == size
    assert after.payload == b"x"


def test_a_text_frame_breaks_the_protocol(pair: tuple[MqttLink, Server]) -> None:
    link, server = pair
    server.send(CONNACK, Opcode.TEXT)

    with pytest.raises(RemoteProtocolError, match="out of place"):
        link.read(0)


def test_closing_sends_disconnect_and_then_a_close_frame(pair: tuple[MqttLink, Server]) -> None:
    link, server = pair
    server.send(CONNACK + SUBACK)
    link.read(0)
    link.flush()
    server.received()

    link.close()

    assert server.received() == [(Opcode.BINARY, b"\xe0\0"), (Opcode.CLOSE, b"\x03\xe8")]
