"""What both links are: a connected, non-blocking socket, what waits to be written to it, and why it is over.

One thread owns a link at a time: the dialling one, then the pipeline's.
"""

from __future__ import annotations

import socket
import ssl

READ_SIZE = 256 * 1024
"""Bytes a read takes at most: bounds a batch."""

UNREAD_BYTES = 64 * 1024 * 1024
"""Waiting to be written: far above the largest record. A peer that goes on sending and reads nothing must not fill
memory with our answers.
"""


class Link:
    """Base of the links to broker and GDN.

    Args:
        sock: connected; becomes non-blocking.
        failed: how ``error`` begins when the socket fails.
        closed: what ``error`` says when the peer closes it.
    """

    def __init__(self, sock: socket.socket, *, failed: str, closed: str) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.error: str | None = None
        """Why the link is unusable; None while it isn't."""
        self.certificate_ends: dict[str, float] = {}
        """When the certificates of its TLS end, ``peer`` and ``own``, in seconds since the epoch; those there are."""
        ends = (sock.getpeercert() or {}).get("notAfter") if isinstance(sock, ssl.SSLSocket) else None
        if isinstance(ends, str):
            self.certificate_ends["peer"] = ssl.cert_time_to_seconds(ends)
        self._failed = failed
        self._closed = closed
        self._outgoing = bytearray()

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._outgoing)

    @property
    def has_buffered(self) -> bool:
        """Whether TLS holds bytes that no selector will report."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def flush(self) -> None:
        """Write what the socket takes now."""
        outgoing = self._outgoing
        while outgoing and self.error is None:
            try:
                sent = self.sock.send(outgoing)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if len(outgoing) > UNREAD_BYTES:
                    self.error = f"{self._failed}: the far end doesn't read; over {UNREAD_BYTES} bytes wait for it"
                return
            except OSError as exc:
                self.error = f"{self._failed}: {exc}"
                return
            del outgoing[:sent]

    def _receive(self) -> bytes:
        """What has come; nothing if nothing has, or if the link is over (``error``)."""
        try:
            data = self.sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as exc:
            self.error = self.error or f"{self._failed}: {exc}"
            return b""
        if not data:
            self.error = self.error or self._closed
        return data
