"""Field expressions: what a route writes to say where a column's value comes from.

``sensors.0.temp`` is a path into the payload, ``{deviceID}`` a capture of the topic, ``{roomNo}-{deviceID}`` text made of
such parts, ``=text`` and anything that isn't a string a constant.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from bridge.mapping.coercion import to_string

Scalar = str | int | float | bool

STEP = re.compile(r'"((?:[^"\\]|\\["\\])*)"|([^."{}]+)')
ESCAPE = re.compile(r'\\(["\\])')
MAX_INDEX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value in every row."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Capture:
    """A level of the topic, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Path:
    """A place in the payload. Each step is a key and, if it reads as one, the index it means on an array."""

    text: str
    steps: tuple[tuple[str, int | None], ...]

    def find(self, document: dict[str, Any]) -> Any:
        """The value there; None if there is none, or null."""
        value: Any = document
        for key, index in self.steps:
            if type(value) is dict:
                value = value.get(key)
            elif type(value) is list and index is not None and index < len(value):
                value = value[index]
            else:
                return None
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """Text made of literal text, captures and payload values."""

    text: str
    parts: tuple[str | Capture | Path, ...]

    def bind(self, captures: dict[str, str]) -> BoundTemplate:
        """The template with the captures of one topic filled in."""
        return BoundTemplate(tuple(captures[p.name] if isinstance(p, Capture) else p for p in self.parts))


@dataclass(frozen=True, slots=True)
class BoundTemplate:
    """What is left of a template when the topic is known."""

    parts: tuple[str | Path, ...]

    def find(self, document: dict[str, Any]) -> str | None:
        """The text for this payload; None if a part of it is missing or null.

        Raises:
            Unmappable: a part is an object or an array.
            TextWanted: a part is a float.
        """
        texts: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = part.find(document)
            if value is None:
                return None
            texts.append(to_string(value))
        return "".join(texts)


Source = Constant | Capture | Path | Template


def parse_field(value: object, captures: Collection[str]) -> Source:
    """Read one entry of a route's ``fields``. ``captures``: the names that the route's topic captures.

    Raises:
        ValueError: it can't be read; the text says why and what to write instead.
    """
    if isinstance(value, (bool, int, float)):
        return Constant(value)
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} can't be sent; write a string, a number, true or false")  # noqa: TRY004 - one class for all that is wrong
    if value.startswith("="):
        return Constant(value[1:])
    if not value or value != value.strip():
        raise ValueError(f"{value!r} is empty or has blanks around it; write a path, or =text for a constant text")
    try:
        path, end = _scan_path(value, 0)
    except ValueError:
        if "{" not in value and "}" not in value:
            raise
    else:
        if end == len(value):
            return path
    return _parse_template(value, captures)


def _parse_template(text: str, captures: Collection[str]) -> Source:
    parts: list[str | Capture | Path] = []
    at = 0
    while at < len(text):
        opened = text.find("{", at)
        literal = text[at:] if opened < 0 else text[at:opened]
        if "}" in literal:
            raise ValueError(f"{text!r} has a }} without its {{; write {{name}}, or a path without braces")
        if literal:
            parts.append(literal)
        if opened < 0:
            break
        path, end = _scan_path(text, opened + 1)
        if not text.startswith("}", end):
            raise ValueError(f"{text!r} has a {{ without its }}; write {{name}} or {{path.to.value}}")
        parts.append(Capture(path.text) if path.text in captures else path)
        at = end + 1
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    return Template(text, tuple(parts))


def _scan_path(text: str, start: int) -> tuple[Path, int]:
    """The path that begins at ``start``, and where it ends: at a brace or at the end of the text."""
    steps: list[tuple[str, int | None]] = []
    at = start
    while True:
        match = STEP.match(text, at)
        if match is None:
            raise ValueError(
                f"{text!r} is not a path: at character {at + 1} a name is missing or a quote isn't closed; "
                'write names with dots between them, and a name that holds a dot in quotes: sensors.0."a.b"'
            )
        key, bare = match.groups()
        if bare is None:
            steps.append((ESCAPE.sub(r"\1", key), None))
        else:
            is_index = bare.isascii() and bare.isdigit() and len(bare) <= MAX_INDEX_DIGITS
            steps.append((bare, int(bare) if is_index else None))
        at = match.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    if text[at : at + 1] not in ("", "{", "}"):
        raise ValueError(
            f"{text!r} is not a path: at character {at + 1} a dot is missing; quotes go around a whole name"
        )
    return Path(text[start:at], tuple(steps)), at
