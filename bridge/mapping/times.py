"""Converts times of devices to those of columns and Pulsar; nanoseconds since the epoch are the common form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from bridge.mapping.payload import kind
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds per unit."""

TIME_FORMATS = (*NANOSECONDS, "iso8601")
"""A device's time is a number since the epoch in one of the units, or ISO 8601 text."""

TimeParser = Callable[[Any], int | None]
"""(value) -> nanoseconds since the epoch, None if the device's clock isn't set; raises Unmappable."""

MAX_TIME_TEXT = 100
"""Characters of a time in text."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = -62_135_596_800 * 10**9  # year 1
_LATEST = 253_402_300_800 * 10**9  # year 10,000

# What fromisoformat refuses: the end of a day as 24:00 (ISO 8601) and a leap second (RFC 3339, 5.7).
_SPECIAL = re.compile(
    r"(?P<date>[0-9W-]{7,10}[T _])(?:"
    r"(?P<end>24:?00(?::?00(?:[.,]0+)?)?)|(?P<before>[0-9]{2}:?59:?)60(?P<fraction>[.,][0-9]+)?)(?P<offset>.*)"
)
_SAMPLE = datetime(2031, 12, 28, 21, 43, 54, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TimeSpec:
    """How a device writes its times: ``time`` or ``format`` must be set."""

    time: str | None = None
    """One of ``TIME_FORMATS``."""
    format: str | None = None
    """A pattern of strptime, for text that is no ISO 8601."""
    zone: str | None = None
    """IANA name of the zone of texts without offset; None: UTC."""
    dst: Mapping[str, bool] | None = None
    """By the end of the text: whether daylight saving time is in effect. Tells the two hours at its end apart."""
    unset_before: str | None = None
    """ISO 8601; an earlier time means that the device's clock isn't set."""


def compile_time(spec: TimeSpec) -> TimeParser:
    """Compile a parser of times.

    Texts without an offset that occur twice, at the end of daylight saving time, are the first without ``dst``; those
    that the start of it skips are read with the offset before it.

    Raises:
        ValueError: it is invalid; the message says why.
    """
    parse = _parser(spec)
    if spec.unset_before is None:
        return _in_range(parse)
    return _set(parse, spec.unset_before)


def _parser(spec: TimeSpec) -> Callable[[Any], int]:
    if (spec.time is None) == (spec.format is None):
        raise ValueError("set either time or format, not both")
    if spec.time is not None and spec.time not in TIME_FORMATS:
        raise ValueError(f"time must be one of {', '.join(TIME_FORMATS)}, not {spec.time!r}")
    if spec.time in NANOSECONDS:
        if spec.zone is not None or spec.dst is not None:
            raise ValueError(f"zone and dst are for texts; time = {spec.time!r} is the same moment in every zone")
        unit = spec.time
        return lambda value: _parse_epoch(value, unit)
    if spec.dst is not None and spec.zone is None:
        raise ValueError("dst needs a zone")
    zone = UTC if spec.zone is None else _zone(spec.zone)
    if spec.format is None:
        return _text_parser(_read_iso8601, "an ISO 8601 date and time", zone, spec.dst)
    what = f"a time in the format {spec.format!r}"
    return _text_parser(_pattern_reader(spec.format), what, zone, spec.dst)


def parse_time(value: Any, format_: str) -> int:
    """The time in nanoseconds since the epoch, from one of ``TIME_FORMATS``.

    ISO 8601 without an offset is UTC. Numbers may be text and may have a fraction.

    Raises:
        Unmappable: it isn't a time in this format, or is outside the years 1 to 9999.
    """
    return _in_range(_parser(TimeSpec(format_)))(value)


def iso8601(nanoseconds: int) -> str:
    """ISO 8601 in UTC with milliseconds, such as ``2026-11-25T01:02:03.004Z``."""
    moment = _EPOCH + timedelta(milliseconds=nanoseconds // 10**6)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_range(parse: Callable[[Any], int]) -> Callable[[Any], int]:
    def checked(value: Any) -> int:
        nanoseconds = parse(value)
        if not _EARLIEST <= nanoseconds < _LATEST:
            raise Unmappable(Reason.OUT_OF_RANGE, f"the time {preview(value)} is outside the years 1 to 9999")
        return nanoseconds

    return checked


def _set(parse: Callable[[Any], int], unset_before: str) -> TimeParser:
    try:
        moment, _ = _read_iso8601(unset_before)
        bound = _nanoseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"unset_before: {unset_before!r} is not an ISO 8601 date, such as 2020-01-01") from exc

    in_range = _in_range(parse)

    def of_set_clock(value: Any) -> int | None:
        if type(value) is str and _is_all_zeros(value):  # as 0000-00-00 00:00:00, which is no date
            return None
        return None if parse(value) < bound else in_range(value)

    return of_set_clock


def _is_all_zeros(text: str) -> bool:
    digits = {character for character in text if character.isdigit()}
    return digits == {"0"}


def _nanoseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000


def _parse_epoch(value: Any, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (type(value) is str and len(value) > 40):
        detail = f"{kind(value)} ({preview(value)}) is not a number of {unit} since 1970"
        raise Unmappable(Reason.TYPE_MISMATCH, detail)
    try:
        # Decimal, not float: a double has too few digits for nanoseconds.
        number = Decimal(value.strip() if isinstance(value, str) else repr(value))
        if not number.is_finite() or number.copy_abs() > 10**30:
            raise InvalidOperation
        return int(number * NANOSECONDS[unit])
    except InvalidOperation as exc:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(value)} is not a number of {unit} since 1970") from exc


# --- times in text ----------------------------------------------------------------------------------------

_Reader = Callable[[str], tuple[datetime, int]]
"""(text) -> the moment, and seconds to add to it; raises ValueError."""


def _text_parser(read: _Reader, what: str, zone: tzinfo, dst: Mapping[str, bool] | None) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        text = str(value) if type(value) is int else value  # a number such as 20260301184229
        if type(text) is not str or len(text) > MAX_TIME_TEXT:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({preview(value)}) is not {what}")
        try:
            text, is_dst = (text.strip(), None) if dst is None else _without_marker(text.strip(), dst)
            moment, seconds = read(text)
            if moment.tzinfo is None:
                moment = _placed(moment, zone, is_dst)
            return _nanoseconds(moment) + seconds * 10**9
        except _Contradiction as exc:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(value)}: {exc}") from exc
        except (ValueError, OverflowError) as exc:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{preview(value)} is not {what}") from exc

    return parse


class _Contradiction(Exception):
    """What the text says of daylight saving time can't be."""


def _without_marker(text: str, dst: Mapping[str, bool]) -> tuple[str, bool]:
    for marker in sorted(dst, key=len, reverse=True):
        if text.endswith(marker):
            return text[: len(text) - len(marker)].rstrip(), dst[marker]
    raise _Contradiction(f"it ends in none of dst's texts: {', '.join(dst)}")


def _placed(moment: datetime, zone: tzinfo, is_dst: bool | None) -> datetime:
    """The local time in the zone. Where it occurs twice or is skipped, the offsets of the two folds differ."""
    moment = moment.replace(tzinfo=zone)
    if is_dst is None:
        return moment
    other = moment.replace(fold=1)
    offset, other_offset = moment.utcoffset(), other.utcoffset()
    if offset is None or other_offset is None:  # of no zone
        return moment
    if offset != other_offset:
        return moment if (offset > other_offset) == is_dst else other
    # Not dst(): Dublin's is negative, in winter.
    year = [moment.replace(month=month, day=1).utcoffset() or timedelta(0) for month in (1, 7)]
    if (offset > min(year)) != is_dst:
        raise _Contradiction(f"daylight saving time is {'not ' if is_dst else ''}in effect in {zone} then")
    return moment


def _read_iso8601(text: str) -> tuple[datetime, int]:
    text = text.upper()  # RFC 3339, 5.6: "t" and "z" are the same as "T" and "Z"
    try:
        return datetime.fromisoformat(text), 0
    except ValueError:
        special = _SPECIAL.fullmatch(text)
        if special is None:
            raise
    if special["end"]:
        return datetime.fromisoformat(f"{special['date']}00:00{special['offset']}") + timedelta(days=1), 0
    text = f"{special['date']}{special['before']}59{special['fraction'] or ''}{special['offset']}"
    return datetime.fromisoformat(text), 1


def _pattern_reader(pattern: str) -> _Reader:
    try:
        is_complete = datetime.strptime(_SAMPLE.strftime(pattern), pattern).date() == _SAMPLE.date()
    except re.error as exc:
        raise ValueError(f"format: {pattern!r} has a directive twice: {exc}") from exc
    except ValueError as exc:
        raise ValueError(f"format: {pattern!r}: {exc}") from exc
    if "%Z" in pattern.replace("%%", ""):
        raise ValueError(f"format: {pattern!r}: %Z would be ignored; use %z for offsets, or zone and dst")
    if not is_complete:
        raise ValueError(f"format: {pattern!r} gives no date of day, month and year")

    def read(text: str) -> tuple[datetime, int]:
        moment = datetime.strptime(text, pattern)
        # Directives take fewer digits, too: 10326 isn't the first of March, but %d%m%y takes it as the tenth.
        if text.isdigit() and moment.strftime(pattern).lstrip("0") != text.lstrip("0"):  # strftime pads no year
            raise ValueError("digits are missing")
        return moment, 0

    return read


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as exc:  # a directory, a path, or unknown
        known = available_timezones()
        if not known:
            raise ValueError(
                f"zone: {name!r} can't be read: this system has no time zone data; install the package tzdata"
            ) from exc
        similar = get_close_matches(name, known, n=1)
        hint = f"did you mean {similar[0]!r}?" if similar else "names are those of IANA, such as Europe/Zurich"
        raise ValueError(f"zone: there is no time zone {name!r}; {hint}") from exc
