"""The books: counts of what was received and what became of it, as immutable snapshots.

The unit is the record: one for each row that a message maps to, one for each of its elements that no route takes
(``filtered``), one for each row that is held back (``unchanged``), and one for a message that became a dead letter.
Each snapshot is built as a whole, so its figures are consistent with each other. That happens in every turn of the data
path, so these are ``msgspec.Struct`` like the values of ``message.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import msgspec

from bridge.histogram import Durations


class Books(msgspec.Struct, frozen=True):
    """The books (docs/reliability.md, P3): every received record is in exactly one of the other counts."""

    received: int = 0
    delivered: int = 0
    outbox: int = 0
    dead_lettered: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By reason code."""
    dropped: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By reason code."""
    unknown_losses: int = 0
    """How often a damaged outbox lost records or dead letters whose number is unknown."""

    @property
    def accounted(self) -> int:
        """Delivered, in the outbox, dead-lettered or dropped."""
        dead_lettered, dropped = sum(self.dead_lettered.values()), sum(self.dropped.values())
        return self.delivered + self.outbox + dead_lettered + dropped

    @property
    def balanced(self) -> bool:
        """Whether no record is missing and none is counted twice; False if that can't be known."""
        return self.received == self.accounted and not self.unknown_losses


class Traffic(msgspec.Struct, frozen=True):
    """Traffic on the links since the process started."""

    mqtt_messages: int = 0
    """PUBLISH packets read, redelivered ones included."""
    redelivered: int = 0
    """Those of ``mqtt_messages`` that were recognised as already stored, and not stored again."""
    acked: int = 0
    """PUBACKs and PUBRECs written."""
    sends: int = 0
    """Records written to producers, resent ones included."""
    receipts: int = 0
    """Receipts read, refusals included."""
    reconnects: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By link: its part's name."""
    link_failures: Mapping[str, Mapping[str, int]] = msgspec.field(default_factory=dict)
    """By link, then by cause: the ``Pace`` of the failure, or ``lost`` for an established link that was lost."""
    certificate_ends: Mapping[str, Mapping[str, float]] = msgspec.field(default_factory=dict)
    """By link, then ``peer`` or ``own``: when the certificate of the latest connection expires, in seconds since the
    epoch."""
    window_used: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Records sent without a receipt, by stream."""
    rate_limited: Mapping[str, bool] = msgspec.field(default_factory=dict)
    """Whether records wait because of the rate limit, not the far end, by stream."""
    receipt_durations: Mapping[str, Durations] = msgspec.field(default_factory=dict)
    """From the send of a record to its receipt, by stream."""
    route_rows: Mapping[tuple[str, str], int] = msgspec.field(default_factory=dict)
    """Rows mapped, by route and stream. Redelivered messages count again."""
    route_unanswerable: Mapping[tuple[str, str], int] = msgspec.field(default_factory=dict)
    """Elements for which a route's condition couldn't be evaluated, by route and stream."""
    route_notes: tuple[str, ...] = ()
    """Probable mistakes in routes that the messages have shown, as sentences."""
    sessions_lost: int = 0
    """How often the broker said that it had lost the session, and with it the messages queued for us. Kept in the
    outbox."""
    sessions_kept: int = 0
    """How many of ``sessions_lost`` were disproved by redelivered messages. Kept in the outbox."""
    broker: str | None = None
    """Host and port of the broker that the bridge is connected to; None while it is connected to none."""
    broker_dropped: int | None = None
    """Messages for any client that the broker reports as dropped since it started; None if it doesn't report them."""
    broker_notes: tuple[str, ...] = ()
    """Where the broker grants less than was asked for, and that it drops messages, as sentences."""
    sparkplug_bytes: int | None = None
    """Memory that Sparkplug birth certificates take, as ``mqtt.sparkplug_bytes`` counts it; None: no route has the
    format."""
    sparkplug_refused: int | None = None
    """Birth certificates not remembered for lack of memory since the process started."""


class OutboxStatus(msgspec.Struct, frozen=True):
    """How full the outbox is, and whether it works."""

    bytes: int = 0
    """Size of the waiting records, as ``outbox.max_bytes`` counts it."""
    stream_bytes: Mapping[str, int] = msgspec.field(default_factory=dict)
    """The same by stream; only streams that have records."""
    seconds_left: float = inf
    """Until ``outbox.max_bytes`` is reached at the current rate; infinite if the outbox isn't filling."""
    oldest_age: float = 0.0
    """Age of the oldest record in seconds."""
    dead_letters: int = 0
    """Dead letters kept."""
    dead_letters_purged: int = 0
    """Dead letters deleted by a bound or by a command, since the outbox was created."""
    dead_letters_replayed: int = 0
    """Dead letters replayed successfully, since the outbox was created."""
    dead_letters_lost: int = 0
    """Dead letters that could not be read from a damaged outbox, since it was created."""
    holding: str | None = None
    """Why the bridge takes no messages from the broker; None if it isn't holding."""
    error: str | None = None
    """Why the outbox can't be read or written; None if it can."""


class Requests(msgspec.Struct, frozen=True):
    """Numbers of requests made to GDN."""

    last_minute: int = 0
    last_day: int = 0
    checks: int = 0
    """By health checks, since the process started."""
    others: int = 0
    """By everything else, since the process started."""
    one_time_passwords: int = 0
    """Requests for a one-time password; ``others`` includes them."""


class Snapshot(msgspec.Struct, frozen=True):
    """The data path at one moment, as other threads may read it."""

    books: Books = msgspec.field(default_factory=Books)
    traffic: Traffic = msgspec.field(default_factory=Traffic)
    outbox: OutboxStatus = msgspec.field(default_factory=OutboxStatus)
