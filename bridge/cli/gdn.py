"""The verbs that ask GDN: ``worker`` and ``query``."""

from __future__ import annotations

import argparse
import json
import sys

from bridge.cli import worker_plan
from bridge.cli.configuration import far_end
from bridge.cli.printing import table
from bridge.gdn.worker import is_other

_PLANNING = {"plan": worker_plan.show_plan, "apply": worker_plan.apply, "validate": worker_plan.validate}


def worker(arguments: argparse.Namespace) -> int:
    """The worker's state in GDN, its deletion, or what ``worker_plan`` does."""
    if arguments.action in _PLANNING:
        return _PLANNING[arguments.action](arguments)
    configuration, rest = far_end(arguments)
    name = configuration.worker.name
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
        "definition": "missing" if state is None else "differs" if is_other(state, configuration.worker) else "same",
    }
    if arguments.json:
        print(json.dumps(found))
    elif state is None:
        print(f"worker {name}: not there; the bridge creates it when it runs")
    else:
        active = "active" if state.is_active else "not active"
        print(
            f"worker {name}: {active} in {', '.join(state.regions)}; its definition is "
            f"{'the same as' if found['definition'] == 'same' else 'not that of'} "
            f"{configuration.settings.worker.definition}"
        )
    return 0


def query(arguments: argparse.Namespace) -> int:
    """A C8QL query's rows, as a table on a terminal."""
    _, rest = far_end(arguments)
    rows = rest.query(arguments.c8ql)
    if arguments.json or not sys.stdout.isatty():
        print(json.dumps(rows, ensure_ascii=False))
    else:
        print(table([row if isinstance(row, dict) else {"value": row} for row in rows]))
    return 0
