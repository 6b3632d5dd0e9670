"""Simulated devices: thermometers that publish at QoS 1 and remember what the broker acknowledged."""

from __future__ import annotations

import json
import math
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

DEVICES = ("AD11", "AD12", "BK07", "CF31")


class Devices:
    """A few thermometers behind one connection. Every reading has a room number of its own: its row can be found.

    Args:
        port: of a broker on the loopback interface.
        rate: readings a second, of all together.
    """

    def __init__(self, *, port: int, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._readings: dict[int, str] = {}  # by paho's number of the message
        self._mids: set[int] = set()  # acknowledged; may be known before publish has returned the number
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="gdn-bridge-demo-devices")
        self._client.on_publish = self._on_publish
        self._client.max_inflight_messages_set(200)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._next = 0

    @property
    def acknowledged(self) -> set[str]:
        """Ids (room number, dash, device) of the readings that the broker acknowledged."""
        with self._lock:
            return {self._readings[mid] for mid in self._mids & self._readings.keys()}

    def publish_for(self, seconds: float) -> None:
        """Publish at the rate for so long, then wait until the broker acknowledged everything (at most 10 s)."""
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
        temperature = round(20 + 5 * math.sin(room / 50), 2)
        # Not under our lock: paho calls back while it holds one of its own.
        sent = self._client.publish(
            f"devices/{device}/rooms/{room}/telemetry", json.dumps({"temperature": temperature}), qos=1
        )
        with self._lock:
            self._readings[sent.mid] = f"{room}-{device}"

    def _on_publish(self, _client: object, _data: object, mid: int, _reason: object, _properties: object) -> None:
        with self._lock:
            self._mids.add(mid)
