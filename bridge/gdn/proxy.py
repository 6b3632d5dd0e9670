"""HTTP proxies on the way to GDN: which connection uses one, and the tunnel through it (RFC 9110, 9.3.6)."""

from __future__ import annotations

import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from ipaddress import ip_address
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from bridge.errors import ConfigError, GdnUnavailable
from bridge.gdn.bounds import BoundedResponse
from bridge.links.tls import Tls, connect_directly, open_socket
from bridge.timing import Pace

NONE = "none"
"""Instead of a URL: no proxy, whatever the environment says."""

FORM = "must be http://host:port or http://user:password@host:port"

DEFAULT_PORT = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Parse its URL.

        Raises:
            ValueError: it isn't the URL of an HTTP proxy. The message quotes none of it: it may contain a password.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError:
            raise ValueError(FORM) from None
        if parts.scheme != "http" or not host or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError(FORM)
        user = None if parts.username is None else unquote(parts.username)
        return cls(host, port, user, unquote(parts.password or ""))

    @property
    def name(self) -> str:
        """``host:port``, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its URL. A secret if it has a password."""
        user = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return f"http://{user}{self.name}"

    def connect(self, host: str, port: int, /, *, timeout: float) -> socket.socket:
        """A tunnel to ``host``: a connected socket, blocking with ``timeout`` seconds.

        Raises:
            GdnUnavailable: the proxy refuses it.
            OSError: the proxy can't be reached, or doesn't answer in time.
        """
        try:
            sock = socket.create_connection((self.host, self.port), timeout=timeout)
        except (OSError, UnicodeError) as exc:
            raise OSError(f"the proxy {self.name}: {exc}") from exc
        try:
            self._open_tunnel(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except BaseException:
            sock.close()
            raise
        return sock

    def _open_tunnel(self, sock: socket.socket, target: str) -> None:
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.user is not None:
            credentials = b64encode(f"{self.user}:{self.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {credentials}")
        try:
            sock.sendall("\r\n".join([*lines, "", ""]).encode())
            # Reads only the head of the answer: the peer behind the tunnel doesn't speak first.
            with BoundedResponse(sock, method="CONNECT") as response:
                response.begin()
                status = response.status
        except (OSError, HTTPException) as exc:
            raise OSError(f"the proxy {self.name} did not answer CONNECT: {exc or type(exc).__name__}") from exc
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise GdnUnavailable(
                f"the proxy {self.name} refused user and password, or requires them (407): check gdn.proxy",
                pace=Pace.CREDENTIALS,
            )
        if not 200 <= status < 300:
            raise GdnUnavailable(f"the proxy {self.name} refused a connection to {target} with HTTP {status}")


@dataclass(frozen=True, slots=True)
class Proxies:
    """Chooses the proxy of a connection.

    ``configured`` is used for every connection. Without it the usual variables decide (``HTTPS_PROXY``, ``HTTP_PROXY``,
    ``ALL_PROXY``, ``NO_PROXY``); loopback hosts are then reached directly.
    """

    configured: Proxy | None = None
    by_variable: Mapping[str, str] = field(default_factory=dict)
    """URLs by ``https``, ``http`` and ``all``; ``no``: hosts that need none."""

    @classmethod
    def of(cls, setting: str | None) -> Proxies:
        """From ``gdn.proxy``: a URL, ``none``, or None for the environment's.

        Raises:
            ValueError: the URL is invalid.
        """
        if setting is None:
            return cls(by_variable=getproxies_environment())
        return cls() if setting.lower() == NONE else cls(Proxy.parse(setting))

    def find(self, host: str, *, secure: bool) -> Proxy | None:
        """The proxy for a host; None: connect without one. ``host`` may have a port.

        Raises:
            ConfigError: the variable for this host isn't the URL of an HTTP proxy.
        """
        if self.configured is not None:
            return self.configured
        for name in ("https" if secure else "http", "all"):
            if url := self.by_variable.get(name):
                if _is_this_machine(host) or proxy_bypass(host, dict(self.by_variable)):
                    return None
                try:
                    return Proxy.parse(url)
                except ValueError as exc:
                    raise ConfigError(f"{name.upper()}_PROXY: {exc}, or set gdn.proxy") from None
        return None


def open_socket_to(netloc: str, *, secure: bool, tls: Tls, proxies: Proxies, timeout: float) -> socket.socket:
    """A socket to a host of GDN, through its proxy if it has one; still blocking, with ``timeout`` seconds.

    Args:
        netloc: the host, and its port if that isn't the scheme's.
        secure: whether to use TLS.
        tls: its files.
        proxies: chooses the proxy.
        timeout: seconds for each step: look-up and connect, tunnel, TLS handshake.

    Raises:
        OSError: a connection or the handshake failed.
        GdnUnavailable: the proxy refuses the tunnel.
        ConfigError: as ``Proxies.find``.
    """
    parts = urlsplit(f"//{netloc}")
    proxy = proxies.find(netloc, secure=secure)
    return open_socket(
        parts.hostname or "",
        parts.port or (443 if secure else 80),
        tls=tls if secure else None,
        timeout=timeout,
        connect=connect_directly if proxy is None else proxy.connect,
    )


def _is_this_machine(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
