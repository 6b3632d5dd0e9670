"""Runs the part of C8QL that health checks and the tutorial use (gdn-api.md G): a recursive descent parser.

``FOR v IN collection`` with FILTER, SORT, LIMIT and ``COLLECT WITH COUNT INTO n`` in any order, then RETURN or REMOVE;
or RETURN or REMOVE alone. Everything else is refused by name.
"""

from __future__ import annotations

from bridge.local.c8ql.query import run
from bridge.local.c8ql.token_reader import C8QLError

__all__ = ["C8QLError", "run"]
