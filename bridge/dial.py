"""Dialling: what blocks (name look-up, connect, TLS, OTP, upgrade), in threads away from the data path.

A ``Dialer`` keeps one link dialled, in a thread of its own: it connects with back-off, hands the link over and
sleeps until it is told that the link was lost. Any thread may ask it to stop.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from bridge.errors import BridgeError, GdnAuthError, GdnUnavailable
from bridge.health import PartStatus
from bridge.log import get_logger
from bridge.timing import Backoff

L = TypeVar("L")

AUTH_RETRY = 15.0
"""Seconds, at least, before credentials that were refused are tried again."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a TLS connection; None means the system's authorities and no client certificate."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A verifying client context. The files are read now: each attempt sees what stands there then.

        Raises:
            OSError: a file can't be read or doesn't hold what it should (``ssl.SSLError`` is one).
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


def open_socket(host: str, port: int, *, tls: Tls | None, timeout: float) -> socket.socket:
    """A connected socket, within TLS when ``tls`` is given; still blocking, with ``timeout`` seconds.

    Raises:
        OSError: the name, the connection or the handshake failed.
    """
    context = tls.context() if tls is not None else None
    sock = socket.create_connection((host, port), timeout=timeout)
    try:
        # Nagle's algorithm would hold small frames back for the peer's delayed acknowledgement: 40 ms each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that vanished without a word is noticed although nothing comes back.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
        return sock if context is None else context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


class Dialer(Generic[L]):
    """Keeps one link dialled.

    Args:
        name: of the part, in statuses and logs.
        connect: dials once, blocking; raises a BridgeError or OSError.
        hand_over: takes the connected link, from the dialling thread.
        gate: nothing is dialled before it is set.
        hold: seconds that a link must have held for the back-off to start from its base again.
    """

    def __init__(
        self,
        *,
        name: str,
        connect: Callable[[], L],
        hand_over: Callable[[L], None],
        gate: threading.Event | None = None,
        backoff: Backoff | None = None,
        hold: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._connect = connect
        self._hand_over = hand_over
        self._gate = gate
        self._backoff = backoff or Backoff()
        self._hold = hold
        self._clock = clock
        self._connected_at: float | None = None
        self._stopping = False
        self._wake = threading.Condition()
        self._linked = False
        self.attempts = 0
        self.status = PartStatus(name, "starting", time.time(), None, None)  # swapped whole, read by any thread

    def request_stop(self) -> None:
        """Dial no more; may be called twice and from any thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    def up(self) -> None:
        """The link does its work: for MQTT after the SUBACK, for a producer at once."""
        self._connected_at = self._clock()
        self.status = PartStatus(self.name, "connected", time.time(), None, None)

    def trouble(self, error: str) -> None:
        """The link stands but doesn't do its work."""
        self.status = PartStatus(self.name, "failing", time.time(), error, None)

    def lost(self, error: str) -> None:
        """The link is gone; dial again, at once if it had held."""
        self.status = PartStatus(self.name, "waiting", time.time(), error, None)
        with self._wake:
            self._linked = False
            self._wake.notify_all()

    def run(self) -> None:
        """The thread's body: dial, hand over, wait for the loss, again; until asked to stop."""
        while not self._stopping:
            if self._gate is not None and not self._gate.wait(0.2):
                continue
            self.attempts += 1
            # A failed attempt's error stays readable while the next one is under way.
            self.status = PartStatus(self.name, "connecting", time.time(), self.status.error, None)
            try:
                link = self._connect()
            except (BridgeError, OSError) as exc:
                self._wait_after(exc)
                continue
            self._connected_at = None
            self._linked = True
            self._hand_over(link)
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or not self._linked)
            held = self._connected_at is not None and self._clock() - self._connected_at >= self._hold
            if held:
                self._backoff.reset()
            elif not self._stopping:
                self._sleep(self._backoff.next(), self.status.error or "the link was lost at once")

    def _wait_after(self, exc: BridgeError | OSError) -> None:
        wait = self._backoff.next()
        if isinstance(exc, GdnUnavailable) and exc.retry_after is not None:
            wait = max(wait, exc.retry_after)
        elif isinstance(exc, GdnAuthError):
            wait = max(wait, AUTH_RETRY)
        log.warning("link.refused", link=self.name, error=str(exc), retry_in=round(wait, 2))
        self._sleep(wait, str(exc))

    def _sleep(self, seconds: float, error: str) -> None:
        now = time.time()
        self.status = PartStatus(self.name, "waiting", now, error, now + seconds)
        with self._wake:
            self._wake.wait_for(lambda: self._stopping, timeout=seconds)
