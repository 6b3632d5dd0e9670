"""The durable store between the broker and GDN, on SQLite. The only sqlite3."""

from bridge.outbox.letters import Letter, Selection, Wanted
from bridge.outbox.store import Bounds, Outbox, Policy, Refused, Replayed
from bridge.outbox.visitor import Visitor, check_is_there

__all__ = [
    "Bounds",
    "Letter",
    "Outbox",
    "Policy",
    "Refused",
    "Replayed",
    "Selection",
    "Visitor",
    "Wanted",
    "check_is_there",
]
