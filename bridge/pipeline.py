"""The data path's one thread: receive, map, store, ack, send, settle; each step once for all that has gathered.

When the outbox can take no more, by its bounds or because the disk doesn't, the pipeline *holds*: it leaves the broker,
which keeps the session, and comes back when there is room.

A selector waits on the MQTT socket, the producers' sockets and a wake-up pipe. Links come from the dialling threads
through a queue; everything else here belongs to this thread alone. What others may read (``snapshot``,
``heartbeat``) is swapped whole.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from bridge.books import Snapshot, Store, Traffic
from bridge.deadletters import carry_out
from bridge.delivery import Delivery
from bridge.dial import Dialer
from bridge.errors import OutboxUnavailable, RemoteProtocolError
from bridge.flight import Flight, Tower
from bridge.gdn.producer import ProducerLink
from bridge.guarded import map_guarded
from bridge.log import get_logger
from bridge.mapping import Mapping
from bridge.measuring import Growth, Histogram
from bridge.message import DeadLetter, HandedOver, MqttMessage, OutboxRecord, Row
from bridge.mqtt_session import MqttSession
from bridge.mqtt_source import MqttLink
from bridge.outbox import Outbox, Policy
from bridge.timing import Deadline

IDLE_TURN = 0.5
"""Seconds. Even with nothing to do a turn comes round: pings, timeouts, heartbeat."""

RELEASE_WITHIN = 0.05
"""Seconds. Releases ride along with the next batch's commit, or get one of their own after this."""

STORE_RETRY = 1.0
"""Seconds between looks at how full the store is, and before a store that failed is tried again."""

log = get_logger(__name__)


@dataclass(slots=True)
class Sender:
    """One stream: its records, the dialler of its producer, and the link while there is one."""

    delivery: Delivery
    dialer: Dialer[ProducerLink]
    link: ProducerLink | None = None
    initial_sequence_id: int | None = None
    """For the next connection; None without deduplication. Swapped whole, read by the dialling thread."""


@dataclass(frozen=True, slots=True)
class Change:
    """What the data path goes on with, after settings were loaded again."""

    mapping: Mapping
    senders: Callable[[], MappingOf[str, Sender]]
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
        senders: by GDN stream.
        policy: what happens to new messages while the outbox is full.
        session: what outlasts a connection to the broker.
        linger: seconds to let a batch gather at the start of a turn; 0 doesn't wait.
        asks_for_births: whether Sparkplug nodes are asked for their births where those are unknown.
        may_send: whether the worker takes what is sent; while it doesn't, records wait though the links stand.
    """

    def __init__(
        self,
        *,
        mapping: Mapping,
        outbox: Outbox,
        senders: MappingOf[str, Sender],
        session: MqttSession,
        policy: Policy = "hold",
        linger: float = 0.0,
        asks_for_births: bool = True,
        may_send: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._mapping = mapping
        self._outbox = outbox
        self._senders = senders
        self._linger = linger
        self._may_send = may_send
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._policy = policy
        self.session = session
        self._repetitions = session.repetitions
        self._asks_for_births = asks_for_births
        self._births: dict[str, str] = {}  # of Sparkplug nodes, to be remembered
        self._mqtt_dialer: Dialer[MqttLink] | None = None
        self._mqtt: MqttLink | None = None
        self._mqtt_is_up = False
        self._mqtt_since = 0.0
        self._refused: list[str] = []
        self._handed_over: SimpleQueue[tuple[str | None, MqttLink | ProducerLink]] = SimpleQueue()
        self._to_remember: SimpleQueue[tuple[str, str, threading.Event]] = SimpleQueue()
        self._changes: SimpleQueue[Change] = SimpleQueue()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._stop: Deadline | None = None
        self._release_due: float | None = None
        self._store_retry_at = 0.0
        self._store_error: str | None = None
        self._holding: str | None = None
        self._look_at = 0.0
        self._letters_at = 0.0
        self._oldest_age = 0.0
        self._reported_full = False
        self._messages = self._acked = self._sends = self._receipts = 0
        self._broker_dropped: int | None = None
        self._durations = {stream: Histogram() for stream in senders}
        self._growth = Growth()
        self._certificate_ends: MappingOf[str, MappingOf[str, float]] = {}
        self._route_rows: Counter[tuple[str, str]] = Counter()  # by mappings that were replaced
        self._rows_told: MappingOf[tuple[str, str], int] = mapping.rows_made()  # as of the last second
        self._tower = Tower()
        self.heartbeat = clock()  # monotonic seconds of the last turn; read by any thread
        self.snapshot = Snapshot(outbox.books())  # swapped whole, read by any thread

    # --- other threads ------------------------------------------------------------------------------------

    def attach_mqtt(self, dialer: Dialer[MqttLink]) -> None:
        """The dialler of the broker's link; before ``run``."""
        self._mqtt_dialer = dialer

    def hand_over_mqtt(self, link: MqttLink) -> None:
        """A freshly dialled connection to the broker. Any thread."""
        self._handed_over.put((None, link))
        self._wake()

    def hand_over_producer(self, stream: str, link: ProducerLink) -> None:
        """A freshly dialled producer. Any thread."""
        self._handed_over.put((stream, link))
        self._wake()

    def remember(self, key: str, value: str) -> threading.Event:
        """Have the outbox keep a text; the event is set once it is durable. Any thread."""
        done = threading.Event()
        self._to_remember.put((key, value, done))
        self._wake()
        return done

    def launch(self, flight: Flight) -> None:
        """Publish a message of the canary and follow it. Any thread."""
        self._tower.launch(flight)
        self._wake()

    def change(self, change: Change) -> None:
        """Go on with another mapping, over the same link to the broker. Any thread."""
        self._changes.put(change)
        self._wake()

    def request_stop(self, deadline: Deadline) -> None:
        """Stop: read no more, wait for receipts until the deadline, and return from ``run``. Any thread."""
        self._stop = deadline
        self._wake()

    def _wake(self) -> None:
        # A full pipe wakes just as well; a closed one means that the thread is gone.
        try:
            self._wake_writer.send(b"\0")
        except OSError:
            return

    # --- the pipeline's thread ----------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's body: turns until asked to stop, then the orderly end."""
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        try:
            while self._stop is None:
                self._turn()
            self._finish(self._stop)
        finally:
            self._selector.close()
            self._wake_reader.close()
            self._wake_writer.close()

    def _turn(self) -> None:
        ready = self._wait()
        now = self.heartbeat = self._clock()
        self._take_changes(now)
        self._adopt(now)
        self._settle(ready, now)
        arrived, fresh = self._sift(self._receive(ready), now)
        rows, dead_letters, filtered = self._map(fresh)
        self._follow_sparkplug(now)
        self._tower.depart(self._mqtt.publish if self._mqtt is not None and self._mqtt_is_up else None, now)
        due = self._release_due is not None and now >= max(self._release_due, self._store_retry_at)
        kept = self._repetitions.to_keep(arrived, fresh, due=due) if self._repetitions else None
        if self._store(rows, dead_letters, now, filtered=filtered, due=due, kept=kept):
            self._ack(self._repetitions.committed(kept, arrived) if self._repetitions else arrived)
        self._send(now)
        self._tick(now)
        self._look_after_store(now)
        self._look_after_letters(now)
        self.snapshot = self._snapshot()

    def _snapshot(self) -> Snapshot:
        outbox = self._outbox
        traffic = Traffic(
            mqtt_messages=self._messages,
            repetitions=self._repetitions.skipped if self._repetitions else 0,
            acked=self._acked,
            sends=self._sends,
            receipts=self._receipts,
            reconnects=self._reconnects(),
            link_failures=self._link_failures(),
            certificate_ends=self._certificate_ends,
            window_used={stream: sender.delivery.in_window for stream, sender in self._senders.items()},
            receipt_durations={stream: histogram.durations for stream, histogram in self._durations.items()},
            route_rows=self._rows_told,
            sessions_lost=outbox.counter("sessions_lost"),
            broker_dropped=self._broker_dropped,
        )
        store = Store(
            bytes=outbox.bytes,
            seconds_left=self._growth.seconds_to(outbox.max_bytes),
            oldest_age=self._oldest_age,
            dead_letters=outbox.dead_letters,
            dead_letters_purged=outbox.counter("dead_letters_purged"),
            dead_letters_replayed=outbox.counter("dead_letters_replayed"),
            holding=self._holding,
            error=self._store_error,
        )
        return Snapshot(outbox.books(), traffic, store)

    def _wait(self) -> set[object]:
        """The links with something to read."""
        now = self._clock()
        timeout = min(IDLE_TURN, max(0.0, max(self._letters_at, self._store_retry_at) - now))
        if self._release_due is not None:
            timeout = min(timeout, max(0.0, max(self._release_due, self._store_retry_at) - now))
        links: list[MqttLink | ProducerLink] = [s.link for s in self._senders.values() if s.link is not None]
        if self._mqtt is not None:
            links.append(self._mqtt)
        for link in links:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
            if self._selector.get_key(link.sock).events != wanted:
                self._selector.modify(link.sock, wanted, link)
        for sender in self._senders.values() if self._may_send() else ():
            if sender.link is not None and sender.link.room and sender.delivery.has_work:
                timeout = min(timeout, max(0.0, max(sender.delivery.paused_until, self._store_retry_at) - now))
        ready: set[object] = {link for link in links if link.has_buffered}
        for key, events in self._selector.select(0 if ready else timeout):
            if key.data is None:
                self._wake_reader.recv(4096)
                continue
            if events & selectors.EVENT_WRITE:
                key.data.flush()
            if events & selectors.EVENT_READ:
                ready.add(key.data)
        if self._linger and ready:
            self._sleep(self._linger)
        return ready

    def _take_changes(self, now: float) -> None:
        while now >= self._store_retry_at:
            try:
                change = self._changes.get_nowait()
            except Empty:
                return
            try:
                self._senders = change.senders()
            except OutboxUnavailable as exc:
                self._store_failed(exc, now)
                self._changes.put(change)
                return
            self._route_rows.update(self._mapping.rows_made())
            # Before the new subscriptions: what they bring must find its routes.
            self._mapping = change.mapping
            if self._mqtt is not None:
                self._mqtt.want(change.mapping.filters)
            change.done()

    def _adopt(self, now: float) -> None:
        """Take over the links that the dialling threads made."""
        while True:
            try:
                stream, link = self._handed_over.get_nowait()
            except Empty:
                return
            self._selector.register(link.sock, selectors.EVENT_READ, link)
            name = "mqtt" if stream is None else self._senders[stream].dialer.name
            self._certificate_ends = {**self._certificate_ends, name: link.certificate_ends}
            if isinstance(link, MqttLink):
                self._mqtt, self._mqtt_is_up, self._mqtt_since = link, False, now
                link.asks_at_once = self._repetitions is None
                link.want(self._mapping.filters)  # the routes may have changed while it was dialled
                if self._holding is not None:  # it was being dialled when the hold began
                    self._drop_mqtt(self._holding)
            elif stream is not None:
                sender = self._senders[stream]
                sender.link = link
                sender.dialer.up()
                log.info("producer.connected", stream=stream, deduplicates=link.deduplicates)
                if sender.delivery.deduplicates and not link.deduplicates:
                    log.warning(
                        "producer.no_deduplication",
                        stream=stream,
                        hint="the far end refuses producerName and initialSequenceId (400): at least once from now on",
                    )
                    sender.delivery.falls_back()
                    sender.initial_sequence_id = None

    def _settle(self, ready: set[object], now: float) -> None:
        for sender in self._senders.values():
            link = sender.link
            if link is None or link not in ready:
                continue
            try:
                receipts = link.read(now)
            except RemoteProtocolError as exc:
                self._drop_producer(sender, str(exc))
                continue
            self._receipts += len(receipts.receipted) + len(receipts.refused)
            sender.delivery.settle(receipts.receipted, receipts.payload_bytes)
            if self._tower.is_awaiting:
                self._tower.receipted(receipts.receipted, now)
            if receipts.sent:
                histogram = self._durations.setdefault(sender.delivery.stream, Histogram())
                histogram.add([(now - at, number) for at, number in receipts.sent])
            if receipts.refused:
                sender.delivery.refuse(receipts.refused, now, self._wall_clock())
                first = receipts.refused[0]
                log.warning(
                    "producer.refused",
                    stream=sender.delivery.stream,
                    count=len(receipts.refused),
                    result=first.result,
                    error=first.error,
                )
                if sender.delivery.deduplicates:
                    self._drop_producer(sender, f"GDN refused a send ({first.result}): its numbers start anew")
            if receipts.unknown:
                log.warning("producer.unknown_receipts", stream=sender.delivery.stream, count=receipts.unknown)
            if sender.delivery.unnumbered:
                self._release_due = now  # at once: after a crash these numbers must not be used again
            elif self._release_due is None and (sender.delivery.released or sender.delivery.refused):
                self._release_due = now + RELEASE_WITHIN

    def _receive(self, ready: set[object]) -> list[MqttMessage]:
        link = self._mqtt
        if link is None or link not in ready:
            return []
        try:
            messages = link.read(self._wall_clock())
        except RemoteProtocolError as exc:
            self._drop_mqtt(str(exc))
            return []
        self._messages += len(messages)
        self._broker_dropped = link.broker_dropped
        return messages

    def _sift(self, messages: list[MqttMessage], now: float) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """What is to be dealt with now, in arrival order, and what of that is not stored yet."""
        if self._repetitions is None:
            return messages, messages
        present = None if self._mqtt is None else self._mqtt.session_present
        return self._repetitions.sift(messages, session_present=present, now=now)

    def _map(self, messages: list[MqttMessage]) -> tuple[list[Row], list[DeadLetter], int]:
        """Rows, dead letters, and how many messages no route wants."""
        rows: list[Row] = []
        dead_letters: list[DeadLetter] = []
        filtered = 0
        looks_out = self._tower.is_looking_out
        for message in messages:
            mapped = map_guarded(self._mapping, message, self._outbox.next_id + len(rows))
            if looks_out:
                self._tower.see(message, mapped, self._outbox.next_id + len(rows), self._clock())
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
        if self._births and now >= self._store_retry_at:
            try:
                self._outbox.remember(**self._births)
                self._births = {}
            except OutboxUnavailable as exc:
                self._store_failed(exc, now)
        if self._asks_for_births and self._mqtt is not None and self._mqtt_is_up:
            for topic, payload in sparkplug.rebirths(now, self._wall_clock() // 10**6):
                log.info("sparkplug.rebirth_requested", topic=topic)
                self._mqtt.publish(topic, payload)

    def _store(
        self,
        rows: list[Row],
        dead_letters: list[DeadLetter],
        now: float,
        *,
        filtered: int = 0,
        due: bool,
        kept: HandedOver | None,
    ) -> bool:
        """Commit the batch with the releases that are due. False: nothing is durable, so nothing may be acked."""
        if not (rows or dead_letters or filtered or due or kept):
            return True
        deliveries = [sender.delivery for sender in self._senders.values()]
        rejected = 0
        if rows and self._policy == "reject_new" and self._is_full():
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
            self._store_failed(exc, now)
            if rows or dead_letters or rejected or filtered or kept:
                if rows:
                    self._tower.not_stored(str(exc))
                self._hold("the outbox can't store: nothing is acknowledged until it can")
            return False
        self._tower.stored()
        self._store_error = None
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
        if messages and self._mqtt is not None:
            self._mqtt.ack(messages)
            self._mqtt.flush()
            self._acked += sum([1 for m in messages if m.qos])
        if self._release_due is None and self._repetitions and self._repetitions.wants_commit:
            self._release_due = self._clock() + RELEASE_WITHIN

    def _send(self, now: float) -> None:
        if now < self._store_retry_at:
            return  # records are read and numbered in the store, and what is receipted must be let go in it
        if not self._may_send():
            return
        for sender in self._senders.values():
            link = sender.link
            if link is None or link.error is not None:
                continue
            try:
                records = sender.delivery.take(link.room, now)
            except OutboxUnavailable as exc:
                self._store_failed(exc, now)
                continue
            if records and self._number(sender.delivery, records, now):
                self._sends += len(records)
                link.send(records, now)

    def _number(self, delivery: Delivery, records: list[OutboxRecord], now: float) -> bool:
        """See that each record's sequence number is on disk before the send. False: it isn't, don't send."""
        if not delivery.deduplicates:
            return True
        numbers = delivery.number(records)
        if not numbers:
            return True
        try:
            self._outbox.number(delivery.stream, numbers)
        except OutboxUnavailable as exc:
            delivery.put_back(records, numbers)
            self._store_failed(exc, now)
            return False
        return True

    def _tick(self, now: float) -> None:
        for sender in self._senders.values():
            if sender.link is not None:
                sender.link.tick(now)
                if sender.link.error is not None:
                    self._drop_producer(sender, sender.link.error)
        link = self._mqtt
        if link is None:
            return
        if self._repetitions and self._repetitions.may_subscribe and not link.asks_at_once:
            link.asks_at_once = True
            link.subscribe()
        link.tick(now)
        link.flush()
        if link.error is not None:
            self._drop_mqtt(link.error)
            return
        begins = link.subscribed and not self._mqtt_is_up
        if begins:
            self._mqtt_is_up = True
            log.info("mqtt.subscribed", session_present=link.session_present, refused=link.refused, note=link.note)
            self._report_subscribed(link)
        elif self._mqtt_is_up and link.refused != self._refused:
            self._report_subscribed(link)
        if self._mqtt_is_up:
            self._follow_session(link, now, begins=begins)

    def _follow_session(self, link: MqttLink, now: float, *, begins: bool) -> None:
        try:
            if begins:
                self.session.begin(link)
            self.session.follow(link)
        except OutboxUnavailable as exc:
            self._store_failed(exc, now)

    def _report_subscribed(self, link: MqttLink) -> None:
        assert self._mqtt_dialer is not None
        self._mqtt_dialer.up()
        self._refused = list(link.refused)
        if link.refused:
            self._mqtt_dialer.trouble(
                f"the broker refused a subscription: {', '.join(link.refused)}. "
                "See what its access rules allow this user and client id"
            )

    def _drop_producer(self, sender: Sender, error: str) -> None:
        link, sender.link = sender.link, None
        if link is None:
            return
        link.error = link.error or error
        self._selector.unregister(link.sock)
        unreceipted = link.close()
        sender.delivery.lost(unreceipted)
        if sender.delivery.deduplicates:
            sender.initial_sequence_id = sender.delivery.initial_sequence_id
        sender.dialer.lost(error)
        log.warning("producer.lost", stream=sender.delivery.stream, error=error, unreceipted=len(unreceipted))

    def _drop_mqtt(self, error: str) -> None:
        link, self._mqtt = self._mqtt, None
        if link is None or self._mqtt_dialer is None:
            return
        self._selector.unregister(link.sock)
        link.close()
        error, pace = self.session.end(link, lasted=self._clock() - self._mqtt_since, error=error)
        self._mqtt_dialer.lost(error, pace=pace)
        log.warning("mqtt.lost", error=error)

    # --- the store's bounds -------------------------------------------------------------------------------

    def _store_failed(self, exc: OutboxUnavailable, now: float) -> None:
        if self._store_error != str(exc):
            log.error("outbox.unavailable", error=str(exc))
        self._store_error = str(exc)
        self._store_retry_at = now + STORE_RETRY

    def _is_full(self) -> bool:
        return self._outbox.why_full(age=self._oldest_age) is not None

    def _hold(self, reason: str) -> None:
        """Take nothing from the broker until there is room: leave it, and let it keep the session (P4)."""
        if self._mqtt_dialer is None or self._holding is not None:
            return
        log.warning("mqtt.holding", reason=reason)
        self._holding = reason
        self._mqtt_dialer.hold(reason)
        self._drop_mqtt(reason)

    def _resume(self) -> None:
        assert self._mqtt_dialer is not None
        log.info("mqtt.resuming")
        self._holding = None
        self._mqtt_dialer.resume()

    def _look_after_store(self, now: float) -> None:
        """Once a second, and whenever the bound of bytes is reached: what the policy wants."""
        self._keep_remembering(now)
        if now < self._look_at and (self._holding or not self._is_full()):
            return
        self._look_at = now + STORE_RETRY
        self._growth.note(self._outbox.bytes, now)
        self._rows_told = self._rows_made()
        try:
            self._oldest_age = self._outbox.oldest_age()
            full = self._outbox.why_full(age=self._oldest_age)
            if full and self._policy == "drop_oldest":
                self._drop_oldest(full)
            if self._holding is not None:
                self._outbox.probe()
                self._store_error = None
        except OutboxUnavailable as exc:
            self._store_failed(exc, now)
            return
        if full and self._policy == "hold":
            self._hold(full)
        elif self._holding is not None and (
            self._policy != "hold" or self._outbox.has_room_again(age=self._oldest_age)
        ):
            self._resume()
        if self._policy == "reject_new" and (full is not None) != self._reported_full:
            self._reported_full = full is not None
            log.warning("outbox.rejecting" if full else "outbox.takes_again", reason=full)

    def _drop_oldest(self, full: str) -> None:
        for sender in self._senders.values():
            sender.delivery.unload()
        under_way = {stream: sender.delivery.sent_to for stream, sender in self._senders.items()}
        dropped = self._outbox.drop(under_way=under_way)
        if dropped:
            log.warning("outbox.dropped", count=dropped, reason=full)

    def _look_after_letters(self, now: float) -> None:
        """Once a second, or at once while there is more: dead letters that are too old, or wanted by a person."""
        if now < max(self._letters_at, self._store_retry_at):
            return
        self._letters_at = now + STORE_RETRY
        try:
            purged = self._outbox.purge_old()
            has_room = self._holding is None and not self._is_full()
            outcome = carry_out(self._outbox, self._mapping, streams=self._senders, has_room=has_room)
        except OutboxUnavailable as exc:
            self._store_failed(exc, now)
            return
        self._offer(outcome.records)
        if purged or outcome.more:
            self._store_error = None
            self._letters_at = now

    def _keep_remembering(self, now: float) -> None:
        """Keep what other threads asked for."""
        while now >= self._store_retry_at:
            try:
                key, value, done = self._to_remember.get_nowait()
            except Empty:
                return
            try:
                self._outbox.remember(**{key: value})
            except OutboxUnavailable as exc:
                self._store_failed(exc, now)
                self._to_remember.put((key, value, done))
                return
            done.set()

    def _reconnects(self) -> dict[str, int]:
        dialers = [sender.dialer for sender in self._senders.values()]
        attempts = {d.name: d.attempts for d in dialers}
        if self._mqtt_dialer is not None:
            attempts["mqtt"] = self._mqtt_dialer.attempts
        return {name: max(0, n - 1) for name, n in attempts.items()}

    def _link_failures(self) -> dict[str, MappingOf[str, int]]:
        failures = {sender.dialer.name: sender.dialer.failures for sender in self._senders.values()}
        if self._mqtt_dialer is not None:
            failures["mqtt"] = self._mqtt_dialer.failures
        return failures

    def _rows_made(self) -> MappingOf[tuple[str, str], int]:
        made = Counter(self._route_rows)
        made.update(self._mapping.rows_made())  # unlike a sum of counters it keeps those that made none
        return made

    def _finish(self, deadline: Deadline) -> None:
        """Say goodbye to the broker, let what is in the windows be receipted, release it; the rest is on disk."""
        if self._mqtt is not None:
            self._selector.unregister(self._mqtt.sock)
            self._mqtt.close()
            self._mqtt = None
        half = deadline.left() / 2  # the other half is for the commit and for the other threads
        patience = Deadline(half, clock=self._clock)
        while patience.left() and any(s.link is not None and not s.link.is_settled for s in self._senders.values()):
            ready = self._wait()
            now = self.heartbeat = self._clock()
            self._settle(ready, now)
            for sender in self._senders.values():
                if sender.link is not None and sender.link.error is not None:
                    self._drop_producer(sender, sender.link.error)
        for sender in self._senders.values():
            if sender.link is not None:
                self._selector.unregister(sender.link.sock)
                sender.link.close()
                sender.link = None
        self._release_due = self._store_retry_at = 0.0
        self._store([], [], self._clock(), due=True, kept=None)
        self.snapshot = self._snapshot()
