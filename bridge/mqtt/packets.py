"""Reads PUBLISH packets and writes the answers in batches: the bytes of one read from the broker are split in one pass.

Pure. Only the packets of QoS 1 and 2 are handled here (MQTT 5 and 3.1.1, sections 3.3 to 3.7), because paho takes 40 µs
for each; all other packets are passed on to paho unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from bridge.errors import RemoteProtocolError
from bridge.message import MqttMessage

PUBLISH = 0x30
PUBREL = 0x60
_PINGRESP = b"\xd0\x00"

# Answers with the packet id 0. Their short form (3.4.2.1: without reason code 0) is the same in both protocol versions.
_ACKNOWLEDGEMENTS = {1: 0x40020000, 2: 0x50020000}
"""PUBACK and PUBREC, by the message's QoS."""
_PUBCOMP = 0x70020000

ACKNOWLEDGEMENT_BYTES = 4
"""Of a PUBACK or PUBREC as it is written."""

KEPT_BYTES = 256 * 1024
"""Bytes of a PUBLISH packet over the limit that are kept: topic and packet id are among them (both have at most 65,539
bytes), and the payload's beginning unless the properties are large."""


class Block(NamedTuple):
    """What the bytes of one read contain."""

    messages: list[MqttMessage]
    other: bytes
    """Complete packets of all other kinds, in order."""
    consumed: int
    """Bytes of complete packets; an incomplete packet follows."""
    needed: int
    """Length of the incomplete packet; 0 if it isn't known yet."""
    pubrels: list[int]
    """Packet ids of PUBREL packets, in order."""
    pingresps: int
    """Number of PINGRESP packets in ``other``: paho doesn't report them."""


def split(buffer: bytes, *, version: int, received_at: int) -> Block:
    """The complete packets at the start of ``buffer``.

    Args:
        buffer: bytes from the broker, starting at a packet.
        version: of the protocol, 5 or 4 (3.1.1): only 5 has properties.
        received_at: nanoseconds since the epoch, for all messages.

    Raises:
        RemoteProtocolError: a packet is malformed.
    """
    messages: list[MqttMessage] = []
    other: list[bytes] = []
    pubrels: list[int] = []
    at, end = 0, len(buffer)
    needed = 0
    while end - at >= 2:
        head = buffer[at]
        size = buffer[at + 1]
        start = at + 2
        if size & 0x80:
            length = _variable_length(buffer, at + 1, end)
            if length is None:
                break
            size, start = length
        stop = start + size
        if stop > end:
            needed = stop - at
            break
        if head & 0xF0 == PUBLISH:
            messages.append(_publish(buffer, head, start, stop, version, received_at))
        elif head & 0xF0 == PUBREL:
            pubrels.append(_packet_id(buffer, start, stop))
        else:
            other.append(buffer[at:stop])
        at = stop
    return Block(messages, b"".join(other), at, needed, pubrels, other.count(_PINGRESP))


class Oversized:
    """A PUBLISH packet over the limit, discarded as it arrives, except for its first ``KEPT_BYTES``.

    Args:
        size: of the packet, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._missing = size
        self._kept = bytearray()

    @property
    def is_complete(self) -> bool:
        """Whether the packet's last byte has come."""
        return not self._missing

    def feed(self, data: bytes) -> bytes:
        """Take the packet's bytes; returns what follows them."""
        mine = data[: self._missing]
        self._missing -= len(mine)
        self._kept += mine[: KEPT_BYTES - len(self._kept)]
        return data[len(mine) :]

    def message(self, *, version: int, received_at: int) -> MqttMessage:
        """The message, with the beginning of its payload. Arguments and errors as for ``split``."""
        kept = bytes(self._kept)
        _, start = _variable_length(kept, 1, len(kept)) or (0, 0)
        message = _publish(kept, kept[0], start, self._size, version, received_at)
        # Without any payload, properties that reach beyond the kept bytes are cut off.
        properties = message.properties if message.payload else b""
        return msgspec.structs.replace(message, properties=properties, omitted=self._size - len(kept))


def _publish(buffer: bytes, head: int, start: int, stop: int, version: int, received_at: int) -> MqttMessage:
    # A field that would reach beyond the packet moves payload_at past stop, which is checked once, at the end.
    qos = head >> 1 & 3
    if qos > 2:
        raise RemoteProtocolError("the broker sent a message with QoS 3, which doesn't exist")
    at = start + 2
    topic_end = at + (buffer[start] << 8 | buffer[start + 1]) if at <= stop else stop + 1
    packet_id = 0
    properties = b""
    payload_at = topic_end
    if qos:
        payload_at += 2
        if payload_at <= stop:
            packet_id = buffer[topic_end] << 8 | buffer[topic_end + 1]
    if version == 5 and payload_at < stop:
        size = buffer[payload_at]
        properties_at = payload_at + 1
        if size & 0x80:
            length = _variable_length(buffer, payload_at, stop)
            size, properties_at = (stop, stop) if length is None else length
        payload_at = properties_at + size
        if size:
            properties = buffer[properties_at:payload_at]
    elif version == 5:
        payload_at = stop + 1
    if payload_at > stop or (qos and not packet_id):
        raise RemoteProtocolError("the broker sent a PUBLISH packet that is shorter than its fields")
    # A topic that isn't UTF-8 must survive this step: the mapper makes it a dead letter (bad_topic).
    topic = buffer[at:topic_end].decode("utf-8", "surrogateescape")
    return MqttMessage(
        topic, buffer[payload_at:stop], qos, bool(head & 1), packet_id, received_at, bool(head & 8), properties
    )


def _packet_id(buffer: bytes, start: int, stop: int) -> int:
    if stop - start < 2:
        raise RemoteProtocolError("the broker sent a PUBREL packet without a packet id")
    return buffer[start] << 8 | buffer[start + 1]


def _variable_length(buffer: bytes, at: int, end: int) -> tuple[int, int] | None:
    """A variable byte integer (MQTT 5, 1.5.5) and the position after it; None if it is incomplete."""
    value = 0
    for n in range(4):
        if at + n >= end:
            return None
        byte = buffer[at + n]
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, at + n + 1
    raise RemoteProtocolError("the broker sent a packet whose length takes more than four bytes")


def acknowledgements(messages: Sequence[MqttMessage]) -> bytes:
    """The PUBACKs and PUBRECs of the messages, in order (MQTT 5, 4.6), joined; QoS 0 has none."""
    packets = [_ACKNOWLEDGEMENTS[message.qos] | message.packet_id for message in messages if message.qos]
    return struct.pack(f">{len(packets)}I", *packets)


def pubcomps(packet_ids: Sequence[int]) -> bytes:
    """PUBCOMPs, joined."""
    return struct.pack(f">{len(packet_ids)}I", *[_PUBCOMP | packet_id for packet_id in packet_ids])
