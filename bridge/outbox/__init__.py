"""The durable store between the broker and GDN, on SQLite. The only sqlite3."""

from bridge.outbox.store import Bounds, Outbox, Policy, Refused

__all__ = ["Bounds", "Outbox", "Policy", "Refused"]
