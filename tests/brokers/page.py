"""The tables of ``docs/brokers.md``, from ``expected.toml``: ``python -m tests.brokers.page`` prints them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BY_DAEMON = "stored twice"
"""The column that is measured with the daemon."""

EXPECTED: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("expected.toml").read_text())
"""By broker: ``title``, ``protocol``, ``set`` (advice), ``cells`` by column, and ``advised`` cells, which that advice
changes. A broker whose ``documented`` is true is not measured: the cells are what its documentation says.
"""

TABLES = {
    "away": ("session present", "its restart", "kept while away", "retained"),
    "redelivery": ("in flight", "redelivery", "packet ids", "DUP", "same link", BY_DAEMON),
    "capabilities": ("$share, 3.1.1", "$share, 5", "QoS 2", "largest", "too large for us"),
}
"""The columns of each table."""


def table(name: str) -> Iterator[str]:
    """The lines of a table of cells."""
    yield from _rows(["broker", *TABLES[name]], [[_title(b), *_cells(b, name)] for b in EXPECTED.values()])


def advice() -> Iterator[str]:
    """The lines of the table of what to set."""
    effects = ("; ".join(f"{k}: {v}" for k, v in b["advised"].get("cells", {}).items()) for b in EXPECTED.values())
    rows = [[b["title"], b["set"], effect or "–"] for b, effect in zip(EXPECTED.values(), effects, strict=True)]
    yield from _rows(["broker", "set", "measured with it"], rows)


def tables() -> list[str]:
    """Each table as one text."""
    return ["\n".join(lines) for lines in (advice(), *map(table, TABLES))]


def _title(broker: Mapping[str, Any]) -> str:
    return f"{broker['title']}, {broker['protocol']}{' (documented)' if broker.get('documented') else ''}"


def _cells(broker: Mapping[str, Any], name: str) -> list[str]:
    return [broker["cells"].get(column, "not documented") for column in TABLES[name]]


def _rows(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |".replace("| --- ", "|---").replace("--- |", "---|")


if __name__ == "__main__":
    print("\n\n".join(tables()))
