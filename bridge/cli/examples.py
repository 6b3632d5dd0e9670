"""The verbs for people who write routes: ``explain`` what a message becomes, ``test`` the examples beside routes."""

from __future__ import annotations

import argparse
import base64
import binascii
import difflib
import json
import sys
import time
from pathlib import Path
from typing import Any

from bridge.cli import exits
from bridge.cli.configuration import read_configuration
from bridge.errors import ConfigError
from bridge.mapping import Example, Mapper
from bridge.mapping.explain import explain
from bridge.message import DeadLetter, MqttMessage
from bridge.service.reload import Configuration

OUTBOX = "outbox"
"""Stands for the outbox's name in ids."""


def explain_message(arguments: argparse.Namespace) -> int:
    """What one message goes through. Exit code 1 if it becomes a dead letter."""
    configuration = read_configuration(arguments)
    message = MqttMessage(
        topic=arguments.topic,
        payload=_payload(arguments.payload),
        qos=arguments.qos,
        retain=arguments.retain,
        packet_id=1,
        received_at=time.time_ns(),
        properties=b"".join(_user_property(name, value) for name, value in arguments.user),
    )
    mapping = _mapping(configuration)
    mapped = mapping.map(message)
    steps = explain(message, configuration.routes, mapping, mapped)
    if arguments.json:
        print(json.dumps({"steps": [{"depth": s.depth, "text": s.text} for s in steps], **_outcome(mapped)}))
    else:
        for step in steps:
            print("  " * step.depth + step.text)
    return exits.FAILED if isinstance(mapped, DeadLetter) else 0


def test_examples(arguments: argparse.Namespace) -> int:
    """Every example's outcome against what it expects. Exit code 1 if one differs."""
    configuration = read_configuration(arguments)
    failed = total = 0
    for number, route in enumerate(configuration.routes):
        for position, example in enumerate(route.examples):
            total += 1
            place = configuration.place(("routes", number, "test", position))
            difference = _difference(_mapping(configuration), example, place)
            if difference:
                failed += 1
                print(f"FAILED {place}\n{difference}")
            elif arguments.verbose:
                print(f"ok     {place}")
    if not total:
        print("no examples: write [[routes.test]] with topic, payload and expect below a route")
        return 0
    print(f"{total - failed} of {total} examples give what they expect")
    return exits.FAILED if failed else 0


def _mapping(configuration: Configuration) -> Mapper:
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
    """MQTT 5, 2.2.2.2 and 1.5.7."""
    parts = [part.encode()[:65535] for part in (name, value)]
    return b"\x26" + b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _outcome(mapped: list[Any] | DeadLetter) -> dict[str, Any]:
    if isinstance(mapped, DeadLetter):
        return {"rows": [], "reason": mapped.reason, "detail": mapped.detail}
    return {"rows": [{"stream": row.stream, "row": json.loads(row.payload)} for row in mapped], "reason": None}


def _difference(mapping: Mapper, example: Example, place: str) -> str:
    """What an example gives other than it expects, as a diff; empty if nothing."""
    mapped = mapping.map(MqttMessage(example.topic, _example_payload(example, place), 1, False, 1, 0), 1)
    if isinstance(mapped, DeadLetter):
        given: Any = mapped.reason
        detail = f"  {mapped.reason}: {mapped.detail}\n"
    else:
        given = [json.loads(row.payload) for row in mapped]
        detail = ""
    expected = [example.expect] if isinstance(example.expect, dict) else example.expect
    if given == expected and _kinds(given) == _kinds(expected):
        return ""
    lines = difflib.unified_diff(_lines(expected), _lines(given), "expected", "given", lineterm="", n=20)
    return detail + "\n".join(f"  {line}" for line in lines)


def _kinds(value: Any) -> Any:
    """So that 1 is not true: Python thinks them equal."""
    if isinstance(value, dict):
        return {key: _kinds(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_kinds(element) for element in value]
    return isinstance(value, bool)


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=True, sort_keys=True).split("\n")


def _example_payload(example: Example, place: str) -> bytes:
    if example.encoding == "base64":
        try:
            return base64.b64decode(str(example.payload), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise ConfigError(f"{place}: payload is no base64: {exc}") from exc
    if isinstance(example.payload, str):
        return example.payload.encode()
    return json.dumps(example.payload, ensure_ascii=False).encode()
