"""The durable store between the broker and GDN, on SQLite. The only sqlite3."""

from bridge.outbox.bounds import Bounds, Policy
from bridge.outbox.letters import Letter, RefusedRecord, ReplayedLetters, Selection, Wanted
from bridge.outbox.store import Outbox
from bridge.outbox.visitor import Visitor, check_is_there

__all__ = [
    "Bounds",
    "Letter",
    "Outbox",
    "Policy",
    "RefusedRecord",
    "ReplayedLetters",
    "Selection",
    "Visitor",
    "Wanted",
    "check_is_there",
]
