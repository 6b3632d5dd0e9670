"""The verb ``query``: runs a C8QL query and prints its rows."""

from __future__ import annotations

import argparse
import json
import sys

from bridge.cli.configuration import configuration_for_gdn
from bridge.cli.printing import table


def query(arguments: argparse.Namespace) -> int:
    """Print the query's rows: as a table on a terminal, else as JSON."""
    _, rest = configuration_for_gdn(arguments)
    rows = rest.query(arguments.c8ql)
    if arguments.json or not sys.stdout.isatty():
        print(json.dumps(rows, ensure_ascii=False))
    else:
        print(table([row if isinstance(row, dict) else {"value": row} for row in rows]))
    return 0
