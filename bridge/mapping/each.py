"""Compiles a route's ``each``: finds the elements of a payload that become a row each.

A step ``*`` of the path stands for every member of an object, or every element of an array; the names of the members
(of elements: their index) are kept with the element, for ``$key``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bridge.mapping.expressions import JMESPATH
from bridge.mapping.paths import compile_getter, path_steps
from bridge.mapping.payload import MAX_ROWS, as_element, elements, objects, too_many
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

Elements = Sequence[dict[str, Any]]

Each = Callable[[Any], Elements]
"""(payload) -> its elements; raises Unmappable if there is none, or too many."""

Names = tuple[str, ...]
"""The names that the steps ``*`` of a path stand for, in the order of the path."""


class Members(list[dict[str, Any]]):
    """Elements with their names."""

    __slots__ = ("names",)

    def __init__(self, found: Sequence[tuple[Names, Any]]) -> None:
        super().__init__(as_element(value) for _, value in found)
        self.names = {id(element): names for element, (names, _) in zip(self, found, strict=True)}
        """By the element's identity."""


def compile_each(each: str | None) -> Each:
    """Compile ``each``; None: the payload, or the objects of its array.

    Raises:
        ValueError: it is invalid; the message says why.
    """
    if each is None:
        return objects
    if count_names(each):
        return _compile_members(each)
    get = compile_getter(each)
    return lambda payload: elements(get(payload), each)


def count_names(each: str | None) -> int:
    """How many steps ``*`` the path has.

    Raises:
        ValueError: the path is invalid; the message says where.
    """
    return 0 if each is None or each.startswith(JMESPATH) else _steps(each).count(None)


def _steps(each: str) -> list[str | None]:
    """The steps of the path; None for a ``*`` without quotes."""
    return [None if step == "*" else path_steps(step)[0] for step in path_steps(each, unquote=False)]


def _compile_members(each: str) -> Each:
    steps = _steps(each)

    def members(payload: Any) -> Members:
        found: list[tuple[Names, Any]] = [((), payload)]
        is_absent = False
        for step in steps:
            if step is None:
                is_absent = not any(isinstance(value, dict | list) for _, value in found)
            found = [inner for names, value in found for inner in _inner(names, value, step)]
            if len(found) > MAX_ROWS:
                raise too_many(len(found))
        if not found and is_absent:
            raise Unmappable(Reason.MISSING_FIELD, f"each: there is no value at {each}")
        if not found:
            raise Unmappable(Reason.EMPTY, f"each: what is at {each} is empty")
        return Members(found)

    return members


def _inner(names: Names, value: Any, step: str | None) -> Iterator[tuple[Names, Any]]:
    """What a step finds in a value: for None every member, else one at most."""
    if step is None:
        members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        yield from (((*names, str(name)), member) for name, member in members)
    elif isinstance(value, dict):
        if value.get(step) is not None:
            yield names, value[step]
    elif isinstance(value, list) and step.isascii() and step.isdecimal() and len(step) < 10 and int(step) < len(value):
        yield names, value[int(step)]
