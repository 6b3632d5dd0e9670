"""The baseline: the tutorial's program. Its MQTT callback sends a row and waits for the receipt.

Arguments: broker's port, acker's port. Not durable; acknowledges to the broker when the callback returns.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from websocket import create_connection


def main(broker: int, acker: int) -> None:
    socket = create_connection(f"ws://127.0.0.1:{acker}/_ws/ws/v2/producer/persistent/t/c8local._system/c8locals.s")

    def on_message(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        _, device, _, room, _ = message.topic.split("/")
        row = {"deviceID": device, "roomNo": int(room), **json.loads(message.payload)}
        payload = base64.b64encode(json.dumps(row).encode()).decode()
        socket.send(json.dumps({"payload": payload}))
        assert json.loads(socket.recv())["result"] == "ok"

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe("devices/+/rooms/+/telemetry", 1)

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="tutorial-way")
    client.on_connect = on_connect
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.on_message = on_message
    client.connect("127.0.0.1", broker)
    client.loop_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
