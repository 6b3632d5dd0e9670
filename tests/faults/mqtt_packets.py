"""The few MQTT packets (3.1.1 and 5) that publisher and tap need, written from the standards."""

from __future__ import annotations

CONNECT, CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT = 1, 2, 3, 4, 9, 14


def connect(client_id: str, *, username: str, password: str) -> bytes:
    """CONNECT: 3.1.1, clean session, no keepalive. The publisher itself keeps track of what to send again."""
    body = _text("MQTT") + b"\x04\xc2\x00\x00" + _text(client_id) + _text(username) + _text(password)
    return _packet(CONNECT << 4, body)


def publish(topic: str, payload: bytes, packet_id: int, *, dup: bool = False, qos: int = 1) -> bytes:
    """PUBLISH at QoS 1 or 2."""
    head = PUBLISH << 4 | qos << 1 | (0x08 if dup else 0)
    return _packet(head, _text(topic) + packet_id.to_bytes(2, "big") + payload)


def disconnect() -> bytes:
    """DISCONNECT."""
    return _packet(DISCONNECT << 4, b"")


def read_publish(head: int, body: bytes, *, version: int) -> tuple[str, bytes, int, bool]:
    """Topic, payload, packet id (0 with QoS 0) and the DUP flag."""
    size = int.from_bytes(body[:2], "big")
    topic = body[2 : 2 + size].decode("utf-8", "replace")
    at = 2 + size
    packet_id = 0
    if head & 0x06:
        packet_id = int.from_bytes(body[at : at + 2], "big")
        at += 2
    if version == 5:
        properties, at = _variable(body, at)
        at += properties
    return topic, body[at:], packet_id, bool(head & 0x08)


class Splitter:
    """Splits a byte stream into complete packets: (first byte, body)."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The packets that ``data`` completes."""
        rest = self._rest
        rest += data
        packets = []
        at = 0
        while len(rest) - at >= 2:
            try:
                size, start = _variable(rest, at + 1)
            except IndexError:
                break
            if start + size > len(rest):
                break
            packets.append((rest[at], bytes(rest[start : start + size])))
            at = start + size
        del rest[:at]
        return packets


def _variable(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """A variable byte integer and the offset of its end."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(head: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return bytes([head]) + bytes(length) + body
