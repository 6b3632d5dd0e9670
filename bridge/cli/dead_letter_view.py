"""Dead letters for people and other programs: summaries, exports and times."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from bridge.mapping.times import iso8601
from bridge.outbox import StoredDeadLetter

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_since(text: str, *, now: float) -> int:
    """A point in time: ``15m``, ``2h`` or ``3d`` ago, or ISO 8601, in UTC unless it names a zone.

    Args:
        text: as an operator wrote it.
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
    """The time when a message was received, as ISO 8601 with milliseconds, in UTC."""
    try:
        return iso8601(nanoseconds)
    except OverflowError:  # from a clock that was far off, or a rescued file
        return f"{nanoseconds} ns"


def summary(stored: StoredDeadLetter) -> dict[str, Any]:
    """A dead letter as one entry of a list, ready for JSON."""
    dead_letter = stored.dead_letter
    return {
        "id": stored.id,
        "received_at": iso_time(dead_letter.received_at),
        "reason": dead_letter.reason,
        "topic": dead_letter.topic,
        "bytes": len(dead_letter.payload) + dead_letter.omitted,
        "route": dead_letter.route,
        "detail": dead_letter.detail,
        "wanted": stored.requested,
    }


def export(stored: StoredDeadLetter) -> dict[str, Any]:
    """A complete dead letter, ready for JSON: bytes in base64, and the payload also as text if it is UTF-8."""
    dead_letter = stored.dead_letter
    try:
        text = dead_letter.payload.decode()
    except UnicodeDecodeError:
        text = None
    return {
        **summary(stored),
        "received_at_ns": dead_letter.received_at,
        "qos": dead_letter.qos,
        "retain": dead_letter.retain,
        "mapping": dead_letter.mapping,
        "stream": stored.stream,
        "extras": stored.extras.decode(errors="replace"),
        "properties_base64": b64encode(dead_letter.properties).decode(),
        "payload_base64": b64encode(dead_letter.payload).decode(),
        "payload_text": text,
        "omitted": dead_letter.omitted,
    }
