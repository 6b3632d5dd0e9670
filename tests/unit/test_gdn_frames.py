from __future__ import annotations

import os

import pytest
import websocket
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import RemoteProtocolError
from bridge.gdn.frames import MAX_MESSAGE, Frame, FrameParser, Opcode, encode


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
