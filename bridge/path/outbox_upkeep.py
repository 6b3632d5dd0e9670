"""What the outbox needs beside the way of a message: bounds kept, dead letters purged and replayed, texts remembered.

Also what is known of a store that doesn't work: until ``retry_at`` nobody asks it for anything.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue

from bridge.books import Store
from bridge.errors import OutboxUnavailable
from bridge.log import get_logger
from bridge.mapping import Mapper
from bridge.message import OutboxRecord
from bridge.outbox import Outbox, Policy
from bridge.path.intake import Intake
from bridge.path.replay import carry_out
from bridge.path.sender import Sender

LOOK_EVERY = 1.0
"""Seconds between looks at how full the store is, and before a store that failed is tried again."""

GROWTH_SECONDS = 60.0
"""How far back a growth reaches, as the time constant of its average."""


log = get_logger(__name__)


class Growth:
    """How fast an amount grows, averaged over the last minute or so."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._at: float | None = None
        self._rate = 0.0

    def note(self, amount: float, now: float) -> None:
        """The amount at a moment, in monotonic seconds; not earlier than the last."""
        if self._at is not None and now > self._at:
            seconds = now - self._at
            weight = -math.expm1(-seconds / GROWTH_SECONDS)
            self._rate += weight * ((amount - self._amount) / seconds - self._rate)
        if self._at is None or now > self._at:
            self._amount, self._at = amount, now

    def seconds_to(self, bound: float) -> float:
        """Seconds until the bound is reached at the present rate; 0 where it is, infinite where nothing grows."""
        if self._amount >= bound:
            return 0.0
        return (bound - self._amount) / self._rate if self._rate > 0 else math.inf


class OutboxUpkeep:
    """The pipeline's thread calls everything but ``remember``.

    Args:
        outbox: open.
        intake: left, and gone back to, as ``policy`` wants.
        policy: what happens to new messages while the outbox is full.
    """

    def __init__(self, outbox: Outbox, intake: Intake, policy: Policy) -> None:
        self._outbox = outbox
        self._intake = intake
        self._policy = policy
        self._to_remember: SimpleQueue[tuple[str, str, threading.Event]] = SimpleQueue()
        self._error: str | None = None
        self._growth = Growth()
        self._oldest_age = 0.0
        self._look_at = 0.0
        self._letters_at = 0.0
        self._reported_full = False
        self.retry_at = 0.0
        """Monotonic seconds; until then the store is left alone."""

    @property
    def due_at(self) -> float:
        """Monotonic seconds of the next look, whatever comes."""
        return max(self._letters_at, self.retry_at)

    @property
    def store(self) -> Store:
        """How full the outbox is, and whether it works."""
        outbox = self._outbox
        return Store(
            bytes=outbox.bytes,
            seconds_left=self._growth.seconds_to(outbox.max_bytes),
            oldest_age=self._oldest_age,
            dead_letters=outbox.dead_letters,
            dead_letters_purged=outbox.counter("dead_letters_purged"),
            dead_letters_replayed=outbox.counter("dead_letters_replayed"),
            holding=self._intake.holding,
            error=self._error,
        )

    @property
    def rejects(self) -> bool:
        """Whether new rows are to be counted and dropped."""
        return self._policy == "reject_new" and self._is_full()

    def _is_full(self) -> bool:
        return self._outbox.why_full(age=self._oldest_age) is not None

    def failed(self, exc: OutboxUnavailable, now: float) -> None:
        """The store didn't do what it was asked."""
        if self._error != str(exc):
            log.error("outbox.unavailable", error=str(exc))
        self._error = str(exc)
        self.retry_at = now + LOOK_EVERY

    def works(self) -> None:
        """The store did what it was asked."""
        self._error = None

    # --- bounds -------------------------------------------------------------------------------------------

    def keep_bounds(self, senders: Mapping[str, Sender], now: float) -> None:
        """Once a second, and whenever the bound of bytes is reached: what the policy wants."""
        if now < self._look_at and (self._intake.holding or not self._is_full()):
            return
        self._look_at = now + LOOK_EVERY
        self._growth.note(self._outbox.bytes, now)
        try:
            self._oldest_age = self._outbox.oldest_age()
            full = self._outbox.why_full(age=self._oldest_age)
            if full and self._policy == "drop_oldest":
                self._drop_oldest(full, senders)
            if self._intake.holding is not None:
                self._outbox.probe()
                self.works()
        except OutboxUnavailable as exc:
            self.failed(exc, now)
            return
        if full and self._policy == "hold":
            self._intake.hold(full)
        elif self._intake.holding is not None and (
            self._policy != "hold" or self._outbox.has_room_again(age=self._oldest_age)
        ):
            self._intake.resume()
        if self._policy == "reject_new" and (full is not None) != self._reported_full:
            self._reported_full = full is not None
            log.warning("outbox.rejecting" if full else "outbox.takes_again", reason=full)

    def _drop_oldest(self, full: str, senders: Mapping[str, Sender]) -> None:
        for sender in senders.values():
            sender.delivery.unload()
        under_way = {stream: sender.delivery.sent_to for stream, sender in senders.items()}
        dropped = self._outbox.drop(under_way=under_way)
        if dropped:
            log.warning("outbox.dropped", count=dropped, reason=full)

    # --- dead letters -------------------------------------------------------------------------------------

    def keep_letters(self, mapping: Mapper, senders: Mapping[str, Sender], now: float) -> list[OutboxRecord]:
        """Once a second, or at once while there is more: purge dead letters that are too old, or do with some what a
        person wants; the records that they became.
        """
        if now < self.due_at:
            return []
        self._letters_at = now + LOOK_EVERY
        try:
            purged = self._outbox.purge_old()
            has_room = self._intake.holding is None and not self._is_full()
            outcome = carry_out(self._outbox, mapping, streams=senders, has_room=has_room)
        except OutboxUnavailable as exc:
            self.failed(exc, now)
            return []
        if purged or outcome.more:
            self.works()
            self._letters_at = now
        return outcome.records

    # --- texts --------------------------------------------------------------------------------------------

    def remember(self, key: str, value: str) -> threading.Event:
        """Have the outbox keep a text with the next turn; the event is set once it is durable. Any thread."""
        done = threading.Event()
        self._to_remember.put((key, value, done))
        return done

    def keep_texts(self, now: float) -> None:
        """Keep what other threads asked for."""
        while now >= self.retry_at:
            try:
                key, value, done = self._to_remember.get_nowait()
            except Empty:
                return
            try:
                self._outbox.remember(**{key: value})
            except OutboxUnavailable as exc:
                self.failed(exc, now)
                self._to_remember.put((key, value, done))
                return
            done.set()
