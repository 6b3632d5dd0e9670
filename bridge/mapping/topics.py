"""Topic templates: ``devices/{deviceID}/rooms/+/telemetry`` (MQTT 5, 4.7, with names for what the wildcards match)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class TopicTemplate:
    """A parsed template. ``filter`` is what is subscribed; ``captures`` names its levels, None for plain ones."""

    text: str
    filter: str
    levels: tuple[str, ...]
    captures: tuple[str | None, ...]
    _pattern: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> TopicTemplate:
        """The template in ``text``.

        Raises:
            ValueError: it isn't one; the message says what is wrong where.
        """
        if not text or "\0" in text:
            raise ValueError("a topic must hold at least one character, and no NUL")
        prefix, rest = "", text
        if text.startswith("$share/"):
            parts = text.split("/", 2)
            if len(parts) < 3 or not parts[1] or not parts[2] or "+" in parts[1] or "#" in parts[1]:
                raise ValueError("a shared subscription is written $share/GROUP/TOPIC (MQTT 5, 4.8.2)")
            prefix, rest = f"$share/{parts[1]}/", parts[2]
        levels: list[str] = []
        captures: list[str | None] = []
        written = rest.split("/")
        for number, level in enumerate(written, start=1):
            capture = _CAPTURE.fullmatch(level)
            if capture:
                if capture[1] in captures:
                    raise ValueError(f"the capture {{{capture[1]}}} stands twice")
                levels.append("+")
                captures.append(capture[1])
                continue
            if "{" in level or "}" in level:
                raise ValueError(f"level {number}, {level!r}: a capture fills a whole level and is named like {{name}}")
            if ("+" in level and level != "+") or ("#" in level and level != "#"):
                raise ValueError(f"level {number}, {level!r}: + and # fill a whole level")
            if level == "#" and number != len(written):
                raise ValueError("# can only be the last level")
            levels.append(level)
            captures.append(None)
        return cls(text, prefix + "/".join(levels), tuple(levels), tuple(captures), _pattern(levels, captures))

    def match(self, topic: str) -> dict[str, str] | None:
        """What the captures hold for ``topic``; None if the template doesn't match it."""
        matched = self._pattern.fullmatch(topic)
        return None if matched is None else matched.groupdict()


def _pattern(levels: Sequence[str], captures: Sequence[str | None]) -> re.Pattern[str]:
    # MQTT 5, 4.7.2: a wildcard at the first level doesn't match topics of the server's own.
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
    """Whether every topic that ``other`` matches is matched by ``filter_`` (MQTT 5, 4.7). Shared ones count as such."""
    if filter_.startswith("$share/") or other.startswith("$share/"):
        return filter_ == other
    levels, others = filter_.split("/"), other.split("/")
    if others[0].startswith("$") and levels[0] in ("+", "#"):
        return False
    for number, level in enumerate(levels):
        if level == "#":
            return True
        if number >= len(others) or others[number] == "#" or (level not in ("+", others[number])):
            return False
    return len(levels) == len(others)


def minimal_filters(filters: Sequence[str]) -> tuple[str, ...]:
    """The filters without those that another one covers: a broker may deliver a message for each that matches."""
    kept = list(dict.fromkeys(filters))
    return tuple(f for f in kept if not any(other != f and covers(other, f) for other in kept))
