"""Rewrites decoded values: JSON inside texts, texts that mean no value, numbers with a decimal comma."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from bridge.mapping.coercion import parse_text, unless_blank
from bridge.mapping.formats.options import MAX_DEPTH, FormatOptions, PayloadDecoder
from bridge.mapping.formats.text import Scalar
from bridge.mapping.formats.values import nests_deeper
from bridge.mapping.paths import path_steps
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason
from bridge.streamql.syntax import AttributeType

Substitution = Callable[[Any], Any]
"""(decoded value) -> the value to use instead, which may be the same object, changed; raises Unmappable."""

WHOLE_PAYLOAD = "$root"
"""Stands for the whole payload among the paths of ``embedded_json``."""

# The same character between all groups of three digits.
_COMMA = re.compile(
    r"(?=[+-]?,?[0-9])(?P<whole>[+-]?(?:[0-9]{1,3}([. '\u00a0\u202f])[0-9]{3}(?:\2[0-9]{3})*|[0-9]*))"
    r"(?:,(?P<fraction>[0-9]*))?(?P<exponent>[eE][+-]?[0-9]{1,4})?"
)
_POINT = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_MAX_NUMBER = 100


def compile_substitution(options: FormatOptions, parse_json: PayloadDecoder) -> Substitution | None:
    """Make what replaces decoded values; None if the options ask for nothing.

    Raises:
        ValueError: a path is invalid; the message says why.
    """
    paths = [(path, _steps(path)) for path in options.embedded_json]
    nulls = frozenset(text.strip() for text in options.null_values)
    if not paths and not nulls:
        return None

    def substitute(value: Any) -> Any:
        for path, steps in paths:
            value = _opened(value, steps, path, parse_json)
        if paths and nests_deeper(value, MAX_DEPTH):
            raise Unmappable(Reason.NOT_JSON, f"the payload nests deeper than {MAX_DEPTH} levels")
        return _without(value, nulls) if nulls else value

    return substitute


def _steps(path: str) -> list[str]:
    try:
        return [] if path == WHOLE_PAYLOAD else path_steps(path)
    except ValueError as exc:
        raise ValueError(f"embedded_json: {exc}") from exc


def _opened(value: Any, steps: Sequence[str], path: str, parse_json: PayloadDecoder) -> Any:
    """The value, with the text at the steps replaced by the value that its JSON has. Arrays: in each element."""
    if isinstance(value, list):
        for number, element in enumerate(value):
            value[number] = _opened(element, steps, path, parse_json)
    elif steps:
        if isinstance(value, dict) and steps[0] in value:
            value[steps[0]] = _opened(value[steps[0]], steps[1:], path, parse_json)
    elif type(value) is str:
        if not value.strip():
            return None
        try:
            return parse_json(value.encode())
        except Unmappable as exc:
            raise Unmappable(exc.reason, f"embedded_json {path}: {preview(value)}: {exc}") from None
    return value


def _without(value: Any, nulls: frozenset[str]) -> Any:
    if type(value) is str:
        return None if value.strip() in nulls else value
    if isinstance(value, Scalar) and value.text in nulls:
        value["value"] = None
    elif isinstance(value, dict):
        for name, member in value.items():
            value[name] = _without(member, nulls)
    elif isinstance(value, list):
        value[:] = [_without(element, nulls) for element in value]
    return value


def compile_cell(options: FormatOptions) -> Callable[[str], str | None] | None:
    """Make what reads a text for a column that is no string; None if it is read as it is.

    It gives None for no value, and a number in the syntax of ``parse_text``; it raises Unmappable for a number with a
    decimal point where a comma is expected.
    """
    is_cell = options.name in ("csv", "text")
    if options.decimal == ",":
        return _blank_or_comma if is_cell else _with_point
    return unless_blank if is_cell else None


def _blank_or_comma(text: str) -> str | None:
    return None if unless_blank(text) is None else _with_point(text)


def _with_point(text: str) -> str:
    number = text.strip()
    if len(number) > _MAX_NUMBER:
        return text
    found = _COMMA.fullmatch(number)
    if found:
        whole = re.sub(r"[^0-9+-]", "", found["whole"])
        fraction = f".{found['fraction']}" if found["fraction"] is not None else ""
        return f"{whole}{fraction}{found['exponent'] or ''}"
    if _POINT.fullmatch(number):
        raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(text)} has a decimal point, and decimal is a comma")
    return text


def with_points(value: Any) -> Any:
    """A copy of the value, in which texts that are numbers with a decimal comma are numbers."""
    if type(value) is str:
        try:
            return parse_text(_with_point(value), AttributeType.DOUBLE)
        except Unmappable:
            return value
    if isinstance(value, dict):
        return {name: with_points(member) for name, member in value.items()}
    return [with_points(element) for element in value] if isinstance(value, list) else value
