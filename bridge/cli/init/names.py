"""Makes valid names for captures, columns and streams from the names that devices use. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_NAME = 48
"""Characters. GDN allows 64 for a collection (gdn-api.md F.5), and a table's name has a suffix."""

_KEYWORDS = frozenset(
    [
        *("aggregate", "aggregation", "all", "and", "as", "asc", "begin", "bool", "by", "case", "create", "current"),
        *("define", "delete", "desc", "double", "end", "every", "expired", "false", "float", "for", "from", "full"),
        *("function", "global", "group", "having", "in", "index", "inner", "insert", "int", "into", "is", "join"),
        *("left", "limit", "local", "long", "not", "null", "object", "of", "offset", "on", "or", "order", "outer"),
        *("output", "partition", "per", "return", "right", "select", "set", "sink", "source", "spot", "store"),
        *("stream", "string", "table", "then", "trigger", "true", "unidirectional", "update", "when", "where"),
        *("window", "with", "within"),
    ]
)
"""Keywords of StreamQL. Some are allowed as names of attributes; avoiding all of them is safe."""


def join_name(parts: Iterable[str]) -> str:
    """The parts as one name, which may not be valid yet."""
    return "_".join(part for part in parts if part)


def safe_name(text: str, taken: set[str]) -> str:
    """A StreamQL identifier close to ``text``; it is added to ``taken`` in lower case.

    It differs from the names taken in more than case. It doesn't begin with an underscore, which is reserved for the
    collection's own attributes, such as ``_key``.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:MAX_NAME].rstrip("_") or "member"
    if name[0].isdigit():
        name = f"n{name}"
    if name.lower() in _KEYWORDS:
        name += "_"
    found, number = name, 1
    while found.casefold() in taken:
        number += 1
        found = f"{name.rstrip('_')}_{number}"
    taken.add(found.casefold())
    return found


def singular(word: str) -> str:
    """The singular of an English plural; other words unchanged."""
    lower = word.lower()
    if lower.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if lower.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if lower.endswith("s") and not lower.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word
