"""The durable store between the broker and GDN, on SQLite. Nothing else imports sqlite3."""

from bridge.outbox.bounds import Bounds, Policy
from bridge.outbox.commit import Commit, RefusedRecord, ReplayedDeadLetters
from bridge.outbox.dead_letter_client import DeadLetterClient, check_exists
from bridge.outbox.dead_letters import RequestedAction, Selection, StoredDeadLetter
from bridge.outbox.ownership import check_path
from bridge.outbox.store import Outbox

__all__ = [
    "Bounds",
    "Commit",
    "DeadLetterClient",
    "Outbox",
    "Policy",
    "RefusedRecord",
    "ReplayedDeadLetters",
    "RequestedAction",
    "Selection",
    "StoredDeadLetter",
    "check_exists",
    "check_path",
]
