"""Paths into a decoded payload, such as ``sensors.0.temp``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from bridge.mapping.expressions import JMESPATH, compile_expression

Getter = Callable[[Any], Any]
"""(payload) -> the value; None if there is none."""

_STEP = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."{}\[\]\s]+)')


def compile_getter(text: str) -> Getter:
    """Compile a path or a ``jmespath:`` expression.

    Raises:
        ValueError: it is invalid; the message says why.
    """
    if not text.startswith(JMESPATH):
        return compile_path(text)
    evaluate = compile_expression(text)
    return lambda payload: evaluate({}, payload)


def compile_path(text: str) -> Getter:
    """Compile a dotted path.

    Raises:
        ValueError: it is invalid; the message says where.
    """
    steps = path_steps(text)

    def get(payload: Any) -> Any:
        found = payload
        for step in steps:
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list):
                # isdecimal alone accepts digits of other scripts.
                is_index = step.isascii() and step.isdecimal() and len(step) < 10
                found = found[int(step)] if is_index and int(step) < len(found) else None
            else:  # also a path through a scalar, as where a device sends text instead of an object
                return None
        return found

    return get


def path_steps(text: str, *, unquote: bool = True) -> list[str]:
    """The names and indices of a dotted path, by default unquoted.

    Raises:
        ValueError: it is invalid; the message says where.
    """
    steps: list[str] = []
    at = 0
    while True:
        step = _STEP.match(text, at)
        if step is None:
            raise ValueError(f"{text!r} is not a path: expected a name or a quoted name at character {at + 1}")
        is_quoted = step[2] is None and unquote
        steps.append(re.sub(r"\\(.)", r"\1", step[1]) if is_quoted else step[0])
        at = step.end()
        if at == len(text):
            return steps
        if text[at] != ".":
            raise ValueError(f"{text!r} is not a path: expected a dot at character {at + 1}")
        at += 1
