"""What outlasts a connection to the broker: which filters its session holds, whether it was lost or taken, repetitions.

The pipeline's thread owns it; the dialling thread reads ``known_filters`` and ``watch_drops``, which are swapped whole.
"""

from __future__ import annotations

import json

from bridge.log import get_logger
from bridge.mqtt.link import MqttLink
from bridge.mqtt.redelivery import RedeliveryFilter
from bridge.outbox import Outbox
from bridge.timing import Pace

BRIEF_LINK = 10.0
"""Seconds. A link that the broker ends sooner, without a word and several times over, looks like a twin's work."""

BRIEF_LINKS = 3

KEY = "mqtt_session"

log = get_logger(__name__)


class MqttSession:
    """The session under one client id at one broker.

    Args:
        name: client id and broker. What was remembered of another session doesn't count.
        outbox: open; where it is remembered.
        deduplicates: whether messages that the broker hands over again are to be told.
    """

    def __init__(self, *, name: str, outbox: Outbox, deduplicates: bool = False) -> None:
        self._name = name
        self._outbox = outbox
        self._brief_links = 0
        remembered, filters = json.loads(outbox.recall(KEY) or '["", []]')
        self.known_filters: tuple[str, ...] = tuple(filters) if remembered == name else ()
        """Filters that the broker's session holds, as far as is known."""
        self.repetitions: RedeliveryFilter | None = None
        if deduplicates:
            self.repetitions = RedeliveryFilter(session=name, batches=outbox.handed_over())
        else:
            outbox.forget_handed_over()
        self.watch_drops = True
        """Whether the broker may be asked for its counter of dropped messages."""

    def begin(self, link: MqttLink) -> None:
        """A link is subscribed: count the session as lost if the broker no longer had it.

        Raises:
            OutboxUnavailable: the loss was said, but not counted.
        """
        if not self.known_filters or link.session_present:
            return
        log.warning(
            "mqtt.session_lost",
            hint="the broker no longer knew this client id's session: what it had queued, and what was published "
            "while the bridge was away, is gone. See its persistence and session expiry",
        )
        self._outbox.count("sessions_lost")

    def follow(self, link: MqttLink) -> None:
        """Remember what the session holds, for the next connection and the next start.

        Raises:
            OutboxUnavailable: it is known to this process only.
        """
        if link.held != self.known_filters:
            self.known_filters = link.held
            self._outbox.remember(**{KEY: json.dumps([self._name, list(link.held)])})

    def end(self, link: MqttLink, *, lasted: float, error: str) -> tuple[str, Pace | None]:
        """A link has ended after ``lasted`` seconds; returns what to say of it, and the pace of the next attempt."""
        if self.repetitions is not None:
            self.repetitions.end()
        if link.is_auth_error:
            return error, Pace.CREDENTIALS
        if link.counter_unanswered and link.closed_silently:
            self.watch_drops = False
            log.info("mqtt.no_drop_counter", hint="the broker closed when it was asked for it: not asked again")
            return error, None
        # Many brokers don't say why they close: several brief links in a row are the only sign of a twin. They may as
        # well be a bad network's, so the pace is a milder one.
        self._brief_links = self._brief_links + 1 if link.closed_silently and lasted < BRIEF_LINK else 0
        if link.taken_over:
            return error, Pace.TAKEN_OVER
        if self._brief_links >= BRIEF_LINKS:
            hint = "If this goes on, look for another client with the same client id: each bridge needs its own"
            return f"{error}. {hint}", Pace.BRIEF
        return error, None
