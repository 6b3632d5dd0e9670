"""The cost of mapping beyond decoding and encoding JSON: ``python -m tests.bench.mapping``.

The baseline only decodes the payload and encodes the row, with the same library. Mapping and baseline run in turns; the
best of several rounds counts for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bridge.mapping import FieldSpec, Mapper, Route
from bridge.message import MqttMessage
from bridge.streamql import parse
from bridge.streamql.streams import input_streams

MESSAGES = 20_000
ROUNDS = 7

TOPIC = "devices/{deviceID}/rooms/{roomNo}/telemetry"
STREAM = "tutorialAppInputStream"
PLAIN = b'{"temperature": 21.5, "humidity": 40, "battery": 3.3}'

CASES = {
    "plain route": (Route(TOPIC, STREAM), PLAIN),
    "a path": (Route(TOPIC, STREAM, {"temperature": "a.0.t"}), b'{"a": [{"t": 21.5}], "humidity": 40}'),
    "scaled": (Route(TOPIC, STREAM, {"temperature": FieldSpec("t", scale=0.1)}), b'{"t": 215, "humidity": 40}'),
    "a template": (Route(TOPIC, STREAM, {"deviceID": "{deviceID}-{site}"}), b'{"temperature": 21.5, "site": "K"}'),
    "a condition": (Route(TOPIC, STREAM, when="temperature > `0`"), PLAIN),
    "an expression": (Route(TOPIC, STREAM, {"temperature": "jmespath:max(t[*].v)"}), b'{"t": [{"v": 1}, {"v": 2}]}'),
    "held back": (Route(TOPIC, STREAM, every=60, change=0.1), PLAIN),
    "a key": (Route(TOPIC, STREAM, key="{deviceID}"), PLAIN),
}


def once(work: Callable[[MqttMessage], object], messages: list[MqttMessage]) -> float:
    """Microseconds per message."""
    begin = time.perf_counter()
    for message in messages:
        work(message)
    return (time.perf_counter() - begin) / len(messages) * 1e6


def main() -> None:
    """Print a line for each case."""
    streams = input_streams(parse(Path("config/worker.sql").read_text()))
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    row = {"deviceID": "AD11", "roomNo": 200, "temperature": 21.5}
    print(f"{'':14} {'JSON alone':>11} {'mapping':>9} {'overhead':>9} {'ratio':>6}")
    for name, (route, payload) in CASES.items():
        mapper = Mapper(routes=[route], streams=streams)
        messages = [
            MqttMessage(f"devices/AD{n % 100}/rooms/{n % 300}/telemetry", payload, 1, False, 1, 0)
            for n in range(MESSAGES)
        ]
        assert isinstance(mapper.map(messages[0]), list)

        def baseline(message: MqttMessage) -> None:
            decode(message.payload)
            encode(row)

        rounds = [(once(baseline, messages), once(mapper.map, messages)) for _ in range(ROUNDS)]
        alone, ours = (min(times) for times in zip(*rounds, strict=True))
        print(f"{name:14} {alone:8.2f} µs {ours:6.2f} µs {ours - alone:6.2f} µs {ours / alone:6.1f}")


if __name__ == "__main__":
    main()
