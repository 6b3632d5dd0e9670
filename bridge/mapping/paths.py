"""Paths into a decoded payload, such as ``sensors.0.temp``, and JMESPath expressions. The only user of jmespath."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jmespath
import jmespath.exceptions

from bridge.mapping.payload import kind
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

Getter = Callable[[Any], Any]
"""(payload) -> the value, None if there is none; raises Unmappable if the payload has another structure."""

JMESPATH = "jmespath:"
"""Prefix of an expression."""

MAX_EXPRESSION = 2000
"""Characters of an expression: the parser is recursive."""

_STEP = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."{}\[\]\s]+)')


def compile_getter(text: str) -> Getter:
    """Compile a path or a ``jmespath:`` expression.

    Raises:
        ValueError: it is invalid; the message says why.
    """
    return compile_expression(text) if text.startswith(JMESPATH) else compile_path(text)


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
                if not (step.isascii() and step.isdecimal() and len(step) < 10):
                    detail = f"{text}: an array has no member {step!r}, only elements by index"
                    raise Unmappable(Reason.TYPE_MISMATCH, detail)
                found = found[int(step)] if int(step) < len(found) else None
            elif found is None:
                return None
            else:
                raise Unmappable(Reason.TYPE_MISMATCH, f"{text}: {kind(found)} has no member {step!r}")
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


def compile_expression(text: str) -> Getter:
    """Compile a JMESPath expression, with or without the prefix ``jmespath:``.

    Raises:
        ValueError: it is invalid; the message says where.
    """
    expression = text.removeprefix(JMESPATH)
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"a JMESPath expression has at most {MAX_EXPRESSION} characters")
    try:
        compiled = jmespath.compile(expression)
    except (jmespath.exceptions.JMESPathError, RecursionError) as exc:
        hint = "; write numbers in backticks" if "(NUMBER)" in str(exc) else ""
        raise ValueError(f"{expression!r} is not a JMESPath expression: {_in_one_line(exc)}{hint}") from exc

    def get(payload: Any) -> Any:
        try:
            return compiled.search(payload)
        # The library's functions raise Python's errors for values that they don't expect.
        except (jmespath.exceptions.JMESPathError, RecursionError, ArithmeticError, TypeError, ValueError) as exc:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{expression}: {_in_one_line(exc)}") from exc

    return get


def is_true(value: Any) -> bool:
    """Truth as JMESPath defines it: false, null and empty values are false; 0 is true."""
    return not (value is None or value is False or value in ("", [], {}))


def _in_one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300]
