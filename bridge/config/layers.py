"""Layers: the values of one source each, with the place that every value comes from."""

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
    """The values of one source. ``locate`` returns the place of a value in the tree, or None."""

    tree: dict[str, Any]
    locate: Callable[[Location], str | None]

    def place(self, location: Location) -> str | None:
        """The place of the value at ``location``; None if this source doesn't set it."""
        node: Any = self.tree
        for key in location:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return None
        return self.locate(location)


@dataclass(frozen=True)
class Entry:
    """One variable or file: its place, the location that it sets, and its text."""

    place: str
    location: Location
    text: str


class Problems:
    """The problems found, and the settings that have no value because of them: these aren't reported as missing."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._unset: list[Location] = []

    def add(self, text: str, *, unset: Location | None = None) -> None:
        """Add a problem. ``unset`` is the setting that has no value because of it."""
        self.texts.append(text)
        if unset is not None:
            self._unset.append(unset)

    def explains(self, location: Location) -> bool:
        """Whether a missing value at ``location`` follows from a known problem."""
        return any(location == unset[: len(location)] or unset == location[: len(unset)] for unset in self._unset)


def layer_of(entries: Iterable[Entry], *, base: Path, problems: Problems) -> Layer:
    """The entries as one layer. Single settings override a whole group or list given as JSON."""
    tree: dict[Any, Any] = {}
    places: dict[Location, str] = {}
    # Whole groups first, so that single settings override them.
    for entry in sorted(entries, key=lambda entry: len(entry.location)):
        value: Any = entry.text
        kind = container(annotation_at(entry.location))
        if kind is not None:
            try:
                value = _numbered(json.loads(entry.text))
            except json.JSONDecodeError as exc:
                at = f"{exc.msg} (line {exc.lineno}, column {exc.colno})"
                problems.add(f"{entry.place}: must be a {kind}, written as JSON: {at}", unset=entry.location)
                continue
            except (ValueError, RecursionError):
                problems.add(f"{entry.place}: must be a {kind}, written as JSON", unset=entry.location)
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
    """The value with each list as a dict by index, so that single elements can be set."""
    if isinstance(value, list) and value:
        return {number: _numbered(element) for number, element in enumerate(value)}
    return {key: _numbered(element) for key, element in value.items()} if isinstance(value, dict) else value


def _unnumbered(value: Any) -> Any:
    """The value with lists again. An index that is missing becomes an empty table, which is reported as incomplete."""
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
