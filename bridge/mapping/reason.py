"""Why a message can't become rows: the codes, and the exception that carries one inside the mapping.

The codes stand in dead letters and in metrics; docs/mapping.md explains them to the people who own the devices.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

SHOWN_CHARACTERS = 80
"""How much of an offending value a detail quotes: enough to recognise it, too little to flood a log."""


class Reason(StrEnum):
    """The reason code of a dead letter that the mapping made."""

    BAD_TOPIC = "bad_topic"
    NO_ROUTE = "no_route"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    TYPE_MISMATCH = "type_mismatch"
    OUT_OF_RANGE = "out_of_range"


class Unmappable(Exception):  # noqa: N818 - says what the message is, as the errors in bridge.errors do
    """A message, or a value in it, that can't become a row. Never leaves ``Mapping.map``."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def quoted(text: str) -> str:
    """``text`` in double quotes, at most 80 characters of it, what can't be printed written as an escape."""
    cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:SHOWN_CHARACTERS])
    return f'"{cut}{"…" if len(text) > SHOWN_CHARACTERS else ""}"'


def shown(value: Any) -> str:
    """The kind of a decoded JSON value and, where it is short, the value: ``a string ("abc")``."""
    match value:
        case None:
            return "null"
        case bool():
            return f"a boolean ({'true' if value else 'false'})"
        case int() | float():
            digits = str(value)
            cut = digits if len(digits) <= SHOWN_CHARACTERS else digits[:SHOWN_CHARACTERS] + "…"
            return f"a number ({cut})"
        case str():
            return f"a string ({quoted(value)})"
        case dict():
            return "an object"
        case list():
            return "an array"
        case _:
            return f"a {type(value).__name__}"
