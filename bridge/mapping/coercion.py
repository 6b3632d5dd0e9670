"""Values to the types that the stream declares, without loss or not at all.

One function per type; each returns the value or raises ``Unmappable``. Widths are those of the engine's Java types
(gdn-api.md F.6): int 32 bits, long 64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from bridge.mapping.payload import kind
from bridge.mapping.reasons import Reason, Unmappable, shown
from bridge.streamql.syntax import AttributeType

Coercion = Callable[[Any], Any]

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
EXACT_DOUBLE = 2**53
FLOAT_MAX = 3.4028234663852886e38

_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


def _mismatch(value: object, wanted: str) -> Unmappable:
    return Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({shown(value)}) doesn't fit {wanted}")


def _out_of_range(value: object, wanted: str) -> Unmappable:
    return Unmappable(Reason.OUT_OF_RANGE, f"{shown(value)} is out of the range of {wanted}")


def _whole(limit: int, wanted: str) -> Coercion:
    def coerce(value: Any) -> int:
        if type(value) is not int:
            if type(value) is not float or not value.is_integer():
                raise _mismatch(value, wanted)
            value = int(value)
        if not -limit - 1 <= value <= limit:
            raise _out_of_range(value, wanted)
        return int(value)

    return coerce


def _fraction(limit: float, wanted: str) -> Coercion:
    def coerce(value: Any) -> int | float:
        if type(value) is int:
            if not -EXACT_DOUBLE <= value <= EXACT_DOUBLE:
                raise _out_of_range(value, f"{wanted}: it would lose digits")
        elif type(value) is not float or not math.isfinite(value):
            raise _mismatch(value, wanted)
        if not -limit <= value <= limit:
            raise _out_of_range(value, wanted)
        return value  # type: ignore[no-any-return]  # an int or a float by now

    return coerce


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    raise _mismatch(value, "string")


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise _mismatch(value, "bool")


def _object(value: Any) -> Any:
    if isinstance(value, dict | list):
        return value
    raise _mismatch(value, "object")


COERCIONS: dict[AttributeType, Coercion] = {
    AttributeType.STRING: _string,
    AttributeType.INT: _whole(INT_MAX, "int"),
    AttributeType.LONG: _whole(LONG_MAX, "long"),
    AttributeType.FLOAT: _fraction(FLOAT_MAX, "float"),
    AttributeType.DOUBLE: _fraction(math.inf, "double"),
    AttributeType.BOOL: _bool,
    AttributeType.OBJECT: _object,
}


def from_text(text: str, wanted: AttributeType) -> Any:
    """A topic level's text as the value it spells, for ``COERCIONS`` to check; the text itself if it spells none.

    Topics hold only text, so ``200`` means a number where one is wanted. JSON has numbers: a string there stays one.
    """
    if wanted in (AttributeType.INT, AttributeType.LONG) and _WHOLE.fullmatch(text):
        return int(text)
    if wanted in (AttributeType.FLOAT, AttributeType.DOUBLE) and _NUMBER.fullmatch(text):
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    if wanted is AttributeType.BOOL and text in ("true", "false"):
        return text == "true"
    return text
