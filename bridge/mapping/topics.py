"""Topic templates: a topic filter whose single-level wildcards may have names.

``devices/{deviceID}/telemetry`` subscribes to ``devices/+/telemetry`` and gives ``deviceID`` for every topic that matches.
Matching is MQTT's own (MQTT 5, 4.7): ``+`` takes one level, also an empty one; a last ``#`` takes the rest, also none of
it; neither takes a first level that starts with ``$``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
SHARE = "$share/"
MAX_FILTER_BYTES = 65_535  # MQTT 5, 4.7.3

ONE_LEVEL = "+"
ALL_LEVELS = "#"


@dataclass(frozen=True, slots=True)
class TopicTemplate:
    """A parsed template. Make one with ``parse``."""

    text: str
    """As it was written."""
    filter: str
    """The topic filter to subscribe to, ``$share/group/`` included."""
    levels: tuple[str, ...]
    """The levels that a topic is matched against: without the share prefix, captures as ``+``."""
    literals: tuple[tuple[int, str], ...]
    """Which level must read how."""
    captures: tuple[tuple[int, str], ...]
    """Which level fills which name."""

    @classmethod
    def parse(cls, text: str) -> TopicTemplate:
        """Read a template.

        Raises:
            ValueError: it isn't one; the text says what is wrong and what to write instead.
        """
        prefix, rest = _without_share(text)
        if not rest:
            raise ValueError("the topic is empty; write a topic filter such as devices/{deviceID}/telemetry")
        if "\0" in rest:
            raise ValueError("a topic can't hold the character U+0000")
        levels: list[str] = []
        literals: list[tuple[int, str]] = []
        captures: list[tuple[int, str]] = []
        parts = rest.split("/")
        for at, part in enumerate(parts):
            name = _capture(part, [name for _, name in captures])
            if name is not None:
                captures.append((at, name))
                levels.append(ONE_LEVEL)
                continue
            _check_wildcards(part, last=at == len(parts) - 1)
            if part not in (ONE_LEVEL, ALL_LEVELS):
                literals.append((at, part))
            levels.append(part)
        topic_filter = prefix + "/".join(levels)
        if len(topic_filter.encode("utf-8", "replace")) > MAX_FILTER_BYTES:
            raise ValueError(f"the topic filter is longer than MQTT's {MAX_FILTER_BYTES} bytes")
        return cls(
            text=text,
            filter=topic_filter,
            levels=tuple(levels),
            literals=tuple(literals),
            captures=tuple(captures),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the captures, in the order of the levels."""
        return tuple(name for _, name in self.captures)

    def match(self, topic: str) -> dict[str, str] | None:
        """The captures' values if the template takes this topic (perhaps none: ``{}``), else None."""
        levels = self.levels
        if topic.startswith("$") and levels[0] in (ONE_LEVEL, ALL_LEVELS):
            return None  # MQTT 5, 4.7.2
        parts = topic.split("/")
        if levels[-1] == ALL_LEVELS:
            if len(parts) < len(levels) - 1:  # "a/#" takes "a" too
                return None
        elif len(parts) != len(levels):
            return None
        for at, literal in self.literals:
            if parts[at] != literal:
                return None
        return {name: parts[at] for at, name in self.captures}

    def covers(self, other: TopicTemplate) -> bool:
        """Whether every topic that ``other`` takes is taken by this one too: behind it, ``other`` is never reached."""
        for at, level in enumerate(self.levels):
            there = other.levels[at] if at < len(other.levels) else None
            if at == 0 and level in (ONE_LEVEL, ALL_LEVELS) and there is not None and there.startswith("$"):
                return False
            if level == ALL_LEVELS:
                return True
            if there is None or there == ALL_LEVELS or level not in (ONE_LEVEL, there):
                return False
        return len(self.levels) == len(other.levels)


def _without_share(text: str) -> tuple[str, str]:
    """The ``$share/group/`` prefix ("" without one) and what follows it (MQTT 5, 4.8.2)."""
    if not text.startswith(SHARE) and text != SHARE.rstrip("/"):
        return "", text
    _, _, shared = text.partition("/")
    group, _, rest = shared.partition("/")
    if not group or not rest or set(group) & set("+#{}"):
        raise ValueError(
            f"{text!r} is not a shared subscription; write $share/group/filter, the group without + # {{ }}"
        )
    return f"{SHARE}{group}/", rest


def _capture(level: str, taken: list[str]) -> str | None:
    """The name, if this level is a capture."""
    if "{" not in level and "}" not in level:
        return None
    if level == "{}":
        raise ValueError("a capture without a name; write {name}, or + if the level isn't needed")
    match = CAPTURE.fullmatch(level)
    if match is None:
        raise ValueError(
            f"the level {level!r} is not a capture; a capture fills its whole level and is named with letters, "
            "digits and _, such as {deviceID}"
        )
    name = match.group(1)
    if name in taken:
        raise ValueError(f"the capture {{{name}}} stands twice; give each its own name")
    return name


def _check_wildcards(level: str, *, last: bool) -> None:
    if ALL_LEVELS in level and (level != ALL_LEVELS or not last):
        raise ValueError(f"# stands in {level!r}; it must be the whole last level (MQTT 5, 4.7.1)")
    if ONE_LEVEL in level and level != ONE_LEVEL:
        raise ValueError(f"+ stands in {level!r}; it must be a whole level (MQTT 5, 4.7.1)")
