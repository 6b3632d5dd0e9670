"""What texts that devices send stand for: numbers, times, or no value. Pure."""

from __future__ import annotations

import re
from typing import Any

from bridge.mapping.times import NANOSECONDS, parse_time
from bridge.mapping.unmappable import Unmappable

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL_COMMA = re.compile(r"-?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+),[0-9]+")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(.{0,20})")
_OFFSET = re.compile(r".*(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)")

_EPOCHS = {unit: (10**9 * 10**9 // size, 4 * 10**9 * 10**9 // size) for unit, size in NANOSECONDS.items()}
"""The years 2001 to 2096 in each unit: such large numbers are rarely anything but times."""

_MAX_DIGITS = 15
"""Significant digits that a double keeps."""

_STATES = frozenset(["online", "offline", "available", "connected", "disconnected", "lost"])
_NO_VALUES = frozenset(
    [
        *("unavailable", "unknown", "nan", "null", "none", "n/a", "na", "-", "--", "inf", "-inf", "infinity"),
        *("undefined", "error", ""),
    ]
)


def is_no_value(text: str) -> bool:
    """Whether the text says that there is no value, as ``unavailable`` does."""
    return text.strip().lower() in _NO_VALUES


def is_word(text: str) -> bool:
    """Whether the text says that there is no value, or that the device came or went, as wills do."""
    return is_no_value(text) or text.strip().lower() in _STATES


def number_in(text: str) -> int | float | None:
    """The number that the text spells as JSON would; None if there is none, or a column would lose digits of it."""
    text = text.strip()
    if len(text) > 40 or not _NUMBER.fullmatch(text):
        return None
    if _WHOLE.fullmatch(text):
        return int(text)
    digits = re.sub(r"[eE].*|[^0-9]", "", text).lstrip("0")
    return float(text) if len(digits) <= _MAX_DIGITS else None


def has_decimal_comma(text: str) -> bool:
    """Whether the text is a number with a decimal comma, such as ``-0,5``."""
    return bool(_DECIMAL_COMMA.fullmatch(text.strip()))


def is_local_time(text: str) -> bool:
    """Whether the text is an ISO 8601 time without an offset."""
    found = _ISO.fullmatch(text)
    return bool(found) and not _OFFSET.fullmatch(found[1] if found else "")


def time_formats(value: Any) -> frozenset[str]:
    """The time formats in which the value is a plausible time; the units' ranges don't overlap."""
    if isinstance(value, str):
        if _ISO.fullmatch(value):
            try:
                parse_time(value, "iso8601")
            except Unmappable:
                return frozenset()
            return frozenset(["iso8601"])
        value = number_in(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return frozenset(unit for unit, (first, last) in _EPOCHS.items() if first <= value < last)
    return frozenset()


def is_time(value: Any) -> bool:
    """Whether the value is a plausible time."""
    return bool(time_formats(value))
