"""Numbers whose text has more digits than a double, or other ones than the double is written with."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

EXACT_DOUBLE = 2**53
"""Every whole number up to this one has an exact double."""

MAX_WHOLE_DIGITS = 40
"""Digits of a whole number that is converted; a long has at most 19."""


class DigitsNeeded(Exception):
    """A value's text is needed, and decoding kept only its double. The message must be decoded with all digits."""


class WrittenNumber(float):
    """A number that is printed as it was written, such as ``1.10``. As a double it is rounded, beyond one infinite."""

    __slots__ = ("_text",)

    _text: str

    def __new__(cls, text: str) -> WrittenNumber:
        """Make it of a text in Python's syntax for numbers."""
        number = super().__new__(cls, text)
        number._text = text
        return number

    def __repr__(self) -> str:
        return self._text


WrittenNumber.__name__ = "float"  # JMESPath's functions recognise a number by the name of its type


def number_of(text: str) -> float:
    """The number that the text spells: a float if that is printed as the text and no digit can be lost."""
    number = float(text)
    return number if repr(number) == text and abs(number) < EXACT_DOUBLE else WrittenNumber(text)


def whole_of(number: float) -> int | None:
    """The number as an int; None if it has a fraction.

    Raises:
        OverflowError: it has too many digits, or a double that may have lost some.
    """
    if type(number) is float:
        if abs(number) >= EXACT_DOUBLE:
            raise OverflowError
        return int(number) if number.is_integer() else None
    try:
        digits = Decimal(repr(number))
    except InvalidOperation:  # an exponent of 19 digits
        digits = Decimal("Infinity" if math.isinf(number) else "0.1")
    if digits and digits.adjusted() > MAX_WHOLE_DIGITS:
        raise OverflowError
    return int(digits) if digits == digits.to_integral_value() else None
