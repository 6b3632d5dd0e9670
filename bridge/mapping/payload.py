"""The objects in a decoded payload that become rows."""

from __future__ import annotations

from typing import Any

from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

MAX_PAYLOAD = 512 * 1024
"""Bytes. A GDN frame is at most 1 MiB with base64 and envelope (gdn-api.md C.5): a larger one can't be sent."""

MAX_ROWS = 10_000
"""Rows of one message: the rows of an array of tiny objects could be a thousand times as large as the array."""


def objects(decoded: Any) -> list[dict[str, Any]]:
    """The payload if it is an object, or the objects of its array.

    Raises:
        Unmappable: there is none, or there are too many.
    """
    if type(decoded) is dict or isinstance(decoded, dict):
        return [decoded]
    if not isinstance(decoded, list):
        raise Unmappable(Reason.NOT_AN_OBJECT, f"the payload is {kind(decoded)}, not an object or an array of objects")
    if not decoded:
        raise Unmappable(Reason.EMPTY, "the payload is an empty array")
    _check_count(decoded)
    for number, element in enumerate(decoded):
        if not isinstance(element, dict):
            raise Unmappable(Reason.NOT_AN_OBJECT, f"element {number} of the array is {kind(element)}, not an object")
    return decoded


def elements(found: Any, each: str) -> list[dict[str, Any]]:
    """The elements of ``found``, the value at the path ``each``, as ``as_element`` gives them.

    Raises:
        Unmappable: there is none, or there are too many.
    """
    if found is None:
        raise Unmappable(Reason.MISSING_FIELD, f"each: there is no value at {each}")
    found = found if isinstance(found, list) else [found]
    if not found:
        raise Unmappable(Reason.EMPTY, f"each: the array at {each} is empty")
    _check_count(found)
    return [as_element(value) for value in found]


def as_element(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an object with it as the member ``value``."""
    return value if isinstance(value, dict) else {"value": value}


def _check_count(found: list[Any]) -> None:
    if len(found) > MAX_ROWS:
        raise too_many(len(found))


def too_many(count: int) -> Unmappable:
    """For more than ``MAX_ROWS`` elements."""
    return Unmappable(Reason.TOO_LARGE, f"the array has {count} elements, at most {MAX_ROWS} are allowed")


def kind(value: object) -> str:
    """The type of a JSON value in words, with its article."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {bool: "a boolean", int: "a whole number", float: "a number", str: "a string"}
    found = next((name for type_, name in kinds.items() if isinstance(value, type_)), None)
    return found or ("an array" if isinstance(value, list) else "an object")
