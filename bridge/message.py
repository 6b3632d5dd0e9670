"""What passes between the stages of the data path: one immutable value per stage.

They are ``msgspec.Struct`` rather than dataclasses because one of each is made per message: a frozen
dataclass costs ten times as much to make.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class MqttMessage(msgspec.Struct, frozen=True, gc=False):
    """A PUBLISH as the broker sent it.

    A topic that was not UTF-8 (a protocol error of the sender, MQTT 5, 1.5.4) carries its bytes as
    surrogate escapes: it is still a message that we owe an answer.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int
    """0 with QoS 0, which has none."""
    received_at: int
    """Nanoseconds since the epoch, by this machine's clock."""
    dup: bool = False
    """Whether the broker may have sent it before (MQTT 5, 3.3.1.1)."""
    properties: bytes = b""
    """Its MQTT 5 properties as they were sent, without their length (3.3.2.3)."""
    is_replay: bool = False
    """Whether it was a dead letter: it comes out of its order, and says nothing of now."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row for a GDN stream: ``payload`` is the JSON object the worker reads, UTF-8."""

    stream: str
    payload: bytes
    extras: bytes = b""
    """Further members of the send's JSON, such as ``,"key":"AD11"`` (gdn-api.md C.5); UTF-8."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A message that can't become rows, kept whole with the reason."""

    topic: str
    payload: bytes
    qos: int
    received_at: int
    route: str | None
    """The topic template of the route that took it; None when no route did."""
    reason: str
    """A reason code (docs/mapping.md lists them)."""
    detail: str
    """The reason in words, for the person who has to mend it."""
    retain: bool = False
    properties: bytes = b""
    """As in ``MqttMessage``."""
    mapping: str = ""
    """Version of the mapping that made it: changes with routes and worker."""

    @classmethod
    def of(cls, message: MqttMessage, *, route: str | None, reason: str, detail: str, mapping: str = "") -> DeadLetter:
        """The dead letter that a message becomes; a topic that was not UTF-8 has its bytes written out."""
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
        )


class OutboxRecord(msgspec.Struct, frozen=True, gc=False):
    """A row that is on disk. ``id`` grows, is never used twice, and travels as the send's context."""

    id: int
    stream: str
    payload: bytes
    extras: bytes = b""
    """As in ``Row``."""

    @property
    def size(self) -> int:
        """Bytes of payload and extras."""
        return len(self.payload) + len(self.extras)


class SeenMessages(NamedTuple):
    """What a commit keeps of the messages it stores, to tell repetitions by after a crash."""

    batch: int
    messages: bytes
    """An entry each; empty: nothing needs to be known of any message."""
    oldest: int
    """Batches before this one need not be kept any longer."""
