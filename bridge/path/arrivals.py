"""Messages that were read and not acknowledged yet, and the choice of those that a turn maps.

A message of a kilobyte can become 8 MiB of rows, and one read returns hundreds of messages. So a turn maps and commits
only a *slice*; the rest waits, and beyond a bound nothing more is read. Streams that fill slices alternate with all
others: their messages may be overtaken, but messages for the same stream keep their order, and PUBACKs keep the order
of arrival (MQTT 5, 4.6). Used by the pipeline thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol, TypeVar

from bridge.message import DeadLetter, MqttMessage, Row, Rows

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

_T = TypeVar("_T")
_T_contra = TypeVar("_T_contra", contravariant=True)


class MapOne(Protocol[_T_contra]):
    """Maps a message or a dead letter to rows, or to the dead letter that it becomes."""

    def __call__(self, item: _T_contra, next_id: int, /) -> list[Row] | DeadLetter | None:
        """``next_id`` is the record id that the first row gets. None: another session's, and not counted."""


class Measure(NamedTuple):
    """How much of a slice was used after some of its messages."""

    items: int
    """Messages or dead letters mapped so far."""
    share: float
    """The sum of the shares of ``SLICE_BYTES`` and ``SLICE_SECONDS``; at 1 or above the slice is full."""


class Slice:
    """What the messages of a slice become."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows: list[Row] = []
        self.dead_letters: list[DeadLetter] = []
        self.filtered = 0
        """Elements of messages that no route takes."""
        self.unchanged = 0
        """Rows held back because their values haven't changed."""
        self._clock = clock
        self._began_at = clock()
        self._bytes = 0  # of the measured rows and of all dead letters
        self._measured = 0  # rows

    def fill(self, items: Iterable[_T], map_one: MapOne[_T], next_id: int) -> list[Measure]:
        """Map messages or dead letters until the slice is full.

        Args:
            items: in order.
            map_one: maps one of them; its other argument is the record id of the first row.
            next_id: the record id of the slice's first row.

        Returns:
            How much was used in the course of it; the last measure is of all that were mapped.
        """
        rows = self.rows
        measures: list[Measure] = []
        count = 0
        for count, item in enumerate(items, start=1):
            mapped = map_one(item, next_id + len(rows))
            if isinstance(mapped, DeadLetter):
                self.dead_letters.append(mapped)
                self._bytes += OBJECT_BYTES + len(mapped.payload)
            elif mapped is not None:
                rows += mapped
                if type(mapped) is Rows:
                    self.filtered += mapped.filtered
                    self.unchanged += mapped.unchanged
                elif len(mapped) == 1 and count % MEASURED_TOGETHER:
                    continue
            measures.append(Measure(count, self._share()))
            if measures[-1].share >= 1:
                break
        measures.append(Measure(count, self._share()))
        return measures

    def _share(self) -> float:
        unmeasured = self.rows[self._measured :]
        self._measured += len(unmeasured)
        self._bytes += sum([OBJECT_BYTES + len(row.payload) + len(row.extras) for row in unmeasured])
        return self._bytes / SLICE_BYTES + (self._clock() - self._began_at) / SLICE_SECONDS


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
    def is_empty(self) -> bool:
        """Whether every message that was read is acknowledged."""
        return not self._arrived

    @property
    def has_room(self) -> bool:
        """Whether more may be read. If nothing may overtake, further messages wait at the broker instead of here."""
        if not self._is_behind:
            return True
        is_full = self._bytes >= READ_AHEAD_BYTES or len(self._arrived) >= READ_AHEAD_MESSAGES
        return self._may_overtake and not is_full

    def map_slice(self, fill: Callable[[Sequence[MqttMessage]], list[Measure]], lanes: Lanes) -> list[MqttMessage]:
        """Map the messages of the next slice; returns them, in arrival order.

        Args:
            fill: maps messages until the slice is full: see ``Slice.fill``.
            lanes: returns the lanes of a topic.
        """
        chosen = self._choose(lanes) if self._busy else self._waiting
        measures = fill(chosen)
        mapped = chosen[: measures[-1].items]
        if len(mapped) == len(self._waiting):
            self._nothing_waits()
            return mapped
        if not self._is_behind:
            self._is_behind, self._bytes = True, _size(self._arrived)
        done = {id(message) for message in mapped}
        self._waiting = [message for message in self._waiting if id(message) not in done]
        if self._may_overtake:
            self._busy |= _busy_lanes(mapped, measures, lanes)
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


def _busy_lanes(mapped: Sequence[MqttMessage], measures: Iterable[Measure], lanes: Lanes) -> frozenset[str]:
    """The lanes that used ``BUSY_SHARE`` of a slice. Of messages measured together the last counts for all."""
    used: defaultdict[str, float] = defaultdict(float)
    before = 0.0
    for items, share in measures:
        for lane in lanes(mapped[items - 1].topic):
            used[lane] += share - before
        before = share
    return frozenset(lane for lane, share in used.items() if share >= BUSY_SHARE)
