"""Compares rows by their members, and writes the conditions that tell rows of different shapes apart. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.cli.init.texts import has_decimal_comma, is_time, is_word, number_in

Path = tuple[str, ...]
"""A member by the names on the way to it."""

MAX_CONDITION = 1500
"""Characters."""

MAX_PATHS = 1000
"""Members of a row that are compared."""

# Members that go with readings of any kind, in lower case without separators.
_CARRIERS = frozenset(
    [
        *("time", "timestamp", "ts", "tst", "t0", "date", "datetime", "lastseen", "receivedat", "createdat", "bt"),
        *("id", "uid", "uuid", "eui", "deveui", "device", "deviceid", "devicename", "name", "bn", "n", "model"),
        *("mac", "address", "serial", "sn", "sensor", "sensorid", "topic", "host", "hostname", "src", "dst", "unit"),
        *("units", "u", "bu", "tempunit", "mid", "seq", "sequence", "fcnt", "fport", "version", "brand", "type"),
        *("client", "friendlyname", "manufacturer", "schemaversion"),
    ]
)
"""They describe a reading; alone they are none."""

_VITALS = frozenset(
    [
        *("battery", "batt", "bat", "batterylow", "batteryok", "batteryvoltage", "linkquality", "lqi", "rssi", "snr"),
        *("signal", "wifi", "voltage", "vcc", "vin", "uptime", "heap", "freemem", "update", "updateavailable", "mic"),
        *("q", "quality", "tamper"),
    ]
)
"""A device's own state, which devices of any kind may report."""

_TAGS = ("_type", "type", "method", "msg_type", "msgType", "messageType", "message_type", "event_type", "eventType")
"""Members whose text may say which kind of message this is."""

_ID = re.compile(r"(?:_id|_eui|[a-z]I[dD]|[a-z]E[uU][iI])\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # of JMESPath


@dataclass(frozen=True, slots=True)
class Shape:
    """What a row looks like.

    Attributes:
        paths: the members, down to the second level.
        main: those that make it a reading of its kind; may be empty.
        kind: if there is only one in ``main``, what its value is: ``number``, ``number in text``, ``boolean``,
            ``string``, or ``word`` for a text such as ``unavailable``. Empty: unknown, or there are several.
        tags: the kind of message that the row says it is, by member.
        order: ``paths`` in the order of the row.
    """

    paths: frozenset[Path]
    main: frozenset[Path]
    kind: str = ""
    tags: frozenset[tuple[str, str]] = frozenset()
    order: tuple[Path, ...] = field(default=(), compare=False)

    def is_like(self, other: Shape) -> bool:
        """Whether rows of both belong in one stream: of a device that doesn't send every member each time."""
        if self.kind and other.kind and self.kind.split()[0] != other.kind.split()[0]:
            return False
        if self.tags != other.tags and self.main != other.main and self._tag_names & other._tag_names:
            return _overlap(self.main, other.main)
        if self.main and other.main:
            return self.main <= other.main or other.main <= self.main or _overlap(self.main, other.main)
        return self.paths <= other.paths or other.paths <= self.paths or _overlap(self.paths, other.paths)

    def __or__(self, other: Shape) -> Shape:
        main = self.main | other.main
        kinds = {self.kind, other.kind} - {""}
        kind = "" if len(main) != 1 or not kinds else kinds.pop() if len(kinds) == 1 else "mixed"
        order = tuple(dict.fromkeys((*self.order, *other.order)))
        return Shape(self.paths | other.paths, main, kind, self.tags & other.tags, order)

    @property
    def type(self) -> str | None:
        """The type that JMESPath's ``type`` gives for the value of the only member in ``main``, if it is known."""
        return {"number": "number", "boolean": "boolean", "string": "string", "word": "string"}.get(self.kind)

    @property
    def _tag_names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.tags)


def _overlap(one: frozenset[Path], other: frozenset[Path]) -> bool:
    """Whether at least half of all members are in both."""
    return 2 * len(one & other) >= len(one | other) and bool(one & other)


def shape_of(row: dict[str, Any], format_: str) -> Shape:
    """The shape of a row that was decoded in this format."""
    if format_ == "influx":  # all points have the same members: only the measurement differs
        paths = frozenset([("measurement", str(row["measurement"]))])
        return Shape(paths, paths, order=tuple(paths))
    values: dict[Path, Any] = {}
    for name, value in row.items():
        inner = value.items() if isinstance(value, dict) and value else None
        values |= {(name,): value} if inner is None else {(name, below): found for below, found in inner}
        if len(values) > MAX_PATHS:
            break
    main = frozenset(path for path, value in values.items() if len(values) == 1 or _is_main(path, value))
    tags = frozenset((tag, value) for tag in _TAGS if isinstance(value := row.get(tag), str))
    kind = ""
    if len(main) == 1:
        (path,) = main
        kind = _kind(values[path])
    return Shape(frozenset(values), main, kind, tags, tuple(values))


def has_readings(row: dict[str, Any]) -> bool:
    """Whether a member of the row is more than a description."""
    return any(_is_main((name,), value) for name, value in row.items())


def _is_main(path: Path, value: Any) -> bool:
    if _ID.search(path[-1]) or path[0] in _TAGS or is_time(value):
        return False
    return not _words(path) & _CARRIERS and not _is_vital(path)


def _is_vital(path: Path) -> bool:
    return bool(_words(path) & _VITALS)


def _words(path: Path) -> set[str]:
    return {re.sub(r"[^a-z0-9]", "", step.lower()) for step in (path[0], path[-1])}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if not isinstance(value, str):
        return ""
    if is_word(value):
        return "word"
    return "number in text" if number_in(value) is not None or has_decimal_comma(value) else "string"


# --- conditions -------------------------------------------------------------------------------------------


_TYPE_WORDS = {"number": "number", "boolean": "boolean", "string": "text"}


class Condition(NamedTuple):
    """A JMESPath condition, and a word for the rows that it is true for."""

    expression: str
    word: str


def condition(shape: Shape, others: Sequence[Shape], format_: str) -> Condition | None:
    """A condition for rows of this shape and of none of the others; None if their members don't show it."""
    if format_ == "influx":
        measurements = sorted(path[-1] for path in shape.paths)
        return _one_of("measurement", measurements)
    is_same_member = len(shape.main) == 1 and all(other.main == shape.main for other in others)
    if is_same_member and shape.type is not None and all(other.type not in (None, shape.type) for other in others):
        (path,) = shape.main
        return Condition(f"type({_expression(path)}) == '{shape.type}'", _TYPE_WORDS[shape.type])
    for name, value in sorted(shape.tags):
        values = [dict(other.tags).get(name) for other in others]
        if None not in values and value not in values:
            return _one_of(name, [value])
    theirs: frozenset[Path] = frozenset().union(*(other.paths for other in others))
    own = [path for path in shape.order if path in (shape.main or shape.paths) and path not in theirs]
    expression = _any_of(own)
    return None if expression is None else Condition(expression, own[0][-1])


def guard(shape: Shape) -> str | None:
    """A condition that is true for rows with at least one reading; None if it is too long, or there is none."""
    readings = [path for path in shape.order if path in shape.main or _is_vital(path)]
    return _any_of(readings or shape.order)


def _any_of(paths: Sequence[Path]) -> str | None:
    names = list(dict.fromkeys(_expression(path[:1]) for path in paths))
    names = names if len(names) > 1 else [_expression(path) for path in paths]
    if not names:
        return None
    text = " || ".join(f"{name} != null" for name in names)  # faster than not_null, which evaluates all
    return text if len(text) <= MAX_CONDITION else None


def _one_of(name: str, values: Sequence[str]) -> Condition | None:
    if any(not value.isprintable() or "'" in value or "\\" in value for value in values):
        return None
    texts = (f"{_expression((name,))} == '{value}'" for value in values)
    return Condition(" || ".join(texts), values[0])


def _expression(path: Path) -> str:
    """The member as JMESPath writes it."""
    return ".".join(step if _IDENTIFIER.fullmatch(step) else json.dumps(step) for step in path)
