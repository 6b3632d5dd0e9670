"""Points in time, from what devices write to what columns and Pulsar take; in between nanoseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from bridge.mapping.payload import kind
from bridge.mapping.unmappable import Unmappable, shown
from bridge.reasons import Reason

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""In each unit of an epoch."""

TIME_FORMATS = (*NANOSECONDS, "iso8601")
"""What a device's point in time can be written as: a number since the epoch in a unit, or text by ISO 8601."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = -62_135_596_800 * 10**9  # year 1
_LATEST = 253_402_300_800 * 10**9  # year 10,000


def parse_time(value: Any, format_: str) -> int:
    """Nanoseconds since the epoch.

    Text without an offset counts as UTC. Numbers may be text, and may have a fraction.

    Raises:
        Unmappable: it is no point in time of this format, or not between the years 1 and 9999.
    """
    found = _iso8601(value) if format_ == "iso8601" else _epoch(value, format_)
    if not _EARLIEST <= found < _LATEST:
        raise Unmappable(Reason.OUT_OF_RANGE, f"{shown(value)} is no point in time between the years 1 and 9999")
    return found


def iso8601(nanoseconds: int) -> str:
    """ISO 8601 in UTC with milliseconds, as ``2026-11-25T01:02:03.004Z``."""
    moment = _EPOCH + timedelta(milliseconds=nanoseconds // 10**6)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _epoch(value: Any, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (type(value) is str and len(value) > 40):
        raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({shown(value)}) is no number of {unit} since 1970")
    try:
        number = Decimal(value.strip() if isinstance(value, str) else repr(value))
        if not number.is_finite() or abs(number) > 10**30:
            raise InvalidOperation
        return int(number * NANOSECONDS[unit])
    except InvalidOperation as exc:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{shown(value)} is no number of {unit} since 1970") from exc


def _iso8601(value: Any) -> int:
    if not isinstance(value, str) or len(value) > 40:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({shown(value)}) is no date and time by ISO 8601")
    try:
        moment = datetime.fromisoformat(value.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - _EPOCH
    except (ValueError, OverflowError) as exc:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{shown(value)} is no date and time by ISO 8601") from exc
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
