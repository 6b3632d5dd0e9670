"""Limits the size and duration of a whole answer, not only the wait for its next bytes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from bridge.timing import Deadline

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
