"""What the pipeline does with the outbox besides commits: bounds, purging, replaying, saved values.

It also tracks whether the outbox works: after a failure the outbox isn't used until ``retry_at``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from bridge.books import OutboxStatus
from bridge.errors import OutboxUnavailable
from bridge.log import get_logger
from bridge.mapping import Mapper
from bridge.message import OutboxRecord, Row
from bridge.outbox import Outbox, Policy
from bridge.outbox.bounds import ROOM_AGAIN
from bridge.parts import PartStatus
from bridge.path.inbox import Inbox
from bridge.path.intake import Intake
from bridge.path.intakes import Intakes
from bridge.path.replay import carry_out_requests
from bridge.path.sender import Sender

CHECK_EVERY = 1.0
"""Seconds between checks of the bounds and of the dead letters, and until an outbox that failed is tried again."""

LOGGED_STREAMS = 20
"""Streams named in a line of the log."""

HELD_PART = 0.9
"""Part of its share at which a stream's own session is held. The rest is for what one read may exceed it by: else a few
such streams would fill the outbox for the others."""

RESERVE_EVERY = 60.0
"""Seconds between attempts to enlarge a reserve for which the disk had no room."""

GROWTH_SECONDS = 60.0
"""Time constant of the average growth."""

log = get_logger(__name__)


class Growth:
    """The growth rate of an amount: an average in which the last minute counts most."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._at: float | None = None
        self._rate = 0.0

    def note(self, amount: float, now: float) -> None:
        """Add the amount at ``now``, in monotonic seconds; not earlier than the last call's."""
        if self._at is not None and now > self._at:
            seconds = now - self._at
            weight = -math.expm1(-seconds / GROWTH_SECONDS)  # exponential decay, right for uneven intervals
            self._rate += weight * ((amount - self._amount) / seconds - self._rate)
        if self._at is None or now > self._at:
            self._amount, self._at = amount, now

    def seconds_to(self, bound: float) -> float:
        """Seconds until the bound is reached at the current rate: 0 if it is reached, infinite without growth."""
        if self._amount >= bound:
            return 0.0
        return (bound - self._amount) / self._rate if self._rate > 0 else math.inf


class OutboxUpkeep:
    """Keeps the outbox within its bounds. Used by the pipeline thread.

    Args:
        outbox: open.
        intakes: hold and resume by ``policy``.
        policy: what happens to new messages while the outbox is full.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self, outbox: Outbox, intakes: Intakes, policy: Policy, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._outbox = outbox
        self._intakes = intakes
        self._policy = policy
        self._wall_clock = wall_clock
        self._growth = Growth()
        self._oldest_age = 0.0
        self._bounds_due = 0.0
        self._dead_letters_due = 0.0
        self._reserve_due = 0.0
        self._rejecting: list[str] = []  # streams, as last logged
        self._retry_at = 0.0
        self._degraded = outbox.why_degraded()
        self.status = PartStatus("outbox", "connected", wall_clock(), self._degraded, None)
        """Replaced as a whole; read by any thread."""

    @property
    def retry_at(self) -> float:
        """Monotonic seconds until which the outbox isn't used, because it failed."""
        return self._retry_at

    @property
    def due_at(self) -> float:
        """Monotonic seconds at which dead letters are next purged and replayed."""
        return max(self._dead_letters_due, self._retry_at)

    @property
    def figures(self) -> OutboxStatus:
        """How full the outbox is, and whether it works."""
        outbox = self._outbox
        return OutboxStatus(
            bytes=outbox.bytes,
            stream_bytes=outbox.stream_bytes,
            seconds_left=self._growth.seconds_to(outbox.max_bytes),
            oldest_age=self._oldest_age,
            dead_letters=outbox.dead_letter_count,
            dead_letters_purged=outbox.counter("dead_letters_purged"),
            dead_letters_replayed=outbox.counter("dead_letters_replayed"),
            dead_letters_lost=outbox.counter("dead_letters_lost"),
            holding=self._intakes.holding,
            error=self.status.error if self.status.state == "failing" else None,
        )

    def rejected_streams(self, rows: Sequence[Row], senders: Collection[str]) -> frozenset[str]:
        """The streams whose new rows are counted and dropped instead of stored (``reject_new``).

        Each stream has a share of the outbox, so that one that can't be delivered doesn't cost the others anything.
        Room that others leave isn't lent: it couldn't be taken back. The messages are still acknowledged.
        """
        if self._policy != "reject_new":
            return frozenset()
        streams = {row.stream for row in rows}
        if self._is_full:
            return frozenset(streams)
        return self._outbox.streams_at_share(streams=senders) & streams

    @property
    def _is_full(self) -> bool:
        return self._outbox.why_full(age=self._oldest_age) is not None

    def failed(self, exc: OutboxUnavailable, now: float) -> None:
        """Note that an operation of the outbox failed: it isn't used for ``CHECK_EVERY``."""
        # Once for each problem, not for each attempt.
        if self.status.error != str(exc):
            log.error("outbox.unavailable", error=str(exc))
        self.status = self.status.moved("failing", at=self._wall_clock(), error=str(exc))
        self._retry_at = now + CHECK_EVERY

    def works(self) -> None:
        """Note that an operation of the outbox succeeded."""
        if self.status.error != self._degraded:
            self.status = self.status.moved("connected", at=self._wall_clock(), error=self._degraded)

    # --- bounds -------------------------------------------------------------------------------------------

    def enforce_bounds(self, senders: Mapping[str, Sender], now: float) -> None:
        """Apply the policy: once a second, and at once when the bound of bytes is reached."""
        is_newly_full = self._is_full and not self._intakes.holding and not self._rejecting
        if self._intakes.is_per_stream and not is_newly_full:
            is_newly_full = self._is_stream_newly_full(senders)
        if now < self._bounds_due and not is_newly_full:
            return
        self._bounds_due = now + CHECK_EVERY
        self._growth.note(self._outbox.bytes, now)
        try:
            self._oldest_age = self._outbox.oldest_age()
            full = self._outbox.why_full(age=self._oldest_age)
            if full and self._policy == "drop_oldest":
                self._drop_oldest(full, senders)
            if self._intakes.holding is not None:
                # The hold ends only once the outbox can be written and has its reserve again.
                self._outbox.probe()
                self.works()
        except OutboxUnavailable as exc:
            self.failed(exc, now)
            return
        self._keep_reserve(now)
        self._hold_or_resume(full, senders)
        if self._policy == "reject_new":
            self._log_rejecting(full, senders)

    def _log_rejecting(self, full: str | None, senders: Collection[str]) -> None:
        rejecting = sorted(senders if full else self._outbox.streams_at_share(streams=senders) & set(senders))
        if rejecting and rejecting != self._rejecting:
            why = full or "they have used up their share of outbox.max_bytes (outbox.shares)"
            log.warning("outbox.rejecting", streams=rejecting[:LOGGED_STREAMS], count=len(rejecting), reason=why)
        elif self._rejecting and not rejecting:
            log.warning("outbox.accepting", reason=None)
        self._rejecting = rejecting

    def _keep_reserve(self, now: float) -> None:
        """Enlarge the reserve if it was used or the disk was too full, and report what it lacks."""
        if self._outbox.reserve_shortage and now >= self._reserve_due and self._intakes.holding is None:
            self._reserve_due = now + RESERVE_EVERY
            with suppress(OutboxUnavailable):
                self._outbox.enlarge_reserve()
        self._degraded = self._outbox.why_degraded()
        if self.status.state == "connected":
            self.works()

    def _hold_or_resume(self, full: str | None, senders: Collection[str]) -> None:
        at_share = self._streams_at_share(senders)
        without_room = self._streams_at_share(senders, part=HELD_PART * ROOM_AGAIN)
        # With the other policies only a failed commit holds, and the probe has shown that the outbox works again. With
        # a session for each stream, those that wait may use most of the outbox: that must not keep others waiting.
        is_for_all = self._policy == "hold" and not self._intakes.is_per_stream
        has_room = not is_for_all or self._outbox.has_room_again(age=self._oldest_age)
        for intake in self._intakes.active:
            if self._policy == "hold" and (full or _feeds(intake, at_share)):
                streams = ", ".join(sorted(at_share)[:LOGGED_STREAMS])
                intake.hold(full or f"streams that have used up their share (outbox.shares): {streams}")
            elif intake.holding is not None and has_room and not _feeds(intake, without_room):
                intake.resume()

    def _streams_at_share(self, senders: Collection[str], *, part: float = HELD_PART) -> frozenset[str]:
        """The streams that have used up ``part`` of their share, if each has a session that can hold for itself."""
        if not self._intakes.is_per_stream:
            return frozenset()
        return self._outbox.streams_at_share(streams=senders, part=part)

    def _is_stream_newly_full(self, senders: Collection[str]) -> bool:
        at_share = self._streams_at_share(senders)
        return bool(at_share) and any(i.holding is None and _feeds(i, at_share) for i in self._intakes.active)

    def _drop_oldest(self, full: str, senders: Mapping[str, Sender]) -> None:
        # From memory first: a record must not be sent after it was dropped from the disk.
        for sender in senders.values():
            sender.delivery.unload()
        under_way = {stream: sender.delivery.sent_to for stream, sender in senders.items()}
        dropped = self._outbox.drop(under_way=under_way)
        if dropped:
            largest = dict(sorted(dropped.items(), key=lambda item: -item[1])[:LOGGED_STREAMS])
            log.warning("outbox.dropped", count=sum(dropped.values()), streams=largest, reason=full)

    # --- dead letters -------------------------------------------------------------------------------------

    def purge_and_replay(self, mapper: Mapper, senders: Mapping[str, Sender], now: float) -> list[OutboxRecord]:
        """Purge dead letters that are too old, and purge and replay those that an operator has marked.

        Once a second, or at once while there is more to do.

        Returns:
            The records of the rows that replayed dead letters became.
        """
        if now < self.due_at:
            return []
        self._dead_letters_due = now + CHECK_EVERY
        try:
            purged = self._outbox.purge_old()
            has_room = self._intakes.holding is None and not self._is_full and not self._rejecting
            outcome = carry_out_requests(self._outbox, mapper, streams=senders, has_room=has_room)
        except OutboxUnavailable as exc:
            self.failed(exc, now)
            return []
        if purged or outcome.more:
            self.works()
            self._dead_letters_due = now
        return outcome.records

    # --- saved values -------------------------------------------------------------------------------------

    def save_notes(self, inbox: Inbox, now: float) -> None:
        """Save the values that other threads have passed to ``Inbox.remember``."""
        if now < self._retry_at:
            return
        for note in inbox.notes():
            if not self.save_values({note.key: note.value}, now):
                inbox.put_back_note(note)
                return
            note.is_durable.set()

    def save_values(self, values: Mapping[str, str], now: float) -> bool:
        """Store texts under their keys, durably; False: the outbox failed, none is stored."""
        try:
            self._outbox.save_values(**values)
        except OutboxUnavailable as exc:
            self.failed(exc, now)
            return False
        return True


def _feeds(intake: Intake, streams: Collection[str]) -> bool:
    """Whether messages of the intake may become rows of one of the streams."""
    return bool(streams) if intake.stream is None else intake.stream in streams
