"""TCP connections, with TLS on request; certificates that expire soon are logged."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bridge.links.certificates import ENCRYPTED_KEY, handshake_advice, not_after
from bridge.log import get_logger

DAY = 86400.0

EXPIRY_NOTICE = 30 * DAY
"""Seconds. Each connect logs a warning for a certificate that expires sooner."""

log = get_logger(__name__)


class UnusableFile(OSError):
    """A file of a TLS connection can't be read or used; the message names it."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a TLS connection, and its application protocol.

    None: the system's certificate authorities; no client certificate; no ALPN.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    alpn: str | None = None
    """The only protocol that is offered (RFC 7301)."""

    def context(self) -> ssl.SSLContext:
        """A verifying client context. Reads the files, so that each attempt uses their current content.

        Raises:
            UnusableFile: a file can't be read or has the wrong content.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as exc:
            raise UnusableFile(f"ca_file {self.ca_file} can't be used: {exc}") from exc
        if self.cert_file is not None:
            try:
                load_pair(context, self.cert_file, self.key_file)
            except OSError as exc:
                files = f"cert_file {self.cert_file} and key_file {self.key_file}"
                raise UnusableFile(f"{files} can't be used: {exc}") from exc
        if self.alpn is not None:
            context.set_alpn_protocols([self.alpn])
        return context

    def client_not_after(self) -> float | None:
        """When the client certificate expires, in seconds since the epoch; None without one.

        Raises:
            UnusableFile: its file can't be read.
        """
        if self.cert_file is None:
            return None
        try:
            return not_after(self.cert_file.read_bytes())
        except OSError as exc:
            raise UnusableFile(f"cert_file {self.cert_file} can't be read: {exc.strerror}") from exc


def load_pair(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    """Load a certificate with its private key; never asks for a passphrase.

    Raises:
        OSError: a file can't be read, has the wrong content or a passphrase, or they don't belong together.
    """
    # Without a callback OpenSSL asks on the terminal, and takes over the signal handlers: SIGTERM would be ignored.
    context.load_cert_chain(cert_file, key_file, password=_refuse_passphrase)


def _refuse_passphrase() -> str:
    raise OSError(ENCRYPTED_KEY)


class Connect(Protocol):
    """Makes a TCP connection."""

    def __call__(self, host: str, port: int, /, *, timeout: float) -> socket.socket:
        """A connected socket, blocking with ``timeout`` seconds; raises OSError."""


def connect_directly(host: str, port: int, /, *, timeout: float) -> socket.socket:
    """A ``Connect`` without a proxy."""
    try:
        return socket.create_connection((host, port), timeout=timeout)
    except UnicodeError as exc:
        raise OSError(f"{host!r} is not a valid host name: {exc}") from exc


def open_socket(
    host: str, port: int, *, tls: Tls | None, timeout: float, connect: Connect = connect_directly
) -> socket.socket:
    """A connected socket, with TLS if ``tls`` is given; still blocking, with ``timeout`` seconds.

    Certificates that expire soon are logged, the client's and the peer's.

    Raises:
        OSError: the name, the connection or the handshake failed. Also what ``connect`` raises.
    """
    context = tls.context() if tls is not None else None
    sock = connect(host, port, timeout=timeout)
    try:
        # Nagle's algorithm would hold small frames back until the peer's delayed acknowledgement: 40 ms each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Detects a peer that is gone without having closed the connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
        if context is None or tls is None:
            return sock
        return _secured(sock, host, tls, context)
    except BaseException:
        sock.close()
        raise


def _secured(sock: socket.socket, host: str, tls: Tls, context: ssl.SSLContext) -> ssl.SSLSocket:
    now = time.time()
    expiry = tls.client_not_after()
    try:
        secured = context.wrap_socket(sock, server_hostname=host)
    except OSError as exc:
        if expiry is not None and expiry <= now:
            # The peer's TLS alert seldom says so.
            raise OSError(f"{exc}; the client certificate {tls.cert_file} has expired: renew it") from exc
        if advice := handshake_advice(exc, now, ca_file=None if tls.ca_file is None else str(tls.ca_file)):
            raise OSError(f"{exc}{advice}") from exc
        raise
    # With TLS 1.3 the handshake ends before the peer has checked our certificate: log it here as well.
    warn_of_expiry(expiry, now, file=str(tls.cert_file))
    peer = (secured.getpeercert() or {}).get("notAfter")
    warn_of_expiry(ssl.cert_time_to_seconds(peer) if isinstance(peer, str) else None, now, host=host)
    return secured


def warn_of_expiry(not_after: float | None, now: float, **subject: str) -> None:
    """Log that a certificate expires soon or has expired.

    Args:
        not_after: when it expires, in seconds since the epoch; None if that isn't known.
        now: seconds since the epoch.
        subject: the certificate's ``file`` or ``host``, for the log.
    """
    if not_after is None or not_after - now > EXPIRY_NOTICE:
        return
    days = (not_after - now) / DAY
    if days > 0:
        log.warning(
            "certificate.expires",
            **subject,
            days_left=round(days, 1),
            hint="renew it: files are read again at each connect",
        )
    else:
        log.error("certificate.expired", **subject, days_ago=round(-days, 1))
