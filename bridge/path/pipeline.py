"""The data path's one thread: receive, map, store, ack, send, settle; each step once for all that has gathered.

Messages come in by the ``Intake`` and rows go out by a ``Sender`` for each stream. When the outbox can take no more, by
its bounds or because the disk doesn't, the pipeline *holds*: it leaves the broker, which keeps the session, and comes
back when there is room.

Links come from the dialling threads through a queue; everything else here belongs to this thread alone. What others
may read (``snapshot``, ``heartbeat``) is swapped whole.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from bridge.books import Snapshot, Traffic
from bridge.errors import OutboxUnavailable
from bridge.gdn.producer import ProducerLink
from bridge.links.link import Link
from bridge.log import get_logger
from bridge.mapping import Mapper
from bridge.message import DeadLetter, MqttMessage, OutboxRecord, Row, SeenMessages
from bridge.mqtt.link import MqttLink
from bridge.outbox import Outbox, Policy
from bridge.path.canary_tracker import CanaryMessage, CanaryTracker
from bridge.path.intake import Intake
from bridge.path.outbox_upkeep import OutboxUpkeep
from bridge.path.sender import Sender
from bridge.path.sockets import Sockets
from bridge.timing import Deadline

IDLE_TURN = 0.5
"""Seconds. Even with nothing to do a turn comes round: pings, timeouts, heartbeat."""

RELEASE_WITHIN = 0.05
"""Seconds. Releases ride along with the next batch's commit, or get one of their own after this."""

COUNT_EVERY = 1.0
"""Seconds between looks at how many rows each route has made."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What the data path goes on with, after settings were loaded again."""

    mapping: Mapper
    senders: Callable[[], Mapping[str, Sender]]
    """All senders from then on; called in the pipeline's thread, which alone may ask the outbox.

    Raises OutboxUnavailable: try again later.
    """
    done: Callable[[], object]
    """Called once messages are mapped by it."""


class Pipeline:
    """Runs the data path.

    Args:
        mapping: messages to rows or dead letters.
        outbox: open; closed by whoever opened it, after ``run`` has returned.
        intake: where messages come from.
        senders: by GDN stream.
        policy: what happens to new messages while the outbox is full.
        linger: seconds to let a batch gather at the start of a turn; 0 doesn't wait.
        asks_for_births: whether Sparkplug nodes are asked for their births where those are unknown.
        may_send: whether the worker takes what is sent; while it doesn't, records wait though the links stand.
    """

    def __init__(
        self,
        *,
        mapping: Mapper,
        outbox: Outbox,
        intake: Intake,
        senders: Mapping[str, Sender],
        policy: Policy = "hold",
        linger: float = 0.0,
        asks_for_births: bool = True,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        self._mapping = mapping
        self._outbox = outbox
        self._intake = intake
        self._senders = senders
        self._linger = linger
        self._may_send = may_send
        self._upkeep = OutboxUpkeep(outbox, intake, policy)
        self._asks_for_births = asks_for_births
        self._births: dict[str, str] = {}  # of Sparkplug nodes, to be remembered
        self._handed_over: SimpleQueue[tuple[str | None, MqttLink | ProducerLink]] = SimpleQueue()
        self._changes: SimpleQueue[Change] = SimpleQueue()
        self._sockets = Sockets()
        self._stop: Deadline | None = None
        self._release_due: float | None = None
        self._route_rows: Counter[tuple[str, str]] = Counter()  # by mappings that were replaced
        self._rows_told: Mapping[tuple[str, str], int] = mapping.rows_made()  # as of the last count
        self._count_at = 0.0
        self._tower = CanaryTracker()
        self.heartbeat = time.monotonic()  # monotonic seconds of the last turn; read by any thread
        self.snapshot = Snapshot(outbox.books())  # swapped whole, read by any thread

    # --- other threads ------------------------------------------------------------------------------------

    def hand_over_mqtt(self, link: MqttLink) -> None:
        """A freshly dialled connection to the broker. Any thread."""
        self._handed_over.put((None, link))
        self._sockets.wake()

    def hand_over_producer(self, stream: str, link: ProducerLink) -> None:
        """A freshly dialled producer. Any thread."""
        self._handed_over.put((stream, link))
        self._sockets.wake()

    def remember(self, key: str, value: str) -> threading.Event:
        """Have the outbox keep a text; the event is set once it is durable. Any thread."""
        done = self._upkeep.remember(key, value)
        self._sockets.wake()
        return done

    def launch(self, flight: CanaryMessage) -> None:
        """Publish a message of the canary and follow it. Any thread."""
        self._tower.launch(flight)
        self._sockets.wake()

    def change(self, change: Change) -> None:
        """Go on with another mapping, over the same link to the broker. Any thread."""
        self._changes.put(change)
        self._sockets.wake()

    def request_stop(self, deadline: Deadline) -> None:
        """Stop: read no more, wait for receipts until the deadline, and return from ``run``. Any thread."""
        self._stop = deadline
        self._sockets.wake()

    # --- the pipeline's thread ----------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's body: turns until asked to stop, then the orderly end."""
        try:
            while self._stop is None:
                self._turn()
            self._finish(self._stop)
        finally:
            self._sockets.close()

    def _turn(self) -> None:
        ready = self._wait()
        now = self.heartbeat = time.monotonic()
        self._take_changes(now)
        self._adopt()
        self._settle(ready, now)
        arrived, fresh = self._intake.sift(self._receive(ready), now)
        rows, dead_letters, filtered = self._map(fresh)
        self._follow_sparkplug(now)
        self._tower.depart(self._intake.publish, now)
        due = self._release_due is not None and now >= max(self._release_due, self._upkeep.retry_at)
        kept = self._intake.to_keep(arrived, fresh, due=due)
        if self._store(rows, dead_letters, now, filtered=filtered, due=due, kept=kept):
            self._ack(self._intake.committed(kept, arrived))
        self._send(now)
        self._tick(now)
        self._upkeep.keep_texts(now)
        self._upkeep.keep_bounds(self._senders, now)
        self._offer(self._upkeep.keep_letters(self._mapping, self._senders, now))
        if now >= self._count_at:
            self._count_at = now + COUNT_EVERY
            self._rows_told = self._rows_made()
        self.snapshot = self._snapshot()

    def _snapshot(self) -> Snapshot:
        outbox, intake, senders = self._outbox, self._intake, self._senders
        ends: list[Intake | Sender] = [intake, *senders.values()]
        traffic = Traffic(
            mqtt_messages=intake.messages,
            repetitions=intake.skipped,
            acked=intake.acked,
            sends=sum([sender.sends for sender in senders.values()]),
            receipts=sum([sender.receipts for sender in senders.values()]),
            reconnects={end.dialer.name: max(0, end.dialer.attempts - 1) for end in ends},
            link_failures={end.dialer.name: end.dialer.failures for end in ends},
            certificate_ends={end.dialer.name: end.certificate_ends for end in ends},
            window_used={stream: sender.delivery.in_window for stream, sender in senders.items()},
            receipt_durations={stream: sender.durations.durations for stream, sender in senders.items()},
            route_rows=self._rows_told,
            sessions_lost=outbox.counter("sessions_lost"),
            broker_dropped=intake.broker_dropped,
        )
        return Snapshot(outbox.books(), traffic, self._upkeep.store)

    def _wait(self) -> set[Link]:
        """The links with something to read."""
        now, upkeep = time.monotonic(), self._upkeep
        due = [now + IDLE_TURN, upkeep.due_at]
        if self._release_due is not None:
            due.append(max(self._release_due, upkeep.retry_at))
        if self._may_send():
            sends = [sender.may_send_at() for sender in self._senders.values()]
            due += [max(at, upkeep.retry_at) for at in sends if at is not None]
        ends: list[Intake | Sender] = [self._intake, *self._senders.values()]
        ready = self._sockets.wait([end.link for end in ends if end.link is not None], max(0.0, min(due) - now))
        if self._linger and ready:
            time.sleep(self._linger)
        return ready

    def _take_changes(self, now: float) -> None:
        while now >= self._upkeep.retry_at:
            try:
                change = self._changes.get_nowait()
            except Empty:
                return
            try:
                self._senders = change.senders()
            except OutboxUnavailable as exc:
                self._upkeep.failed(exc, now)
                self._changes.put(change)
                return
            self._route_rows.update(self._mapping.rows_made())
            # Before the new subscriptions: what they bring must find its routes.
            self._mapping = change.mapping
            self._intake.want(change.mapping.filters)
            change.done()

    def _adopt(self) -> None:
        """Take over the links that the dialling threads made."""
        while True:
            try:
                stream, link = self._handed_over.get_nowait()
            except Empty:
                return
            if isinstance(link, MqttLink):
                self._intake.adopt(link, self._mapping.filters)
            elif stream is not None:
                self._senders[stream].adopt(link)

    def _settle(self, ready: set[Link], now: float) -> None:
        for sender in self._senders.values():
            if sender.link not in ready:
                continue
            receipted = sender.settle(now, time.time_ns())
            if self._tower.is_awaiting:
                self._tower.receipted(receipted, now)
            delivery = sender.delivery
            if delivery.unnumbered:
                self._release_due = now  # at once: after a crash these numbers must not be used again
            elif self._release_due is None and (delivery.released or delivery.refused):
                self._release_due = now + RELEASE_WITHIN

    def _receive(self, ready: set[Link]) -> list[MqttMessage]:
        return self._intake.read(time.time_ns()) if self._intake.link in ready else []

    def _map(self, messages: list[MqttMessage]) -> tuple[list[Row], list[DeadLetter], int]:
        """Rows, dead letters, and how many messages no route wants."""
        rows: list[Row] = []
        dead_letters: list[DeadLetter] = []
        filtered = 0
        looks_out = self._tower.is_looking_out
        for message in messages:
            mapped = self._mapping.map(message, self._outbox.next_id + len(rows))
            if looks_out:
                self._tower.see(message, mapped, self._outbox.next_id + len(rows), time.monotonic())
            if isinstance(mapped, DeadLetter):
                dead_letters.append(mapped)
            elif mapped:
                rows.extend(mapped)
            else:
                filtered += 1
        return rows, dead_letters, filtered

    def _follow_sparkplug(self, now: float) -> None:
        """Keep what births declared, before their messages are acknowledged; ask nodes again whose births are unknown.

        What can't be kept is asked for again after a restart.
        """
        sparkplug = self._mapping.sparkplug
        if sparkplug is None:
            return
        self._births |= sparkplug.changes()
        if self._births and now >= self._upkeep.retry_at:
            try:
                self._outbox.remember(**self._births)
                self._births = {}
            except OutboxUnavailable as exc:
                self._upkeep.failed(exc, now)
        publish = self._intake.publish if self._asks_for_births else None
        if publish is not None:
            for topic, payload in sparkplug.rebirths(now, time.time_ns() // 10**6):
                log.info("sparkplug.rebirth_requested", topic=topic)
                publish(topic, payload)

    def _store(
        self,
        rows: list[Row],
        dead_letters: list[DeadLetter],
        now: float,
        *,
        filtered: int = 0,
        due: bool,
        kept: SeenMessages | None,
    ) -> bool:
        """Commit the batch with the releases that are due. False: nothing is durable, so nothing may be acked."""
        if not (rows or dead_letters or filtered or due or kept):
            return True
        deliveries = [sender.delivery for sender in self._senders.values()]
        rejected = 0
        if rows and self._upkeep.rejects:
            rejected, rows = len(rows), []
            self._tower.not_stored("the outbox is full")
        try:
            records = self._outbox.commit(
                rows=rows,
                dead_letters=dead_letters,
                released=[record_id for d in deliveries for record_id in d.released],
                refused=[refused for d in deliveries for refused in d.refused],
                unnumbered=[record_id for d in deliveries for record_id in d.unnumbered],
                rejected=rejected,
                filtered=filtered,
                handed_over=kept,
            )
        except OutboxUnavailable as exc:
            # Unacknowledged messages come again only on a new connection (MQTT 5, 4.4): drop this one.
            self._upkeep.failed(exc, now)
            if rows or dead_letters or rejected or filtered or kept:
                if rows:
                    self._tower.not_stored(str(exc))
                self._intake.hold("the outbox can't store: nothing is acknowledged until it can")
            return False
        self._tower.stored()
        self._upkeep.works()
        self._release_due = None
        self._report_dead_letters(dead_letters)
        for delivery in deliveries:
            delivery.forget_released()
        self._offer(records)
        return True

    def _offer(self, records: list[OutboxRecord]) -> None:
        if not records:
            return
        if len(self._senders) == 1:
            (sender,) = self._senders.values()
            sender.delivery.offer(records)
            return
        for stream, sender in self._senders.items():
            if mine := [record for record in records if record.stream == stream]:
                sender.delivery.offer(mine)

    def _report_dead_letters(self, dead_letters: list[DeadLetter]) -> None:
        """One line for each reason in a batch: a device that sends only rubbish must not drown the log (P5)."""
        for reason, count in Counter([letter.reason for letter in dead_letters]).items():
            first = next(letter for letter in dead_letters if letter.reason == reason)
            log.warning("message.dead_lettered", reason=reason, count=count, topic=first.topic, detail=first.detail)

    def _ack(self, messages: list[MqttMessage]) -> None:
        self._intake.ack(messages)
        if self._release_due is None and self._intake.wants_commit:
            self._release_due = time.monotonic() + RELEASE_WITHIN

    def _send(self, now: float) -> None:
        if now < self._upkeep.retry_at:
            return  # records are read and numbered in the store, and what is receipted must be let go in it
        if not self._may_send():
            return
        for sender in self._senders.values():
            try:
                sender.send(self._outbox, now)
            except OutboxUnavailable as exc:
                self._upkeep.failed(exc, now)

    def _tick(self, now: float) -> None:
        for sender in self._senders.values():
            sender.tick(now)
        try:
            self._intake.tick(now)
        except OutboxUnavailable as exc:
            self._upkeep.failed(exc, now)

    def _rows_made(self) -> Mapping[tuple[str, str], int]:
        made = Counter(self._route_rows)
        made.update(self._mapping.rows_made())  # unlike a sum of counters it keeps those that made none
        return made

    def _finish(self, deadline: Deadline) -> None:
        """Say goodbye to the broker, let what is in the windows be receipted, release it; the rest is on disk."""
        self._intake.close()
        half = deadline.left() / 2  # the other half is for the commit and for the other threads
        patience = Deadline(half)
        while patience.left() and not all(sender.is_settled for sender in self._senders.values()):
            ready = self._wait()
            now = self.heartbeat = time.monotonic()
            self._settle(ready, now)
            for sender in self._senders.values():
                sender.check()
        for sender in self._senders.values():
            sender.close()
        self._release_due = self._upkeep.retry_at = 0.0
        self._store([], [], time.monotonic(), due=True, kept=None)
        self.snapshot = self._snapshot()
