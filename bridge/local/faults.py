"""Simulated faults of a GDN, set with ``--fault`` or ``/_local/faults``; each lasts until it is unset.

Pure: ``gdn``, ``workers`` and ``regions`` apply the faults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

MAX_SECONDS = 600.0

RIGHTS = {"workers": "/streamapps", "queries": "/cursor", "streams": "/_ws/"}
"""The rights that ``no-right`` can take away, and the part of a request's path that needs each."""

_STREAM = re.compile(
    r"\bCREATE\s+(?:SOURCE\s+)?STREAM\s+(?:GLOBAL\s+|LOCAL\s+)?(?P<name>\w+)\s*\((?!addedElsewhere)", re.IGNORECASE
)

ADDED_COLUMN = "addedElsewhere string"
"""The column that ``schema-changed`` adds to each stream, as its first."""

HELP = {
    "acks-but-drops": "rows get receipts, but no rows come out (default: of all streams, else of the named one)",
    "worker-stopped": "workers are deactivated, and so is each one that is activated",
    "deleted": "workers are deleted, and so is each new one",
    "slow": "seconds by which each REST answer is delayed",
    "schema-changed": f"each stream of each definition, also of new ones, gets the column {ADDED_COLUMN!r}",
    "unpublish-every": "every N-th row is lost after its receipt",
    "rest-errors": "status (400 to 599) of all REST answers",
    "region-changed": "the region named elsewhere (127.0.0.2) answers at this address; requires --host 0.0.0.0",
    "no-right": f"403 for {', '.join(RIGHTS)} (default: workers)",
}
"""Each fault and its effect. ``slow``, ``unpublish-every`` and ``rest-errors`` need a number."""

MAX_NAME = 256
"""Characters of a stream's name."""


@dataclass(slots=True)
class Faults:
    """The current faults: name to value, of those that are on."""

    values: dict[str, Any] = field(default_factory=dict)
    _rows: int = 0

    def set(self, wanted: dict[str, Any]) -> None:
        """Set faults, or unset them with false, 0 or None. If one of them is invalid, nothing changes.

        Raises:
            ValueError: there is no such fault, or it can't have this value.
        """
        checked = {name: _checked(name, value) for name, value in wanted.items()}
        for name, value in checked.items():
            if value:
                self.values[name] = value
            else:
                self.values.pop(name, None)

    def is_on(self, name: str) -> bool:
        """Whether the fault is set."""
        return name in self.values

    @property
    def delay(self) -> float:
        """Seconds by which each REST answer is delayed."""
        return float(self.values.get("slow", 0.0))

    @property
    def status(self) -> int | None:
        """The error status of all REST answers; None without this fault."""
        status: int | None = self.values.get("rest-errors")
        return status

    def denies(self, path: str) -> bool:
        """Whether a request to this path needs the right that is missing."""
        right = self.values.get("no-right")
        return right is not None and RIGHTS[right] in path

    def loses_next(self, stream: str) -> bool:
        """Whether the next row, of this stream, is lost after its receipt; each call counts one row."""
        if self.values.get("acks-but-drops") in (True, stream):
            return True
        every = self.values.get("unpublish-every")
        if every is None:
            return False
        self._rows += 1
        return self._rows % int(every) == 0


def parse(text: str) -> tuple[str, Any]:
    """The fault and value in ``NAME`` or ``NAME=VALUE``.

    Raises:
        ValueError: there is no such fault, or it can't have this value.
    """
    name, separator, value = text.partition("=")
    if not separator:
        return name, _checked(name, True)
    try:
        decoded = json.loads(value)
    except ValueError:
        decoded = value
    return name, _checked(name, decoded)


def with_added_column(definition: str, *, unchanged: Collection[str]) -> str:
    """The definition with ``ADDED_COLUMN`` in each stream that isn't in ``unchanged``: its own queries fill those."""

    def widened(match: re.Match[str]) -> str:
        return match[0] if match["name"] in unchanged else f"{match[0]}{ADDED_COLUMN}, "

    return _STREAM.sub(widened, definition)


def _checked(name: str, value: Any) -> Any:
    if name not in HELP:
        raise ValueError(f"there is no fault {name[:40]!a}; the faults are {', '.join(HELP)}")
    if value in (False, None):
        return None
    if name == "slow":
        good = type(value) in (int, float) and 0 < value <= MAX_SECONDS
    elif name == "unpublish-every":
        good = type(value) is int and 0 < value <= 10**9
    elif name == "rest-errors":
        good = type(value) is int and 400 <= value <= 599
    elif name == "no-right":
        value = "workers" if value is True else value
        good = isinstance(value, str) and value in RIGHTS
    elif name == "acks-but-drops":
        good = value is True or (isinstance(value, str) and 0 < len(value) <= MAX_NAME)
    else:
        good = value is True
    if not good:
        raise ValueError(f"the fault {name} can't be {str(value)[:40]!a}: {HELP[name]}")
    return value
