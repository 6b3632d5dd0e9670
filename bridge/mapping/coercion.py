"""Coercion: a decoded value to the type its column declares, or the reason why it doesn't fit.

Nothing is rounded to make it fit and no string from a payload is taken for a number: what the far end does with such a
value is not documented (gdn-api.md F.6), and a row it drops is lost unseen. Text from a topic is all a topic has, so there
numbers and booleans are read from it. docs/mapping.md has the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from bridge.mapping.payload import WrittenFloat
from bridge.mapping.reason import Reason, Unmappable, shown
from bridge.streamql.syntax import AttributeType

Coercion = Callable[[Any], Any]
"""Value in, value of the column's type out. Raises Unmappable, or TextWanted (strings only)."""

# Widths are Java's (gdn-api.md F.6).
INT_BITS = 32
LONG_BITS = 64
DOUBLE_WHOLE = 2**53
"""Up to here a 64-bit float holds every whole number."""
FLOAT_WHOLE = 2**24
"""Up to here a 32-bit float does."""
FLOAT_MAX = 3.4028234663852886e38
"""The largest 32-bit float."""

NUMBER_TEXT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
MAX_NUMBER_TEXT = 400
"""Characters. No number that fits a column is longer, and Python refuses to read thousands of digits."""


class TextWanted(Exception):  # noqa: N818 - a request, not an error
    """A float is wanted as the text it was written with: decode again with ``written=True``."""


def to_string(value: Any) -> str:
    """Text as it is; numbers as they were written; true and false."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, WrittenFloat):
        return value.text
    if isinstance(value, float):
        raise TextWanted
    _refuse(value, "string")


def to_bool(value: Any) -> bool:
    """True and false, nothing else."""
    if isinstance(value, bool):
        return value
    _refuse(value, "bool")


def to_object(value: Any) -> Any:
    """A JSON object or array as it is."""
    if isinstance(value, (dict, list)):
        return value
    _refuse(value, "object")


def _whole(name: str, bits: int) -> Coercion:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def to_whole(value: Any) -> int:
        if type(value) is int:
            if low <= value <= high:
                return value
            raise Unmappable(Reason.OUT_OF_RANGE, f"{shown(value)} is outside the {bits} bits of the type {name}")
        if not isinstance(value, float):
            _refuse(value, name)
        # Beyond 2**53 reading the float may already have lost the last digits.
        if abs(value) > min(high + 1, DOUBLE_WHOLE):
            raise Unmappable(Reason.OUT_OF_RANGE, f"{shown(value)} is too large for the type {name}")
        if not value.is_integer():
            raise Unmappable(Reason.TYPE_MISMATCH, f"{shown(value)} is not whole, as the type {name} must be")
        return to_whole(int(value))

    return to_whole


def _fraction(name: str, *, whole: int, largest: float) -> Coercion:
    def to_fraction(value: Any) -> float:
        if isinstance(value, float):
            if abs(value) <= largest:  # False for NaN too
                return float(value)  # a WrittenFloat becomes a plain one
            raise Unmappable(Reason.OUT_OF_RANGE, f"{shown(value)} is outside the range of the type {name}")
        if type(value) is int:
            if -whole <= value <= whole:
                return float(value)
            raise Unmappable(Reason.OUT_OF_RANGE, f"{shown(value)} would lose digits in the type {name}")
        _refuse(value, name)

    return to_fraction


def _refuse(value: Any, name: str) -> NoReturn:
    if value is None:
        raise Unmappable(Reason.MISSING_FIELD, "is missing or null")
    raise Unmappable(Reason.TYPE_MISMATCH, f"{shown(value)} doesn't fit the type {name}")


COERCIONS: dict[AttributeType, Coercion] = {
    AttributeType.STRING: to_string,
    AttributeType.INT: _whole("int", INT_BITS),
    AttributeType.LONG: _whole("long", LONG_BITS),
    AttributeType.FLOAT: _fraction("float", whole=FLOAT_WHOLE, largest=FLOAT_MAX),
    AttributeType.DOUBLE: _fraction("double", whole=DOUBLE_WHOLE, largest=math.nextafter(math.inf, 0.0)),
    AttributeType.BOOL: to_bool,
    AttributeType.OBJECT: to_object,
}

EXACT: dict[AttributeType, type] = {
    AttributeType.STRING: str,
    AttributeType.DOUBLE: float,
    AttributeType.BOOL: bool,
}
"""Decoded values of exactly this type need no coercion. Types with a range to check have none."""


def from_text(text: str, kind: AttributeType) -> Any:
    """A topic level's text as the column's type: ``200`` fits an int, ``true`` a bool, anything a string.

    Raises:
        Unmappable: type_mismatch or out_of_range.
    """
    if kind is AttributeType.STRING:
        return text
    if kind is AttributeType.BOOL and text in ("true", "false"):
        return text == "true"
    if kind not in (AttributeType.BOOL, AttributeType.OBJECT):
        match = NUMBER_TEXT.fullmatch(text)
        if match is not None and len(text) > MAX_NUMBER_TEXT:
            raise Unmappable(Reason.OUT_OF_RANGE, f"{shown(text)} is too long for a number")
        if match is not None:
            whole = match.group(1) is None and match.group(2) is None
            return COERCIONS[kind](int(text) if whole else float(text))
    raise Unmappable(Reason.TYPE_MISMATCH, f"{shown(text)} doesn't fit the type {kind.value}")
