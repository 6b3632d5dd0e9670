"""The books: what came in and what became of it, as values that are swapped whole.

Counted in records: one for each row that a message maps to, one for a message that became a dead letter or
was dropped. Whoever counts builds a new value; whoever reads gets sums that belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from bridge.histogram import Durations


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
    repetitions: int = 0
    """Of these, those told to be stored already, and not stored again."""
    acked: int = 0
    """PUBACKs written."""
    sends: int = 0
    """Records written to producers, repetitions included."""
    receipts: int = 0
    """Receipts read, refusals included."""
    reconnects: Mapping[str, int] = field(default_factory=dict)
    """By link: ``mqtt`` or the producer's part name."""
    link_failures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By link, then by cause: the ``Pace`` of what failed, ``lost`` where a link that stood was lost."""
    certificate_ends: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By link, then ``peer`` or ``own``: when the certificates of its latest connection end, in seconds since the
    epoch."""
    window_used: Mapping[str, int] = field(default_factory=dict)
    """Records sent and not receipted, by stream."""
    receipt_durations: Mapping[str, Durations] = field(default_factory=dict)
    """From a record's send to its receipt, by stream."""
    route_rows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Rows that messages became, by route and stream; those that come again count again."""
    sessions_lost: int = 0
    """Times that the broker had lost the session, since the outbox was made: what it held for us is gone."""
    broker_dropped: int | None = None
    """Messages that the broker says it dropped for any client since it started; None: it doesn't say."""


@dataclass(frozen=True, slots=True)
class Store:
    """How full the outbox is."""

    bytes: int = 0
    """Of the records waiting, as its bound counts them."""
    seconds_left: float = inf
    """Until the bound of bytes is reached if the outbox fills on as it does; infinite while it doesn't."""
    oldest_age: float = 0.0
    """Seconds that the oldest record has waited."""
    dead_letters: int = 0
    """Dead letters kept."""
    dead_letters_purged: int = 0
    """Dead letters deleted by a bound or by a person, since the outbox was made."""
    dead_letters_replayed: int = 0
    """Dead letters that a person had mapped again, with success, since the outbox was made."""
    holding: str | None = None
    """Why nothing is taken from the broker now; None while it is."""
    error: str | None = None
    """Why the store doesn't work now; None while it does."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests made to GDN."""

    last_minute: int = 0
    last_day: int = 0
    checks: int = 0
    """By health checks, since the start."""
    others: int = 0
    """By all else, since the start."""
    one_time_passwords: int = 0
    """Of these, those for a one-time password."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What others may know of the data path, of one moment."""

    books: Books = field(default_factory=Books)
    traffic: Traffic = field(default_factory=Traffic)
    store: Store = field(default_factory=Store)
