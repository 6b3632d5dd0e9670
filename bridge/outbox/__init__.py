"""The durable store between the broker and GDN, on SQLite. The only sqlite3."""

from bridge.outbox.bounds import Bounds, Policy
from bridge.outbox.letters import Letter, Refused, Replayed, Selection, Wanted
from bridge.outbox.store import Outbox
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
