"""The books: what came in and what became of it, as values that are swapped whole.

Counted in records: one for each row that a message maps to, one for a message that became a dead letter or
was dropped. Whoever counts builds a new value; whoever reads gets sums that belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Books:
    """Promise P3: every record received is in exactly one of the other places."""

    received: int = 0
    delivered: int = 0
    outbox: int = 0
    dead_lettered: Mapping[str, int] = field(default_factory=dict)
    """By reason code."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """By reason code."""

    @property
    def accounted(self) -> int:
        """Records whose fate is known."""
        dead, dropped = sum(self.dead_lettered.values()), sum(self.dropped.values())
        return self.delivered + self.outbox + dead + dropped

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing and nothing counted twice."""
        return self.received == self.accounted


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over the links since this process started."""

    mqtt_messages: int = 0
    """PUBLISHes read, repetitions included."""
    acked: int = 0
    """PUBACKs written."""
    sends: int = 0
    """Records written to producers, repetitions included."""
    receipts: int = 0
    """Receipts read, refusals included."""
    reconnects: Mapping[str, int] = field(default_factory=dict)
    """By link: ``mqtt`` or the producer's part name."""
