"""Values to the types that the stream declares, without loss or not at all.

One function per type; each returns the value or raises ``Unmappable``. Widths are those of the engine's Java types
(gdn-api.md F.6): int 32 bits, long 64. *Strict* takes each type's own kind of value only; *lenient* also what spells
such a value without a doubt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from bridge.mapping.payload import kind
from bridge.mapping.unmappable import Unmappable, shown
from bridge.reasons import Reason
from bridge.streamql.syntax import AttributeType

Coercion = Callable[[Any], Any]

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
EXACT_DOUBLE = 2**53
FLOAT_MAX = 3.4028234663852886e38

WHOLE_TYPES = (AttributeType.INT, AttributeType.LONG)
FRACTION_TYPES = (AttributeType.FLOAT, AttributeType.DOUBLE)

_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
MAX_NUMBER_TEXT = 100
"""Characters of a number in text."""


def _mismatch(value: object, wanted: str) -> Unmappable:
    return Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({shown(value)}) doesn't fit {wanted}")


def _out_of_range(value: object, wanted: str) -> Unmappable:
    return Unmappable(Reason.OUT_OF_RANGE, f"{shown(value)} is out of the range of {wanted}")


def _whole(limit: int, wanted: AttributeType) -> Coercion:
    def coerce(value: Any) -> int:
        if type(value) is not int:
            raise _mismatch(value, wanted.value)
        if not -limit - 1 <= value <= limit:
            raise _out_of_range(value, wanted.value)
        return value

    return coerce


def _fraction(limit: float, wanted: AttributeType) -> Coercion:
    def coerce(value: Any) -> int | float:
        if type(value) is int:
            if not -EXACT_DOUBLE <= value <= EXACT_DOUBLE:
                raise _out_of_range(value, f"{wanted.value}: it would lose digits")
        elif type(value) is not float or not math.isfinite(value):
            raise _mismatch(value, wanted.value)
        if not -limit <= value <= limit:
            raise _out_of_range(value, wanted.value)
        return value  # type: ignore[no-any-return]  # an int or a float by now

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
    AttributeType.DOUBLE: _fraction(math.inf, AttributeType.DOUBLE),
    AttributeType.BOOL: _bool,
    AttributeType.OBJECT: _object,
}


def as_text(value: Any) -> str:
    """Text, or a number or boolean as its text.

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


def _lenient(wanted: AttributeType) -> Coercion:
    strict = STRICT[wanted]
    own = {AttributeType.BOOL: bool, AttributeType.INT: int, AttributeType.LONG: int}.get(wanted, float)

    def coerce(value: Any) -> Any:
        if type(value) is own:
            return strict(value)
        if type(value) is str:
            return strict(from_text(value.strip(), wanted))
        if type(value) is float and value.is_integer() and wanted in WHOLE_TYPES:
            return strict(int(value))
        if type(value) is int and value in (0, 1) and wanted is AttributeType.BOOL:
            return value == 1
        return strict(value)

    return coerce


LENIENT: dict[AttributeType, Coercion] = {
    **{wanted: _lenient(wanted) for wanted in (*WHOLE_TYPES, *FRACTION_TYPES, AttributeType.BOOL)},
    AttributeType.STRING: as_text,
    AttributeType.OBJECT: _object,
}

COERCIONS = {"lenient": LENIENT, "strict": STRICT}


def from_text(text: str, wanted: AttributeType) -> Any:
    """Text as the value it spells where such a one is wanted; the text itself if it spells none.

    For what holds only text anyway, such as a topic's levels; ``COERCIONS`` checks what comes out.
    """
    if len(text) > MAX_NUMBER_TEXT:
        return text
    if wanted in WHOLE_TYPES and _WHOLE.fullmatch(text):
        return int(text)
    if wanted in FRACTION_TYPES and _NUMBER.fullmatch(text):
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    if wanted is AttributeType.BOOL and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text
