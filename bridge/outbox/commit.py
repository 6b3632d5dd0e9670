"""All that one commit changes, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from bridge.message import DeadLetter, Qos2Changes, Row, SeenMessages
from bridge.outbox.dead_letters import StoredDeadLetter


class RefusedRecord(NamedTuple):
    """A record that GDN refused for good, and the dead letter that it becomes."""

    record_id: int
    dead_letter: DeadLetter


class ReplayedDeadLetters(NamedTuple):
    """The outcome of mapping dead letters again."""

    done: Sequence[int] = ()
    """Ids of dead letters to delete: their rows are stored by the same commit, or no route takes them."""
    failed: Sequence[tuple[StoredDeadLetter, DeadLetter]] = ()
    """Dead letters that stay, each with its new reason."""


class Commit(msgspec.Struct, frozen=True):
    """What ``Outbox.commit`` stores, releases and counts in one transaction."""

    rows: Sequence[Row] = ()
    """Rows to store as records."""
    dead_letters: Sequence[DeadLetter] = ()
    """Messages that could not be mapped."""
    released: Sequence[int] = ()
    """Ids of records that GDN has receipted."""
    refused: Sequence[RefusedRecord] = ()
    """Records that become dead letters."""
    unnumbered: Sequence[int] = ()
    """Ids of records whose sequence number must not be used again."""
    rejects: AbstractSet[str] = frozenset()
    """Streams whose rows are not stored, only counted, because they have their share of the outbox. Their rows' ids are
    not given to others."""
    filtered: int = 0
    """Elements of messages that no route takes; only counted."""
    unchanged: int = 0
    """Rows held back because their values haven't changed; only counted."""
    replayed: ReplayedDeadLetters | None = None
    """Dead letters that were mapped again; the rows of those that are done are among ``rows``."""
    seen: SeenMessages | None = None
    """Recognises the messages of this batch when they are redelivered; None: no change."""
    qos_2: Qos2Changes | None = None
    """Recognises QoS 2 messages until their exchange has ended; None: no change."""
    session: str = ""
    """Name of the broker's session that ``seen`` and ``qos_2`` are about."""

    @property
    def takes_messages(self) -> bool:
        """Whether it stores or counts new messages, which can also wait at the broker."""
        return bool(self.rows or self.dead_letters or self.filtered or self.unchanged)
