"""When to leave a session that is no longer used. Pure; times are monotonic seconds.

The broker doesn't say when a session's queue is empty, and may discard what is queued for a filter that is unsubscribed
(MQTT 5, 3.10.4). So the session first has to be quiet, for a limited time only: devices may publish all the time. Then
the sessions that replace it subscribe, and it is unsubscribed: what is published in between is delivered twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

QUIET = 5.0
"""Seconds without a message after which the session counts as empty: longer than the gaps of a slow link."""

PATIENCE = 60.0
"""Seconds to wait for this while devices publish all the time."""

Step = Literal["wait", "unsubscribe", "leave"]


class Retirement:
    """Decides the steps for one session.

    Args:
        is_replaced: whether the sessions that replace it are subscribed: until then it keeps its subscriptions.
        patience: see ``PATIENCE``; 0: its messages are wanted by no session, so it is unsubscribed at once.
    """

    def __init__(self, *, is_replaced: Callable[[], bool] = lambda: True, patience: float = PATIENCE) -> None:
        self._is_replaced = is_replaced
        self._patience = patience
        self._linked_at: float | None = None
        self._messages = 0
        self._heard_at = 0.0
        self._has_unsubscribed = False
        self.may_be_replaced = False
        """Whether the sessions that replace it may subscribe."""

    def linked(self) -> None:
        """Note that the session has a new link, or that it retires while it has one."""
        self._linked_at, self._has_unsubscribed, self.may_be_replaced = None, False, False

    def next(self, now: float, *, messages: int, is_unsubscribed: bool) -> Step:
        """The next step, while the link is connected.

        Args:
            now: in seconds.
            messages: received so far.
            is_unsubscribed: whether the session has no filters.
        """
        if self._linked_at is None:
            self._linked_at = self._heard_at = now
        if messages != self._messages:
            self._messages, self._heard_at = messages, now
        is_quiet = now - self._heard_at >= QUIET
        if not self._has_unsubscribed:
            self.may_be_replaced |= is_quiet or now - self._linked_at >= self._patience
            if not self.may_be_replaced or not self._is_replaced():
                return "wait"
            self._has_unsubscribed, self._heard_at = True, now
            return "unsubscribe"
        return "leave" if is_unsubscribed and is_quiet else "wait"
