"""The values that pass between the stages of the data path, one immutable type per stage.

They are ``msgspec.Struct`` because one of each is created per message: creating a frozen dataclass takes ten times
as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec


class MqttMessage(msgspec.Struct, frozen=True, gc=False):
    """A PUBLISH as the broker sent it.

    A topic that isn't valid UTF-8 (a protocol error of the sender, MQTT 5, 1.5.4) holds its bytes as surrogate escapes:
    the message still has to be acknowledged.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int
    """0 for QoS 0, which has no packet id."""
    received_at: int
    """Nanoseconds since the epoch, by this machine's clock."""
    dup: bool = False
    """The DUP flag: the broker may have sent it before (MQTT 5, 3.3.1.1)."""
    properties: bytes = b""
    """MQTT 5 properties as received, without the property length (3.3.2.3)."""
    is_replay: bool = False
    """Whether it is a dead letter that is mapped again: it is out of order, and its data may be outdated."""
    omitted: int = 0
    """Bytes missing at the end of ``payload``, because the packet was over the limit. Such a message has no rows."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row for a GDN stream. ``payload`` is the JSON object that the worker reads, as UTF-8."""

    stream: str
    payload: bytes
    extras: bytes = b""
    """Further members of the JSON frame that is sent, such as ``,"key":"AD11"`` (gdn-api.md C.5); UTF-8."""


class Rows(list[Row]):
    """The rows of a message of which some elements became no row; a plain list if all became one."""

    __slots__ = ("filtered", "unchanged")

    def __init__(self, rows: Iterable[Row] = (), *, filtered: int = 0, unchanged: int = 0) -> None:
        super().__init__(rows)
        self.filtered = filtered
        """Elements that no route takes; 1 for a message without elements."""
        self.unchanged = unchanged
        """Rows held back because their values haven't changed (``every``)."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A message that can't become rows, kept whole with the reason."""

    topic: str
    payload: bytes
    qos: int
    received_at: int
    route: str | None
    """The topic template of the route that matched; None if none did."""
    reason: str
    """A reason code, see ``bridge.reasons.Reason``."""
    detail: str
    """The reason in words, for the person who has to fix it."""
    retain: bool = False
    properties: bytes = b""
    """As in ``MqttMessage``."""
    mapping: str = ""
    """Version of the mapping that rejected it, which changes with the routes and the definition. Of a row that was
    stored: version of the form that it has."""
    omitted: int = 0
    """As in ``MqttMessage``."""

    @classmethod
    def of(cls, message: MqttMessage, *, route: str | None, reason: str, detail: str, mapping: str = "") -> DeadLetter:
        """The dead letter for a message. Invalid UTF-8 in its topic becomes backslash escapes."""
        topic = message.topic.encode("utf-8", "backslashreplace").decode()
        return cls(
            topic=topic,
            payload=message.payload,
            qos=message.qos,
            received_at=message.received_at,
            route=route,
            reason=reason,
            detail=detail,
            retain=message.retain,
            properties=message.properties,
            mapping=mapping,
            omitted=message.omitted,
        )


class OutboxRecord(msgspec.Struct, frozen=True, gc=False):
    """A row stored in the outbox. ``id`` increases, is never reused, and is sent as the context of the frame."""

    id: int
    stream: str
    payload: bytes
    extras: bytes = b""
    """As in ``Row``."""

    @property
    def size(self) -> int:
        """Bytes of payload and extras."""
        return len(self.payload) + len(self.extras)


def total_size(records: Iterable[OutboxRecord]) -> int:
    """Bytes of the records' payloads and extras."""
    return sum([len(record.payload) + len(record.extras) for record in records])


class SeenMessages(NamedTuple):
    """What a commit records about its messages, so that redelivered ones are recognised after a crash."""

    batch: int
    messages: bytes
    """One entry per message; empty if none of them has to be recognised."""
    oldest: int
    """Batches before this one can be deleted."""


class Qos2Changes(NamedTuple):
    """What a commit changes about the QoS 2 messages that are remembered until their PUBREL: see ``mqtt/qos2.py``."""

    begun: Sequence[tuple[int, bytes]]
    """Packet id and digest of each message to remember."""
    ended: Sequence[int]
    """Packet ids of messages to forget, before those of ``begun`` are added."""
    clears: bool
    """Whether all earlier ones are forgotten."""


class SessionChanges(NamedTuple):
    """What a commit records about the broker's session. Without any change it needs no commit."""

    seen: SeenMessages | None = None
    qos_2: Qos2Changes | None = None
    session: str = ""
    """The session's name."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no change."""
        return self.seen is None and self.qos_2 is None
