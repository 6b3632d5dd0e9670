"""What a route's ``fields`` say: constants, paths into the payload, templates of captures and paths, the row's id.

``=text`` is a constant; a number or a boolean is itself; ``{capture}`` is a topic level; ``$id`` is the row's id; text
with several ``{…}`` joins captures, paths and the id; everything else is a dotted path, as ``sensors.0.temp`` or
``"a.b".c``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from bridge.mapping.coercion import COERCIONS, from_text
from bridge.mapping.payload import kind
from bridge.mapping.reasons import Reason, Unmappable, shown
from bridge.streamql.syntax import AttributeType

Field = Callable[[Mapping[str, str], Mapping[str, Any]], Any]
"""(captures, payload) -> the value; None where there is none."""

RowId = Callable[[Mapping[str, Any], int], str]
"""(payload, record id) -> the row's id."""

ROW_ID = "$id"
"""The row's id in ``fields``. At run time it stands among the captures, whose names have no dollar sign."""

Scalar = str | int | float | bool

_STEP = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."{}\[\]\s]+)')
_HOLE = re.compile(r"\{([^{}]*)\}")


def compile_field(value: Scalar, *, captures: frozenset[str], wanted: AttributeType) -> Field:
    """The field that ``value`` describes.

    Raises:
        ValueError: it describes none; the message says why.
    """
    if not isinstance(value, str):
        return lambda _captures, _payload: value
    if value.startswith("="):
        text = value[1:]
        return lambda _captures, _payload: text
    holes = list(_HOLE.finditer(value))
    if not holes:
        if "{" in value or "}" in value:
            raise ValueError(f"a brace without its partner in {value!r}")
        return _hole(value, frozenset(), wanted)
    if len(holes) == 1 and holes[0][0] == value:
        return _hole(holes[0][1], captures, wanted)
    return _template(value, holes, captures)


def takes_row_id(value: Scalar) -> bool:
    """Whether the field that ``value`` describes needs the row's id."""
    return isinstance(value, str) and (value == ROW_ID or (f"{{{ROW_ID}}}" in value and not value.startswith("=")))


def compile_row_id(path: str | None, *, outbox_name: str) -> RowId:
    """What makes a row's id: the payload's value at ``path``; without a path, outbox and record id.

    Raises:
        ValueError: ``path`` is none; the message says why.
    """
    if path is None:
        return lambda _payload, record_id: f"{outbox_name}-{record_id}"
    field = _path_field(path)

    def row_id(payload: Mapping[str, Any], _record_id: int) -> str:
        found = field({}, payload)
        if type(found) is int:
            return str(found)
        if found is None or found == "":
            raise Unmappable(Reason.MISSING_FIELD, f"there is no value at {path}")
        if type(found) is not str:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(found)} ({shown(found)}) is neither text nor a whole number")
        return found

    return row_id


def _hole(name: str, captures: frozenset[str], wanted: AttributeType) -> Field:
    if name == ROW_ID:
        if wanted is not AttributeType.STRING:
            raise ValueError(f"{ROW_ID} is text, and the column is {wanted.value}")
        return lambda captured, _payload: captured[ROW_ID]
    if name.startswith("$"):
        raise ValueError(
            f"there is no {name}, there is {ROW_ID}; a payload's member of that name is written '\"{name}\"'"
        )
    if name in captures:
        return lambda captured, _payload: from_text(captured[name], wanted)
    return _path_field(name)


def _template(value: str, holes: list[re.Match[str]], captures: frozenset[str]) -> Field:
    parts: list[str | Field] = []
    at = 0
    for hole in holes:
        parts += [value[at : hole.start()], _hole(hole[1], captures, AttributeType.STRING)]
        at = hole.end()
    parts.append(value[at:])
    if any(isinstance(part, str) and ("{" in part or "}" in part) for part in parts):
        raise ValueError(f"a brace without its partner in {value!r}")
    as_text = COERCIONS[AttributeType.STRING]

    def field(captured: Mapping[str, str], payload: Mapping[str, Any]) -> str | None:
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            found = part(captured, payload)
            if found is None:
                return None
            texts.append(as_text(found))
        return "".join(texts)

    return field


def _path_field(text: str) -> Field:
    steps = _steps(text)
    if len(steps) == 1:
        only = steps[0]
        return lambda _captures, payload: payload.get(only)

    def field(_captures: Mapping[str, str], payload: Mapping[str, Any]) -> Any:
        found: Any = payload
        for step in steps:
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list):
                if not (step.isascii() and step.isdecimal() and len(step) < 10):
                    raise Unmappable(Reason.TYPE_MISMATCH, f"{text}: an array has no member {step!r}, only indices")
                found = found[int(step)] if int(step) < len(found) else None
            elif found is None:
                return None
            else:
                raise Unmappable(Reason.TYPE_MISMATCH, f"{text}: {kind(found)} has no member {step!r}")
        return found

    return field


def _steps(text: str) -> list[str]:
    steps: list[str] = []
    at = 0
    while True:
        step = _STEP.match(text, at)
        if step is None:
            raise ValueError(f"{text!r} is no path: at character {at + 1} a name or a quoted name was expected")
        steps.append(step[2] if step[2] is not None else re.sub(r"\\(.)", r"\1", step[1]))
        at = step.end()
        if at == len(text):
            return steps
        if text[at] != ".":
            raise ValueError(f"{text!r} is no path: at character {at + 1} a dot was expected")
        at += 1
