"""Topic templates, such as ``devices/{deviceID}/rooms/+/telemetry``: topic filters (MQTT 5, 4.7) with named levels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class TopicTemplate:
    """A parsed template. ``filter`` is the topic filter to subscribe; ``captures`` has each level's name or None."""

    text: str
    filter: str
    levels: tuple[str, ...]
    captures: tuple[str | None, ...]

    @classmethod
    def parse(cls, text: str) -> TopicTemplate:
        """Parse a template.

        Raises:
            ValueError: it is invalid; the message says where and why.
        """
        if not text or "\0" in text:
            raise ValueError("a topic must not be empty or contain NUL")
        prefix, rest = "", text
        if text.startswith("$share/"):
            parts = text.split("/", 2)
            if len(parts) < 3 or not parts[1] or not parts[2] or "+" in parts[1] or "#" in parts[1]:
                raise ValueError("a shared subscription is written $share/GROUP/TOPIC (MQTT 5, 4.8.2)")
            prefix, rest = f"$share/{parts[1]}/", parts[2]
        levels: list[str] = []
        captures: list[str | None] = []
        template_levels = rest.split("/")
        for number, level in enumerate(template_levels, start=1):
            capture = _CAPTURE.fullmatch(level)
            if capture:
                if capture[1] in captures:
                    raise ValueError(f"the capture {{{capture[1]}}} is used twice")
                levels.append("+")
                captures.append(capture[1])
                continue
            _check_level(level, number, is_last=number == len(template_levels))
            levels.append(level)
            captures.append(None)
        return cls(text, prefix + "/".join(levels), tuple(levels), tuple(captures))

    def match(self, topic: str) -> dict[str, str] | None:
        """The captured levels of ``topic`` by name; None if the template doesn't match it."""
        levels = topic.split("/")
        if levels[0].startswith("$") and self.levels[0] in ("+", "#"):  # MQTT 5, 4.7.2
            return None
        for number, level in enumerate(self.levels):
            if level == "#":  # matches any rest, also none (4.7.1.2)
                break
            if number == len(levels) or level not in ("+", levels[number]):
                return None
        else:
            if len(levels) > len(self.levels):
                return None
        return {name: levels[number] for number, name in enumerate(self.captures) if name is not None}


def _check_level(level: str, number: int, *, is_last: bool) -> None:
    if "{" in level or "}" in level:
        raise ValueError(f"level {number}, {level!r}: a capture must be a whole level, such as {{name}}")
    if ("+" in level and level != "+") or ("#" in level and level != "#"):
        raise ValueError(f"level {number}, {level!r}: + and # must be a whole level")
    if level == "#" and not is_last:
        raise ValueError("# can only be the last level")


class FilterTree:
    """Topic filters by level: finds those that match a topic, or cover a filter, without trying each (MQTT 5, 4.7).

    Filters are added as their levels, without ``$share/GROUP/``.
    """

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, levels: Sequence[str], number: int) -> None:
        """Add a filter; ``number`` is what ``covering`` gives for it."""
        node = self._root
        for level in levels:
            node = node.children.setdefault(level, _Node())
        node.numbers.append(number)

    def covering(self, levels: Sequence[str]) -> list[int]:
        """Numbers, ascending, of the filters that match every topic that a filter of these levels matches.

        A topic is a filter that only it matches.
        """
        found: list[int] = []
        nodes = [self._root]
        for depth, level in enumerate(levels):
            # 4.7.2: a wildcard at the first level doesn't match topics that start with $.
            has_wildcards = depth > 0 or not level.startswith("$")
            following: list[_Node] = []
            for node in nodes:
                if has_wildcards:
                    found += node.numbers_at("#")
                    following += node.below("+") if level != "#" else ()
                following += node.below(level) if level not in ("+", "#") else ()
            nodes = following
        for node in nodes:
            found += node.numbers + node.numbers_at("#")  # "a/#" matches "a" as well (4.7.1.2)
        return sorted(found)


class _Node:
    """A level of the filters that begin alike."""

    __slots__ = ("children", "numbers")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.numbers: list[int] = []
        """Of the filters that end here."""

    def below(self, level: str) -> tuple[_Node, ...]:
        node = self.children.get(level)
        return () if node is None else (node,)

    def numbers_at(self, level: str) -> list[int]:
        node = self.children.get(level)
        return [] if node is None else node.numbers


def minimal_filters(filters: Sequence[str]) -> tuple[str, ...]:
    """The filters that no other one covers: a broker may deliver a message once for each filter that matches.

    A shared subscription covers only itself, and no other filter covers it.
    """
    distinct = list(dict.fromkeys(filters))
    tree = FilterTree()
    for number, filter_ in enumerate(distinct):
        if not filter_.startswith("$share/"):
            tree.add(filter_.split("/"), number)
    return tuple(
        filter_
        for number, filter_ in enumerate(distinct)
        if filter_.startswith("$share/") or tree.covering(filter_.split("/")) == [number]
    )
