"""Infers a stream's columns, and the fields that fill them, from the members of sample payloads. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from bridge.cli.init.names import join_name, safe_name
from bridge.mapping import FieldSpec
from bridge.mapping.fields import Scalar
from bridge.mapping.times import NANOSECONDS, parse_time
from bridge.mapping.unmappable import Unmappable, preview
from bridge.streamql.syntax import Attribute, AttributeType

MAX_COLUMNS = 100
"""Per stream; further members are only named in a note."""

MAX_MEMBERS = 1000
"""Members of a group's payloads that are examined: a device may use ever new names."""

MAX_NOTES = 50
"""Per route."""

FLATTENED = 2
"""Levels of nested objects whose members become columns: ``meta_site`` for ``meta.site``."""

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
"""A number written as text."""

_EPOCHS = {unit: (10**9 * 10**9 // size, 4 * 10**9 * 10**9 // size) for unit, size in NANOSECONDS.items()}
"""The years 2001 to 2096 in each unit: such large numbers are rarely anything but times."""

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
    """The types of a member's values in all rows, and its inner members. The root member stands for whole rows."""

    seen: int = 0
    kinds: set[str] = field(default_factory=set)
    is_huge: bool = False
    """Whether a whole number doesn't fit in 64 bits."""
    is_inexact: bool = False
    """Whether a whole number would lose digits in a double."""
    has_objects: bool = False
    times: set[str] | None = None
    """Time formats that fit all values; None before the first value."""
    inner: dict[str, Member] = field(default_factory=dict)
    room: int = MAX_MEMBERS
    is_full: bool = False

    def add(self, row: dict[str, Any], *, is_text: bool) -> None:
        """Record a row. ``is_text``: its values are text, parsed as the type they look like."""
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
                inner.record(_parsed(value) if is_text else value)
                if isinstance(value, dict) and depth < FLATTENED:
                    pending.append((inner, value, depth + 1))

    def record(self, value: Any) -> None:
        """Record a value of this member."""
        if value is None:
            return
        self.seen += 1
        self.kinds.add(type(value).__name__)
        if type(value) is int:
            self.is_huge = self.is_huge or not -(2**63) <= value < 2**63
            self.is_inexact = self.is_inexact or abs(value) > _EXACT_DOUBLE
        elif isinstance(value, list):
            self.has_objects = self.has_objects or bool(value and isinstance(value[0], dict))
        if self.times is None or self.times:
            formats = _time_formats(value)
            self.times = formats if self.times is None else self.times & formats

    @property
    def type(self) -> AttributeType | None:
        """The column type that takes every value; None if there is none."""
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
    """Collects a stream's columns. ``names`` are the names in use, in lower case."""

    names: set[str]
    columns: list[Attribute]
    fields: dict[str, Scalar | FieldSpec] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, tree: Member) -> None:
        """Add columns for all members, including those of nested objects."""
        self._take(tree, tree.seen, ())

    def _take(self, member: Member, rows: int, path: tuple[str, ...]) -> None:
        for name, inner in member.inner.items():
            inner_path = (*path, name)
            if inner.kinds == {"dict"} and inner.inner:
                self._take(inner, rows, inner_path)
                continue
            text, source = preview(".".join(inner_path)), source_of(inner_path)
            wanted = inner.type
            is_missing = inner.seen < rows
            if wanted is None:
                self.note(f"{text}: left out: no column type takes both its plain values and its objects or arrays")
            elif wanted is AttributeType.OBJECT and is_missing:
                self.note(f"{text}: left out: not in every message, and an object can't have a default")
            elif len(self.columns) >= MAX_COLUMNS:
                self.note(f"{text}: left out: there are already {MAX_COLUMNS} columns")
            else:
                column = self.add_column(inner_path, wanted, source, is_missing=is_missing)
                self._note(column, inner, text, wanted, source, is_missing)
            if inner.has_objects:
                self.note(f"{text}: an array of objects; each = {json.dumps(source)} makes each of them a row")

    def note(self, text: str) -> None:
        """Add a note, up to ``MAX_NOTES``."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(text)
        elif len(self.notes) == MAX_NOTES:
            self.notes.append("further notes are left out")

    def add_column(self, path: tuple[str, ...], wanted: AttributeType, source: str, *, is_missing: bool) -> str:
        """Add a column for the member at ``path``; returns the column's name."""
        name = safe_name(join_name(path), self.names)
        self.columns.append(Attribute(name, wanted))
        if is_missing:
            self.fields[name] = FieldSpec(source, default=_DEFAULTS[wanted])
        elif path != (name,):
            self.fields[name] = source
        return name

    def _note(self, name: str, member: Member, text: str, wanted: AttributeType, source: str, is_missing: bool) -> None:
        if not member.seen:
            self.note(f"{name}: {text} is null or missing in every sample; its type is a guess")
        elif is_missing:
            self.note(f"{name}: {text} isn't in every sample; choose the default to use without it")
        if member.times and wanted is not AttributeType.BOOL:
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


def _parsed(cell: str) -> Any:
    """A text cell as the type it looks like."""
    text = cell.strip()
    if len(text) > 40:
        return cell
    if _WHOLE.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    return {"true": True, "false": False}.get(text.lower(), cell)


def _time_formats(value: Any) -> set[str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {unit for unit, (first, last) in _EPOCHS.items() if first <= value < last}
    if isinstance(value, str) and _ISO.fullmatch(value):
        try:
            parse_time(value, "iso8601")
        except Unmappable:
            return set()
        return {"iso8601"}
    return set()
