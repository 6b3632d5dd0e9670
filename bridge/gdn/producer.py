"""One WebSocket connection to a stream: runs the producer protocol, reads and writes frames in batches.

After the upgrade (``links/websocket.py``) the socket is non-blocking.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from queue import SimpleQueue
from urllib.parse import urlsplit

from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable, RemoteProtocolError
from bridge.gdn.answers import seconds_to_wait
from bridge.gdn.protocol import ProducerProtocol, Receipts, token_response
from bridge.gdn.proxy import Proxies, open_socket_to
from bridge.links.frames import FrameParser, Opcode, encode
from bridge.links.link import Link, LinkEnd
from bridge.links.tls import Tls
from bridge.links.websocket import UpgradeError, upgrade
from bridge.message import OutboxRecord
from bridge.timing import Pace

OUTGOING_BYTES = 1024 * 1024
"""No more records are framed while this many bytes wait for the socket: a slow link must not fill memory."""

NO_RECEIPTS = Receipts([], 0, [], 0)


class ProducerLink(Link):
    """A connected producer.

    Args:
        sock: connected and upgraded.
        window: records that may be unreceipted at a time.
        receipt_timeout: seconds after which a missing receipt ends the connection.
        ping_interval: seconds between pings; a connection that is silent for twice as long is over.
        deduplicates: whether GDN accepted the producer's name and first sequence number.
        read_token: returns the current token, for a Pulsar that asks for a new one; None: there is none. May block: it
            is called in a thread of its own. Without it such requests are ignored.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        sock: socket.socket,
        window: int,
        receipt_timeout: float,
        ping_interval: float,
        deduplicates: bool = False,
        read_token: Callable[[], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(sock, failed="the producer connection failed", closed="GDN closed the producer connection")
        self.deduplicates = deduplicates
        self._protocol = ProducerProtocol(window=window)
        self._read_token = read_token
        self._token_reader: threading.Thread | None = None  # while a token is being read
        self._new_token: SimpleQueue[str | None] = SimpleQueue()  # from that thread
        self._frames = FrameParser()
        self._receipt_timeout = receipt_timeout
        self._ping_interval = ping_interval
        self._heard_at = self._pinged_at = clock()

    @property
    def room(self) -> int:
        """How many records may be sent now."""
        return self._protocol.room if self.room_bytes > 0 else 0

    @property
    def room_bytes(self) -> int:
        """How many bytes of records may be sent now; the last record may exceed it."""
        return OUTGOING_BYTES - len(self._outgoing)

    @property
    def has_all_receipts(self) -> bool:
        """Whether every record that was sent has its receipt."""
        return self._protocol.oldest_sent_at is None

    def send(self, records: Sequence[OutboxRecord], now: float) -> None:
        """Frame the records and write what the socket takes now."""
        requests = self._protocol.send(records, now)
        self._outgoing += encode(Opcode.TEXT, requests, masks=os.urandom(4 * len(requests)))
        self.flush()

    def read(self, now: float) -> Receipts:
        """The receipts of one read. ``end`` shows whether the link is over.

        Raises:
            RemoteProtocolError: GDN broke the protocol; drop the link.
        """
        data = self._receive()
        if not data:
            return NO_RECEIPTS
        self._heard_at = now
        answers = []
        for opcode, payload in self._frames.feed(data):
            if opcode == Opcode.TEXT:
                answers.append(payload)
            elif opcode == Opcode.PING:
                if len(self._outgoing) < OUTGOING_BYTES:  # else GDN isn't reading, and needs no answer
                    self._outgoing += encode(Opcode.PONG, [payload], masks=os.urandom(4))
            elif opcode == Opcode.CLOSE:
                code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005  # RFC 6455, 7.1.5
                reason = payload[2:].decode("utf-8", "replace")
                self.fail(f"GDN closed the producer connection: {code} {reason!r}", LinkEnd.DISCONNECTED)
            elif opcode == Opcode.BINARY:
                raise RemoteProtocolError("GDN sent a binary message on a producer socket")
        receipts = self._protocol.receive(answers)
        if receipts.broken is not None:
            self.fail(receipts.broken, LinkEnd.PROTOCOL)
        if receipts.challenged and self._read_token is not None and self._token_reader is None:
            read_token = self._read_token
            # Reading secrets again blocks, and the pipeline must not.
            self._token_reader = threading.Thread(
                target=lambda: self._new_token.put(read_token()), name="token", daemon=True
            )
            self._token_reader.start()
        return receipts

    def tick(self, now: float) -> None:
        """Send pings and a new token, check timeouts; to be called each turn. ``now`` is monotonic seconds."""
        if self._token_reader is not None and not self._new_token.empty():
            self._token_reader = None
            token = self._new_token.get()
            if token is not None:
                self._outgoing += encode(Opcode.TEXT, [token_response(token)], masks=os.urandom(4))
                self.flush()
        oldest = self._protocol.oldest_sent_at
        if oldest is not None and now - oldest > self._receipt_timeout:
            # A live socket with a dead producer behind it answers pings, but not this.
            self.fail(f"GDN sent no receipt for {self._receipt_timeout:g} s", LinkEnd.TIMED_OUT)
        elif now - self._heard_at > 2 * self._ping_interval:
            self.fail(f"GDN was silent for {2 * self._ping_interval:g} s", LinkEnd.TIMED_OUT)
        elif now - self._pinged_at >= self._ping_interval:
            self._pinged_at = now
            self._outgoing += encode(Opcode.PING, [b""], masks=os.urandom(4))
            self.flush()

    def close(self) -> list[OutboxRecord]:
        """Close the connection; returns the unreceipted records, in send order."""
        if self.end is None:
            self._outgoing += encode(Opcode.CLOSE, [(1000).to_bytes(2, "big")], masks=os.urandom(4))
            self.flush()
        self.sock.close()
        return self._protocol.unreceipted()


def dial(
    *,
    url: str,
    headers: Sequence[str],
    tls: Tls,
    proxies: Proxies | None = None,
    connect_timeout: float,
    window: int,
    receipt_timeout: float,
    ping_interval: float,
    deduplicates: bool = False,
    read_token: Callable[[], str | None] | None = None,
) -> ProducerLink:
    """A connected producer. Blocks.

    Args:
        url: of the producer, with its parameters; never logged, because it may carry a one-time password.
        headers: of the upgrade, such as ``Authorization: …``.
        tls: files used when the URL says ``wss``.
        proxies: the proxy to connect through, by host; None: no proxy.
        connect_timeout: seconds for each of name look-up with connect, TLS, upgrade.
        window: see ``ProducerLink``.
        receipt_timeout: seconds; see ``ProducerLink``.
        ping_interval: seconds; see ``ProducerLink``.
        deduplicates: whether ``url`` carries a producer name and a first sequence number.
        read_token: see ``ProducerLink``.

    Raises:
        GdnUnavailable, GdnAuthError, GdnRejected: depending on the answer to the upgrade (gdn-api.md C.5).
    """
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host = parts.hostname or ""
    place = f"the producer {host}{parts.path}"
    try:
        sock = open_socket_to(
            parts.netloc, secure=secure, tls=tls, proxies=proxies or Proxies(), timeout=connect_timeout
        )
    except OSError as exc:
        raise GdnUnavailable(f"{place} can't be reached: {exc}") from exc
    try:
        upgrade(sock, url, headers=headers, timeout=connect_timeout)
    except UpgradeError as exc:
        raise _refused(place, exc) from exc
    return ProducerLink(
        sock=sock,
        window=window,
        receipt_timeout=receipt_timeout,
        ping_interval=ping_interval,
        deduplicates=deduplicates,
        read_token=read_token,
    )


def _refused(place: str, exc: UpgradeError) -> GdnError:
    status = exc.status
    if status is None:
        return GdnUnavailable(f"{place} did not upgrade to WebSocket: {exc}")
    message = f"{place}: the upgrade was answered with HTTP {status}"
    if status == HTTPStatus.UNAUTHORIZED:
        return GdnAuthError(f"{message}. Check the credentials, and that they belong to the tenant", status=status)
    if status == HTTPStatus.FORBIDDEN:
        return GdnAuthError(
            f"{message}. Grant the right to publish to this stream (write-only or read-write), and check the tenant",
            status=status,
        )
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return GdnRejected(message, status=status)
    pace = Pace.UNREACHABLE
    if status == HTTPStatus.NOT_FOUND:
        message += ": GDN has no such stream (it is created when the worker is activated)"
        pace = Pace.MISSING
    elif status == HTTPStatus.CONFLICT:
        message += ": the old connection still uses the producer's name"
        pace = Pace.NAME_TAKEN
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        pace = Pace.LIMITED
    retry_after = seconds_to_wait(exc.retry_after, now=time.time())
    return GdnUnavailable(message, pace=pace, retry_after=retry_after, status=status)
