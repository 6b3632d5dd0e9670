"""A hostile GDN and a hostile broker, scripted on loopback sockets: they cost little memory and time."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bridge.errors import GdnError, GdnUnavailable, MqttUnavailable, RemoteProtocolError
from bridge.gdn.answers import MAX_DEPTH
from bridge.gdn.login import LONGEST, SHORTEST, lifetime_of
from bridge.gdn.producer import OUTGOING_BYTES, ProducerLink, dial
from bridge.gdn.rest import GdnRest
from bridge.links.link import UNREAD_BYTES
from bridge.links.tls import Tls
from bridge.message import MqttMessage, OutboxRecord
from bridge.mqtt.link import MqttLink
from tests.integration.test_links import connack, connected, mqtt, packet, producer, publish, suback

pytestmark = pytest.mark.integration

TIMEOUT = 0.4
"""Seconds that the bridge waits for the next bytes."""

TIME = 5.0
"""Seconds that a whole answer may take, generous for a slow machine."""

MEMORY = 24 * 1024 * 1024
"""Peak bytes while reading an answer. Each endless answer below would take gigabytes."""

CUT = 64 * 1024 * 1024
"""Size of an "endless" answer: the script ends there, so that a failing test doesn't use up the memory."""

OK = b"HTTP/1.1 200 OK\r\n"
KEY = "acme.key.s3cr3t"
Script = Callable[[], Iterable[bytes]]


class Peer:
    """Waits for the request of each connection, then answers with what the script yields."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        # Closing a listener doesn't wake its accept.
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            sock, _ = self._listener.accept()
            with sock, suppress(OSError):
                sock.settimeout(10)
                sock.recv(65536)
                for part in self._script():
                    if self._stopped.is_set() or self.sent > CUT:
                        break
                    sock.sendall(part)
                    self.sent += len(part)


@contextmanager
def peer(script: Script) -> Iterator[Peer]:
    made = Peer(script)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def cheap(clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Fail if the code inside takes much time or memory.

    Args:
        clock: ``time.thread_time`` where nothing waits, so that other load on the machine doesn't count.
    """
    tracemalloc.start()
    began = clock()
    try:
        yield
        took, (_, peak) = clock() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert took < TIME
    assert peak < MEMORY


def endless(part: bytes, *, first: bytes = b"") -> Script:
    """The part repeated, in blocks."""
    block = part * max(1, 65536 // len(part))
    return lambda: itertools.chain([first], itertools.repeat(block))


def dripping(part: bytes, *, first: bytes = b"") -> Script:
    """A part every 50 ms: the timeout between bytes never expires."""

    def script() -> Iterator[bytes]:
        yield first
        while True:
            yield part
            time.sleep(0.05)

    return script


def whole(body: bytes, *headers: bytes, status: bytes = OK) -> Script:
    lines = b"".join(header + b"\r\n" for header in headers)
    return lambda: [status + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body]


def bomb(layers: int) -> bytes:
    """256 MB of zeros, compressed that often."""
    data = gzip.compress(bytes(1 << 20), 9)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join([packer.compress(bytes(1 << 20)) for _ in range(256)] + [packer.flush()])
    for _ in range(layers - 1):
        data = gzip.compress(data, 9)
    return data


def rest(port: int, timeout: float = TIMEOUT) -> GdnRest:
    return GdnRest(base_url=f"http://127.0.0.1:{port}", fabric="_system", api_key=KEY, timeout=timeout)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Busy\r\n"

ENDLESS = [
    pytest.param(endless(b"a", first=OK + b"A: "), id="a header line without end"),
    pytest.param(endless(b"A: b\r\n", first=OK), id="header lines without end"),
    pytest.param(endless(b"a"), id="a status line without end"),
    pytest.param(dripping(b"a", first=OK + b"A: "), id="a header that drips"),
    pytest.param(dripping(b"a: b\r\n", first=OK), id="header lines that drip"),
    pytest.param(endless(b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers without end"),
    pytest.param(dripping(b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers that drip"),
    pytest.param(endless(b"a", first=REFUSED + b"Content-Length: 99999999999\r\n\r\n"), id="a long refusal"),
    pytest.param(
        dripping(b"a", first=REFUSED + b"Content-Length: 99999999999\r\n\r\n"), id="a long refusal that drips"
    ),
    pytest.param(lambda: [b"HTTP/1.1 " + b"9" * 5000 + b" \r\n\r\n"], id="a huge status"),
    pytest.param(lambda: [OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nx"], id="a huge length"),
]


@pytest.mark.parametrize(
    "script",
    [
        *ENDLESS,
        pytest.param(endless(b"a", first=OK + b"\r\n"), id="a body without end"),
        pytest.param(endless(b"a", first=OK + b"Content-Length: 99999999999\r\n\r\n"), id="a long body"),
        pytest.param(dripping(b"a", first=OK + b"\r\n"), id="a body that drips"),
        pytest.param(dripping(b"1\r\na\r\n", first=CHUNKED), id="chunks that drip"),
        pytest.param(endless(b"1\r\na\r\n", first=CHUNKED), id="chunks without end"),
        pytest.param(endless(b"a", first=CHUNKED + b"1;"), id="a chunk's line without end"),
        pytest.param(endless(b"A: b\r\n", first=CHUNKED + b"0\r\n"), id="trailers without end"),
        pytest.param(lambda: [CHUNKED + b"f" * 5000 + b"\r\na"], id="a chunk of a huge length"),
        pytest.param(lambda: [CHUNKED + b"-1\r\na"], id="a chunk of a negative length"),
    ],
)
def test_an_endless_rest_answer_is_abandoned(script: Script) -> None:
    with peer(script) as gdn, cheap(), pytest.raises(GdnError):
        rest(gdn.port).otp()


@pytest.mark.parametrize("script", ENDLESS)
def test_an_endless_answer_to_an_upgrade_is_abandoned(script: Script) -> None:
    with peer(script) as gdn, cheap(), pytest.raises(GdnUnavailable):
        upgrade(gdn.port)


def upgrade(port: int, timeout: float = TIMEOUT) -> ProducerLink:
    return dial(
        url=f"ws://127.0.0.1:{port}/producer",
        headers=[],
        tls=Tls(),
        connect_timeout=timeout,
        window=10,
        receipt_timeout=1,
        ping_interval=1,
    )


def test_the_error_says_why_the_answer_to_an_upgrade_was_abandoned() -> None:
    with peer(endless(b"a", first=OK + b"A: ")) as gdn, pytest.raises(GdnUnavailable, match="over 65536 bytes"):
        upgrade(
            gdn.port, timeout=10
        )  # the library reads byte by byte: with less time, a busy machine would reach the timeout first


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([b"Location: http://[/"], id="a Location that is no URL"),
        pytest.param([b"Location: http://a:99999999999/"], id="a Location with a huge port"),
        pytest.param([b"Content-Length: 1, 2"], id="two lengths"),
        pytest.param([b"Content-Length: -1"], id="a negative length"),
        pytest.param([b"Transfer-Encoding: gzip, chunked"], id="a transfer coding"),
        pytest.param([b"Set-Cookie: a=b; expires=" + b"9" * 5000], id="a cookie with a huge date"),
        pytest.param([b"Retry-After: " + b"9" * 5000], id="a huge Retry-After"),
        pytest.param([b"Retry-After: Fri, 31 Dec 99999 23:59:59 GMT"], id="a Retry-After beyond calendars"),
        pytest.param([b"no header at all"], id="no header"),
        pytest.param([b": no name"], id="a header without a name"),
        pytest.param([b"\x00: \xff\xfe"], id="a header of rubbish"),
    ],
)
@pytest.mark.parametrize("status", [OK, b"HTTP/1.1 302 Found\r\n", b"HTTP/1.1 503 Busy\r\n"])
def test_invalid_headers_raise_one_of_our_errors(headers: list[bytes], status: bytes) -> None:
    script = lambda: [status + b"\r\n".join(headers) + b"\r\n\r\n{}"]  # noqa: E731
    with peer(script) as gdn, cheap():
        with pytest.raises(GdnError) as caught:
            rest(gdn.port).otp()
        with pytest.raises(GdnError):
            upgrade(gdn.port)

    assert str(caught.value).isprintable()


def test_no_cookie_is_kept() -> None:
    """Cookies would add up, a few megabytes per answer, and be sent back."""
    answer = whole(b'{"otp":"x"}', b"Set-Cookie: a=b; Path=/")
    with peer(answer) as gdn:
        asked = rest(gdn.port, 5)
        asked.otp()

        assert not list(asked._session().cookies)


# --- compressed bodies, JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "coding"), [(1, b"gzip"), (1, b"x-gzip"), (2, b"gzip, gzip"), (3, b"gzip, gzip, gzip"), (1, b"deflate")]
)
@pytest.mark.parametrize("status", [OK, b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_compressed_answer_is_not_decompressed(layers: int, coding: bytes, status: bytes) -> None:
    script = whole(bomb(layers), b"Content-Encoding: " + coding, status=status)

    with peer(script) as gdn, cheap(), pytest.raises(GdnUnavailable, match="coding"):
        rest(gdn.port).otp()


def test_requests_do_not_accept_compression() -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                asked.append(sock.recv(65536))
                sock.sendall(OK + b'Content-Length: 11\r\n\r\n{"otp":"x"}')

        thread = threading.Thread(target=answer)
        thread.start()
        assert rest(listener.getsockname()[1], 5).otp() == "x"
        thread.join()

    assert b"accept-encoding: identity\r\n" in asked[0].lower()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, id="deep"),
        pytest.param(b"[" * 900 + b"]" * 900, id="deep, and Python could still read it"),
        pytest.param(b"[" * 30_000 + b"]" * 30_000, id="deep beyond the stack"),
        pytest.param(b'{"a":' * 500 + b"1" + b"}" * 500, id="objects in objects"),
        pytest.param(b"[" + b"9" * 400 + b"]", id="an integer that no float can hold"),
        pytest.param(b"[-" + b"9" * 400 + b"]", id="a negative one"),
        pytest.param(b"[" + b"9" * 60_000 + b"]", id="an integer that takes seconds to read"),
        pytest.param(b"[1e999]", id="a float beyond floats"),
    ],
)
def test_json_that_a_later_step_could_not_handle_is_refused(value: bytes) -> None:
    body = b'{"result":' + value + b"}"

    with peer(whole(body)) as gdn, cheap(), pytest.raises(GdnUnavailable, match="not GDN's JSON"):
        rest(gdn.port, 5).query("RETURN 1")


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, -(2**63), [[[1]]], 1e300])
def test_large_numbers_and_nested_rows_are_accepted(value: object) -> None:
    with peer(whole(json.dumps({"result": [value]}).encode())) as gdn:
        assert rest(gdn.port, 5).query("RETURN 1") == [value]


@pytest.mark.parametrize(("digits", "expected"), [("9" * 400, LONGEST), ("-" + "9" * 400, SHORTEST)])
def test_the_validity_of_a_token_is_capped(digits: str, expected: float) -> None:
    from base64 import urlsafe_b64encode

    claims = urlsafe_b64encode(f'{{"exp":{digits}}}'.encode()).decode().rstrip("=")

    assert lifetime_of(f"a.{claims}.c", now=1_000_000) == expected


# --- text for logs and pages ----------------------------------------------------------------------------

STEERING = "\x1b[2J\x07\r\nready\u202e\x9b\x00"
"""Clears a terminal, forges a line, reverses the direction of text."""


@pytest.mark.parametrize("status", [b"400 Bad", b"401 No", b"429 Slow", b"500 Broken", b"302 Gone", b"200 OK"])
def test_text_of_a_rest_answer_cannot_control_a_terminal(status: bytes) -> None:
    body = json.dumps({"errorMessage": STEERING, "message": STEERING, "errorNum": 3}).encode()
    headers = (
        b"x-gdn-requestid: \x1b[2J\x9b\x07",
        b"Location: http://\x1b[2J\x07/",
        b"Content-Type: \x1b[2J",
        b"Retry-After: \x1b[2J",
    )

    with peer(whole(body, *headers, status=b"HTTP/1.1 " + status + b"\r\n")) as gdn, pytest.raises(GdnError) as caught:
        rest(gdn.port, 5).otp()

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("status", ["400", "401", "404", "409", "500", "-7"])
def test_text_of_an_answer_to_an_upgrade_cannot_control_a_terminal(status: str) -> None:
    head = f"HTTP/1.1 {status} {STEERING[:6]}\r\nRetry-After: {STEERING[:4]}\r\nA: {STEERING[:4]}\r\n\r\n"

    with peer(lambda: [head.encode()]) as gdn, pytest.raises(GdnError) as caught:
        upgrade(gdn.port)

    assert str(caught.value).isprintable()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    yield ours, theirs
    ours.close()
    theirs.close()


def text_frame(value: object) -> bytes:
    payload = json.dumps(value).encode()
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


def test_text_of_a_receipt_cannot_control_a_terminal(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    link.send([OutboxRecord(1, "s", b"{}")], 1.0)
    result = STEERING + "x" * 1000
    refusal = {"result": result, "context": "1", "errorMsg": STEERING}
    pair[1].sendall(text_frame(refusal) + text_frame({"result": result, "errorMsg": STEERING * 100}))

    receipts = link.read(2.0)

    assert receipts.refused[0].result.isprintable()
    assert len(receipts.refused[0].result) == 50
    assert (link.error or "").isprintable()
    assert len(link.error or "") < 2000


# --- connected links ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", id="a frame of exabytes"),
        pytest.param(b"\x81\x7f\x00\x00\x00\x00\x7f\xff\xff\xff", id="a frame of 2 GB"),
        pytest.param(b"\x00\x7e\xff\xff" + bytes(65535), id="fragments without end"),
        pytest.param(b"\x82\x00", id="a binary message"),
        pytest.param(b"\xc1\x00", id="a compressed message, though none was agreed on"),
        pytest.param(b"\x89\x7e\xff\xff" + bytes(65535), id="a ping of 64 KB"),
    ],
)
def test_frames_that_no_producer_endpoint_sends_end_the_link(
    pair: tuple[socket.socket, socket.socket], part: bytes
) -> None:
    link = producer(pair[0])
    begun = b"\x01\x7e\xff\xff" + bytes(65535) if part[0] == 0 else b""
    writer = threading.Thread(target=flood, args=(pair[1], part, begun))
    writer.start()

    with cheap(), pytest.raises(RemoteProtocolError):
        read_on(link)
    pair[0].close()
    writer.join()


def read_on(link: ProducerLink) -> None:
    while True:
        link.read(0)


def flood(sock: socket.socket, part: bytes, begun: bytes = b"") -> None:
    with suppress(OSError):
        sock.sendall(begun)
        for _ in range(CUT // max(len(part), 4096)):
            sock.sendall(part)


def test_pings_of_a_peer_that_reads_nothing_use_no_memory(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    pings = (b"\x89\x7d" + bytes(125)) * 500

    with cheap(time.thread_time):
        for _ in range(200):
            pair[1].sendall(pings)
            link.read(0)
            link.flush()

    assert OUTGOING_BYTES <= len(link._outgoing) < OUTGOING_BYTES + 1000


def test_a_peer_that_reads_nothing_loses_its_link(pair: tuple[socket.socket, socket.socket]) -> None:
    link = producer(pair[0])
    link._outgoing += bytes(UNREAD_BYTES // 2)
    link.flush()
    assert link.error is None

    link._outgoing += bytes(UNREAD_BYTES)
    link.flush()

    assert "doesn't read" in (link.error or "")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"\x90\xff\xff\xff\x7f", id="a SUBACK of 256 MB"),
        pytest.param(b"\x30\xff\xff\xff\xff\xff", id="a length without end"),
        pytest.param(b"\x20\x02\x00\x00", id="one CONNACK after another"),
        pytest.param(packet(0xE0, b"\x8b" + b"\x7f" + b"a" * 100), id="a DISCONNECT that ends early"),
        pytest.param(packet(0x30, b"\xff\xffa"), id="a topic that is longer than its packet"),
    ],
)
def test_packets_that_no_broker_sends_end_the_link(
    pair: tuple[socket.socket, socket.socket], version: int, part: bytes
) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1))
    writer = threading.Thread(target=flood, args=(pair[1], part))
    writer.start()

    with cheap(), suppress(RemoteProtocolError):
        while link.error is None:
            link.read(0)
            link.tick(time.monotonic())
    pair[0].close()
    writer.join()


def test_a_message_with_very_many_user_properties_is_read_or_refused_quickly(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair_of_names = b"\x26\x00\x01a\x00\x01b"
    number = 15_000_000 // len(pair_of_names)
    size = number * len(pair_of_names)
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    link = connected(pair, 5, suback(5, 1, 1, 1))
    writer = threading.Thread(
        target=flood_once, args=(pair[1], packet(0x30, b"\x00\x01b" + length + pair_of_names * number))
    )
    writer.start()
    began = time.monotonic()
    messages: list[MqttMessage] = []

    with suppress(RemoteProtocolError):
        while not messages and link.error is None and time.monotonic() < began + TIME:
            messages = link.read(0)
    pair[0].close()
    writer.join()

    assert time.monotonic() - began < TIME


def flood_once(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.sendall(data)


def test_text_of_a_broker_cannot_control_a_terminal(pair: tuple[socket.socket, socket.socket]) -> None:
    words = STEERING.replace("\x00", "").encode()
    reason = b"\x1f" + len(words).to_bytes(2, "big") + words
    link = mqtt(pair[0], 5)
    pair[1].sendall(connack(5, 0x87, properties=reason))

    with suppress(RemoteProtocolError):
        link.read(0)

    assert (link.error or "").isprintable()


def test_a_message_before_the_connack_is_bounded_too(pair: tuple[socket.socket, socket.socket]) -> None:
    """A broker that sends messages before its CONNACK."""
    link: MqttLink = mqtt(pair[0], 4)
    pair[1].sendall(publish(4, "a/x") * 1000)

    with cheap(), suppress(RemoteProtocolError):
        link.read(0)


def test_dialling_ends_if_the_broker_never_answers_the_tls_handshake() -> None:
    from bridge.mqtt.link import MqttOptions
    from bridge.mqtt.link import dial as dial_broker

    options = MqttOptions(client_id="c", version=5, keepalive=30, session_expiry=60, receive_maximum=100)
    with peer(dripping(b"\x16")) as broker, cheap(), pytest.raises(MqttUnavailable):
        dial_broker(
            host="127.0.0.1",
            port=broker.port,
            tls=Tls(),
            connect_timeout=TIMEOUT,
            options=options,
            filters=("a",),
        )
