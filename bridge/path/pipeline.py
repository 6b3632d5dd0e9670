"""The one thread of the data path: receive, map, commit, acknowledge, send, read receipts.

A turn does each step once, for all receipts that have arrived since the last turn and for the messages of one slice
(``arrivals.py``): those that have arrived, unless their rows are too many for one commit. Messages come in through an
``Intake``; each stream's rows go out through its ``Sender``. While the outbox can take no more, because of
its bounds or because the disk fails, the intake *holds*: it leaves the broker, which keeps the session, and returns
when there is room.

Other threads pass requests only through the ``Inbox``, and read only values that are replaced as a whole.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from bridge.books import Snapshot, Traffic
from bridge.errors import OutboxUnavailable
from bridge.links.link import Link
from bridge.log import get_logger
from bridge.mapping import Mapper
from bridge.message import DeadLetter, MqttMessage, OutboxRecord, Row, SessionChanges
from bridge.outbox import Commit, Outbox, Policy
from bridge.parts import PartStatus
from bridge.path.arrivals import MapOne, Slice
from bridge.path.canary_tracker import CanaryTracker
from bridge.path.inbox import Change, Inbox
from bridge.path.intake import Intake
from bridge.path.intakes import Intakes
from bridge.path.outbox_upkeep import OutboxUpkeep
from bridge.path.sender import Sender
from bridge.path.sockets import Sockets
from bridge.timing import Deadline

IDLE_TURN = 0.5
"""Seconds that a turn waits at most: pings, timeouts and the heartbeat need one this often."""

RELEASE_WITHIN = 0.05
"""Seconds. Releases join the next batch's commit, or get a commit of their own after this."""

COUNT_EVERY = 1.0
"""Seconds between counts of the rows that each route has made."""

log = get_logger(__name__)


class Batch(NamedTuple):
    """What the messages of one slice became."""

    messages: Sequence[MqttMessage] = ()
    rows: Sequence[Row] = ()
    dead_letters: Sequence[DeadLetter] = ()
    filtered: int = 0
    """Elements of messages that no route takes."""
    unchanged: int = 0
    """Rows held back because their values haven't changed."""


class Pipeline:
    """Runs the data path.

    Args:
        mapper: maps messages to rows or dead letters.
        outbox: open; the caller closes it after ``run`` has returned.
        intakes: where messages come from.
        senders: by GDN stream.
        make_sender: for a stream that a reload adds; called in the pipeline thread, which alone may use the outbox.
            Raises OutboxUnavailable: try again later.
        inbox: requests of other threads.
        sockets: what to wait on; closed at the end of ``run``.
        policy: what happens to new messages while the outbox is full.
        linger: seconds that a turn waits for further messages once one has come; 0: none.
        asks_for_births: whether to request births that are unknown from Sparkplug nodes.
        may_send: whether the worker reads what is sent. While it doesn't, records wait although the links are up.
        clock: monotonic seconds.
        wall_clock: nanoseconds since the epoch.
    """

    def __init__(
        self,
        *,
        mapper: Mapper,
        outbox: Outbox,
        intakes: Intakes,
        senders: Mapping[str, Sender],
        make_sender: Callable[[str], Sender],
        inbox: Inbox,
        sockets: Sockets,
        policy: Policy = "hold",
        linger: float = 0.0,
        asks_for_births: bool = True,
        may_send: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.senders = senders
        self._mapper = mapper
        self._outbox = outbox
        self._intakes = intakes
        self._make_sender = make_sender
        self._inbox = inbox
        self._sockets = sockets
        self._linger = linger
        self._asks_for_births = asks_for_births
        self._may_send = may_send
        self._clock = clock
        self._wall_clock = wall_clock
        self._upkeep = OutboxUpkeep(outbox, intakes, policy)
        self._canary = CanaryTracker()
        self._births: dict[str, str] = {}  # of Sparkplug nodes, by key; not stored yet
        self._refuses_births = False
        self._commit_due: float | None = None  # monotonic seconds; None: no commit is due without a batch
        self._earlier_rows: Counter[tuple[str, str]] = Counter()  # made by mappers that were replaced
        self._earlier_unanswerable: Counter[tuple[str, str]] = Counter()
        # As of the last count:
        self._route_rows: Mapping[tuple[str, str], int] = intakes.rows_made()
        self._route_unanswerable: Mapping[tuple[str, str], int] = intakes.unanswerable()
        self._route_notes = intakes.route_notes()
        self._count_at = 0.0
        self.heartbeat = clock()  # monotonic seconds of the last turn
        self.snapshot = Snapshot(outbox.books())

    @property
    def mapper(self) -> Mapper:
        """The current mapper. Any thread."""
        return self._mapper

    @property
    def intakes(self) -> Intakes:
        """Any thread reads their diallers and statuses."""
        return self._intakes

    @property
    def filters(self) -> Sequence[str]:
        """The topic filters of the current routes. Any thread."""
        return self._mapper.filters

    @property
    def outbox_status(self) -> PartStatus:
        """Whether the outbox works. Any thread."""
        return self._upkeep.status

    def run(self) -> None:
        """The thread's body: turns until a stop is requested, then an orderly end."""
        try:
            while (deadline := self._inbox.stop) is None:
                self.turn()
            self._finish(deadline)
        finally:
            self._sockets.close()

    def turn(self) -> None:
        """Do each step once, for everything that has arrived."""
        ready = self._wait(self._next_due())
        now = self.heartbeat = self._clock()
        self._take_changes(now)  # first: messages read in this turn are mapped by the new routes
        self._adopt_links()
        self._read_receipts(ready, now)  # before the commit, which releases their records
        self._canary.publish(self._inbox.canaries(), self._intakes.publish, now)
        for intake in self._intakes.active:
            self._take_in(intake, ready, now)
        self._send(now)
        self._tick(now)
        self._upkeep.save_notes(self._inbox, now)
        self._upkeep.enforce_bounds(self.senders, now)
        self._offer(self._upkeep.purge_and_replay(self._mapper, self.senders, now))
        if now >= self._count_at:
            self._count_at = now + COUNT_EVERY
            self._count_routes()
        self.snapshot = self._snapshot()

    # --- the steps of a turn ------------------------------------------------------------------------------

    def _take_in(self, intake: Intake, ready: set[Link], now: float) -> None:
        """Read, map, commit and acknowledge messages of one intake."""
        intake.receive(self._wall_clock(), now, is_readable=intake.link in ready)
        batch = self._map_slice(intake)
        self._follow_sparkplug(now)
        due = now >= self._commit_at()
        changes = intake.to_store(batch.messages, due=due, now=now)
        # PUBACKs only after the commit (docs/reliability.md, P1).
        if self._store(batch, now, due=due, changes=changes):
            intake.ack(intake.committed(changes))

    def _next_due(self) -> float:
        """Monotonic seconds at which the next step is due even if nothing arrives."""
        if self._intakes.is_waiting:
            return -math.inf
        retry_at = self._upkeep.retry_at
        due = [self._upkeep.due_at, self._commit_at()]
        if self._may_send():
            sends = [sender.may_send_at() for sender in self.senders.values()]
            due += [max(at, retry_at) for at in sends if at is not None]
        return min(due)

    def _wait(self, until: float) -> set[Link]:
        """The links with something to read; returns at ``until`` (monotonic seconds) or after ``IDLE_TURN``."""
        owners: list[Intake | Sender] = [*self._intakes.active, *self.senders.values()]
        timeout = min(max(0.0, until - self._clock()), IDLE_TURN)
        ready = self._sockets.wait([owner.link for owner in owners if owner.link is not None], timeout)
        if self._linger and ready and not self._intakes.is_waiting:  # larger batches, so fewer syncs
            time.sleep(self._linger)
        return ready

    def _take_changes(self, now: float) -> None:
        if now < self._upkeep.retry_at:  # a new sender reads the outbox
            return
        for change in self._inbox.changes():
            if not self._take(change, now):
                self._inbox.put_back_change(change)
                return

    def _take(self, change: Change, now: float) -> bool:
        try:
            added = {name: self._make_sender(name) for name in change.streams if name not in self.senders}
            intakes = self._intakes.prepare(change.streams)
        except OutboxUnavailable as exc:
            self._upkeep.failed(exc, now)
            return False
        # A stream that no route feeds any more keeps its sender: its records still have to be sent.
        self.senders = {**self.senders, **added}
        self._earlier_rows.update(self._intakes.rows_made())
        self._earlier_unanswerable.update(self._intakes.unanswerable())
        self._mapper = change.mapper
        self._intakes.use(change.mapper, change.streams, intakes)
        self._outbox.divide(change.shares)
        change.done()
        return True

    def _adopt_links(self) -> None:
        for name, link in self._inbox.mqtt_links():
            self._intakes.adopt(name, link)
        for stream, producer in self._inbox.producer_links():
            # The stream has a sender, because its dialler belongs to one and senders are never removed.
            self.senders[stream].adopt(producer)

    def _read_receipts(self, ready: set[Link], now: float) -> None:
        for sender in self.senders.values():
            if sender.link not in ready:
                continue
            receipted = sender.read_receipts(now, self._wall_clock())
            if self._canary.is_awaiting:
                self._canary.receipted(receipted, now)
            # Releases can wait for the next batch; the removal of sequence numbers can't.
            if sender.delivery.needs_commit_now:
                self._commit_due = now
            elif sender.delivery.wants_commit and self._commit_due is None:
                self._commit_due = now + RELEASE_WITHIN

    def _map_slice(self, intake: Intake) -> Batch:
        if not intake.is_waiting:
            return Batch()
        mapper = self._intakes.mapper_of(intake)
        map_one: MapOne[MqttMessage] = mapper.map if intake.stream is None else mapper.map_own
        if self._canary.is_expecting:
            map_one = partial(self._map_expecting_canary, map_one)
        used = Slice(self._clock)
        next_id = self._outbox.next_id  # the record id that the commit will give the slice's first row
        messages = intake.map_slice(lambda chosen: used.fill(chosen, map_one, next_id), mapper.lanes)
        return Batch(messages, used.rows, used.dead_letters, used.filtered, used.unchanged)

    def _map_expecting_canary(
        self, map_one: MapOne[MqttMessage], message: MqttMessage, next_id: int
    ) -> list[Row] | DeadLetter | None:
        mapped = map_one(message, next_id)
        if mapped is not None:
            self._canary.see(message, mapped, next_id, self._clock())
        return mapped

    def _follow_sparkplug(self, now: float) -> None:
        """Store what births declared, before their messages are acknowledged, and request births that are unknown.

        A birth that can't be stored before the process ends is requested again after a restart.
        """
        sparkplug = self._mapper.sparkplug
        if sparkplug is None:
            return
        if sparkplug.is_full and not self._refuses_births:
            log.warning(
                "sparkplug.full",
                bytes=sparkplug.bytes,
                hint="births of further edge nodes are not remembered: their data that needs them becomes dead letters "
                "(unknown_alias), and no rebirth is requested; raise mqtt.sparkplug_bytes",
            )
        self._refuses_births = sparkplug.is_full
        self._births |= sparkplug.changes()
        if self._births and now >= self._upkeep.retry_at and self._upkeep.save_values(self._births, now):
            self._births = {}
        publish = self._intakes.publish if self._asks_for_births else None
        if publish is not None:
            for topic, payload in sparkplug.rebirths(now, self._wall_clock() // 10**6):
                log.info("sparkplug.rebirth_requested", topic=topic)
                publish(topic, payload)

    def _commit_at(self) -> float:
        """Monotonic seconds at which a commit is due even without a batch."""
        at = self._intakes.commit_at if self._commit_due is None else min(self._commit_due, self._intakes.commit_at)
        # Not before the outbox is used again: turns with nothing to do would follow each other without a wait.
        return max(at, self._upkeep.retry_at)

    def _store(self, batch: Batch, now: float, *, due: bool, changes: SessionChanges) -> bool:
        """Commit the batch together with the outcomes that GDN's answers brought.

        Args:
            batch: of this turn.
            now: monotonic seconds.
            due: whether a commit is due even without a batch.
            changes: recognise the batch's messages when they are redelivered.

        Returns:
            False: nothing is durable, so nothing may be acknowledged.
        """
        if not batch.messages and not due and changes.is_empty:
            return True
        outcomes = [(sender.delivery, sender.delivery.outcomes()) for sender in self.senders.values()]
        rejects = self._upkeep.rejected_streams(batch.rows, self.senders)
        try:
            records = self._outbox.commit(
                Commit(
                    rows=batch.rows,
                    dead_letters=batch.dead_letters,
                    released=[record_id for _, outcome in outcomes for record_id in outcome.released],
                    refused=[record for _, outcome in outcomes for record in outcome.refused],
                    unnumbered=[record_id for _, outcome in outcomes for record_id in outcome.unnumbered],
                    rejects=rejects,
                    filtered=batch.filtered,
                    unchanged=batch.unchanged,
                    seen=changes.seen,
                    qos_2=changes.qos_2,
                    session=changes.session,
                )
            )
        except OutboxUnavailable as exc:
            self._intakes.rolled_back()
            self._upkeep.failed(exc, now)
            # Without messages nothing waits for a PUBACK: a later turn repeats the commit.
            if batch.messages or not changes.is_empty:
                self._give_up_batch(str(exc))
            return False
        self._intakes.committed(rejects)
        self._canary.stored(records)
        self._upkeep.works()
        self._commit_due = None
        self._report(batch.dead_letters)
        # Only now: outcomes whose commit failed are part of the next one.
        for delivery, outcome in outcomes:
            delivery.confirm(outcome)
        self._offer(records)
        return True

    def _give_up_batch(self, error: str) -> None:
        """Leave the broker: unacknowledged messages come again only on a new connection (MQTT 5, 4.4)."""
        self._canary.not_stored(error)
        self._intakes.hold("the outbox can't be written: nothing is acknowledged until it can")

    def _offer(self, records: list[OutboxRecord]) -> None:
        if not records:
            return
        if len(self.senders) == 1:  # the usual case, without a pass over the records
            (sender,) = self.senders.values()
            sender.delivery.offer(records)
            return
        for stream, sender in self.senders.items():
            if of_stream := [record for record in records if record.stream == stream]:
                sender.delivery.offer(of_stream)

    def _report(self, dead_letters: Sequence[DeadLetter]) -> None:
        """One line for each reason in a batch: a device that sends only bad messages must not flood the log (P5)."""
        for reason, count in Counter([letter.reason for letter in dead_letters]).items():
            first = next(letter for letter in dead_letters if letter.reason == reason)
            log.warning("message.dead_lettered", reason=reason, count=count, topic=first.topic, detail=first.detail)

    def _send(self, now: float) -> None:
        # Sending needs the outbox: to read records, to store sequence numbers, and to release what is receipted.
        if now < self._upkeep.retry_at or not self._may_send():
            return
        for sender in self.senders.values():
            try:
                sender.send(self._outbox, now)
            except OutboxUnavailable as exc:
                self._upkeep.failed(exc, now)
            if self._commit_due is None and sender.delivery.wants_commit:  # it has read outdated rows
                self._commit_due = now

    def _tick(self, now: float) -> None:
        for sender in self.senders.values():
            sender.tick(now)
        try:
            self._intakes.tick(now)
        except OutboxUnavailable as exc:
            self._upkeep.failed(exc, now)

    # --- what others read ---------------------------------------------------------------------------------

    def _count_routes(self) -> None:
        self._route_rows = _total(self._earlier_rows, self._intakes.rows_made())
        self._route_unanswerable = _total(self._earlier_unanswerable, self._intakes.unanswerable())
        self._route_notes = self._intakes.route_notes()

    def _snapshot(self) -> Snapshot:
        outbox, intake, senders = self._outbox, self._intakes.figures, self.senders
        owners: list[Intake | Sender] = [*self._intakes.active, *senders.values()]
        sparkplug = self._mapper.sparkplug
        traffic = Traffic(
            mqtt_messages=intake.messages,
            redelivered=intake.skipped,
            acked=intake.acked,
            sends=sum([sender.sends for sender in senders.values()]),
            receipts=sum([sender.receipts for sender in senders.values()]),
            reconnects={owner.dialer.name: max(0, owner.dialer.attempts - 1) for owner in owners},
            link_failures={owner.dialer.name: owner.dialer.failures for owner in owners},
            certificate_ends={owner.dialer.name: owner.certificate_ends for owner in owners},
            window_used={stream: sender.delivery.in_window for stream, sender in senders.items()},
            rate_limited={
                stream: self._may_send() and sender.is_rate_limited(self.heartbeat)
                for stream, sender in senders.items()
            },
            receipt_durations={stream: sender.durations.durations for stream, sender in senders.items()},
            route_rows=self._route_rows,
            route_unanswerable=self._route_unanswerable,
            route_notes=self._route_notes,
            sessions_lost=outbox.counter("sessions_lost"),
            sessions_kept=outbox.counter("sessions_kept"),
            broker_dropped=intake.broker_dropped,
            broker=intake.broker,
            broker_notes=intake.notes,
            sparkplug_bytes=None if sparkplug is None else sparkplug.bytes,
            sparkplug_refused=None if sparkplug is None else sparkplug.refused,
        )
        return Snapshot(outbox.books(), traffic, self._upkeep.figures)

    # --- the end ------------------------------------------------------------------------------------------

    def _finish(self, deadline: Deadline) -> None:
        """Leave the broker, wait for the receipts of what was sent and release it; all other records stay on disk."""
        self._intakes.close()
        # Half of the time: the rest is for the commit and for the other threads.
        receipts = Deadline(deadline.left() / 2, clock=self._clock)
        while receipts.left() and not all(sender.has_all_receipts for sender in self.senders.values()):
            ready = self._wait(self._clock() + receipts.left())
            now = self.heartbeat = self._clock()
            self._read_receipts(ready, now)
            for sender in self.senders.values():
                sender.drop_failed()  # it brings no more receipts
        for sender in self.senders.values():
            sender.close()
        # Even if the outbox has just failed: what isn't released now is sent again after the next start.
        self._store(Batch(), self._clock(), due=True, changes=SessionChanges())
        self.snapshot = self._snapshot()


def _total(earlier: Counter[tuple[str, str]], current: Mapping[tuple[str, str], int]) -> Mapping[tuple[str, str], int]:
    total = Counter(earlier)
    total.update(current)  # unlike a sum of counters it keeps zeros
    return total
