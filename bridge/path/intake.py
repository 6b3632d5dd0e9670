"""The inbound side: the link to the broker, its dialler, and the hold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from bridge.errors import RemoteProtocolError
from bridge.links.dialer import Dialer
from bridge.log import get_logger
from bridge.message import MqttMessage, SessionChanges
from bridge.mqtt.brokers import Brokers
from bridge.mqtt.link import MqttLink
from bridge.mqtt.session import MqttSession
from bridge.path.arrivals import Arrivals, Lanes, Measure
from bridge.path.retirement import Retirement

DROPS_LOGGED_EVERY = 60.0
"""Seconds between two log lines about a rise of the broker's counter, which may rise every few seconds."""

log = get_logger(__name__)


UNHEARD_STEP = 5
"""A silence that grows is reported in steps of this many seconds."""


def intake_name(stream: str | None) -> str:
    """The name of an intake, which is that of its part in the status."""
    return "mqtt" if stream is None else f"mqtt {stream}"


class Intake:
    """Takes messages from the broker. Used by the pipeline thread.

    Args:
        brokers: the order in which they are tried, and the state that outlasts a connection to each.
        filters: topic filters to subscribe.
        connect: dials the session's broker, in the dialling thread; the other argument is the topic filters.
        hand_over: takes the dialled link; the other argument is the intake's name.
        stream: whose messages it takes; None: those of all streams.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        brokers: Brokers,
        *,
        filters: Sequence[str],
        connect: Callable[[Sequence[str], MqttSession], MqttLink],
        hand_over: Callable[[str, MqttLink], None],
        stream: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = stream
        self.name = name = intake_name(stream)
        self._labels = {} if stream is None else {"stream": stream}
        self.filters = filters
        """Topic filters to subscribe. Replaced as a whole: the dialling thread reads it."""
        self.dialer: Dialer[MqttLink] = Dialer(
            name=name,
            connect=lambda: brokers.dial(lambda session: connect(self.filters, session)),
            hand_over=lambda link: hand_over(name, link),
        )
        self.link: MqttLink | None = None
        self.holding: str | None = None
        """Why no messages are taken from the broker now; None while they are."""
        self.certificate_ends: Mapping[str, float] = {}
        """Of the latest connection."""
        self.messages = 0
        """PUBLISH packets read, redelivered ones included."""
        self.acked = 0
        """PUBACKs and PUBRECs written."""
        self.broker_dropped: int | None = None
        """Messages that the broker says it dropped; None: it doesn't say."""
        self.notes: tuple[str, ...] = ()
        """Where the broker grants less than was asked for, and that it drops messages, as sentences."""
        # As last seen on any link, by broker: drops while disconnected count, too.
        self._last_dropped: dict[str, int] = {}
        self._drops_seen = 0  # the sum of their rises
        self._drops_logged_at = -DROPS_LOGGED_EVERY
        self._brokers = brokers
        self._use(brokers.session)
        # The fence (mqtt/redelivery.py) is recognised by order: with it, messages are stored in arrival order.
        self._arrivals = Arrivals(may_overtake=self._redelivery is None)
        self._clock = clock
        self._is_connected = False  # the CONNACK has come
        self._is_subscribed = False
        self._linked_at = 0.0
        self._reported: tuple[Mapping[str, str], int | None] | None = None  # refusals, seconds of silence
        self._retirement: Retirement | None = None
        self.is_retired = False
        """Whether it takes nothing any more: its session has delivered what it held."""

    @property
    def publish(self) -> Callable[[str, bytes], None] | None:
        """Publishes over the link; None unless it is subscribed."""
        return self.link.publish if self.link is not None and self._is_subscribed else None

    @property
    def broker(self) -> str | None:
        """Host and port of the broker that the bridge is connected to; None while it is connected to none."""
        return self._session.broker if self._is_connected and self.link is not None else None

    # --- the link -----------------------------------------------------------------------------------------

    def _use(self, session: MqttSession) -> None:
        self._session, self._redelivery, self._qos_2 = session, session.redelivery, session.qos_2

    def adopt(self, link: MqttLink) -> None:
        """Receive over this link from now on."""
        self.link, self._linked_at = link, self._clock()
        self._use(self._brokers.session)
        self._is_connected = self._is_subscribed = False
        self._reported = None
        if self._retirement is not None:
            self._retirement.linked()
        self.certificate_ends = link.certificate_ends
        link.want(self.filters)  # they may have changed since it was dialled
        if self.holding is not None:  # it was being dialled when the hold began
            self.drop(self.holding)

    def want(self, filters: Sequence[str]) -> None:
        """Subscribe to these topic filters from now on."""
        self.filters = filters
        if self.link is not None:
            self.link.want(filters)

    def tick(self, now: float) -> None:
        """Request and follow subscriptions, check timeouts, drop a link that has failed; follows ``ack``.

        Args:
            now: monotonic seconds.

        Raises:
            OutboxUnavailable: the session's filters or its loss could not be stored.
        """
        link = self.link
        if link is None:
            return
        if link.session_present is not None and not self._is_connected:
            self._is_connected = True
            self._session.begin(link)
        # A session that retires keeps the subscriptions that it has, and gets no others.
        if link.awaits_subscribe and self._session.may_subscribe and self._retirement is None:
            link.subscribe()
        if self._redelivery is not None and self._redelivery.wants_barrier:
            self._redelivery.barrier_sent(link.ping(now))
        link.tick(now)
        link.flush()
        if link.error is not None:
            self.drop(link.error)
        elif self._retirement is not None:
            self._retire(link, self._retirement, now)
        elif link.subscribed:
            self._follow(link)
            self._report(link, now)

    def _follow(self, link: MqttLink) -> None:
        """Store the session's filters, and log them when the link becomes subscribed."""
        is_first, self._is_subscribed = not self._is_subscribed, True
        if is_first:
            self._brokers.subscribed()
            refused = _described(link.refused)
            note = "; ".join(link.notes) or None
            present = link.session_present
            log.info(
                "mqtt.subscribed",
                broker=self.broker,
                session_present=present,
                refused=refused,
                note=note,
                **self._labels,
            )
        self._session.follow(link)
        self._session.save_filters(link)

    # --- retiring -----------------------------------------------------------------------------------------

    @property
    def is_subscribed(self) -> bool:
        """Whether the broker has granted every subscription of the current link."""
        return self._is_subscribed and self.link is not None and not self.link.refused

    @property
    def may_be_replaced(self) -> bool:
        """Whether the session retires, and those that replace it may subscribe."""
        return self._retirement is not None and self._retirement.may_be_replaced

    def retire(self, retirement: Retirement) -> None:
        """Take what the session holds, unsubscribe its filters and leave it: see ``Retirement``."""
        self._retirement, self._reported = retirement, None

    def revive(self, filters: Sequence[str]) -> None:
        """Undo ``retire``: subscribe to these filters."""
        self._retirement, self.is_retired = None, False
        self.filters = filters
        self.dialer.resume()
        self.drop("the session is used again")

    def _retire(self, link: MqttLink, retirement: Retirement, now: float) -> None:
        """Go on retiring.

        Raises:
            OutboxUnavailable: the session's state could not be stored; a later call tries again.
        """
        if not self._is_connected:
            return
        if self._reported is None:
            self._session.doubt_filters()  # before any is unsubscribed: the process may end in between
            self._reported = {}, None
            self.dialer.up()
        match retirement.next(now, messages=self.messages, is_unsubscribed=not link.held):
            case "unsubscribe":
                link.want(())
            case "leave" if self._arrivals.is_empty:
                self._session.save_filters(link)
                self.is_retired = True
                log.info("mqtt.session_retired", session=self._session.name, messages=self.messages)
                self.dialer.hold("the session is no longer used")
                self.drop("the session is no longer used")
            case _:
                pass

    # --- reports ------------------------------------------------------------------------------------------

    def _report(self, link: MqttLink, now: float) -> None:
        """Report whether the link works, whenever that changes."""
        unheard = link.unheard_for(now)
        state = link.refused, None if unheard is None else int(unheard // UNHEARD_STEP) * UNHEARD_STEP
        if state == self._reported:
            return
        is_first, self._reported = self._reported is None, state
        self._note(link)
        trouble = _trouble(link, unheard=state[1])
        if is_first or trouble is None:
            self.dialer.up()
        if trouble is not None:
            self.dialer.failing(trouble)

    def _note(self, link: MqttLink) -> None:
        drops = (
            f"the broker has dropped {self._drops_seen} messages since the bridge was started, of any client whose "
            "queue was full. Raise its queue limit (docs/brokers.md)"
        )
        self.notes = (*link.notes, *([drops] if self._drops_seen else []))

    def _follow_drops(self, link: MqttLink) -> None:
        """Note and log a rise of the broker's counter of dropped messages. A restarted broker counts from 0 again."""
        self.broker_dropped = dropped = link.broker_dropped
        before = self._last_dropped.get(self._session.broker)
        if dropped is None or dropped == before:
            return
        self._last_dropped[self._session.broker] = dropped
        if before is None or dropped < before:
            return
        self._drops_seen += dropped - before
        self._note(link)
        now = self._clock()
        if now - self._drops_logged_at >= DROPS_LOGGED_EVERY:
            self._drops_logged_at = now
            hint = "a queue in the broker was full, of this client or of another. Raise its limit (docs/brokers.md)"
            log.warning("mqtt.broker_drops", dropped=self._drops_seen, hint=hint)

    def drop(self, error: str) -> None:
        """Close the link. The broker keeps the session and sends unacknowledged messages again."""
        link, self.link = self.link, None
        if link is None:
            return
        link.close()
        self._arrivals.clear()
        asks_again = self._session.watch_drops
        is_left = self.holding is not None or self.is_retired
        error, pace = self._session.end(link, lasted=self._clock() - self._linked_at, error=error)
        if not self.is_retired:
            log.warning("mqtt.lost", error=error, **self._labels)
        # None of these ends is the broker's failure: the link was left, taken over by another client, or ended by
        # asking for the counter.
        is_failure = not is_left and not link.taken_over and asks_again == self._session.watch_drops
        tries_next = False
        if is_failure and not self._is_subscribed:
            error, pace, tries_next = self._brokers.failed(error, pace)
        self.dialer.lost(error, pace=pace, at_once=tries_next)

    def hold(self, reason: str) -> None:
        """Take no messages until ``resume``: leave the broker, which keeps the session (P4)."""
        if self.holding is not None:
            return
        log.warning("mqtt.holding", reason=reason, **self._labels)
        self.holding = reason
        self.dialer.hold(reason)
        self.drop(reason)

    def resume(self) -> None:
        """Take messages again."""
        log.info("mqtt.resuming", **self._labels)
        self.holding = None
        self.dialer.resume()

    def close(self) -> None:
        """Disconnect from the broker at the end of the process."""
        if self.link is not None:
            self.link.close()
            self.link = None

    # --- messages -----------------------------------------------------------------------------------------

    def receive(self, received_at: int, now: float, *, is_readable: bool) -> None:
        """Read the messages that have arrived, unless too many wait already.

        Args:
            received_at: wall clock in nanoseconds.
            now: monotonic seconds.
            is_readable: whether the link has something to read.
        """
        was_waiting = self._arrivals.is_waiting
        messages = self._read(received_at) if is_readable and self._arrivals.has_room else []
        self._add(messages, now)
        # Read on: new messages may be mapped before those that wait.
        while messages and was_waiting and self._arrivals.has_room:
            messages = self._read(received_at)
            self._add(messages, now)

    def _add(self, messages: list[MqttMessage], now: float) -> None:
        present = None if self.link is None else self.link.session_present
        arrived = new = messages
        if self._redelivery is not None:
            arrived, new = self._redelivery.split(messages, session_present=present, now=now)
            if self.link is not None:
                self._redelivery.pings_answered(self.link.pings_answered, now)
        self._arrivals.add(arrived, self._qos_2.new(new, session_present=present))

    def _read(self, received_at: int) -> list[MqttMessage]:
        assert self.link is not None
        try:
            messages = self.link.read(received_at)
        except RemoteProtocolError as exc:
            self.drop(str(exc))
            return []
        self._qos_2.pubrels_came(self.link.take_pubrels())
        self.messages += len(messages)
        self._follow_drops(self.link)
        return messages

    @property
    def is_waiting(self) -> bool:
        """Whether messages that were read wait for a later turn."""
        return self._arrivals.is_waiting

    def map_slice(self, fill: Callable[[Sequence[MqttMessage]], list[Measure]], lanes: Lanes) -> list[MqttMessage]:
        """Map the messages of this turn: see ``Arrivals.map_slice``."""
        return self._arrivals.map_slice(fill, lanes)

    @property
    def skipped(self) -> int:
        """Redelivered messages that were stored already."""
        return self._brokers.skipped

    def to_store(self, mapped: Sequence[MqttMessage], *, due: bool, now: float) -> SessionChanges:
        """What to commit with the messages of ``map_slice``, so that they are recognised when they are redelivered.

        Args:
            mapped: from ``map_slice``.
            due: whether a commit is due even without messages.
            now: monotonic seconds.
        """
        seen = None
        if self._redelivery is not None:
            may_lift = due and now >= self.commit_at
            seen = self._redelivery.to_store(self._arrivals.complete(), mapped, may_lift=may_lift)
        return SessionChanges(seen, self._qos_2.to_store(mapped), self._session.name)

    def committed(self, stored: SessionChanges) -> list[MqttMessage]:
        """The commit of this turn is done: complete QoS 2 exchanges; returns what may be acknowledged."""
        completed = self._qos_2.committed(stored.qos_2)
        if completed and self.link is not None:
            self.link.complete(completed)
        complete = self._arrivals.remove_complete()
        if self._redelivery is None:
            return complete
        return self._redelivery.committed(stored.seen, complete, self._clock()) + [m for m in complete if m.qos == 2]

    @property
    def commit_at(self) -> float:
        """Monotonic seconds at which a commit is needed even without messages; inf: none is."""
        return math.inf if self._redelivery is None else self._redelivery.lift_at

    def ack(self, messages: Sequence[MqttMessage]) -> None:
        """Acknowledge messages that are durable."""
        # On the link that they came from or not at all: on another one their packet ids may name other messages.
        if messages and self.link is not None:
            self.acked += self.link.ack(messages)
            self.link.flush()


def _trouble(link: MqttLink, *, unheard: int | None) -> str | None:
    """Why a subscribed link doesn't work, as a sentence; None: it does."""
    if unheard is not None:
        return f"nothing has come from the broker for {unheard} s, not even an answer to a ping"
    if link.refused:
        advice = ". ".join(dict.fromkeys(link.advice.values()))
        return f"the broker refused a subscription: {', '.join(_described(link.refused))}. {advice}"
    return None


def _described(refused: Mapping[str, str]) -> list[str]:
    return [f"{filter_} ({reason})" for filter_, reason in refused.items()]
