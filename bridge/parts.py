"""The status of each part of the bridge, and readiness, which follows from all of them.

Statuses are immutable: a part replaces its status as a whole, so any thread can read it without a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "connecting", "connected", "waiting", "failing"]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """The status of one part of the bridge. Times are in seconds since the epoch."""

    name: str
    state: State
    since: float
    error: str | None
    """The last error, kept during the next attempt. While connected: None, or why the part is degraded."""
    next_attempt_at: float | None

    def moved(
        self, state: State, *, at: float, error: str | None = None, next_attempt_at: float | None = None
    ) -> PartStatus:
        """The status after a change at ``at``. ``since`` changes only if the state does."""
        since = self.since if state == self.state else at
        return PartStatus(self.name, state, since, error, next_attempt_at)


def is_ready(parts: Sequence[PartStatus]) -> bool:
    """Whether messages get through to GDN now: every part is connected."""
    return all(part.state == "connected" for part in parts)
