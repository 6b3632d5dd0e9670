from __future__ import annotations

import os

import pytest
import websocket
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import RemoteProtocolError
from bridge.links.frames import MAX_MESSAGE, Frame, FrameParser, Opcode, StreamParser, encode
from bridge.links.websocket import FRAME_BYTES, WebSocketStream


def server_frame(payload: bytes, opcode: int = Opcode.TEXT, *, fin: int = 1) -> bytes:
    """Encoded by another implementation; a server's frames aren't masked."""
    frame = websocket.ABNF(fin, 0, 0, 0, opcode, 0, payload)
    return frame.format()


class Source:
    """A socket from which websocket-client reads the encoded frames."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def recv(self, size: int) -> bytes:
        taken, self.data = self.data[:size], self.data[size:]
        return taken


@given(st.lists(st.binary(max_size=400), max_size=5))
def test_another_implementation_reads_the_encoded_frames(payloads: list[bytes]) -> None:
    encoded = encode(Opcode.BINARY, payloads, masks=os.urandom(4 * len(payloads)))

    source = Source(encoded)
    buffer = websocket._abnf.frame_buffer(source.recv, skip_utf8_validation=True)
    received = []
    while source.data:
        frame = buffer.recv_frame()
        assert frame.mask_value == 1
        received.append(frame.data)
    assert received == payloads


@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
def test_payloads_at_the_limits_of_each_length_format_survive(size: int) -> None:
    payload = b"x" * size
    encoded = encode(Opcode.BINARY, [payload], masks=b"\1\2\3\4")

    frame = websocket._abnf.frame_buffer(Source(encoded).recv, skip_utf8_validation=True).recv_frame()
    assert frame.data == payload


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_frames_are_the_same_however_the_bytes_are_split(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(server_frame(p) for p in payloads)
    parser = FrameParser()

    frames: list[Frame] = []
    n = 0
    while data:
        size = cuts[n % len(cuts)]
        frames += parser.feed(data[:size])
        data = data[size:]
        n += 1
    assert [f.payload for f in frames] == payloads


def test_fragments_are_joined_and_control_frames_between_them_are_returned() -> None:
    data = (
        server_frame(b"one ", fin=0)
        + server_frame(b"?", Opcode.PING)
        + server_frame(b"two", Opcode.CONTINUATION)
        + server_frame(b"next")
    )

    assert FrameParser().feed(data) == [(Opcode.PING, b"?"), (Opcode.TEXT, b"one two"), (Opcode.TEXT, b"next")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x81\x81abcd\x00", id="masked"),
        pytest.param(b"\xc1\x00", id="reserved bit"),
        pytest.param(b"\x80\x00", id="continuation of nothing"),
        pytest.param(b"\x83\x00", id="unknown opcode"),
        pytest.param(b"\x09\x00", id="fragmented ping"),
        pytest.param(b"\x81\x7f" + (MAX_MESSAGE + 1).to_bytes(8, "big"), id="too long, before it has come"),
        pytest.param(b"\x01\x01a\x01\x01b", id="a message inside a message"),
    ],
)
def test_a_server_that_breaks_the_framing_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        FrameParser().feed(data)


def test_endless_fragments_are_refused() -> None:
    parser = FrameParser()
    parser.feed(server_frame(b"x" * 200_000, fin=0))

    with pytest.raises(RemoteProtocolError):
        parser.feed(server_frame(b"x" * 100_000, Opcode.CONTINUATION, fin=0))


# --- a stream over the frames -----------------------------------------------------------------------------


CHUNKS = st.lists(st.binary(max_size=300), max_size=8)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes, list[Frame]]:
    """A server's frames in any cut, with pings and pongs between them; the stream, and the control frames."""
    encoded, stream, controls = b"", b"", []
    for message in draw(st.lists(CHUNKS.filter(bool), max_size=5)):
        for n, chunk in enumerate(message):
            opcode = Opcode.CONTINUATION if n else Opcode.BINARY
            encoded += server_frame(chunk, opcode, fin=int(n == len(message) - 1))
            stream += chunk
            if draw(st.booleans()):
                control = Frame(draw(st.sampled_from([Opcode.PING, Opcode.PONG])), draw(st.binary(max_size=125)))
                encoded += server_frame(control.payload, control.opcode)
                controls.append(control)
    return encoded, stream, controls


@given(streams(), st.lists(st.integers(1, 200), min_size=1))
def test_the_stream_is_the_same_however_messages_fragments_and_reads_cut_it(
    sent: tuple[bytes, bytes, list[Frame]], cuts: list[int]
) -> None:
    encoded, stream, controls = sent
    parser = StreamParser()
    received, found = b"", []
    n = 0
    while encoded:
        size = cuts[n % len(cuts)]
        data, frames = parser.feed(encoded[:size])
        received, encoded = received + data, encoded[size:]
        found += frames
        n += 1

    assert (received, found) == (stream, controls)


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 2 * MAX_MESSAGE])
def test_frames_of_any_size_are_passed_on_as_they_come(size: int) -> None:
    frame = server_frame(b"x" * size, Opcode.BINARY)
    head = len(frame) - size
    parser = StreamParser()

    assert parser.feed(frame[: head - 1]) == (b"", [])
    assert parser.feed(frame[head - 1 : head + 7]) == (b"xxxxxxx", [])
    assert parser.feed(frame[head + 7 :]) == (b"x" * (size - 7), [])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x82\x81abcd\x00", id="masked"),
        pytest.param(b"\xc2\x00", id="reserved bit"),
        pytest.param(b"\x81\x01a", id="text, which MQTT forbids"),
        pytest.param(b"\x80\x00", id="continuation of nothing"),
        pytest.param(b"\x83\x00", id="unknown opcode"),
        pytest.param(b"\x09\x00", id="fragmented ping"),
        pytest.param(b"\x89\x7e\xff\xff", id="long ping, before it has come"),
        pytest.param(b"\x02\x01a\x02\x01b", id="a message inside a message"),
    ],
)
def test_a_server_that_breaks_the_framing_of_a_stream_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        StreamParser().feed(data)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_become_a_stream_or_an_error(reads: list[bytes]) -> None:
    parser = StreamParser()
    total = 0
    try:
        for data in reads:
            total += len(parser.feed(data)[0])
    except RemoteProtocolError:
        pass

    assert total <= sum(map(len, reads))
    assert len(parser._rest) < 140  # an incomplete control frame


def test_nothing_after_a_close_frame_counts() -> None:
    parser = StreamParser()
    data = server_frame(b"last", Opcode.BINARY) + server_frame(b"\x03\xe8", Opcode.CLOSE)

    assert parser.feed(data + server_frame(b"more", Opcode.BINARY)) == (b"last", [(Opcode.CLOSE, b"\x03\xe8")])
    assert parser.feed(server_frame(b"more", Opcode.BINARY)) == (b"", [])


@given(st.binary(max_size=100_000))
def test_what_a_stream_sends_is_masked_and_in_frames_that_servers_take(data: bytes) -> None:
    stream, outgoing = WebSocketStream(), bytearray(data)
    stream.close(outgoing)
    assert not outgoing

    source = Source(bytes(stream.outgoing))
    buffer = websocket._abnf.frame_buffer(source.recv, skip_utf8_validation=True)
    frames = []
    while source.data:
        frames.append(buffer.recv_frame())
    assert all(frame.mask_value == 1 and len(frame.data) <= FRAME_BYTES for frame in frames)
    assert b"".join([frame.data for frame in frames[:-1] if isinstance(frame.data, bytes)]) == data
    assert (frames[-1].opcode, frames[-1].data) == (Opcode.CLOSE, b"\x03\xe8")


def test_a_flood_of_pings_has_one_answer() -> None:
    stream = WebSocketStream()

    assert stream.receive(server_frame(b"1", Opcode.PING) * 1000 + server_frame(b"2", Opcode.PING)) == b""

    pong = websocket._abnf.frame_buffer(Source(bytes(stream.outgoing)).recv, skip_utf8_validation=True).recv_frame()
    assert (pong.opcode, pong.data, len(stream.outgoing)) == (Opcode.PONG, b"2", 7)
