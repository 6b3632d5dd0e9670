"""Simulated devices: thermometers that publish at QoS 1, for a given time or until stopped."""

from __future__ import annotations

import json
import math
import ssl
import threading
import time
from typing import TextIO

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

DEVICES = ("AD11", "AD12", "BK07", "CF31")
TICK = 0.05
"""Seconds between checks for a reading that is due."""
REPORT_SECONDS = 10.0
MAX_UNACKNOWLEDGED = 200
"""Readings in flight to the broker; at this limit the devices wait."""


def reading(number: int) -> tuple[str, str]:
    """Topic and payload of a reading. Its number is used as the room number, so that its row can be found."""
    temperature = round(20 + 5 * math.sin(number / 50), 2)
    topic = f"devices/{DEVICES[number % len(DEVICES)]}/rooms/{number}/telemetry"
    return topic, json.dumps({"temperature": temperature})


def publish_until(
    stop: threading.Event,
    *,
    host: str,
    port: int,
    rate: float,
    username: str | None = None,
    password: str | None = None,
    tls: ssl.SSLContext | None = None,
    report: TextIO,
) -> tuple[int, int]:
    """Publish until ``stop`` is set; connect and reconnect to the broker as needed.

    Args:
        stop: may be set at any time, from any thread.
        host: the broker's host name or address.
        port: the broker's port.
        rate: readings per second, of all devices together.
        username: None connects without credentials.
        password: for ``username``.
        tls: None connects without TLS.
        report: gets a line about the progress every ten seconds.

    Returns:
        The number of readings published, and of those acknowledged by the broker.
    """
    acknowledged = 0

    def count(_client: object, _data: object, _mid: int, _reason: object, _properties: object) -> None:
        nonlocal acknowledged
        acknowledged += 1

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="gdn-bridge-demo-devices")
    client.on_publish = count
    client.max_inflight_messages_set(MAX_UNACKNOWLEDGED)
    client.reconnect_delay_set(1, 10)
    if username is not None:
        client.username_pw_set(username, password)
    if tls is not None:
        client.tls_set_context(tls)
    client.connect_async(host, port)
    client.loop_start()
    published, due, report_at = 0, 0.0, time.monotonic() + REPORT_SECONDS
    try:
        while not stop.wait(TICK):
            due = min(due + rate * TICK, max(rate, 1.0))
            while due >= 1 and client.is_connected() and published - acknowledged < MAX_UNACKNOWLEDGED:
                topic, payload = reading(published)
                client.publish(topic, payload, qos=1)
                published += 1
                due -= 1
            if time.monotonic() >= report_at:
                report_at += REPORT_SECONDS
                print(f"devices: published {published}, acknowledged {acknowledged}", file=report, flush=True)
    finally:
        client.disconnect()
        client.loop_stop()
    return published, acknowledged


class Devices:
    """Devices that share one connection. Every reading has a different room number, so that its row can be found.

    Args:
        port: port of a broker on the loopback interface.
        rate: readings per second, of all devices together.
    """

    def __init__(self, *, port: int, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._readings: dict[int, str] = {}  # id by paho's message id
        self._mids: set[int] = set()  # acknowledged message ids; may be added before publish() has returned them
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="gdn-bridge-demo-devices")
        self._client.on_publish = self._on_publish
        self._client.max_inflight_messages_set(200)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._next = 0

    @property
    def acknowledged(self) -> set[str]:
        """Ids (``room-device``) of the readings that the broker acknowledged."""
        with self._lock:
            return {self._readings[mid] for mid in self._mids & self._readings.keys()}

    def publish_for(self, seconds: float) -> None:
        """Publish for this time, then wait up to 10 s until the broker has acknowledged everything."""
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            while self._next < elapsed * self._rate:
                self._publish()
            time.sleep(0.02)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if len(self.acknowledged) == self._next:
                return
            time.sleep(0.02)

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self) -> None:
        room, device = self._next, DEVICES[self._next % len(DEVICES)]
        self._next += 1
        topic, payload = reading(room)
        # Not under our lock: paho calls back while it holds its own, so that could deadlock.
        sent = self._client.publish(topic, payload, qos=1)
        with self._lock:
            self._readings[sent.mid] = f"{room}-{device}"

    def _on_publish(self, _client: object, _data: object, mid: int, _reason: object, _properties: object) -> None:
        with self._lock:
            self._mids.add(mid)
