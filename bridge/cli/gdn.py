"""The verbs that ask GDN: ``worker`` and ``query``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from bridge.cli.planning import far_end
from bridge.gdn.worker import is_other


def worker(arguments: argparse.Namespace) -> int:
    """The worker's state in GDN, or its deletion."""
    planned, rest = far_end(arguments)
    name = planned.worker.name
    if arguments.action == "delete":
        deleted = rest.delete_worker(name)
        text = f"worker {name}: deleted; its streams and collections stay" if deleted else f"worker {name}: not there"
        print(json.dumps({"worker": name, "deleted": deleted}) if arguments.json else text)
        return 0
    state = rest.get_worker(name)
    found = {
        "worker": name,
        "exists": state is not None,
        "active": state is not None and state.is_active,
        "regions": [] if state is None else list(state.regions),
        "definition": "missing" if state is None else "differs" if is_other(state, planned.worker) else "same",
    }
    if arguments.json:
        print(json.dumps(found))
    elif state is None:
        print(f"worker {name}: not there; the bridge creates it when it runs")
    else:
        active = "active" if state.is_active else "not active"
        print(
            f"worker {name}: {active} in {', '.join(state.regions)}; its definition is "
            f"{'the same as' if found['definition'] == 'same' else 'not that of'} {planned.settings.worker.definition}"
        )
    return 0


def query(arguments: argparse.Namespace) -> int:
    """A C8QL query's rows, as a table on a terminal."""
    _, rest = far_end(arguments)
    rows = rest.query(arguments.c8ql)
    if arguments.json or not sys.stdout.isatty():
        print(json.dumps(rows, ensure_ascii=False))
    else:
        print(_table(rows))
    return 0


def _table(rows: list[Any]) -> str:
    """Rows under the names of their members; values that are no objects under ``value``."""
    records = [row if isinstance(row, dict) else {"value": row} for row in rows]
    names = list(dict.fromkeys(name for record in records for name in record))
    lines = [names] + [
        ["" if name not in r else r[name] if isinstance(r[name], str) else json.dumps(r[name]) for name in names]
        for r in records
    ]
    # What devices sent must not steer the terminal.
    lines = [["".join(c if c.isprintable() else "\ufffd" for c in cell) for cell in line] for line in lines]
    widths = [max(len(line[n]) for line in lines) for n in range(len(names))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
