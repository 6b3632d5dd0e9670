"""Requests of other threads to the pipeline: queues that the pipeline thread empties each turn.

There is no other way to reach it. A method that queues something wakes the pipeline thread; any thread may call it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from bridge.gdn.producer import ProducerLink
from bridge.mapping import Mapper
from bridge.mqtt.link import MqttLink
from bridge.path.canary_tracker import CanaryMessage
from bridge.timing import Deadline

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """What the pipeline uses after a reload."""

    mapper: Mapper
    streams: tuple[str, ...]
    """GDN streams that its routes feed."""
    shares: Mapping[str, float]
    """Of the outbox, by stream: see ``Bounds.shares``."""
    done: Callable[[], object]
    """Called in the pipeline thread once messages are mapped by ``mapper`` and every stream has a sender."""


@dataclass(frozen=True, slots=True)
class Note:
    """A value for the outbox to save."""

    key: str
    value: str
    is_durable: threading.Event = field(default_factory=threading.Event)
    """Set once it is saved."""


class Inbox:
    """Queues into the pipeline.

    Args:
        wake: wakes the pipeline thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        # Single operations of a deque are thread-safe.
        self._mqtt_links: deque[tuple[str, MqttLink]] = deque()
        self._producer_links: deque[tuple[str, ProducerLink]] = deque()
        self._canaries: deque[CanaryMessage] = deque()
        self._changes: deque[Change] = deque()
        self._notes: deque[Note] = deque()
        self._stop: Deadline | None = None

    # --- any thread ---------------------------------------------------------------------------------------

    def hand_over_mqtt(self, intake: str, link: MqttLink) -> None:
        """Receive from this connection from now on, by the intake of this name."""
        self._mqtt_links.append((intake, link))
        self._wake()

    def hand_over_producer(self, stream: str, link: ProducerLink) -> None:
        """Send the stream's records over this connection from now on."""
        self._producer_links.append((stream, link))
        self._wake()

    def publish_canary(self, canary: CanaryMessage) -> None:
        """Publish a canary and track it."""
        self._canaries.append(canary)
        self._wake()

    def change(self, change: Change) -> None:
        """Switch to another mapper; the link to the broker stays."""
        self._changes.append(change)
        self._wake()

    def remember(self, key: str, value: str) -> threading.Event:
        """Have the outbox save a text; the event is set once it is durable."""
        note = Note(key, value)
        self._notes.append(note)
        self._wake()
        return note.is_durable

    def request_stop(self, deadline: Deadline) -> None:
        """Stop: read no more, wait for receipts until the deadline, then end."""
        self._stop = deadline
        self._wake()

    # --- the pipeline thread ------------------------------------------------------------------------------

    @property
    def stop(self) -> Deadline | None:
        """The deadline of the stop; None while none is requested."""
        return self._stop

    def mqtt_links(self) -> Iterator[tuple[str, MqttLink]]:
        """The connections to the broker handed over since the last call, each with the name of its intake."""
        return _drained(self._mqtt_links)

    def producer_links(self) -> Iterator[tuple[str, ProducerLink]]:
        """The producers handed over since the last call, each with its stream."""
        return _drained(self._producer_links)

    def canaries(self) -> Iterator[CanaryMessage]:
        """The canaries to publish."""
        return _drained(self._canaries)

    def changes(self) -> Iterator[Change]:
        """The changes to make, oldest first."""
        return _drained(self._changes)

    def notes(self) -> Iterator[Note]:
        """The values to save, oldest first."""
        return _drained(self._notes)

    def put_back_change(self, change: Change) -> None:
        """Queue a change again that can't be made now, before later ones."""
        self._changes.appendleft(change)

    def put_back_note(self, note: Note) -> None:
        """Queue a value again that can't be saved now, before later ones, which may have the same key."""
        self._notes.appendleft(note)


def _drained(queue: deque[T]) -> Iterator[T]:
    while queue:  # only this thread takes anything out
        yield queue.popleft()
