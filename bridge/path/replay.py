"""Replays and purges dead letters on request.

A replay maps the message again by the current routes. One commit stores the rows and deletes the dead letter, so a
crash repeats or completes a replay but never stores it twice. Only the outbox's owner does this: the running bridge,
or a command while none runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from bridge.log import get_logger
from bridge.mapping import Mapper
from bridge.mapping.row_formats import KEY_PREFIX, RowFormats
from bridge.mapping.unmappable import Unmappable
from bridge.message import DeadLetter, MqttMessage, OutboxRecord, Row
from bridge.outbox import Commit, Outbox, ReplayedDeadLetters, StoredDeadLetter
from bridge.path.arrivals import Slice
from bridge.reasons import Reason

REPLAY_COUNT = 200
"""Dead letters replayed in one commit: messages from the broker wait for some milliseconds meanwhile."""

log = get_logger(__name__)


class ReplayOutcome(NamedTuple):
    """What one call of ``carry_out_requests`` did."""

    records: list[OutboxRecord]
    """The rows, which are durable and ready to be delivered."""
    replayed: int = 0
    """Dead letters that were deleted."""
    failed: int = 0
    """Dead letters that stay, with a new reason."""
    purged: int = 0
    more: bool = False
    """Whether to call again at once: further requests may wait."""


class MappedAgain(NamedTuple):
    """What dead letters become by the current routes."""

    rows: list[Row]
    replayed: ReplayedDeadLetters
    filtered: int
    """Elements of dead letters that no route takes."""


def carry_out_requests(outbox: Outbox, mapper: Mapper, *, streams: Collection[str], has_room: bool) -> ReplayOutcome:
    """Purge and replay some of the requested dead letters.

    Args:
        outbox: open.
        mapper: of the current routes.
        streams: those that the worker reads.
        has_room: whether rows may be stored; if not, replays wait.

    Raises:
        OutboxUnavailable: what was not done is still requested.
    """
    purged = outbox.purge_requested()
    requested = outbox.dead_letters_to_replay(REPLAY_COUNT) if has_room else []
    if not requested:
        return ReplayOutcome([], purged=purged, more=purged > 0)
    formats = RowFormats(mapper.streams, outbox.saved_values(KEY_PREFIX))
    mapped = map_again(requested, mapper, formats, streams=streams, next_id=outbox.next_id)
    records = outbox.commit(Commit(rows=mapped.rows, filtered=mapped.filtered, replayed=mapped.replayed))
    replayed, failed = len(mapped.replayed.done), len(mapped.replayed.failed)
    log.info(
        "dead_letters.replayed",
        count=replayed,
        rows=len(records),
        failed=failed,
        reasons=dict(Counter(why.reason for _, why in mapped.replayed.failed)),
    )
    return ReplayOutcome(records, replayed, failed, purged, more=True)


def map_again(
    requested: Iterable[StoredDeadLetter],
    mapper: Mapper,
    formats: RowFormats,
    *,
    streams: Collection[str],
    next_id: int,
) -> MappedAgain:
    """Map dead letters by the current routes until a slice is full (``Slice``); changes nothing.

    Args:
        requested: in the order in which their rows are to be sent.
        mapper: of the current routes.
        formats: the forms that rows have had.
        streams: those that the worker reads.
        next_id: the record id of the first row.
    """
    done: list[int] = []
    failed: list[tuple[StoredDeadLetter, DeadLetter]] = []

    def map_one(stored: StoredDeadLetter, next_id: int) -> list[Row] | DeadLetter:
        mapped = _map_one(stored, mapper, formats, streams, next_id)
        if isinstance(mapped, DeadLetter):
            failed.append((stored, mapped))
        else:
            done.append(stored.id)
        return mapped

    used = Slice()
    used.fill(requested, map_one, next_id)
    return MappedAgain(used.rows, ReplayedDeadLetters(done, failed), used.filtered)


def _map_one(
    stored: StoredDeadLetter, mapper: Mapper, formats: RowFormats, streams: Collection[str], next_id: int
) -> list[Row] | DeadLetter:
    dead_letter = stored.dead_letter
    # A refused row was mapped already: it is sent again, in the form that the worker takes now.
    if stored.stream is not None and stored.stream in streams:
        try:
            payload = formats.converted(stored.stream, dead_letter.payload, dead_letter.mapping)
        except Unmappable as exc:
            return msgspec.structs.replace(dead_letter, reason=exc.reason.value, detail=str(exc))
        return [Row(stored.stream, payload, stored.extras)]
    # These can't be mapped: a topic that wasn't UTF-8 is kept only in escaped form, a payload that was too large only
    # in part, and a refused row has no topic (here the worker doesn't read its stream).
    if dead_letter.reason == Reason.BAD_TOPIC or dead_letter.omitted or not dead_letter.topic:
        return dead_letter
    message = MqttMessage(
        topic=dead_letter.topic,
        payload=dead_letter.payload,
        qos=dead_letter.qos,
        retain=dead_letter.retain,
        packet_id=0,
        received_at=dead_letter.received_at,
        properties=dead_letter.properties,
        is_replay=True,
    )
    return mapper.map(message, next_id)
