"""Names for captures, columns and streams, out of what devices call things. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_NAME = 48
"""Characters. GDN's collections have at most 64 (gdn-api.md F.5), and a table's name has an ending."""

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
"""Words of the worker's language. It lets attributes be called like many of them; a name that isn't one is safe."""


def joined(parts: Iterable[str]) -> str:
    """The parts as one name, not safe yet."""
    return "_".join(part for part in parts if part)


def safe_name(text: str, taken: set[str]) -> str:
    """An identifier of the worker's language near to ``text``, which ``taken`` gets in lower case.

    Names that differ in case only would be two columns; they are kept apart. None begins with an underscore: such
    names are the collection's own, as ``_key``.
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:MAX_NAME].rstrip("_") or "member"
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


def capture_name(number: int, before: str | None, taken: set[str]) -> str:
    """A name for the topic's level ``number``, counted from 0: the singular of the level before it, if that is plain.

    ``devices/AD11`` gives ``device``.
    """
    if before is None or not re.search("[A-Za-z]", before):
        return safe_name(f"level_{number + 1}", taken)
    return safe_name(_singular(before), taken)


def _singular(word: str) -> str:
    lower = word.lower()
    if lower.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if lower.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if lower.endswith("s") and not lower.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word
