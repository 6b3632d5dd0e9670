"""Limits the size and duration of a whole HTTP answer.

The libraries limit only the wait for the next bytes: one byte every few seconds, endless header lines or endless
interim answers would block a thread forever or fill memory.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from bridge.timing import Deadline

ANSWER_BYTES = 16 * 1024 * 1024
"""Longest answer on the wire: above the largest body that is read, with room for headers and chunk sizes."""

PATIENCE = 2
"""A whole answer may take this many read timeouts: one for the head, one for the body."""


class BoundedSocket:
    """A connected socket that raises an OSError when one answer exceeds its limits.

    Args:
        sock: the socket; its own timeout limits the wait for the next bytes.
        limit: bytes of the answer.
        seconds: for the whole answer, from now.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        limit: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sock = sock
        self._limit = self._left = limit
        self._seconds = seconds
        self._deadline = Deadline(seconds, clock=clock)
        self._timeout = sock.gettimeout() or seconds

    def recv(self, size: int) -> bytes:
        """As in a socket.

        Raises:
            TimeoutError: the answer takes too long.
            OSError: it is too long, or the connection failed.
        """
        self._check()
        data = self._sock.recv(min(size, self._left))
        self._left -= len(data)
        return data

    def recv_into(self, buffer: memoryview) -> int:
        """As in a socket; raises the errors of ``recv``."""
        self._check()
        size = self._sock.recv_into(buffer, min(len(buffer), self._left))
        self._left -= size
        return size

    def send(self, data: bytes) -> int:
        """As in a socket."""
        return self._sock.send(data)

    def close(self) -> None:
        """As in a socket."""
        self._sock.close()

    def gettimeout(self) -> float | None:
        """As in a socket."""
        return self._sock.gettimeout()

    def settimeout(self, seconds: float | None) -> None:
        """As in a socket: limits the wait for the next bytes."""
        self._timeout = seconds or self._seconds
        self._sock.settimeout(seconds)

    def _check(self) -> None:
        left = self._deadline.left()
        if not left:
            raise TimeoutError(f"the whole answer took over {self._seconds:g} s")
        if not self._left:
            raise OSError(f"the answer has over {self._limit} bytes; the rest is not read")
        self._sock.settimeout(min(self._timeout, left))


class _Stream(io.RawIOBase):
    """The file that http.client reads from."""

    def __init__(self, sock: socket.socket) -> None:
        seconds = sock.gettimeout()
        assert seconds is not None  # each request has a timeout
        self._bounded = BoundedSocket(sock, limit=ANSWER_BYTES, seconds=PATIENCE * seconds)
        # A socket counts its open files: it is closed only after this one.
        self._socket_file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._bounded.recv_into(memoryview(buffer))

    def close(self) -> None:
        self._socket_file.close()
        super().close()


class BoundedResponse(HTTPResponse):
    """An answer limited by ``ANSWER_BYTES`` and ``PATIENCE``."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_Stream(sock))

    def begin(self) -> None:
        """Read the answer's head."""
        super().begin()
        # urllib3 refuses it too, but doesn't close the connection.
        lengths = {length.strip() for length in self.headers.get("Content-Length", "").split(",")}
        if len(lengths) > 1:
            raise HTTPException("the answer has several different Content-Lengths")


class _Connection(HTTPConnection):
    response_class = BoundedResponse


class _SecureConnection(HTTPSConnection):
    response_class = BoundedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class BoundedPools(PoolManager):
    """urllib3's connection pools, with every answer limited by ``ANSWER_BYTES`` and ``PATIENCE``."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.pool_classes_by_scheme = _POOLS


class BoundedProxyPools(ProxyManager):
    """The same for connections through a proxy; its own answers are limited, too."""

    def __init__(self, proxy_url: str, **named: Any) -> None:
        super().__init__(proxy_url, **named)
        self.pool_classes_by_scheme = _POOLS
