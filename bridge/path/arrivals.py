"""Messages that were read and not acknowledged yet, and the choice of those that a turn maps.

A message of a kilobyte can become 8 MiB of rows, and one read returns hundreds of messages. So a turn maps and commits
only a *slice*; the rest waits, and beyond a bound nothing more is read. Streams that fill slices alternate with all
others: their messages may be overtaken, but messages for the same stream keep their order, and PUBACKs keep the order
of arrival (MQTT 5, 4.6). Used by the pipeline thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise

from bridge.message import DeadLetter, MqttMessage, Row

SLICE_BYTES = 4 * 1024 * 1024
"""Maximum memory in bytes for the rows and dead letters of a slice; its last message may exceed it."""

SLICE_SECONDS = 0.1
"""Maximum seconds to map a slice; its last message may exceed it."""

MEASURED_TOGETHER = 16
"""Single-row messages measured together: measuring each would cost 4 % of the time of an ordinary message."""

OBJECT_BYTES = 512
"""Memory overhead in bytes of a row or dead letter, beyond its payload, from mapping to the end of the commit."""

READ_AHEAD_BYTES = 16 * 1024 * 1024
"""Bytes of unacknowledged messages at which reading pauses while some of them wait."""

READ_AHEAD_MESSAGES = 5_000
"""The same limit as a number of messages: choosing among more would take longer than mapping them."""

MESSAGE_BYTES = 256
"""Memory overhead in bytes of a message, beyond its topic and payload."""

BUSY_SHARE = 0.5
"""A lane that uses at least this share of a slice counts as busy."""

Lanes = Callable[[str], AbstractSet[str]]
"""(topic) -> its lanes: see ``Mapper.lanes``."""


class Slice:
    """Measures how much of a slice is used: the sum of its shares of ``SLICE_BYTES`` and ``SLICE_SECONDS``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at = clock()
        self._bytes = 0
        self._share = 0.0
        self._unmeasured: list[Row] = []

    def add(self, mapped: list[Row] | DeadLetter) -> float:
        """Count what a message became; returns the share used so far: at 1 or above the slice is full."""
        rows = self._unmeasured
        if isinstance(mapped, DeadLetter):
            self._bytes += OBJECT_BYTES + len(mapped.payload)
        else:
            rows.extend(mapped)
            if len(mapped) == 1 and len(rows) < MEASURED_TOGETHER:
                return self._share
        self._bytes += OBJECT_BYTES * len(rows) + sum([len(row.payload) + len(row.extras) for row in rows])
        rows.clear()
        self._share = self._bytes / SLICE_BYTES + (self._clock() - self._began_at) / SLICE_SECONDS
        return self._share


class Arrivals:
    """Messages that were read and have no PUBACK yet, in arrival order.

    Args:
        may_overtake: whether messages may be mapped before earlier ones of other lanes.
    """

    def __init__(self, *, may_overtake: bool) -> None:
        self._may_overtake = may_overtake
        self._arrived: list[MqttMessage] = []
        self._waiting: list[MqttMessage] = []  # those of them that aren't mapped yet
        self._bytes = 0  # size of _arrived, kept only while _is_behind
        self._is_behind = False  # a slice has left some of _waiting
        self._busy: frozenset[str] = frozenset()  # lanes that filled slices; reset when nothing waits
        self._was_turn_of_busy = True  # so the others come first

    def add(self, arrived: Sequence[MqttMessage], new: Sequence[MqttMessage]) -> None:
        """Add messages that were read; ``new`` are those of them that are to be mapped."""
        if self._is_behind:
            self._bytes += _size(arrived)
        self._arrived += arrived
        self._waiting += new

    def clear(self) -> None:
        """Forget all messages: the link is gone, and the broker sends them again."""
        self._arrived = []
        self._nothing_waits()

    def _nothing_waits(self) -> None:
        self._waiting, self._busy, self._was_turn_of_busy, self._is_behind = [], frozenset(), True, False

    @property
    def is_waiting(self) -> bool:
        """Whether messages wait for a later slice."""
        return bool(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether more may be read. If nothing may overtake, further messages wait at the broker instead of here."""
        if not self._is_behind:
            return True
        is_full = self._bytes >= READ_AHEAD_BYTES or len(self._arrived) >= READ_AHEAD_MESSAGES
        return self._may_overtake and not is_full

    def map_slice(self, map_one: Callable[[MqttMessage], float], lanes: Lanes) -> list[MqttMessage]:
        """Map the messages of the next slice; returns them, in arrival order.

        Args:
            map_one: maps a message, and returns the share of the slice that is used so far.
            lanes: returns the lanes of a topic.
        """
        chosen = self._choose(lanes) if self._busy else self._waiting
        shares = [0.0]
        for message in chosen:
            share = map_one(message)
            shares.append(share)
            if share >= 1:
                break
        mapped = chosen[: len(shares) - 1]
        if len(mapped) == len(self._waiting):
            self._nothing_waits()
            return mapped
        if not self._is_behind:
            self._is_behind, self._bytes = True, _size(self._arrived)
        done = {id(message) for message in mapped}
        self._waiting = [message for message in self._waiting if id(message) not in done]
        if self._may_overtake:
            self._busy |= _busy_lanes(mapped, shares, lanes)
        return mapped

    def complete(self) -> list[MqttMessage]:
        """The messages that arrived before the first one that waits."""
        if not self._waiting:
            return self._arrived
        first = self._waiting[0]
        return self._arrived[: next(n for n, message in enumerate(self._arrived) if message is first)]

    def remove_complete(self) -> list[MqttMessage]:
        """Take out the messages that are ``complete``."""
        complete = self.complete()
        self._arrived = self._arrived[len(complete) :]
        if self._is_behind:
            self._bytes -= _size(complete)
        return complete

    def _choose(self, lanes: Lanes) -> list[MqttMessage]:
        """The waiting messages of all lanes that are not busy, and in the next turn those of the busy ones."""
        is_turn_of_busy = not self._was_turn_of_busy
        chosen = self._select(lanes, busy=is_turn_of_busy)
        if not chosen:
            is_turn_of_busy = not is_turn_of_busy
            chosen = self._select(lanes, busy=is_turn_of_busy)
        self._was_turn_of_busy = is_turn_of_busy
        return chosen

    def _select(self, lanes: Lanes, *, busy: bool) -> list[MqttMessage]:
        selected = []
        passed_over: set[str] = set()  # lanes of earlier messages that keep waiting
        for message in self._waiting:
            own = lanes(message.topic)
            if passed_over.isdisjoint(own) and self._busy.isdisjoint(own) != busy:
                selected.append(message)
            else:
                passed_over |= own
        return selected


def _size(messages: Sequence[MqttMessage]) -> int:
    return sum([MESSAGE_BYTES + len(m.topic) + len(m.payload) + len(m.properties) for m in messages])


def _busy_lanes(mapped: Sequence[MqttMessage], shares: Sequence[float], lanes: Lanes) -> frozenset[str]:
    """The lanes that used ``BUSY_SHARE`` of a slice. ``shares``: used before and after each message."""
    used: defaultdict[str, float] = defaultdict(float)
    for message, (before, after) in zip(mapped, pairwise(shares), strict=True):
        for lane in lanes(message.topic):
            used[lane] += after - before
    return frozenset(lane for lane, share in used.items() if share >= BUSY_SHARE)
