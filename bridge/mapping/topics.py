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
    _pattern: re.Pattern[str]

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
        return cls(text, prefix + "/".join(levels), tuple(levels), tuple(captures), _pattern(levels, captures))

    def match(self, topic: str) -> dict[str, str] | None:
        """The captured levels of ``topic`` by name; None if the template doesn't match it."""
        matched = self._pattern.fullmatch(topic)
        return None if matched is None else matched.groupdict()


def _check_level(level: str, number: int, *, is_last: bool) -> None:
    if "{" in level or "}" in level:
        raise ValueError(f"level {number}, {level!r}: a capture must be a whole level, such as {{name}}")
    if ("+" in level and level != "+") or ("#" in level and level != "#"):
        raise ValueError(f"level {number}, {level!r}: + and # must be a whole level")
    if level == "#" and not is_last:
        raise ValueError("# can only be the last level")


def _pattern(levels: Sequence[str], captures: Sequence[str | None]) -> re.Pattern[str]:
    # MQTT 5, 4.7.2: a wildcard at the first level doesn't match topics that start with $.
    pattern = r"(?!\$)" if levels[0] in ("+", "#") else ""
    for number, (level, name) in enumerate(zip(levels, captures, strict=True)):
        if level == "#":
            # "a/#" matches "a" as well (4.7.1.2).
            pattern += "(?:/.*)?" if number else ".*"
            continue
        pattern += "/" if number else ""
        if name is not None:
            pattern += f"(?P<{name}>[^/]*)"
        else:
            pattern += "[^/]*" if level == "+" else re.escape(level)
    return re.compile(pattern, re.DOTALL)


def covers(filter_: str, other: str) -> bool:
    """Whether ``filter_`` matches every topic that ``other`` matches (MQTT 5, 4.7).

    A shared subscription covers only itself.
    """
    if filter_.startswith("$share/") or other.startswith("$share/"):
        return filter_ == other
    levels, others = filter_.split("/"), other.split("/")
    if others[0].startswith("$") and levels[0] in ("+", "#"):
        return False
    for number, level in enumerate(levels):
        if level == "#":  # matches any rest, also none
            return True
        if number >= len(others) or others[number] == "#" or (level not in ("+", others[number])):
            return False
    return len(levels) == len(others)


def minimal_filters(filters: Sequence[str]) -> tuple[str, ...]:
    """The filters that no other one covers: a broker may deliver a message once for each filter that matches."""
    kept = list(dict.fromkeys(filters))
    return tuple(f for f in kept if not any(other != f and covers(other, f) for other in kept))
