"""The verbs ``explain``, which shows what a message becomes, and ``test``, which runs the examples of the routes."""

from __future__ import annotations

import argparse
import base64
import binascii
import difflib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.cli import exits
from bridge.cli.configuration import read_configuration
from bridge.errors import ConfigError
from bridge.mapping import Example, Mapper
from bridge.mapping.explain import explain
from bridge.message import DeadLetter, MqttMessage, Row, Rows
from bridge.service.reload import Configuration

OUTBOX = "outbox"
"""Used as the outbox's name in ids."""


def explain_message(arguments: argparse.Namespace) -> int:
    """Print the steps of mapping one message. Exit code 1 if it becomes a dead letter."""
    configuration = read_configuration(arguments, offline=True)
    message = MqttMessage(
        topic=arguments.topic,
        payload=_payload(arguments.payload),
        qos=arguments.qos,
        retain=arguments.retain,
        packet_id=1,
        received_at=time.time_ns(),
        properties=b"".join(_user_property(name, value) for name, value in arguments.user),
    )
    mapper = _mapper(configuration)
    mapped = mapper.map(message)
    steps = explain(message, configuration.routes, mapper, mapped)
    if arguments.json:
        print(json.dumps({"steps": [{"depth": s.depth, "text": s.text} for s in steps], **_outcome(mapper, mapped)}))
    else:
        for step in steps:
            print("  " * step.depth + step.text)
    return exits.FAILED if isinstance(mapped, DeadLetter) else 0


def test_examples(arguments: argparse.Namespace) -> int:
    """Compare every example's result with the expected one. Exit code 1 if any differs."""
    configuration = read_configuration(arguments, offline=True)
    total = 0
    failed = []
    for number, route in enumerate(configuration.routes):
        for position, example in enumerate(route.examples):
            total += 1
            place = configuration.place(("routes", number, "test", position))
            # A new mapper each time: an example must not depend on the ones before it.
            difference = _difference(_mapper(configuration), example, place)
            if difference:
                failed.append({"place": place, "difference": difference})
            if not arguments.json and (difference or arguments.verbose):
                print(f"FAILED {place}\n{difference}" if difference else f"ok     {place}")
    if arguments.json:
        print(json.dumps({"examples": total, "passed": total - len(failed), "failed": failed}))
    elif total:
        print(f"{total - len(failed)} of {total} examples pass")
    else:
        print("there are no examples: add [[routes.test]] with topic, payload and expect below a route")
    return exits.FAILED if failed else 0


def _mapper(configuration: Configuration) -> Mapper:
    return Mapper(
        routes=configuration.routes,
        streams=configuration.streams,
        outbox_name=OUTBOX,
        client=configuration.settings.mqtt.client_id,
    )


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as exc:
        raise ConfigError(f"{text[1:]} can't be read: {exc.strerror}") from exc


def _user_property(name: str, value: str) -> bytes:
    """An encoded user property (MQTT 5, 2.2.2.2 and 1.5.7)."""
    parts = [part.encode()[:65535] for part in (name, value)]
    return b"\x26" + b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _outcome(mapper: Mapper, mapped: list[Row] | DeadLetter) -> dict[str, Any]:
    if isinstance(mapped, DeadLetter):
        return {"rows": [], "reason": mapped.reason, "detail": mapped.detail}
    return {
        "rows": [{"stream": row.stream, "row": mapper.columns_of(row)} for row in mapped],
        "filtered": mapped.filtered if isinstance(mapped, Rows) else 0,
        "reason": None,
    }


def _difference(mapper: Mapper, example: Example, place: str) -> str:
    """The difference between the expected and the actual result, as a diff; empty if there is none."""
    mapped = mapper.map(MqttMessage(example.topic, _example_payload(example, place), 1, False, 1, 0), 1)
    if isinstance(mapped, DeadLetter):
        actual: Any = mapped.reason
        detail = f"  {mapped.reason}: {mapped.detail}\n"
    else:
        actual = [without_nulls(mapper.columns_of(row)) for row in mapped]
        detail = ""
    expected = [example.expect] if isinstance(example.expect, dict) else example.expect
    if actual == expected and _booleans(actual) == _booleans(expected):
        return ""
    lines = difflib.unified_diff(_lines(expected), _lines(actual), "expected", "actual", lineterm="", n=20)
    return detail + "\n".join(f"  {line}" for line in lines)


def without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as an example expects it: TOML has no null, so a column without a value is not named."""
    return {name: value for name, value in row.items() if value is not None}


def _booleans(value: Any) -> Any:
    """Which values are booleans, to distinguish 1 from true: they are equal in Python."""
    if isinstance(value, dict):
        return {key: _booleans(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_booleans(element) for element in value]
    return isinstance(value, bool)


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=True, sort_keys=True).split("\n")


def _example_payload(example: Example, place: str) -> bytes:
    if example.encoding == "base64":
        try:
            return base64.b64decode(str(example.payload), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise ConfigError(f"{place}: payload is not base64: {exc}") from exc
    if isinstance(example.payload, str):
        return example.payload.encode()
    return json.dumps(example.payload, ensure_ascii=False).encode()
