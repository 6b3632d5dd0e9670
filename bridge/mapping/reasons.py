"""Why a message can't become rows."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Reason codes of dead letters that the mapping makes; docs/mapping.md explains each."""

    NO_ROUTE = "no_route"
    BAD_TOPIC = "bad_topic"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    UNDECODABLE = "undecodable"
    UNKNOWN_ALIAS = "unknown_alias"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    TYPE_MISMATCH = "type_mismatch"
    OUT_OF_RANGE = "out_of_range"


class Unmappable(Exception):
    """A message's way ends here. ``reason`` is its code, the text says it in words."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NoReading(Exception):
    """A message that carries no reading by its kind: counted as dropped, like one that no condition takes."""


def shown(value: object) -> str:
    """A foreign value for a person to read: at most 80 characters, control characters escaped."""
    text = ascii(value) if isinstance(value, str | bytes) else ascii(str(value))[1:-1]
    return text if len(text) <= 80 else text[:77] + "..."
