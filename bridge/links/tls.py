"""TCP connections, within TLS where that is asked for; certificates that end soon are logged."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from bridge.links.certificates import handshake_advice, not_after
from bridge.log import get_logger

DAY = 86400.0

EXPIRY_NOTICE = 30 * DAY
"""Seconds before the end of a certificate from which every connect warns of it."""

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

    def client_not_after(self) -> float | None:
        """When the client certificate ends, in seconds since the epoch; None without one.

        Raises:
            OSError: its file can't be read.
        """
        return None if self.cert_file is None else not_after(self.cert_file.read_bytes())


def open_socket(host: str, port: int, *, tls: Tls | None, timeout: float) -> socket.socket:
    """A connected socket, within TLS when ``tls`` is given; still blocking, with ``timeout`` seconds.

    Certificates that end soon are logged, ours and the peer's.

    Raises:
        OSError: the name, the connection or the handshake failed.
    """
    context = tls.context() if tls is not None else None
    try:
        sock = socket.create_connection((host, port), timeout=timeout)
    except UnicodeError as exc:
        raise OSError(f"{host!r} can't be a host's name: {exc}") from exc
    try:
        # Nagle's algorithm would hold small frames back for the peer's delayed acknowledgement: 40 ms each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that vanished without a word is noticed although nothing comes back.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
        if context is None or tls is None:
            return sock
        return _secured(sock, host, tls, context)
    except BaseException:
        sock.close()
        raise


def _secured(sock: socket.socket, host: str, tls: Tls, context: ssl.SSLContext) -> ssl.SSLSocket:
    now = time.time()
    end = tls.client_not_after()
    try:
        secured = context.wrap_socket(sock, server_hostname=host)
    except OSError as exc:
        if end is not None and end <= now:
            # The alert by which a peer refuses it says so seldom.
            raise OSError(f"{exc}; the client certificate {tls.cert_file} has expired: renew it") from exc
        if advice := handshake_advice(exc):
            raise OSError(f"{exc}{advice}") from exc
        raise
    # With TLS 1.3 the handshake is over before the peer has looked at our certificate: said here too.
    say_when_it_ends(end, now, file=str(tls.cert_file))
    peer = (secured.getpeercert() or {}).get("notAfter")
    say_when_it_ends(ssl.cert_time_to_seconds(peer) if isinstance(peer, str) else None, now, host=host)
    return secured


def say_when_it_ends(end: float | None, now: float, **which: str) -> None:
    """Log that a certificate ends soon or has ended. Times are seconds since the epoch; ``which``: whose it is."""
    if end is None or end - now > EXPIRY_NOTICE:
        return
    days = (end - now) / DAY
    if days > 0:
        log.warning(
            "certificate.expires",
            **which,
            days_left=round(days, 1),
            hint="renew it: files are read anew at each connect",
        )
    else:
        log.error("certificate.expired", **which, days_ago=round(-days, 1))
