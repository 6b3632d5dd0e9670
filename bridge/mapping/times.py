"""Converts times of devices to those of columns and Pulsar; nanoseconds since the epoch are the common form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from bridge.mapping.payload import kind
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds per unit."""

TIME_FORMATS = (*NANOSECONDS, "iso8601")
"""A device's time is a number since the epoch in one of the units, or ISO 8601 text."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = -62_135_596_800 * 10**9  # year 1
_LATEST = 253_402_300_800 * 10**9  # year 10,000


def parse_time(value: Any, format_: str) -> int:
    """The time in nanoseconds since the epoch.

    ISO 8601 without an offset is UTC. Numbers may be text and may have a fraction.

    Raises:
        Unmappable: it isn't a time in this format, or is outside the years 1 to 9999.
    """
    nanoseconds = _parse_iso8601(value) if format_ == "iso8601" else _parse_epoch(value, format_)
    if not _EARLIEST <= nanoseconds < _LATEST:
        raise Unmappable(Reason.OUT_OF_RANGE, f"the time {preview(value)} is outside the years 1 to 9999")
    return nanoseconds


def iso8601(nanoseconds: int) -> str:
    """ISO 8601 in UTC with milliseconds, such as ``2026-11-25T01:02:03.004Z``."""
    moment = _EPOCH + timedelta(milliseconds=nanoseconds // 10**6)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parse_epoch(value: Any, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (type(value) is str and len(value) > 40):
        detail = f"{kind(value)} ({preview(value)}) is not a number of {unit} since 1970"
        raise Unmappable(Reason.TYPE_MISMATCH, detail)
    try:
        # Decimal, not float: a double has too few digits for nanoseconds.
        number = Decimal(value.strip() if isinstance(value, str) else repr(value))
        if not number.is_finite() or abs(number) > 10**30:
            raise InvalidOperation
        return int(number * NANOSECONDS[unit])
    except InvalidOperation as exc:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(value)} is not a number of {unit} since 1970") from exc


def _parse_iso8601(value: Any) -> int:
    if not isinstance(value, str) or len(value) > 40:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({preview(value)}) is not an ISO 8601 date and time")
    try:
        moment = datetime.fromisoformat(value.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - _EPOCH
    except (ValueError, OverflowError) as exc:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(value)} is not an ISO 8601 date and time") from exc
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
