"""Infers a stream's columns, and the fields that fill them, from the members of sample payloads. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bridge.cli.init.names import join_name, safe_name
from bridge.cli.init.texts import has_decimal_comma, is_local_time, is_no_value, number_in, time_formats
from bridge.mapping import FieldSpec
from bridge.mapping.fields import Scalar
from bridge.mapping.unmappable import preview
from bridge.streamql.syntax import Attribute, AttributeType

MAX_COLUMNS = 100
"""Per stream; further members are only named in a note."""

MAX_MEMBERS = 1000
"""Members of a group's payloads that are examined: a device may use ever new names."""

MAX_NULL_VALUES = 10
"""Texts for no value, per member."""

MAX_NOTES = 50
"""Per route."""

FLATTENED = 2
"""Levels of nested objects whose members become columns: ``meta_site`` for ``meta.site``."""

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PLAIN_STEP = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NUMBERS = (AttributeType.DOUBLE, AttributeType.LONG)
_EXACT_DOUBLE = 2**53
_KINDS = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}
"""Names of types; the first that fits counts."""

_BOOLEANS = {"true": True, "false": False}
_COUNTERS = frozenset(
    [
        *("id", "uid", "counter", "count", "cnt", "fcnt", "fport", "port", "seq", "seqno", "sequence", "number", "num"),
        *("index", "uptime", "uptimesec", "version", "code", "mid", "pid", "starts", "restarts", "boots", "reboots"),
        *("reconnects", "heap", "unit", "channel"),
    ]
)
"""Last words of names whose whole numbers stay whole."""

_TEXTS = frozenset(
    [
        *("id", "uid", "uuid", "eui", "mac", "serial", "sn", "version", "ver", "fw", "firmware", "sw", "hw", "model"),
        *("code", "phone", "imei", "imsi", "iccid", "address", "addr", "name", "ssid", "tag", "card", "barcode", "ip"),
    ]
)
"""Last words of names whose texts stay texts, also those that look like numbers: 1.10 is another version than 1.1."""


@dataclass(slots=True)
class Member:
    """The types of a member's values in all rows, and its inner members. The root member stands for whole rows."""

    seen: int = 0
    kinds: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    """What the values that are text stand for, as ``_meaning`` says."""
    no_values: set[str] = field(default_factory=set)
    """The texts that say that there is no value, up to ``MAX_NULL_VALUES``."""
    has_point: bool = False
    """Whether a number in text has a decimal point."""
    has_fractions: bool = False
    is_huge: bool = False
    """Whether a whole number doesn't fit in 64 bits."""
    is_inexact: bool = False
    """Whether a whole number would lose digits in a double."""
    has_objects: bool = False
    times: frozenset[str] | None = None
    """Time formats that fit all values; None before the first value."""
    inner: dict[str, Member] = field(default_factory=dict)
    room: int = MAX_MEMBERS
    is_full: bool = False

    def add(self, row: dict[str, Any], *, is_text: bool) -> None:
        """Record a row. ``is_text``: its values are text, so that booleans are, too."""
        self.seen += 1
        pending: list[tuple[Member, dict[str, Any], int]] = [(self, row, 0)]
        while pending:
            member, members, depth = pending.pop()
            for name, value in members.items():
                inner = member.inner.get(name)
                if inner is None:
                    if not self.room:
                        self.is_full = True
                        continue
                    self.room -= 1
                    inner = member.inner[name] = Member()
                inner.record(_BOOLEANS.get(value.strip().lower(), value) if is_text else value)
                if isinstance(value, dict) and depth < FLATTENED:
                    pending.append((inner, value, depth + 1))

    def record(self, value: Any) -> None:
        """Record a value of this member."""
        if value is None:
            return
        self.seen += 1
        self.kinds.add(next(name for name, type_ in _KINDS.items() if isinstance(value, type_)))
        if isinstance(value, list):
            self.has_objects = self.has_objects or bool(value and isinstance(value[0], dict))
        if self.times is None or self.times:
            formats = time_formats(value)
            self.times = formats if self.times is None else self.times & formats
        if isinstance(value, str):
            value = self._record_text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            self.is_huge = self.is_huge or not -(2**63) <= value < 2**63
            self.is_inexact = self.is_inexact or abs(value) > _EXACT_DOUBLE
        elif isinstance(value, float):
            self.has_fractions = True

    def _record_text(self, text: str) -> int | float | None:
        """Record a text; returns the number that it spells, if any."""
        meaning = _meaning(text)
        if meaning == "no value" and len(self.no_values) < MAX_NULL_VALUES:
            self.no_values.add(text.strip())
        elif meaning == "no value":
            meaning = "text"
        self.texts.add(meaning)
        self.has_point = self.has_point or (meaning == "number" and "." in text)
        self.has_fractions = self.has_fractions or meaning == "comma"
        return number_in(text)

    def leaves(self) -> Iterator[tuple[str, Member]]:
        """The members without inner ones, with their names."""
        for name, inner in self.inner.items():
            if inner.inner:
                yield from inner.leaves()
            else:
                yield name, inner

    def text_options(self) -> dict[str, Any]:
        """The options of the format that make numbers of what is not written as JSON writes it."""
        numbers = [one for name, one in self.leaves() if one.type_for(name) in _NUMBERS]
        options: dict[str, Any] = {}
        if any("comma" in one.texts for one in numbers):
            options["decimal"] = ","
        if found := set[str]().union(*(one.no_values for one in numbers)):
            options["null_values"] = tuple(sorted(found))
        return options

    @property
    def is_incomplete(self) -> bool:
        """Whether a row lacks a member that others have, or has null for it."""
        return any(inner.seen < self.seen for inner in self.inner.values())

    def type_for(self, name: str) -> AttributeType | None:
        """The type of a column for every value of the member with this name; None if there is none."""
        if self.kinds & {"dict", "list"}:
            return AttributeType.OBJECT if self.kinds <= {"dict", "list"} else None
        if self.kinds == {"bool"}:
            return AttributeType.BOOL
        if self.is_time_text:
            return AttributeType.LONG
        if not self.kinds <= {"int", "float", "str"} or self.texts - {"number", "comma", "no value"} or self.is_huge:
            return AttributeType.STRING
        is_number = self.kinds & {"int", "float"} or self.texts & {"number", "comma"}
        if not is_number or (self.has_point and "comma" in self.texts):
            return AttributeType.STRING
        if "number" in self.texts and _last_word(name) in _TEXTS:
            return AttributeType.STRING
        if self.has_fractions:
            return AttributeType.STRING if self.is_inexact else AttributeType.DOUBLE
        is_counted = self.is_inexact or self.times or _last_word(name) in _COUNTERS
        return AttributeType.LONG if is_counted else AttributeType.DOUBLE

    @property
    def is_time_text(self) -> bool:
        """Whether every value is a time in text, with an offset."""
        return self.kinds == {"str"} and self.texts == {"time"}


def _meaning(text: str) -> str:
    if number_in(text) is not None:
        return "number"
    if time_formats(text):
        return "local time" if is_local_time(text) else "time"
    if has_decimal_comma(text):
        return "comma"
    return "no value" if is_no_value(text) else "text"


def _last_word(name: str) -> str:
    words = _WORD.findall(name)
    return words[-1].lower() if words else ""


@dataclass(slots=True)
class Columns:
    """Collects a stream's columns. ``names`` are the names in use, in lower case."""

    names: set[str]
    columns: list[Attribute]
    is_text: bool = False
    """Whether all values of the format are text."""
    fields: dict[str, Scalar | FieldSpec] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, tree: Member, *, root: bool = False) -> None:
        """Add columns for all members, including those of nested objects. ``root``: they are outside the rows."""
        self._take(tree, tree.seen, (), "$root." if root else "")

    def _take(self, member: Member, rows: int, path: tuple[str, ...], prefix: str) -> None:
        for name, inner in member.inner.items():
            inner_path = (*path, name)
            if inner.kinds == {"dict"} and inner.inner:
                self._take(inner, rows, inner_path, prefix)
                continue
            text, source = preview(".".join(inner_path)), prefix + source_of(inner_path)
            wanted = inner.type_for(name)
            if wanted is None:
                self.note(f"{text}: left out: no column type takes both its plain values and its objects or arrays")
            elif len(self.columns) >= MAX_COLUMNS:
                self.note(f"{text}: left out: there are already {MAX_COLUMNS} columns")
            else:
                time = "iso8601" if inner.is_time_text else None
                column = self.add_column(inner_path, wanted, source, time=time)
                self._note(column, inner, text, wanted, source)
                if inner.seen and inner.seen < rows:
                    self.note(f"{column}: {text} isn't in every sample; the column is null without it")
            if inner.has_objects:
                self.note(f"{text}: an array of objects; each = {json.dumps(source)} makes each of them a row")

    def note(self, text: str) -> None:
        """Add a note, up to ``MAX_NOTES``."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(text)
        elif len(self.notes) == MAX_NOTES:
            self.notes.append("further notes are left out")

    def add_column(self, path: tuple[str, ...], wanted: AttributeType, source: str, *, time: str | None = None) -> str:
        """Add a column for the member at ``path``; returns the column's name."""
        name = safe_name(join_name(path), self.names)
        self.columns.append(Attribute(name, wanted))
        if time is not None:
            self.fields[name] = FieldSpec(source, time=time)
        elif (name,) != path or source.startswith("$root."):
            self.fields[name] = source
        return name

    def _note(self, name: str, member: Member, text: str, wanted: AttributeType, source: str) -> None:
        if not member.seen:
            self.note(f"{name}: {text} is null in every sample; its type is a guess")
        elif member.is_time_text:
            self.note(f"{name}: {text} is a time in text; the column gets milliseconds since 1970")
        elif "local time" in member.texts:
            self.note(
                f"{name}: {text} is a local time without an offset, kept as text. To get a number, give its column "
                'time = "iso8601" and the zone of the device, such as zone = "Europe/Zurich"; without zone it is UTC'
            )
        elif "comma" in member.texts and wanted is AttributeType.STRING:
            self.note(f"{name}: {text} has a decimal comma in some samples, a decimal point in others: kept as text")
        elif "comma" in member.texts:
            self.note(f"{name}: {text} has a decimal comma; the column is {wanted.value}")
        elif "number" in member.texts and not self.is_text and wanted is not AttributeType.STRING:
            self.note(f"{name}: {text} is a number in text; the column is {wanted.value}")
        elif wanted is AttributeType.STRING and len(member.kinds) > 1:
            self.note(f"{name}: {text} has values of several types, so the column is string")
        if member.times and not member.is_time_text and "local time" not in member.texts:
            (format_,) = member.times  # the units' ranges don't overlap
            entry = f"{{ source = {json.dumps(source)}, time = {json.dumps(format_)} }}"
            self.note(f"{name}: looks like a point in time; to convert it, use {entry} in fields or as event_time")


def source_of(path: tuple[str, ...]) -> str:
    """The path to a member, as written in ``fields``."""
    if any("{" in step or "}" in step for step in path):
        # In other sources, braces are captures even inside quotes.
        return "jmespath:" + ".".join(json.dumps(step) for step in path)
    return ".".join(
        step if _PLAIN_STEP.fullmatch(step) else '"' + re.sub(r'(["\\])', r"\\\1", step) + '"' for step in path
    )
