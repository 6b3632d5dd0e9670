"""WebSocket connections: the handshake, and a byte stream over binary frames (for MQTT, MQTT 5, 6).

The only module that imports websocket-client, and only for the handshake: after the upgrade the socket is the caller's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import websocket

from bridge.links.bounded import PATIENCE, BoundedSocket
from bridge.links.frames import Opcode, StreamParser, encode

UPGRADE_BYTES = 64 * 1024
"""Maximum bytes of the answer to the upgrade, an error's text included."""

FRAME_BYTES = 16 * 1024
"""Payload of one frame that is sent. Many servers refuse frames over 64 KiB."""


class UpgradeError(Exception):
    """The server didn't upgrade to WebSocket.

    Args:
        message: for people; nothing that the server sent.
        status: HTTP status of the answer; None: there was no valid answer, or it is invalid although it is 101.
        retry_after: the answer's header of this name.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def upgrade(
    sock: socket.socket, url: str, *, headers: Sequence[str] = (), subprotocols: Sequence[str] = (), timeout: float
) -> None:
    """Upgrade a connected, blocking socket to WebSocket; closes it if that fails. No byte after the answer is read.

    Args:
        sock: with TLS, if ``url`` says ``wss``.
        url: for the request line and the header ``Host``; never logged, because it may carry a password.
        headers: such as ``Authorization: …``.
        subprotocols: offered; the server may select one of them or none.
        timeout: seconds between two bytes of the answer; the whole answer may take twice as long.

    Raises:
        UpgradeError: the server didn't upgrade.
    """
    upgraded = websocket.WebSocket(enable_multithread=False)
    bounded = BoundedSocket(sock, limit=UPGRADE_BYTES, seconds=PATIENCE * timeout)
    try:
        # No redirects: the library would follow them itself, and send the credentials along.
        upgraded.connect(  # type: ignore[no-untyped-call]  # it has no types here
            url,
            socket=bounded,
            header=list(headers),
            subprotocols=list(subprotocols) or None,
            suppress_origin=True,
            redirect_limit=0,
        )
    except websocket.WebSocketBadStatusException as exc:
        sock.close()
        retry_after = (exc.resp_headers or {}).get("retry-after")
        raise UpgradeError(f"HTTP {exc.status_code}", status=exc.status_code, retry_after=retry_after) from exc
    # MemoryError, OverflowError: it asks the socket for as many bytes as the answer announces.
    except (websocket.WebSocketException, OSError, ValueError, MemoryError, OverflowError) as exc:
        sock.close()
        # The library's own messages quote what the server sent.
        raise UpgradeError(str(exc) if isinstance(exc, OSError) else type(exc).__name__) from exc


class WebSocketStream:
    """A byte stream over the binary frames of an upgraded connection. It doesn't touch the socket."""

    def __init__(self) -> None:
        self.outgoing = bytearray()
        """Frames for the socket."""
        self.closed: str | None = None
        """Code and reason of the server's Close frame; None: it has sent none."""
        self._parser = StreamParser()

    def send(self, data: bytearray) -> None:
        """Move all of ``data`` into frames; after the server's Close frame, discard it."""
        if self.closed is not None:
            data.clear()
        if data:
            payloads = [bytes(data[at : at + FRAME_BYTES]) for at in range(0, len(data), FRAME_BYTES)]
            data.clear()
            self._frame(Opcode.BINARY, payloads)

    def receive(self, data: bytes) -> bytes:
        """The bytes of the stream in ``data``, which came from the socket. Pings and a Close frame are answered.

        Raises:
            RemoteProtocolError: the server broke the protocol.
        """
        received, controls = self._parser.feed(data)
        # One answer, to the last ping (RFC 6455, 5.5.3): a server that sends only pings must not fill memory.
        pings = [frame.payload for frame in controls if frame.opcode == Opcode.PING]
        if pings:
            self._frame(Opcode.PONG, pings[-1:])
        for frame in controls:
            if frame.opcode == Opcode.CLOSE:
                code = int.from_bytes(frame.payload[:2], "big") if len(frame.payload) >= 2 else 1005  # 7.1.5
                self.closed = f"WebSocket close {code} {frame.payload[2:].decode('utf-8', 'replace')!r}"
                self._frame(Opcode.CLOSE, [frame.payload[:2]])
        return received

    def close(self, data: bytearray) -> None:
        """Move all of ``data`` into frames, and end with a Close frame."""
        self.send(data)
        self._frame(Opcode.CLOSE, [(1000).to_bytes(2, "big")])

    def _frame(self, opcode: Opcode, payloads: Sequence[bytes]) -> None:
        self.outgoing += encode(opcode, payloads, masks=os.urandom(4 * len(payloads)))
