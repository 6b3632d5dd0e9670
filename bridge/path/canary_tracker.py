"""One message of the canary on its way through the bridge: who sends it off, and where it was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from bridge.message import DeadLetter, MqttMessage, Row


@dataclass(slots=True)
class CanaryMessage:
    """A marked message. The pipeline's thread writes, others read; moments are monotonic seconds."""

    topic: str
    payload: bytes
    marker: str
    published_at: float | None = None
    arrived_at: float | None = None
    """When the broker had handed it to the bridge."""
    receipted_at: float | None = None
    """When GDN had receipted its rows."""
    trouble: str | None = None
    """What became of it instead, in a sentence's end."""


class CanaryTracker:
    """Follows the latest flight. Costs nothing while none is under way.

    The pipeline's thread calls everything but ``launch``.
    """

    def __init__(self) -> None:
        self._launched: SimpleQueue[CanaryMessage] = SimpleQueue()
        self._flight: CanaryMessage | None = None
        self._mapped: frozenset[int] = frozenset()  # record ids that its rows get if they are stored
        self._awaited: set[int] = set()  # record ids of its rows that are stored and have no receipt

    def launch(self, flight: CanaryMessage) -> None:
        """Have a message published with the next turn. Any thread."""
        self._launched.put(flight)

    def depart(self, publish: Callable[[str, bytes], None] | None, now: float) -> None:
        """Publish what was launched. ``publish``: None without a subscribed connection to the broker."""
        while True:
            try:
                self._flight = flight = self._launched.get_nowait()
            except Empty:
                return
            self._mapped = frozenset()
            self._awaited.clear()
            if publish is None:
                flight.trouble = "could not be published: the broker isn't connected"
                self._flight = None
                continue
            try:
                publish(flight.topic, flight.payload)
            except ValueError as exc:
                flight.trouble = f"could not be published: {exc}"
                self._flight = None
                continue
            flight.published_at = now

    @property
    def is_looking_out(self) -> bool:
        """Whether a flight was published and has not been seen."""
        return self._flight is not None and self._flight.arrived_at is None

    def see(self, message: MqttMessage, mapped: Sequence[Row] | DeadLetter, next_id: int, now: float) -> None:
        """Look at a message while ``is_looking_out``. ``next_id``: the record id that its first row gets."""
        flight = self._flight
        if flight is None or message.topic != flight.topic or message.payload != flight.payload:
            return
        flight.arrived_at = now
        if isinstance(mapped, DeadLetter):
            flight.trouble = f"became a dead letter: {mapped.reason}: {mapped.detail}"
        elif not mapped:
            flight.trouble = "was taken by no route"
        else:
            self._mapped = frozenset(range(next_id, next_id + len(mapped)))

    def stored(self) -> None:
        """What was seen lately is in the outbox."""
        if self._mapped:
            self._awaited, self._mapped = set(self._mapped), frozenset()

    def not_stored(self, why: str) -> None:
        """What was seen lately is not in the outbox: its record ids will be those of others."""
        if self._mapped and self._flight is not None:
            self._mapped = frozenset()
            self._flight.trouble = f"was not stored: {why}"

    @property
    def is_awaiting(self) -> bool:
        """Whether rows of a flight have no receipt yet."""
        return bool(self._awaited)

    def receipted(self, record_ids: Sequence[int], now: float) -> None:
        """Look at receipts while ``is_awaiting``."""
        if self._flight is None or not self._awaited:
            return
        self._awaited.difference_update(record_ids)
        if not self._awaited:
            self._flight.receipted_at = now
