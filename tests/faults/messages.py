"""The messages of a fault run and the rows expected for each: a pure function of seed, device and number.

Publisher and oracle both call it, so nothing has to be stored. The expected rows are built from the values, never by
parsing the payload: that is the mapping's job, and the mapping is under test.
"""

from __future__ import annotations

import json
import random
from typing import NamedTuple

DEVICES = ("d0", "d1", "dé2", "d3")
"""Names, by number; the last level but one of the topic, and the column ``device``."""

STREAM = "faultsInput"

ROUTE = {"topic": "faults/{device}/data", "stream": STREAM, "on_empty": "dead_letter"}

DEFINITION = """\
@App:name('faults_worker')
@App:qlVersion("2")
CREATE STREAM faultsInput (device string, n long, part int, value double, label string, good bool);
CREATE TABLE GLOBAL faultsOutput (device string, n long, part int, value double, label string, good bool);
@info(name='Query')
INSERT INTO faultsOutput
SELECT device, n, part, value, label, good
FROM faultsInput;
"""
"""The worker: columns of five types, in the order that rows must have."""

LARGE = 512 * 1024 + 1
"""Bytes: one more than docs/mapping.md allows for a payload."""

POISON_SHARE = 0.08
ARRAY_SHARE = 0.08
LARGE_SHARE = 0.0003

LABELS = ("plain", "", 'quote " and \\ backslash', "tab\tand\nline", "žluťoučký 🐎", "5", "/slash/", "true")


class MessageId(NamedTuple):
    """A message's identity: the number of its device, and its number among that device's messages."""

    device: int
    n: int

    def __str__(self) -> str:
        return f"{DEVICES[self.device]}#{self.n}"


class Message(NamedTuple):
    """A message and the expected result."""

    topic: str
    payload: bytes
    rows: tuple[bytes, ...]
    """Payloads of its rows, in order; empty if it can't be mapped (poison)."""
    reason: str | None
    """The dead letter's reason if it is poison."""


def compose(seed: int, message_id: MessageId) -> Message:
    """The message with this id."""
    device, n = message_id
    rng = random.Random(f"{seed}/{device}/{n}")
    topic = f"faults/{DEVICES[device]}/data"
    kind = rng.random()
    if kind < LARGE_SHARE:
        payload = json.dumps({"n": n, "part": 0, "value": 1, "good": True, "label": "x" * LARGE}).encode()
        return Message(topic, payload, (), "too_large")
    if kind < POISON_SHARE:
        payload, reason = _poison(rng, n, DEVICES[device])
        return Message(topic, payload, (), reason)
    if kind < POISON_SHARE + ARRAY_SHARE:
        elements = [_element(rng, device, n, part) for part in range(rng.randint(2, 4))]
        text = "[" + ",".join(written for written, _ in elements) + "]"
        return Message(topic, text.encode(), tuple(row for _, row in elements), None)
    written, row = _element(rng, device, n, 0)
    return Message(topic, written.encode(), (row,), None)


def row_of(payload: bytes) -> tuple[MessageId, int] | None:
    """The message and the part of it that a row names as its source; None if it names none."""
    try:
        row = json.loads(payload)
        return MessageId(DEVICES.index(row["device"]), row["n"]), row["part"]
    except (ValueError, KeyError, TypeError):
        return None


def _element(rng: random.Random, device: int, n: int, part: int) -> tuple[str, bytes]:
    """One JSON object as a device writes it, and the expected row."""
    value: int | float = rng.choice((rng.randint(-50, 50), rng.randint(-200, 200) / 4, round(rng.random() * 1000, 3)))
    label: str | int | bool = rng.choice((*LABELS, rng.randint(0, 99), True))
    good = rng.random() < 0.5
    members = [
        ("n", f"{n}.0" if rng.random() < 0.2 else f"{n}"),  # an integer in either notation
        ("part", f"{part}"),
        ("value", json.dumps(value)),
        ("label", json.dumps(label, ensure_ascii=rng.random() < 0.5)),
        ("good", json.dumps(good)),
    ]
    if rng.random() < 0.3:
        members.append(("noise", '{"not": ["a", "column"], "value": null}'))
    if rng.random() < 0.3:
        members.append(("device", '"not what the topic says"'))  # the capture comes first
    rng.shuffle(members)
    space = rng.choice(("", " ", "\n"))
    written = "{" + ",".join(f'{space}"{name}":{space}{text}' for name, text in members) + "}"
    text = label if isinstance(label, str) else json.dumps(label)
    # The engine drops a row that has 37 in a double column.
    row = {"device": DEVICES[device], "n": n, "part": part, "value": float(value), "label": text, "good": good}
    return written, json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()


def _poison(rng: random.Random, n: int, device: str) -> tuple[bytes, str]:
    """A payload that can't become a row, and the reason. Each contains its number, so that no two are equal."""
    row = {"n": n, "part": 0, "value": 1.5, "label": "x", "good": True}
    kind = rng.randrange(9)
    if kind == 0:
        return b'{"n":%d,"part":0,"value":nope,"label":"x","good":true}' % n, "not_json"
    if kind == 1:
        return b'{"n":%d,"part":0,"value":1.5,"label":"\xff\xfe","good":true}' % n, "not_json"
    if kind == 2:
        del row[rng.choice(("part", "value", "label", "good"))]
        return json.dumps(row).encode(), "missing_field"
    if kind == 3:
        return json.dumps({**row, "value": None}).encode(), "missing_field"
    if kind == 4:
        return json.dumps({**row, "value": "warm"}).encode(), "type_mismatch"
    if kind == 5:
        return json.dumps({**row, "good": 2}).encode(), "type_mismatch"
    if kind == 6:
        return json.dumps({**row, "part": 2**31}).encode(), "out_of_range"
    if kind == 7:
        return json.dumps([n, device]).encode(), "not_an_object"
    # White space that encodes the number: spaces are ones, tabs are zeros.
    return bin(n)[2:].replace("1", " ").replace("0", "\t").encode(), "empty"
