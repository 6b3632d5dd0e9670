"""Comparison, arithmetic and truth of C8QL values."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from typing import Any

_RANKS = {type(None): 0, bool: 1, int: 2, float: 2, str: 3, list: 4, dict: 5}


def is_true(value: Any) -> bool:
    """Whether the value counts as true in a condition."""
    return value not in (None, False, 0, "") or isinstance(value, list | dict)


def member(value: Any, key: Any) -> Any:
    """An object's attribute or an array's item; None if there is none."""
    if isinstance(value, dict):
        return value.get(str(key))
    if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return None


def contains(array: Any, value: Any) -> bool:
    """Whether ``array`` is an array that contains the value."""
    return isinstance(array, list) and any(compare(value, item) == 0 for item in array)


def compare(a: Any, b: Any) -> int:
    """Negative, zero or positive if ``a`` is less than, equal to or greater than ``b``.

    Values of different types are ordered by ``_RANKS``.
    """
    rank = _RANKS[type(a)]
    if other := rank - _RANKS[type(b)]:
        return other
    if rank >= 4:
        a, b = json.dumps(a, sort_keys=True), json.dumps(b, sort_keys=True)
    return 0 if a == b else -1 if a < b else 1


def calculate(symbol: str, a: Any, b: Any) -> Any:
    """``+ - * / %``. Null and text that isn't a number count as 0; dividing by 0 gives null."""
    a, b = _as_number(a), _as_number(b)
    if symbol in "/%" and b == 0:
        return None
    return _ARITHMETIC[symbol](a, b)


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
}


def _as_number(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0
