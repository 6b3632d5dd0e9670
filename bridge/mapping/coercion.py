"""Converts values to the types that the stream declares, and refuses what would lose information.

One function per type; each returns the value or raises ``Unmappable``. Widths are those of the engine's Java types
(gdn-api.md F.6): int has 32 bits, long 64. *Strict* takes only values of the column's own type; *lenient* also others
that convert unambiguously, such as numbers in text.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.mapping.numbers import EXACT_DOUBLE, DigitsNeeded, WrittenNumber, whole_of
from bridge.mapping.payload import kind
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason
from bridge.streamql.syntax import AttributeType

Coercion = Callable[[Any], Any]
"""(value) -> the value as the column's type; raises Unmappable."""

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
FLOAT_MAX = 3.4028234663852886e38
DOUBLE_MAX = sys.float_info.max

WHOLE_TYPES = (AttributeType.INT, AttributeType.LONG)
FRACTION_TYPES = (AttributeType.FLOAT, AttributeType.DOUBLE)

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,10})?")
MAX_NUMBER_TEXT = 400
"""Characters of a number in text."""


def _mismatch(value: object, column_type: str) -> Unmappable:
    return Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({preview(value)}) doesn't fit {column_type}")


def _out_of_range(value: object, column_type: str) -> Unmappable:
    return Unmappable(Reason.OUT_OF_RANGE, f"{preview(value)} is out of range for {column_type}")


def _whole(limit: int, column_type: AttributeType) -> Coercion:
    def coerce(value: Any) -> int:
        if type(value) is not int:
            raise _mismatch(value, column_type.value)
        if not -limit - 1 <= value <= limit:
            raise _out_of_range(value, column_type.value)
        return value

    return coerce


def _fraction(limit: float, column_type: AttributeType) -> Coercion:
    def coerce(value: Any) -> float:
        if type(value) is float and -limit <= value <= limit:  # the usual case first: this runs for every value
            return value
        if type(value) is int:
            if not -EXACT_DOUBLE <= value <= EXACT_DOUBLE:
                raise _out_of_range(value, f"{column_type.value}: it would lose digits")
            return float(value)  # the engine's JSON mapper drops a row with 18 in a double column, and takes 18.0
        if not isinstance(value, float) or math.isnan(value):
            raise _mismatch(value, column_type.value)
        if not -limit <= value <= limit:
            raise _out_of_range(value, column_type.value)
        return float(value)

    return coerce


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    raise _mismatch(value, "string")


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise _mismatch(value, "bool")


def _object(value: Any) -> Any:
    if isinstance(value, dict | list):
        return value
    raise _mismatch(value, "object")


STRICT: dict[AttributeType, Coercion] = {
    AttributeType.STRING: _string,
    AttributeType.INT: _whole(INT_MAX, AttributeType.INT),
    AttributeType.LONG: _whole(LONG_MAX, AttributeType.LONG),
    AttributeType.FLOAT: _fraction(FLOAT_MAX, AttributeType.FLOAT),
    AttributeType.DOUBLE: _fraction(DOUBLE_MAX, AttributeType.DOUBLE),
    AttributeType.BOOL: _bool,
    AttributeType.OBJECT: _object,
}


def as_text(value: Any) -> str:
    """The value if it is text, or a number or boolean as text, with the digits that the device wrote.

    Raises:
        Unmappable: it is an object, an array or null.
    """
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    raise _mismatch(value, "string")


def rounded_as_text(value: Any) -> str:
    """Like ``as_text``, of a value that was decoded without its digits: ``1.10`` as 1.1, ``-0`` as 0.

    Raises:
        DigitsNeeded: its text is not known.
        Unmappable: as for ``as_text``.
    """
    if type(value) is str:
        return value
    if type(value) is float or (type(value) is int and value == 0):
        raise DigitsNeeded
    return as_text(value)


def unless_blank(text: str) -> str | None:
    """The text; None if it is empty or white space."""
    return None if not text or text.isspace() else text


class Reading(NamedTuple):
    """How a route reads the values of its payloads."""

    text: Callable[[Any], str] = as_text
    """(value) -> the value as text."""
    cell: Callable[[str], str | None] | None = None
    """(text) -> the text to parse for a column that is no string, None for no value; None: as it is."""

    @property
    def skips_blank(self) -> bool:
        """Whether blank text is no value for a column that is no string."""
        return self.cell is not None and self.cell("") is None


PLAIN = Reading()


def _lenient_whole(column_type: AttributeType, *, rounded: bool) -> Coercion:
    strict = STRICT[column_type]

    def coerce(value: Any) -> Any:
        if type(value) is int:  # the usual case first: this runs for every value
            return strict(value)
        if type(value) is str:
            return strict(parse_text(value.strip(), column_type))
        if rounded and type(value) is float:
            raise DigitsNeeded
        if isinstance(value, float) and not math.isnan(value):
            try:
                number = whole_of(value)  # devices also write whole numbers as 18.0
            except OverflowError:
                raise _out_of_range(value, f"{column_type.value}: it would lose digits") from None
            return strict(value if number is None else number)
        return strict(value)

    return coerce


def _lenient(column_type: AttributeType) -> Coercion:
    strict = STRICT[column_type]
    own = bool if column_type is AttributeType.BOOL else float

    def coerce(value: Any) -> Any:
        if type(value) is own:  # the usual case first: this runs for every value
            return strict(value)
        if type(value) is str:
            return strict(parse_text(value.strip(), column_type))
        if type(value) is int and value in (0, 1) and column_type is AttributeType.BOOL:
            return value == 1
        return strict(value)

    return coerce


LENIENT: dict[AttributeType, Coercion] = {
    **{column_type: _lenient(column_type) for column_type in (*FRACTION_TYPES, AttributeType.BOOL)},
    **{column_type: _lenient_whole(column_type, rounded=False) for column_type in WHOLE_TYPES},
    AttributeType.STRING: as_text,
    AttributeType.OBJECT: _object,
}

COERCIONS = {"lenient": LENIENT, "strict": STRICT}

ROUNDED = {
    "lenient": {
        **LENIENT,
        **{column_type: _lenient_whole(column_type, rounded=True) for column_type in WHOLE_TYPES},
        AttributeType.STRING: rounded_as_text,
    },
    "strict": STRICT,
}
"""Like ``COERCIONS``, of values that were decoded without their digits: they also raise ``DigitsNeeded``."""


def parse_text(text: str, column_type: AttributeType) -> Any:
    """Text parsed as the column's type; the text itself if it doesn't look like a value of that type.

    For sources that hold only text, such as a topic's levels. The result still needs a coercion from ``COERCIONS``.
    """
    if len(text) > MAX_NUMBER_TEXT:
        return text
    if column_type in WHOLE_TYPES and _WHOLE.fullmatch(text):
        return int(text)
    if column_type in FRACTION_TYPES and _NUMBER.fullmatch(text):
        # An int keeps digits that a double would lose, so that the coercion can refuse it.
        if _WHOLE.fullmatch(text):
            return int(text)
        number = float(text)
        return number if math.isfinite(number) else WrittenNumber(text)
    if column_type is AttributeType.BOOL and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text
