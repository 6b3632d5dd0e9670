"""Limits the size and duration of a whole HTTP answer.

The libraries limit only the wait for the next bytes: one byte every few seconds, endless header lines or endless
interim answers would block a thread forever or fill memory.
"""

from __future__ import annotations

import io
import socket
from http.client import HTTPException, HTTPResponse
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from bridge.links.bounded import PATIENCE, BoundedSocket

ANSWER_BYTES = 16 * 1024 * 1024
"""Longest answer on the wire: above the largest body that is read, with room for headers and chunk sizes."""


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
