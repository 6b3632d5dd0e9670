"""A TCP proxy on loopback with faults: cut, close, half-open, stall, slow, truncate, refuse.

Runs on an event loop: call its methods there, except those that only set attributes. ``counts`` has the faults that
happened, not those that were only requested.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Protocol

READ_SIZE = 65536
TO_CLIENT, TO_SERVER = "to_client", "to_server"


class Observer(Protocol):
    """Observes the bytes of one connection."""

    def to_client(self, data: bytes) -> None:
        """As they are written to the client."""

    def to_server(self, data: bytes) -> None:
        """As they are read from the client."""


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    """Listens on ``port``, connects to ``upstream``.

    Args:
        port: to listen on.
        upstream: the port of the real server.
        observer: makes the observer of a new connection; None observes nothing.
    """

    def __init__(self, *, port: int, upstream: int, observer: Callable[[], Observer] | None = None) -> None:
        self.port = port
        self.upstream = upstream
        self.counts: Counter[str] = Counter()
        self.latency = 0.0
        """Seconds by which each block is delayed."""
        self.bandwidth: float | None = None
        """Bytes per second, in each direction."""
        self.refusing = False
        """New connections are reset at once."""
        self._observer = observer
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def live(self) -> int:
        """Established connections."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, limit=READ_SIZE)

    async def stop(self) -> None:
        """Stop listening and reset all connections."""
        await self.unlisten()
        await self.cut()

    async def unlisten(self) -> None:
        """Refuse new connections like a port without a listener; ``start`` listens again."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.counts["unlisten"] += 1

    async def cut(self) -> None:
        """Reset every connection."""
        for connection in list(self._connections):
            self.counts["cut"] += 1
            connection.reset()

    async def close(self) -> None:
        """End every connection in an orderly way."""
        for connection in list(self._connections):
            self.counts["close"] += 1
            connection.close()

    async def half_open(self, *directions: str) -> None:
        """From now on discard all bytes in these directions on the established connections, for good."""
        for connection in self._connections:
            connection.swallowing.update(directions)

    async def mend(self) -> None:
        """End all faults. Half-open connections can't recover and are reset."""
        self.latency, self.bandwidth, self.refusing = 0.0, None, False
        for connection in list(self._connections):
            connection.cut_after.clear()
            if connection.swallowing:
                connection.reset()
        if self._server is None:
            await self.start()

    async def stall(self, seconds: float) -> None:
        """Forward nothing on the established connections for a while, then continue."""
        for connection in list(self._connections):
            connection.stall(seconds)

    async def cut_after(self, size: int, direction: str) -> None:
        """Reset the established connections after ``size`` more bytes, possibly within a frame."""
        for connection in self._connections:
            connection.cut_after[direction] = size

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.counts["refuse"] += 1
            reset(writer)
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self.upstream, limit=READ_SIZE)
        except OSError:
            self.counts["upstream_refused"] += 1
            reset(writer)
            return
        self.counts["connections"] += 1
        connection = _Connection(self, reader, writer, *there, self._observer() if self._observer else None)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _Connection:
    def __init__(
        self,
        proxy: Proxy,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
        observer: Observer | None,
    ) -> None:
        self._proxy = proxy
        self._client = client_reader, client_writer
        self._server = server_reader, server_writer
        self._observer = observer
        self.swallowing: set[str] = set()
        self.cut_after: dict[str, int] = {}
        self._moving = asyncio.Event()
        self._moving.set()

    async def run(self) -> None:
        pumps = [
            asyncio.create_task(self._pump(self._client[0], self._server[1], TO_SERVER)),
            asyncio.create_task(self._pump(self._server[0], self._client[1], TO_CLIENT)),
        ]
        try:
            await asyncio.wait(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.close()

    def reset(self) -> None:
        reset(self._client[1])
        reset(self._server[1])

    def close(self) -> None:
        self._client[1].close()
        self._server[1].close()

    def stall(self, seconds: float) -> None:
        self._moving.clear()
        asyncio.get_running_loop().call_later(seconds, self._moving.set)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        proxy = self._proxy
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_SIZE):
                if self._observer is not None and direction == TO_SERVER:
                    self._observer.to_server(data)
                if not self._moving.is_set():
                    proxy.counts["stall"] += 1
                    await self._moving.wait()
                if direction in self.swallowing:
                    proxy.counts[f"half_open_{direction}"] += 1
                    continue
                if proxy.latency:
                    proxy.counts["latency"] += 1
                    await asyncio.sleep(proxy.latency)
                if proxy.bandwidth is not None:
                    proxy.counts["bandwidth"] += 1
                    await asyncio.sleep(len(data) / proxy.bandwidth)
                left = self.cut_after.get(direction)
                if left is not None and left <= len(data):
                    self._write(writer, data[:left], direction)
                    # Written bytes must be sent before the reset discards them.
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    proxy.counts["cut_after"] += 1
                    self.reset()
                    return
                if left is not None:
                    self.cut_after[direction] = left - len(data)
                self._write(writer, data, direction)
                await writer.drain()
        if direction in self.swallowing:
            return  # a peer that vanishes sends nothing to the other side
        writer.close()

    def _write(self, writer: asyncio.StreamWriter, data: bytes, direction: str) -> None:
        if self._observer is not None and direction == TO_CLIENT:
            self._observer.to_client(data)
        writer.write(data)
