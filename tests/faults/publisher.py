"""The devices: numbered QoS 1 messages over one connection, each repeated until the broker has PUBACKed it.

Runs on an event loop; the attributes may be read and ``rate`` and ``paused`` set from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults import mqtt_packets
from tests.faults.messages import Message, MessageId, compose

CONNECT_SECONDS = 3.0
TICK = 0.01
RETRY = 0.1


class Published(NamedTuple):
    """What happened to one message on its way to the broker."""

    sends: int
    acked_at: float | None
    """Monotonic seconds of the PUBACK."""


def fingerprint(topic: str, payload: bytes) -> bytes:
    """Identifies a message where only its bytes are visible."""
    return hashlib.blake2b(topic.encode() + b"\0" + payload, digest_size=10).digest()


class Publisher:
    """One connection that several devices share.

    Args:
        port: of the broker.
        seed: of the messages.
        devices: their numbers; no other publisher may have them.
        rate: messages per second of all devices together.
        known: filled with each message's fingerprint before it is sent.
        journal: file to which each PUBACK is written.
        window: the maximum of messages without PUBACK.
    """

    def __init__(
        self,
        *,
        port: int,
        username: str,
        password: str,
        seed: int,
        devices: Sequence[int],
        rate: float,
        known: dict[bytes, MessageId],
        journal: Path,
        window: int = 200,
    ) -> None:
        self._port = port
        self._username = username
        self._password = password
        self._seed = seed
        self._devices = list(devices)
        self.rate = rate
        self.paused = False
        self.published: dict[MessageId, Published] = {}
        self.is_connected = False
        self._known = known
        self._journal_path = journal
        self._window = window
        self._numbers = dict.fromkeys(self._devices, 0)
        self._turn = 0
        self._packet_id = 0
        self._pending: dict[int, tuple[MessageId, Message]] = {}  # in the order in which they were published
        self._credit = 0.0
        self._stopping = False

    @property
    def is_idle(self) -> bool:
        """Whether it is paused and every message has its PUBACK."""
        return self.paused and not self._pending

    @property
    def unacked(self) -> int:
        """Messages without PUBACK."""
        return len(self._pending)

    def stop(self) -> None:
        """End ``run`` soon."""
        self._stopping = True

    async def run(self) -> None:
        """Publish until stopped; reconnects as often as necessary."""
        with self._journal_path.open("a") as self._journal:
            while not self._stopping:
                try:
                    await self._connection()
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    await asyncio.sleep(RETRY)

    async def _connection(self) -> None:
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self._port), CONNECT_SECONDS)
        acks: asyncio.Task[None] | None = None
        try:
            name = f"faults-publisher-{self._devices[0]}"
            writer.write(mqtt_packets.connect(name, username=self._username, password=self._password))
            answer = await asyncio.wait_for(reader.readexactly(4), CONNECT_SECONDS)
            if answer[3]:
                raise ConnectionError(f"the broker refused the publisher: {answer[3]}")
            self.is_connected = True
            for packet_id, (message_id, message) in self._pending.items():
                self._write(writer, packet_id, message_id, message, dup=True)
            acks = asyncio.create_task(self._read_acks(reader))
            before = time.monotonic()
            while not (self._stopping or acks.done()):
                await writer.drain()
                await asyncio.sleep(TICK)
                now = time.monotonic()
                self._publish_due(writer, now - before)
                before = now
            if acks.done():
                acks.result()
            writer.write(mqtt_packets.disconnect())
        finally:
            self.is_connected = False
            if acks is not None:
                acks.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                    await acks
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _publish_due(self, writer: asyncio.StreamWriter, seconds: float) -> None:
        self._credit = min(self._credit + self.rate * seconds, self.rate * 0.2 + 1)
        while self._credit >= 1 and not self.paused and len(self._pending) < self._window:
            self._credit -= 1
            device = self._devices[self._turn % len(self._devices)]
            self._turn += 1
            self._numbers[device] += 1
            message_id = MessageId(device, self._numbers[device])
            message = compose(self._seed, message_id)
            self._packet_id = self._packet_id % 65535 + 1
            while self._packet_id in self._pending:
                self._packet_id = self._packet_id % 65535 + 1
            self._known[fingerprint(message.topic, message.payload)] = message_id
            self._pending[self._packet_id] = (message_id, message)
            self._write(writer, self._packet_id, message_id, message)

    def _write(
        self, writer: asyncio.StreamWriter, packet_id: int, message_id: MessageId, message: Message, dup: bool = False
    ) -> None:
        if writer.is_closing():
            raise ConnectionError("the broker closed the publisher's connection")
        earlier = self.published.get(message_id)
        self.published[message_id] = Published(1 + (earlier.sends if earlier else 0), None)
        writer.write(mqtt_packets.publish(message.topic, message.payload, packet_id, dup=dup))

    async def _read_acks(self, reader: asyncio.StreamReader) -> None:
        splitter = mqtt_packets.Splitter()
        while data := await reader.read(65536):
            for head, body in splitter.feed(data):
                if head >> 4 != mqtt_packets.PUBACK:
                    continue
                message_id, _ = self._pending.pop(int.from_bytes(body[:2], "big"))
                now = time.monotonic()
                sends = self.published[message_id].sends
                self.published[message_id] = Published(sends, now)
                self._journal.write(json.dumps([*message_id, sends, round(now, 4)]) + "\n")
            self._journal.flush()
        raise ConnectionError("the broker closed the publisher's connection")
