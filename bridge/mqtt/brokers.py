"""The brokers of ``mqtt.url``: which one is tried next, and the session at each.

A *round* is one attempt at each broker, from the one that worked last. An attempt fails if the broker can't be reached,
or if the link ends before it is subscribed. The back-off comes after a round. A broker that works is kept, and after a
lost link it is tried first: its session holds messages.

The dialling thread calls ``dial``. The pipeline thread calls the other methods while there is a link, when nothing is
dialled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bridge.errors import MqttUnavailable
from bridge.log import get_logger
from bridge.mqtt.link import MqttLink
from bridge.mqtt.session import MqttSession
from bridge.timing import Pace

log = get_logger(__name__)


class Failure(NamedTuple):
    """A failed attempt."""

    error: str
    """Of all attempts, once the round has ended."""
    pace: Pace | None
    """The slowest of the round: dialling sooner may do harm."""
    tries_next: bool
    """Whether the round goes on with another broker."""


class Brokers:
    """Chooses among brokers.

    Args:
        sessions: one for each broker, in the order in which they are tried; at least one.
    """

    def __init__(self, sessions: Sequence[MqttSession]) -> None:
        self._sessions = sessions
        self._current = 0
        self._failures: list[tuple[str, Pace | None]] = []  # of this round

    @property
    def session(self) -> MqttSession:
        """The session at the linked broker; without a link, at the one to try next."""
        return self._sessions[self._current]

    @property
    def skipped(self) -> int:
        """Redelivered messages that were already stored."""
        return sum([s.qos_2.skipped + (s.redelivery.skipped if s.redelivery else 0) for s in self._sessions])

    def dial(self, connect: Callable[[MqttSession], MqttLink]) -> MqttLink:
        """A connection to the first broker of the round that can be reached.

        Raises:
            MqttUnavailable: none can be reached.
        """
        while True:
            try:
                return connect(self.session)
            except MqttUnavailable as exc:
                error, pace, tries_next = self._failed(str(exc), exc.pace)
                if tries_next:
                    continue
                failure = MqttUnavailable(error)
                failure.pace = pace or exc.pace
                raise failure from exc

    def subscribed(self) -> None:
        """Note that the link works: the next round begins with this broker."""
        self._failures = []

    def failed(self, error: str, pace: Pace | None) -> Failure:
        """Note that the link ended before it was subscribed."""
        return self._failed(error if len(self._sessions) == 1 else f"{self.session.broker}: {error}", pace)

    def _failed(self, error: str, pace: Pace | None) -> Failure:
        self._failures.append((error, pace))
        self._current = (self._current + 1) % len(self._sessions)
        if len(self._failures) < len(self._sessions):
            log.warning("mqtt.next_broker", error=error, next=self.session.broker)
            return Failure(error, pace, tries_next=True)
        failures, self._failures = self._failures, []
        slowest = max((pace for _, pace in failures), key=lambda pace: (pace or Pace.UNREACHABLE).base)
        return Failure("; ".join([error for error, _ in failures]), slowest, tries_next=False)
