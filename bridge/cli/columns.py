"""From the members of sample payloads to a stream's columns, and the fields that fill them. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from bridge.cli.naming import joined, safe_name
from bridge.mapping import FieldSpec
from bridge.mapping.fields import Scalar
from bridge.mapping.times import NANOSECONDS, parse_time
from bridge.mapping.unmappable import Unmappable, preview
from bridge.streamql.syntax import Attribute, AttributeType

MAX_COLUMNS = 100
"""Of a stream; what comes later is named in a comment."""

MAX_MEMBERS = 1000
"""Members of a group's payloads that are looked at: names may be what varies."""

MAX_NOTES = 50
"""Of a route."""

FLATTENED = 2
"""Levels of objects within an object whose members become columns: ``meta_site`` for ``meta.site``."""

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
"""A number as devices write it in a text."""

_EPOCHS = {unit: (10**9 * 10**9 // size, 4 * 10**9 * 10**9 // size) for unit, size in NANOSECONDS.items()}
"""From 2001 to 2096, in each unit: numbers that large are hardly anything else."""

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}.{0,20}")
_PLAIN_STEP = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_EXACT_DOUBLE = 2**53
_DEFAULTS: dict[AttributeType, Scalar] = {
    AttributeType.STRING: "",
    AttributeType.LONG: 0,
    AttributeType.DOUBLE: 0.0,
    AttributeType.BOOL: False,
}


@dataclass(slots=True)
class Member:
    """What was seen of a member in all rows, and of the members within it."""

    seen: int = 0
    kinds: set[str] = field(default_factory=set)
    is_huge: bool = False
    """Whether a whole number doesn't fit 64 bits."""
    is_inexact: bool = False
    """Whether a whole number would lose digits in a double."""
    holds_objects: bool = False
    times: set[str] | None = None
    """Formats that all values could be points in time of; None: no value yet."""
    inner: dict[str, Member] = field(default_factory=dict)
    room: int = MAX_MEMBERS
    is_full: bool = False

    def add(self, row: dict[str, Any], *, is_text: bool) -> None:
        """Take note of a row; ``is_text``: its values are texts that count as what they spell."""
        self.seen += 1
        waiting: list[tuple[Member, dict[str, Any], int]] = [(self, row, 0)]
        while waiting:
            member, members, depth = waiting.pop()
            for name, value in members.items():
                inner = member.inner.get(name)
                if inner is None:
                    if not self.room:
                        self.is_full = True
                        continue
                    self.room -= 1
                    inner = member.inner[name] = Member()
                inner.note(_spelled(value) if is_text else value)
                if isinstance(value, dict) and depth < FLATTENED:
                    waiting.append((inner, value, depth + 1))

    def note(self, value: Any) -> None:
        """Take note of a value."""
        if value is None:
            return
        self.seen += 1
        self.kinds.add(type(value).__name__)
        if type(value) is int:
            self.is_huge = self.is_huge or not -(2**63) <= value < 2**63
            self.is_inexact = self.is_inexact or abs(value) > _EXACT_DOUBLE
        elif isinstance(value, list):
            self.holds_objects = self.holds_objects or bool(value and isinstance(value[0], dict))
        if self.times is None or self.times:
            formats = _time_formats(value)
            self.times = formats if self.times is None else self.times & formats

    @property
    def type(self) -> AttributeType | None:
        """The type that takes every value; None: no type does."""
        if self.kinds & {"dict", "list"}:
            return AttributeType.OBJECT if self.kinds <= {"dict", "list"} else None
        if self.kinds == {"bool"}:
            return AttributeType.BOOL
        if self.kinds == {"int"} and not self.is_huge:
            return AttributeType.LONG
        if self.kinds and self.kinds <= {"int", "float"} and not self.is_inexact:
            return AttributeType.DOUBLE
        return AttributeType.STRING


@dataclass(slots=True)
class Columns:
    """A stream's columns as they come together. ``names`` are those taken."""

    names: set[str]
    columns: list[Attribute]
    fields: dict[str, Scalar | FieldSpec] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, tree: Member) -> None:
        """Columns for the members, those within objects included."""
        self._take(tree, tree.seen, ())

    def _take(self, member: Member, rows: int, path: tuple[str, ...]) -> None:
        for name, inner in member.inner.items():
            way = (*path, name)
            if inner.kinds == {"dict"} and inner.inner:
                self._take(inner, rows, way)
                continue
            text = preview(".".join(way))
            wanted = inner.type
            is_missing = inner.seen < rows
            if wanted is None:
                self.say(f"{text}: no type takes both its values and its objects or arrays; left out")
            elif wanted is AttributeType.OBJECT and is_missing:
                self.say(f"{text}: not in every message, and an object can't have a default; left out")
            elif len(self.columns) >= MAX_COLUMNS:
                self.say(f"{text}: left out, after {MAX_COLUMNS} columns")
            else:
                column = self.column(way, wanted, source_of(way), is_missing=is_missing)
                self._note(column, inner, text, wanted, source_of(way), is_missing)
            if inner.holds_objects:
                self.say(f"{text}: an array of objects; each = {json.dumps(source_of(way))} makes a row of each")

    def say(self, note: str) -> None:
        """Add a note, within bounds."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(note)
        elif len(self.notes) == MAX_NOTES:
            self.notes.append("and more of that kind")

    def column(self, way: tuple[str, ...], wanted: AttributeType, source: str, *, is_missing: bool) -> str:
        """Add a column; returns its name."""
        name = safe_name(joined(way), self.names)
        self.columns.append(Attribute(name, wanted))
        if is_missing:
            self.fields[name] = FieldSpec(source, default=_DEFAULTS[wanted])
        elif way != (name,):
            self.fields[name] = source
        return name

    def _note(self, name: str, member: Member, text: str, wanted: AttributeType, source: str, is_missing: bool) -> None:
        if not member.seen:
            self.say(f"{name}: {text} was null or missing in every sample; its type is a guess")
        elif is_missing:
            self.say(f"{name}: {text} isn't in every sample; its default stands in: choose one")
        if member.times and wanted is not AttributeType.BOOL:
            (format_,) = member.times  # no number is within two of the ranges
            entry = f"{{ source = {json.dumps(source)}, time = {json.dumps(format_)} }}"
            self.say(f"{name}: looks like a point in time; {entry} reads it, in fields or as event_time")


def source_of(way: tuple[str, ...]) -> str:
    """The path to a member, as ``fields`` writes it."""
    if any("{" in step or "}" in step for step in way):
        # Braces mean captures there, also in quotes.
        return "jmespath:" + ".".join(json.dumps(step) for step in way)
    return ".".join(
        step if _PLAIN_STEP.fullmatch(step) else '"' + re.sub(r'(["\\])', r"\\\1", step) + '"' for step in way
    )


def _spelled(cell: str) -> Any:
    """What a text cell counts as in a column of that type."""
    text = cell.strip()
    if len(text) > 40:
        return cell
    if _WHOLE.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    return {"true": True, "false": False}.get(text.lower(), cell)


def _time_formats(value: Any) -> set[str]:
    if type(value) in (int, float):
        return {unit for unit, (first, last) in _EPOCHS.items() if first <= value < last}
    if isinstance(value, str) and _ISO.fullmatch(value):
        try:
            parse_time(value, "iso8601")
        except Unmappable:
            return set()
        return {"iso8601"}
    return set()
