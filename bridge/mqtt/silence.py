"""Timeouts of waiting for the broker; bytes that arrive count as progress. Pure.

Times are monotonic seconds.
"""

from __future__ import annotations

ANSWER_TIMEOUT = 10.0
"""Seconds that a broker has for its CONNACK, and for each SUBACK while it sends less than ``MIN_RATE``."""

MIN_RATE = 1000.0
"""Bytes a second that count as progress. Many brokers send a session's backlog before the SUBACK, which can take
very long on a slow link."""


class Patience:
    """Waits for a packet from the broker: ``limit`` seconds, or longer while it sends ``MIN_RATE``.

    Each byte extends the deadline by the time that it takes at this rate, up to ``limit`` from now. Times are monotonic
    seconds.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether ``start`` was called after the last ``stop``."""
        return self._since is not None

    def start(self, now: float) -> None:
        """Start to wait."""
        self._since = now

    def stop(self) -> None:
        """Stop waiting: the packet has come."""
        self._since = None

    def progress(self, arrived: float, now: float) -> None:
        """Note that ``arrived`` bytes have come since the last call."""
        if self._since is not None:
            self._since = min(now, self._since + arrived / MIN_RATE)

    def waited(self, now: float) -> float:
        """Seconds without progress."""
        return 0.0 if self._since is None else now - self._since

    def is_over(self, now: float) -> bool:
        """Whether the packet is overdue."""
        return self.waited(now) > self._limit


class Silence:
    """Detects a connection that is alive but delivers no messages. Times are monotonic seconds.

    Args:
        timeout: seconds without a message after which the subscriptions are requested again; 0: never.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._message = Patience(timeout)
        self._answer = Patience(ANSWER_TIMEOUT)

    def heard(self) -> None:
        """Note that a message or a SUBACK has come: each shows that the subscriptions work."""
        self._message.stop()
        self._answer.stop()

    def progress(self, arrived: float, now: float) -> None:
        """Note that ``arrived`` bytes have come, perhaps part of a large message."""
        self._message.progress(arrived, now)
        self._answer.progress(arrived, now)

    def is_probe_due(self, now: float) -> bool:
        """Whether to request the subscriptions again now; true once for each silence."""
        if not self._message.is_waiting:
            self._message.start(now)
        if self._answer.is_waiting or not self._timeout or self._message.waited(now) < self._timeout:
            return False
        self._answer.start(now)
        return True

    def unanswered_for(self, now: float) -> float | None:
        """Seconds of silence, if the request that followed it is overdue as well."""
        return self._message.waited(now) if self._answer.is_over(now) else None
