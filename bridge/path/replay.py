"""Dead letters as people work with them: which ones, what is in them, and what becomes of them when they are replayed.

Replaying is mapping the message once more by today's routes. The rows are stored and the letter is deleted with one
commit, so that a crash repeats it or completes it and never doubles it. Whoever owns the outbox does it: the running
bridge, or a command while none runs.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bridge.log import get_logger
from bridge.mapping import Mapper
from bridge.mapping.times import iso8601
from bridge.message import DeadLetter, MqttMessage, OutboxRecord, Row
from bridge.outbox import Commit, Outbox, ReplayedDeadLetters, StoredDeadLetter
from bridge.reasons import Reason

REPLAY_COUNT = 200
"""Letters replayed with one commit: what came from the broker meanwhile waits for some milliseconds."""

REPLAY_BYTES = 8 << 20
"""Of rows, after which a commit takes no more letters: one alone may become as much (mapping/routes.py)."""

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

log = get_logger(__name__)


class ReplayOutcome(NamedTuple):
    """What became of letters."""

    records: list[OutboxRecord]
    """The rows that are durable now, to be delivered."""
    replayed: int = 0
    """Letters that went."""
    failed: int = 0
    """Letters that stay, with a new reason."""
    purged: int = 0
    more: bool = False
    """Whether others wait that could be dealt with at once."""


class Trial(NamedTuple):
    """What mapping letters once more gives."""

    rows: list[Row]
    replayed: ReplayedDeadLetters
    filtered: int
    """Letters of messages that no route wants today: they go without a row."""


def carry_out(outbox: Outbox, mapping: Mapper, *, streams: Collection[str], has_room: bool) -> ReplayOutcome:
    """Purge and replay some of the letters that somebody wants purged or replayed; for the outbox's owner.

    Args:
        outbox: open.
        mapping: today's.
        streams: that the worker reads.
        has_room: whether rows may be stored; if not, what is to be replayed waits.

    Raises:
        OutboxUnavailable: what was not done is still wanted.
    """
    purged = outbox.purge_requested()
    letters = outbox.dead_letters_to_replay(REPLAY_COUNT) if has_room else []
    if not letters:
        return ReplayOutcome([], purged=purged, more=purged > 0)
    trial = map_again(letters, mapping, streams=streams, next_id=outbox.next_id)
    records = outbox.commit(Commit(rows=trial.rows, filtered=trial.filtered, replayed=trial.replayed))
    replayed, failed = len(trial.replayed.done), len(trial.replayed.failed)
    log.info(
        "dead_letters.replayed",
        count=replayed,
        rows=len(records),
        failed=failed,
        reasons=dict(Counter(why.reason for _, why in trial.replayed.failed)),
    )
    return ReplayOutcome(records, replayed, failed, purged, more=True)


def map_again(letters: Iterable[StoredDeadLetter], mapping: Mapper, *, streams: Collection[str], next_id: int) -> Trial:
    """Map letters by today's routes, until the rows are ``REPLAY_BYTES``; changes nothing.

    Args:
        letters: in the order in which their rows are to go.
        mapping: today's.
        streams: that the worker reads.
        next_id: the record id that the first row will get.
    """
    rows: list[Row] = []
    done: list[int] = []
    failed: list[tuple[StoredDeadLetter, DeadLetter]] = []
    filtered = size = 0
    for letter in letters:
        if size >= REPLAY_BYTES:
            break
        mapped = _map_again(letter, mapping, streams, next_id + len(rows))
        if isinstance(mapped, DeadLetter):
            failed.append((letter, mapped))
            continue
        done.append(letter.id)
        filtered += not mapped
        rows += mapped
        size += sum([len(row.payload) + len(row.extras) for row in mapped])
    return Trial(rows, ReplayedDeadLetters(done, failed), filtered)


def _map_again(
    letter: StoredDeadLetter, mapping: Mapper, streams: Collection[str], next_id: int
) -> list[Row] | DeadLetter:
    dead = letter.dead_letter
    if letter.stream is not None and letter.stream in streams:
        return [Row(letter.stream, dead.payload, letter.extras)]
    # No mapping can help where the topic was not UTF-8, of which only a transcript is kept, or where there is none: the
    # payload is a row that was refused, and the worker doesn't read its stream.
    if dead.reason == Reason.BAD_TOPIC or not dead.topic:
        return dead
    message = MqttMessage(
        topic=dead.topic,
        payload=dead.payload,
        qos=dead.qos,
        retain=dead.retain,
        packet_id=0,
        received_at=dead.received_at,
        properties=dead.properties,
        is_replay=True,
    )
    return mapping.map(message, next_id)


# --- for people ---------------------------------------------------------------------------------------------


def parse_since(text: str, *, now: float) -> int:
    """A point in time as people write it: ``15m``, ``2h``, ``3d`` ago, or ISO 8601, in UTC where it names no zone.

    Args:
        text: what was written.
        now: seconds since the epoch.

    Returns:
        Nanoseconds since the epoch.

    Raises:
        ValueError: it is neither.
    """
    ago = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if ago:
        return int((now - int(ago[1]) * SECONDS[ago[2]]) * 1e9)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e6) * 1000


def iso_time(nanoseconds: int) -> str:
    """When a message was received, as ISO 8601 with milliseconds, in UTC."""
    try:
        return iso8601(nanoseconds)
    except OverflowError:  # a clock that was far off, or a rescued file
        return f"{nanoseconds} ns"


def summary(letter: StoredDeadLetter) -> dict[str, Any]:
    """What a list says of a letter, ready for JSON."""
    dead = letter.dead_letter
    return {
        "id": letter.id,
        "received_at": iso_time(dead.received_at),
        "reason": dead.reason,
        "topic": dead.topic,
        "bytes": len(dead.payload),
        "route": dead.route,
        "detail": dead.detail,
        "wanted": letter.requested,
    }


def export(letter: StoredDeadLetter) -> dict[str, Any]:
    """All of a letter, ready for JSON: bytes as base64, and the payload as text too where it is UTF-8."""
    dead = letter.dead_letter
    try:
        text = dead.payload.decode()
    except UnicodeDecodeError:
        text = None
    return {
        **summary(letter),
        "received_at_ns": dead.received_at,
        "qos": dead.qos,
        "retain": dead.retain,
        "mapping": dead.mapping,
        "stream": letter.stream,
        "extras": letter.extras.decode(errors="replace"),
        "properties_base64": b64encode(dead.properties).decode(),
        "payload_base64": b64encode(dead.payload).decode(),
        "payload_text": text,
    }
