"""The base of links to broker and GDN: a connected, non-blocking socket, unwritten bytes, and how the link ended.

One thread owns a link at a time: first the dialling thread, then the pipeline's.
"""

from __future__ import annotations

import select
import socket
import ssl
from enum import Enum, auto

from bridge.links.websocket import WebSocketStream

READ_SIZE = 256 * 1024
"""Bytes that one read takes at most: bounds a batch."""

UNREAD_BYTES = 64 * 1024 * 1024
"""Bytes that may wait for the peer to read, far above the largest record. A peer that only sends must not fill
memory with our answers.
"""


class LinkEnd(Enum):
    """How a link ended."""

    FAILED = auto()
    """The socket or TLS failed."""
    CLOSED_BY_PEER = auto()
    """The peer closed the connection without giving a reason: end of stream, reset, broken pipe."""
    DISCONNECTED = auto()
    """The peer ended the session and said why (MQTT 5 DISCONNECT, WebSocket Close)."""
    REFUSED = auto()
    """The peer refused the session."""
    REFUSED_CREDENTIALS = auto()
    """The peer refused the credentials: dialling again soon doesn't help."""
    TAKEN_OVER = auto()
    """Another client with the same client id took the session over (MQTT 5, 0x8E)."""
    TIMED_OUT = auto()
    """The peer didn't answer in time."""
    PROTOCOL = auto()
    """The peer broke its protocol."""
    GIVEN_UP = auto()
    """The bridge gave the link up."""


class Link:
    """Base of the links to broker and GDN. Its attributes are read-only for other classes.

    Args:
        sock: connected; becomes non-blocking.
        failed: how ``error`` begins when the socket fails.
        closed: what ``error`` says when the peer closes the connection.
        client_not_after: when the client certificate expires, in seconds since the epoch; None without one.
        stream: the byte stream over the socket's WebSocket frames; None: the socket's bytes are the stream.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        failed: str,
        closed: str,
        client_not_after: float | None = None,
        stream: WebSocketStream | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.error: str | None = None
        """Why the link is unusable; None while it is usable."""
        self.end: LinkEnd | None = None
        """How the link ended; None while it is usable."""
        self.certificate_ends: dict[str, float] = {}
        """When the certificates of this connection expire, in seconds since the epoch: ``peer`` and ``own``, if any."""
        expiry = (sock.getpeercert() or {}).get("notAfter") if isinstance(sock, ssl.SSLSocket) else None
        if isinstance(expiry, str):
            self.certificate_ends["peer"] = ssl.cert_time_to_seconds(expiry)
        if client_not_after is not None:
            self.certificate_ends["own"] = client_not_after
        self._failed = failed
        self._closed = closed
        self._outgoing = bytearray()
        self._stream = stream

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket."""
        return bool(self._outgoing) or (self._stream is not None and bool(self._stream.outgoing))

    @property
    def has_buffered(self) -> bool:
        """Whether there is something to read that no selector reports: bytes decrypted by TLS, a WebSocket's end."""
        if self._stream is not None and self._stream.closed is not None:
            return True
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    @property
    def has_unread(self) -> bool:
        """Whether bytes, or the end of the stream, wait to be read: the owner leaves them, the peer isn't silent."""
        if self.has_buffered:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def fail(self, error: str, end: LinkEnd) -> None:
        """Mark the link as over. The first call wins: what follows an error is its consequence.

        Args:
            error: why, for a person.
            end: how.
        """
        if self.end is None:
            self.error, self.end = error, end

    def flush(self) -> None:
        """Write what the socket takes now."""
        outgoing = self._outgoing
        if self._stream is not None:
            self._stream.send(outgoing)
            outgoing = self._stream.outgoing
        while outgoing and self.end is None:
            try:
                sent = self.sock.send(outgoing)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if len(outgoing) > UNREAD_BYTES:
                    error = f"{self._failed}: the peer doesn't read; over {UNREAD_BYTES} bytes wait for it"
                    self.fail(error, LinkEnd.GIVEN_UP)
                return
            except OSError as exc:
                self._socket_failed(exc)
                return
            del outgoing[:sent]

    def _receive(self) -> bytes:
        """The bytes that have arrived; empty if there are none or the link is over.

        Raises:
            RemoteProtocolError: the peer broke the WebSocket protocol.
        """
        if self._stream is not None and self._stream.closed is not None:
            # What came before the Close frame was returned by the last call.
            self.fail(f"{self._closed}: {self._stream.closed}", LinkEnd.CLOSED_BY_PEER)
            return b""
        try:
            data = self.sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as exc:
            self._socket_failed(exc)
            return b""
        if not data:
            self.fail(self._closed, LinkEnd.CLOSED_BY_PEER)
        return data if self._stream is None else self._stream.receive(data)

    def _socket_failed(self, exc: OSError) -> None:
        # If the peer closes while bytes are under way, the socket reports ECONNRESET or EPIPE, not an end of stream.
        closed = isinstance(exc, ConnectionResetError | BrokenPipeError)
        self.fail(f"{self._failed}: {exc}", LinkEnd.CLOSED_BY_PEER if closed else LinkEnd.FAILED)
