"""Observes the broker's link: which messages were delivered to the bridge, and which the bridge PUBACKed.

That decides who lost a message: none that the bridge PUBACKed may be missing, whatever was done to the broker. The
proxy passes it all bytes: those to the bridge as they are written, those from it as they are read.
"""

from __future__ import annotations

import time
from collections import Counter, deque

from tests.faults import mqtt_packets
from tests.faults.messages import MessageId
from tests.faults.publisher import fingerprint


class Tap:
    """The observations of all connections.

    Args:
        known: message ids by fingerprint, filled by the publishers.
    """

    def __init__(self, known: dict[bytes, MessageId]) -> None:
        self.known = known
        self.handed: Counter[MessageId] = Counter()
        """How often each message was delivered."""
        self.first_handed: dict[MessageId, int] = {}
        """Messages in the order of their first delivery."""
        self.acked: Counter[MessageId] = Counter()
        """How often each was PUBACKed."""
        self.subscriptions = 0
        self.problems: list[str] = []
        self.last_at = 0.0

    def connection(self) -> TapConnection:
        """For a new connection."""
        return TapConnection(self)


class TapConnection:
    """Both directions of one connection."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._version = 4
        self._to_bridge = mqtt_packets.Splitter()
        self._from_bridge = mqtt_packets.Splitter()
        self._unacked: deque[tuple[int, MessageId]] = deque()

    def to_client(self, data: bytes) -> None:
        """Bytes to the bridge."""
        tap = self._tap
        for head, body in self._to_bridge.feed(data):
            kind = head >> 4
            if kind == mqtt_packets.SUBACK:
                tap.subscriptions += 1
            if kind != mqtt_packets.PUBLISH:
                continue
            topic, payload, packet_id, _ = mqtt_packets.read_publish(head, body, version=self._version)
            if topic.startswith("$"):
                continue  # the broker's own, at QoS 0
            message_id = tap.known.get(fingerprint(topic, payload))
            if message_id is None:
                tap.problems.append(f"the broker handed over a message that nobody published: {topic} {payload[:80]!r}")
                message_id = MessageId(0, -1)
            tap.handed[message_id] += 1
            tap.first_handed.setdefault(message_id, len(tap.first_handed))
            tap.last_at = time.monotonic()
            self._unacked.append((packet_id, message_id))

    def to_server(self, data: bytes) -> None:
        """Bytes from the bridge."""
        tap = self._tap
        for head, body in self._from_bridge.feed(data):
            kind = head >> 4
            if kind == mqtt_packets.CONNECT:
                self._version = body[6]
            if kind != mqtt_packets.PUBACK:
                continue
            packet_id = int.from_bytes(body[:2], "big")
            if not self._unacked:
                tap.problems.append(f"the bridge PUBACKed packet id {packet_id}, which is not under way")
                continue
            expected, message_id = self._unacked.popleft()
            if expected != packet_id:
                tap.problems.append(
                    f"the bridge PUBACKed packet id {packet_id}, but {expected} ({message_id}) was next"
                )
            tap.acked[message_id] += 1
            tap.last_at = time.monotonic()
