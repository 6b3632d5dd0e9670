"""Tracks one canary message through the bridge: published, received, stored, receipted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bridge.message import DeadLetter, MqttMessage, OutboxRecord, Row, Rows


@dataclass(slots=True)
class CanaryMessage:
    """A marked message. The pipeline thread writes it, other threads read it; times are monotonic seconds."""

    topic: str
    payload: bytes
    marker: str
    published_at: float | None = None
    arrived_at: float | None = None
    """When it came back from the broker."""
    receipted_at: float | None = None
    """When GDN had receipted its rows."""
    trouble: str | None = None
    """Why it got no further, as text that follows "the canary", such as "was filtered"; None: nothing went wrong."""

    def publish(self, publish: Callable[[str, bytes], None] | None, now: float) -> bool:
        """Publish it; False: that failed. ``publish``: None while the broker isn't connected."""
        if publish is None:
            self.fail("could not be published: the broker isn't connected")
            return False
        try:
            publish(self.topic, self.payload)
        except ValueError as exc:
            self.fail(f"could not be published: {exc}")
            return False
        self.published_at = now
        return True

    def arrive(self, now: float) -> None:
        """Note that it has come back from the broker."""
        self.arrived_at = now

    def receipt(self, now: float) -> None:
        """Note that GDN has receipted its rows."""
        self.receipted_at = now

    def fail(self, trouble: str) -> None:
        """Note why it gets no further."""
        self.trouble = trouble


class CanaryTracker:
    """Tracks the latest canary. Costs nothing while none is under way. Used by the pipeline thread."""

    def __init__(self) -> None:
        self._canary: CanaryMessage | None = None
        self._mapped: frozenset[int] = frozenset()  # record ids that its rows get if they are stored
        self._awaited: set[int] = set()  # record ids of its stored rows that have no receipt

    def publish(
        self, canaries: Iterable[CanaryMessage], publish: Callable[[str, bytes], None] | None, now: float
    ) -> None:
        """Publish canaries and track the last one. ``publish``: None while the broker isn't connected."""
        for canary in canaries:
            self._mapped = frozenset()  # an earlier canary is no longer tracked
            self._awaited.clear()
            self._canary = canary if canary.publish(publish, now) else None

    @property
    def is_expecting(self) -> bool:
        """Whether a canary was published and has not come back from the broker."""
        return self._canary is not None and self._canary.arrived_at is None

    def see(self, message: MqttMessage, mapped: Sequence[Row] | DeadLetter, next_id: int, now: float) -> None:
        """Compare a message with the canary, while ``is_expecting``.

        ``next_id`` is the record id that the message's first row gets.
        """
        canary = self._canary
        if canary is None or message.topic != canary.topic or message.payload != canary.payload:
            return
        canary.arrive(now)
        if isinstance(mapped, DeadLetter):
            canary.fail(f"became a dead letter: {mapped.reason}: {mapped.detail}")
        elif not mapped and isinstance(mapped, Rows) and mapped.unchanged:
            canary.fail("was held back: its route has `every`, and no column that `change` compares has changed")
        elif not mapped:
            canary.fail("was filtered: no route's `when` was true for it")
        else:
            self._mapped = frozenset(range(next_id, next_id + len(mapped)))

    def stored(self, records: Sequence[OutboxRecord]) -> None:
        """Note that rows of the messages seen since the last commit are in the outbox, unless they were rejected."""
        if self._mapped and not self._mapped.issubset([record.id for record in records]):
            self.not_stored("the outbox is full")
        elif self._mapped:
            self._awaited, self._mapped = set(self._mapped), frozenset()

    def not_stored(self, why: str) -> None:
        """Note that the messages seen since the last commit are not in the outbox: others get their record ids."""
        if self._mapped and self._canary is not None:
            self._mapped = frozenset()
            self._canary.fail(f"was not stored: {why}")

    @property
    def is_awaiting(self) -> bool:
        """Whether rows of the canary have no receipt yet."""
        return bool(self._awaited)

    def receipted(self, record_ids: Sequence[int], now: float) -> None:
        """Note receipts, while ``is_awaiting``."""
        if self._canary is None or not self._awaited:
            return
        self._awaited.difference_update(record_ids)
        if not self._awaited:
            self._canary.receipt(now)
