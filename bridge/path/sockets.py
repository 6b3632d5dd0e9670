"""Where the pipeline thread waits: on the sockets of its links, and on a socket pair that wakes it."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence

from bridge.links.link import Link


class Sockets:
    """Waits for sockets. All methods except ``wake`` are for the pipeline thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[Link, int] = {}  # the events waited for, by link
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)

    def wake(self) -> None:
        """Make ``wait`` return. Any thread."""
        # If its buffer is full, a wake-up is pending already; if it is closed, the pipeline has ended.
        try:
            self._wake_writer.send(b"\0")
        except OSError:
            return

    def wait(self, links: Sequence[Link], timeout: float) -> set[Link]:
        """Flush links that can be written to; returns those with something to read. ``timeout``: seconds at most."""
        self._watch(links)
        # The selector doesn't see bytes that TLS has already decrypted, so with those the select doesn't wait.
        ready = {link for link in links if link.has_buffered}
        for key, events in self._selector.select(0 if ready else timeout):
            link = key.data
            if link is None:
                self._wake_reader.recv(4096)
                continue
            if events & selectors.EVENT_WRITE:
                link.flush()
            if events & selectors.EVENT_READ:
                ready.add(link)
        return ready

    def _watch(self, links: Sequence[Link]) -> None:
        # Dropped links first: their sockets are closed, and a new link's may have the same file descriptor.
        for link in [link for link in self._watched if link not in links]:
            self._selector.unregister(link.sock)
            del self._watched[link]
        for link in links:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
            watched = self._watched.get(link)
            if watched is None:
                self._selector.register(link.sock, events, link)
            elif watched != events:
                self._selector.modify(link.sock, events, link)
            self._watched[link] = events

    def close(self) -> None:
        """Close the sockets; ``wake`` does nothing afterwards."""
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
