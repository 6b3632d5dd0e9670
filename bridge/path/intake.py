"""The way in: the link to the broker while there is one, its dialler, and whether messages are taken at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from bridge.errors import RemoteProtocolError
from bridge.links.dialer import Dialer
from bridge.log import get_logger
from bridge.message import MqttMessage, SeenMessages
from bridge.mqtt.link import MqttLink
from bridge.mqtt.session import MqttSession

log = get_logger(__name__)


class Intake:
    """The pipeline's thread owns it.

    Args:
        session: what outlasts a connection to the broker.
        filters: topic filters to subscribe.
        connect: dials the broker, in the dialling thread; its argument is the topic filters.
        hand_over: takes the dialled link.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        session: MqttSession,
        *,
        filters: Sequence[str],
        connect: Callable[[Sequence[str]], MqttLink],
        hand_over: Callable[[MqttLink], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.filters = filters
        """Topic filters to subscribe; swapped whole, the dialling thread reads it."""
        self.dialer: Dialer[MqttLink] = Dialer(name="mqtt", connect=lambda: connect(self.filters), hand_over=hand_over)
        self.link: MqttLink | None = None
        self.holding: str | None = None
        """Why nothing is taken from the broker now; None while it is."""
        self.certificate_ends: Mapping[str, float] = {}
        """Of the latest connection."""
        self.messages = 0
        """PUBLISHes read, repetitions included."""
        self.acked = 0
        """PUBACKs written."""
        self.broker_dropped: int | None = None
        """Messages that the broker says it dropped; None: it doesn't say."""
        self._session = session
        self._repetitions = session.repetitions
        self._clock = clock
        self._is_up = False  # subscribed
        self._since = 0.0
        self._refused: list[str] = []

    @property
    def publish(self) -> Callable[[str, bytes], None] | None:
        """Publishes over the link; None unless it is subscribed."""
        return self.link.publish if self.link is not None and self._is_up else None

    # --- the link -----------------------------------------------------------------------------------------

    def adopt(self, link: MqttLink) -> None:
        """Receive over this link from now on."""
        self.link, self._is_up, self._since = link, False, self._clock()
        self.certificate_ends = link.certificate_ends
        link.asks_at_once = self._repetitions is None
        link.want(self.filters)  # they may have changed since it was dialled
        if self.holding is not None:  # it was being dialled when the hold began
            self.drop(self.holding)

    def want(self, filters: Sequence[str]) -> None:
        """Subscribe these topic filters from now on."""
        self.filters = filters
        if self.link is not None:
            self.link.want(filters)

    def tick(self, now: float) -> None:
        """What time brings: subscriptions, pings, timeouts, the end of a link that has failed.

        Raises:
            OutboxUnavailable: what was learned of the session could not be remembered.
        """
        link = self.link
        if link is None:
            return
        if self._repetitions and self._repetitions.may_subscribe and not link.asks_at_once:
            link.asks_at_once = True
            link.subscribe()
        link.tick(now)
        link.flush()
        if link.error is not None:
            self.drop(link.error)
            return
        begins = link.subscribed and not self._is_up
        if begins:
            self._is_up = True
            log.info("mqtt.subscribed", session_present=link.session_present, refused=link.refused, note=link.note)
        if self._is_up and (begins or link.refused != self._refused):
            self._report(link)
        if begins:
            self._session.begin(link)
        if self._is_up:
            self._session.follow(link)

    def _report(self, link: MqttLink) -> None:
        self.dialer.up()
        self._refused = list(link.refused)
        if link.refused:
            self.dialer.trouble(
                f"the broker refused a subscription: {', '.join(link.refused)}. "
                "See what its access rules allow this user and client id"
            )

    def drop(self, error: str) -> None:
        """Give the link up: the broker keeps the session, and what isn't acknowledged comes again."""
        link, self.link = self.link, None
        if link is None:
            return
        link.close()
        error, pace = self._session.end(link, lasted=self._clock() - self._since, error=error)
        self.dialer.lost(error, pace=pace)
        log.warning("mqtt.lost", error=error)

    def hold(self, reason: str) -> None:
        """Take nothing from the broker until ``resume``: leave it, and let it keep the session (P4)."""
        if self.holding is not None:
            return
        log.warning("mqtt.holding", reason=reason)
        self.holding = reason
        self.dialer.hold(reason)
        self.drop(reason)

    def resume(self) -> None:
        """Take messages again."""
        log.info("mqtt.resuming")
        self.holding = None
        self.dialer.resume()

    def close(self) -> None:
        """Say goodbye to the broker."""
        if self.link is not None:
            self.link.close()
            self.link = None

    # --- messages -----------------------------------------------------------------------------------------

    def read(self, received_at: int) -> list[MqttMessage]:
        """What has come, in arrival order. ``received_at``: the wall clock in nanoseconds. Only with a link."""
        assert self.link is not None
        try:
            messages = self.link.read(received_at)
        except RemoteProtocolError as exc:
            self.drop(str(exc))
            return []
        self.messages += len(messages)
        self.broker_dropped = self.link.broker_dropped
        return messages

    @property
    def skipped(self) -> int:
        """Messages told to be stored already."""
        return self._repetitions.skipped if self._repetitions else 0

    def sift(self, messages: list[MqttMessage], now: float) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """What is to be dealt with now, in arrival order, and what of that is not stored yet."""
        if self._repetitions is None:
            return messages, messages
        present = None if self.link is None else self.link.session_present
        return self._repetitions.sift(messages, session_present=present, now=now)

    def to_keep(self, arrived: list[MqttMessage], fresh: list[MqttMessage], *, due: bool) -> SeenMessages | None:
        """What to commit with the ``fresh`` ones of the messages, to tell them when they come again."""
        return self._repetitions.to_keep(arrived, fresh, due=due) if self._repetitions else None

    def committed(self, kept: SeenMessages | None, arrived: list[MqttMessage]) -> list[MqttMessage]:
        """A commit of ``arrived`` is done: what may be acknowledged."""
        return self._repetitions.committed(kept, arrived) if self._repetitions else arrived

    @property
    def wants_commit(self) -> bool:
        """Whether an acknowledgement waits for one more commit, of whatever."""
        return self._repetitions is not None and self._repetitions.wants_commit

    def ack(self, messages: Sequence[MqttMessage]) -> None:
        """Acknowledge what is durable."""
        if messages and self.link is not None:
            self.link.ack(messages)
            self.link.flush()
            self.acked += sum([1 for m in messages if m.qos])
