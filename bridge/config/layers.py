"""A layer is what one source says, with the place of every value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.config.settings import Settings
from bridge.config.tree import Location, annotation_at, container, dotted, is_path, step


@dataclass(frozen=True)
class Layer:
    """What one source says. ``locate`` names the place of a location that the tree holds, or None."""

    tree: dict[str, Any]
    locate: Callable[[Location], str | None]

    def place(self, location: Location) -> str | None:
        """Where the value at ``location`` stands, None if this source hasn't got it."""
        node: Any = self.tree
        for key in location:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return None
        return self.locate(location)


@dataclass(frozen=True)
class Entry:
    """One variable or file: where it stands, what it sets, its text."""

    place: str
    location: Location
    text: str


class Problems:
    """What was found wrong, and where values got lost by it: that they are missing is no second problem."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._lost: list[Location] = []

    def add(self, text: str, *, lost: Location | None = None) -> None:
        """A sentence; ``lost``: the setting whose value couldn't be had."""
        self.texts.append(text)
        if lost is not None:
            self._lost.append(lost)

    def explains(self, location: Location) -> bool:
        """Whether a problem at ``location`` only follows from a known one."""
        return any(location == lost[: len(location)] or lost == location[: len(lost)] for lost in self._lost)


def layer_of(entries: Iterable[Entry], *, base: Path, problems: Problems) -> Layer:
    """Entries put together: a whole group or list as JSON first, single settings over it."""
    tree: dict[Any, Any] = {}
    places: dict[Location, str] = {}
    for entry in sorted(entries, key=lambda entry: len(entry.location)):
        value: Any = entry.text
        kind = container(annotation_at(entry.location))
        if kind is not None:
            try:
                value = _numbered(json.loads(entry.text))
            except json.JSONDecodeError as exc:
                at = f"{exc.msg} (line {exc.lineno}, column {exc.colno})"
                problems.add(f"{entry.place}: must be a {kind}, written as JSON: {at}", lost=entry.location)
                continue
            except (ValueError, RecursionError):
                problems.add(f"{entry.place}: must be a {kind}, written as JSON", lost=entry.location)
                continue
        node = tree
        for key in entry.location[:-1]:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
        node[entry.location[-1]] = value
        places[entry.location] = entry.place

    def locate(location: Location) -> str | None:
        for end in range(len(location), 0, -1):
            if location[:end] in places:
                rest = dotted(location[end:])
                return places[location[:end]] + (f", {rest}" if rest else "")
        return None

    return Layer(with_base(_unnumbered(tree), Settings, base), locate)


def _numbered(value: Any) -> Any:
    """Lists as dicts by number, so that single elements can be set."""
    if isinstance(value, list) and value:
        return {number: _numbered(element) for number, element in enumerate(value)}
    return {key: _numbered(element) for key, element in value.items()} if isinstance(value, dict) else value


def _unnumbered(value: Any) -> Any:
    """Back to lists. What is missing between two numbers becomes an empty table, to be reported as incomplete."""
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(key, int) for key in value):
        return [_unnumbered(value.get(number, {})) for number in range(max(value) + 1)]
    return {key: _unnumbered(element) for key, element in value.items()}


def with_base(value: Any, annotation: Any, base: Path) -> Any:
    """The tree with relative paths joined to ``base``."""
    if isinstance(value, dict):
        return {key: with_base(element, step(annotation, key), base) for key, element in value.items()}
    if isinstance(value, list):
        return [with_base(element, step(annotation, number), base) for number, element in enumerate(value)]
    return str(base / value) if isinstance(value, str) and is_path(annotation) else value
