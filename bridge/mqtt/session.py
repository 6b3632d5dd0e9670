"""State that outlasts a connection to the broker: the session's filters, its loss, and the messages seen.

Used by the pipeline thread. The dialling thread reads ``known`` and ``watch_drops``, which are replaced as a whole.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from bridge.log import get_logger
from bridge.mqtt.link import MqttLink
from bridge.mqtt.qos2 import Qos2Exchanges
from bridge.mqtt.redelivery import RedeliveryFilter
from bridge.outbox import Outbox
from bridge.timing import Pace

BRIEF_LINK = 10.0
"""Seconds. Links that the broker closes sooner, without a reason and several in a row, suggest a second client with
the same client id."""

BRIEF_LINKS = 3
"""That many brief links in a row suggest it."""

KEY, LEFT_KEY = "mqtt_session", "mqtt_sessions_left"
"""Keys of saved values: the session used last, and those used before it at other brokers, latest first. For the session
of one stream ``:`` and the stream's name follow."""

UNKNOWN_QOS = 0
"""Stored as the QoS of filters that the session may have lost. No filter of a route is requested at it."""

MAX_LEFT = 32
"""The most sessions at other brokers that are remembered."""

SWITCHED = (
    "the old session still holds the messages that are queued for it or not acknowledged: they come when the bridge "
    "returns to it, or are lost when it expires (mqtt.session_expiry; with 3.1.1 the broker decides). Nothing is lost "
    "if both are nodes of a cluster that shares sessions"
)

log = get_logger(__name__)


def streams_with_sessions(outbox: Outbox) -> list[str]:
    """The streams that a session of their own is known of.

    Raises:
        OutboxUnavailable: the outbox can't be read now.
    """
    prefix = f"{KEY}:"
    return [key.removeprefix(prefix) for key in outbox.saved_values(prefix)]


class Known(NamedTuple):
    """What is known of the broker's session."""

    filters: tuple[str, ...] = ()
    """Topic filters that it holds."""
    qos: int = 1
    """QoS of the last request for them."""


class MqttSession:
    """The session of one client id at one broker. What is stored of other sessions is left alone.

    Args:
        client_id: of the bridge.
        broker: host and port.
        outbox: open; stores what must survive a restart.
        deduplicates: whether to recognise redelivered messages.
        stream: whose messages it has; None: those of all streams.
        watch_drops: whether the broker may be asked for its counter of dropped messages.
    """

    def __init__(
        self,
        *,
        client_id: str,
        broker: str,
        outbox: Outbox,
        deduplicates: bool = False,
        stream: str | None = None,
        watch_drops: bool = True,
    ) -> None:
        self.client_id = client_id
        self.name = f"{client_id} at {broker}"
        """Names it among the sessions that are stored."""
        self.broker = broker
        """Host and port."""
        scope = "" if stream is None else f":{stream}"
        self._key, self._left_key = f"{KEY}{scope}", f"{LEFT_KEY}{scope}"
        self._labels = {} if stream is None else {"stream": stream}  # of log lines
        self._outbox = outbox
        self._is_last = False  # no other session has been used since
        self._left: str | None = None  # the session that was used before; None once that is logged
        self._brief_links = 0
        self._is_loss_uncounted = False
        self._is_loss_reported = False  # of this link's session, and not withdrawn
        self.known = self._stored().get(self.name, Known())
        self.qos_2 = Qos2Exchanges(session=self.name, stored=outbox.qos_2_messages(self.name))
        """Recognises redelivered QoS 2 messages."""
        self.redelivery: RedeliveryFilter | None = None
        """Recognises redelivered QoS 1 messages; None without deduplication."""
        if deduplicates:
            self.redelivery = RedeliveryFilter(session=self.name, batches=outbox.seen_messages(self.name))
        else:
            outbox.forget_seen_messages()
        self.watch_drops = watch_drops
        """Whether the broker may be asked for its counter of dropped messages."""

    @property
    def may_subscribe(self) -> bool:
        """Whether subscriptions may be requested: what is stored of a lost session is gone."""
        return self.qos_2.may_subscribe and (self.redelivery is None or self.redelivery.may_subscribe)

    def begin(self, link: MqttLink) -> None:
        """The CONNACK has come: log and count the loss of the session if the broker says that it no longer had it.

        Raises:
            OutboxUnavailable: the loss was logged, but not counted.
        """
        last = next(iter(self._stored().items()), None)
        self._is_last = last is not None and last[0] == self.name
        if last is not None and not self._is_last and last[1].filters:
            self._left = last[0]
        self._note_loss(link)
        if self._is_loss_uncounted:
            self._save(self.known)
            self._outbox.count("sessions_lost")
            self._is_loss_uncounted = False

    def _note_loss(self, link: MqttLink) -> None:
        if link.session_present is not False or not self.known.filters:
            return
        repeats = "" if link.is_v5 else ". Retained messages come again with the subscription, and become rows again"
        log.warning(
            "mqtt.session_lost",
            hint="the broker says that it no longer had this client id's session (Session Present 0). Unless it sends "
            "redelivered messages now, those that it had queued, and those published while the bridge was away, are "
            f"lost: check its persistence and session expiry. ActiveMQ Classic says so at each connection{repeats}",
            **self._labels,
        )
        self.known = Known()
        self._is_loss_uncounted = True
        self._is_loss_reported = True

    def follow(self, link: MqttLink) -> None:
        """Withdraw the reported loss if the link has shown that the session had been kept.

        Raises:
            OutboxUnavailable: the withdrawal was logged, but not counted.
        """
        if not (self._is_loss_reported and link.has_redelivered):
            return
        self._is_loss_reported = False
        log.warning(
            "mqtt.session_kept",
            hint="the broker sent redelivered messages: it had kept the session, although it said that it had none. "
            "Nothing is known to be lost",
            **self._labels,
        )
        self._outbox.count("sessions_kept")

    def save_filters(self, link: MqttLink) -> None:
        """Store which filters the session holds, for the next connection and the next start.

        Raises:
            OutboxUnavailable: only this process knows it.
        """
        held = Known(link.held, link.qos)
        if held != self.known or not self._is_last:
            self._save(held)
        if self._left is not None:
            left, self._left = self._left, None
            log.warning("mqtt.switched", **{"from": left, "to": self.name}, hint=SWITCHED, **self._labels)

    def doubt_filters(self) -> None:
        """Store that the session may have lost its filters: they are requested again when it is used again.

        Raises:
            OutboxUnavailable: that is not stored.
        """
        self._save(Known(self.known.filters, UNKNOWN_QOS))

    def _save(self, known: Known) -> None:
        stored = self._stored()
        others = [name for name in stored if name != self.name]
        for name in others[MAX_LEFT:]:
            self._outbox.forget_session(name)
        left = json.dumps([[name, *stored[name]] for name in others[:MAX_LEFT]]) if others else ""
        self._outbox.save_values(**{self._key: json.dumps([self.name, *known]), self._left_key: left})
        self.known, self._is_last = known, True

    def _stored(self) -> dict[str, Known]:
        """What is known of every session, the one used last first."""
        last, left = self._outbox.saved_value(self._key), self._outbox.saved_value(self._left_key)
        entries = ([json.loads(last)] if last else []) + (json.loads(left) if left else [])
        return {name: Known(tuple(filters), *qos) for name, filters, *qos in entries}

    def end(self, link: MqttLink, *, lasted: float, error: str) -> tuple[str, Pace | None]:
        """A link has ended after ``lasted`` seconds. Returns the error to report and the pace of the next attempt."""
        if not link.subscribed:  # the session that the next link finds has no subscriptions
            self._note_loss(link)
        self.qos_2.link_ended()
        if self.redelivery is not None:
            self.redelivery.link_ended()
        if link.is_auth_error:
            return error, Pace.CREDENTIALS
        if link.ended_by_counter:
            self.watch_drops = False
            log.info(
                "mqtt.no_drop_counter",
                hint="the broker closed the connection when asked for its counter: the bridge doesn't ask again",
            )
            return error, None
        # Many brokers don't say why they close: several brief links in a row are the only sign of a second client with
        # the same client id. A bad network looks the same, so the pace is milder than for a known take-over.
        is_brief = link.closed_silently and lasted < BRIEF_LINK
        self._brief_links = self._brief_links + 1 if is_brief else 0
        if link.taken_over:
            return error, Pace.TAKEN_OVER
        if self._brief_links >= BRIEF_LINKS:
            hint = "If this continues, look for another client with the same client id: each bridge needs its own"
            return f"{error}. {hint}", Pace.BRIEF
        return error, None
