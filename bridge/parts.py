"""The state of one part of the bridge, and what readiness makes of all parts: values that are swapped whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "connecting", "connected", "waiting", "failing"]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part of the bridge at one moment. Times are seconds since the epoch."""

    name: str
    state: State
    since: float
    error: str | None
    """The last error, kept while the next attempt is under way; None once the part works, or what is odd then."""
    next_attempt_at: float | None

    def moved(
        self, state: State, *, at: float, error: str | None = None, next_attempt_at: float | None = None
    ) -> PartStatus:
        """The part's status at a later moment. ``since`` stays while the state does."""
        since = self.since if state == self.state else at
        return PartStatus(self.name, state, since, error, next_attempt_at)


def is_ready(parts: Sequence[PartStatus]) -> bool:
    """Whether messages go all the way now: every part connected."""
    return all(part.state == "connected" for part in parts)
