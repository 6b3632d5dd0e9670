"""Times of devices: zones, daylight saving time, formats, and clocks that aren't set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.mapping import times
from bridge.mapping.times import TimeSpec, compile_time
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = (
    "Europe/Zurich",
    "Europe/Dublin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/St_Johns",
)
DSMR = {"format": "%y%m%d%H%M%S", "dst": {"S": True, "W": False}, "zone": "Europe/Amsterdam"}


def utc(value: Any, **spec: Any) -> Any:
    """The time as text in UTC, None if it isn't set, or the reason why it is refused."""
    try:
        nanoseconds = compile_time(TimeSpec(**spec))(value)
    except Unmappable as exc:
        return exc.reason
    return None if nanoseconds is None else (EPOCH + timedelta(microseconds=nanoseconds // 1000)).isoformat()[:-6]


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        ("2026-03-01 18:42:29", {"zone": "Europe/Zurich"}, "2026-03-01T17:42:29"),
        ("2026-07-01 18:42:29", {"zone": "Europe/Zurich"}, "2026-07-01T16:42:29"),
        ("2026-07-01T18:42:29Z", {"zone": "Europe/Zurich"}, "2026-07-01T18:42:29"),
        ("2026-07-01T18:42:29+05:00", {"zone": "Europe/Zurich"}, "2026-07-01T13:42:29"),
        ("2026-07-01", {"zone": "Europe/Zurich"}, "2026-06-30T22:00:00"),
        ("2026-10-25 02:30:00", {"zone": "Europe/Zurich"}, "2026-10-25T00:30:00"),  # the first of two
        ("2026-03-29 02:30:00", {"zone": "Europe/Zurich"}, "2026-03-29T01:30:00"),  # skipped: the offset before
        ("2026-07-01t18:42:29z", {}, "2026-07-01T18:42:29"),
        ("2016-12-31T23:59:60Z", {}, "2017-01-01T00:00:00"),
        ("2016-12-31T23:59:60.5z", {}, "2017-01-01T00:00:00.500000"),
        ("20161231T235960Z", {}, "2017-01-01T00:00:00"),
        ("2017-01-01 00:59:60", {"zone": "Europe/Zurich"}, "2017-01-01T00:00:00"),
        ("2017-01-01T00:58:60Z", {}, Reason.TYPE_MISMATCH),
        ("2026-02-28T24:00:00Z", {}, "2026-03-01T00:00:00"),
        ("2026-02-28 24:00", {"zone": "Europe/Zurich"}, "2026-02-28T23:00:00"),
        ("2026-02-28T24:01:00Z", {}, Reason.TYPE_MISMATCH),
        ("2026-02-28T25:00:00Z", {}, Reason.TYPE_MISMATCH),
        ("9999-12-31T24:00:00Z", {}, Reason.TYPE_MISMATCH),
        ("01.03.2026 18:42", {"format": "%d.%m.%Y %H:%M", "zone": "Europe/Zurich"}, "2026-03-01T17:42:00"),
        (" 01.03.2026 18:42 ", {"format": "%d.%m.%Y %H:%M"}, "2026-03-01T18:42:00"),
        ("Mar 1, 2026 6:42 PM", {"format": "%b %d, %Y %I:%M %p"}, "2026-03-01T18:42:00"),
        (
            "2026-03-01 18:42:29 +0100",
            {"format": "%Y-%m-%d %H:%M:%S %z", "zone": "Asia/Kolkata"},
            "2026-03-01T17:42:29",
        ),
        (20260301184229, {"format": "%Y%m%d%H%M%S"}, "2026-03-01T18:42:29"),
        (10326, {"format": "%d%m%y"}, Reason.TYPE_MISMATCH),  # of 010326 JSON keeps no zero
        ("2026-03-01", {"format": "%d.%m.%Y"}, Reason.TYPE_MISMATCH),
        (5.5, {"format": "%d.%m.%Y"}, Reason.TYPE_MISMATCH),
        ("1" * 101, {"format": "%d.%m.%Y"}, Reason.TYPE_MISMATCH),
        ("210307135532W", DSMR, "2021-03-07T12:55:32"),
        ("210707135532S", DSMR, "2021-07-07T11:55:32"),
        ("211031023000S", DSMR, "2021-10-31T00:30:00"),
        ("211031023000W", DSMR, "2021-10-31T01:30:00"),
        ("210707135532W", DSMR, Reason.TYPE_MISMATCH),
        ("210307135532S", DSMR, Reason.TYPE_MISMATCH),
        ("210307135532", DSMR, Reason.TYPE_MISMATCH),
        (
            "2026-10-25 02:30:00 CET",
            {"zone": "Europe/Zurich", "dst": {"CEST": True, "CET": False, "": False}},
            "2026-10-25T01:30:00",
        ),
        ("0001-01-01T00:00:00Z", {}, "0001-01-01T00:00:00"),
        ("0001-01-01T00:00:00Z", {"unset_before": "2000-01-01"}, None),
        ("1970-01-01T00:00:12Z", {"unset_before": "2000-01-01"}, None),
        ("2000-01-01T00:00:00Z", {"unset_before": "2000-01-01"}, "2000-01-01T00:00:00"),
        ("0000-00-00 00:00:00", {"unset_before": "2000-01-01"}, None),
        ("0000-00-00 00:00:00", {}, Reason.TYPE_MISMATCH),
        ("0001-01-01 00:00:00", {"zone": "Asia/Kolkata", "unset_before": "2000-01-01"}, None),
        ("00010101", {"format": "%Y%m%d", "unset_before": "2000-01-01"}, None),
        ("00.00.0000", {"format": "%d.%m.%Y", "unset_before": "2000-01-01"}, None),
        (0, {"time": "s", "unset_before": "2000-01-01"}, None),
        ("0", {"time": "ms", "unset_before": "2000-01-01T00:00:00Z"}, None),
        (-(10**20), {"time": "s", "unset_before": "2000-01-01"}, None),
        (10**20, {"time": "s", "unset_before": "2000-01-01"}, Reason.OUT_OF_RANGE),
    ],
)
def test_a_time_of_a_device(value: Any, spec: dict[str, Any], expected: Any) -> None:
    time = {} if "format" in spec else {"time": "iso8601"}

    assert utc(value, **{**time, **spec}) == expected


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "set either time or format"),
        ({"time": "s", "format": "%Y"}, "set either time or format"),
        ({"time": "min"}, "time must be one of s, ms"),
        ({"time": "s", "zone": "Europe/Zurich"}, "the same moment in every zone"),
        ({"time": "iso8601", "zone": "Europe/Zürich"}, "did you mean 'Europe/Zurich'?"),
        ({"time": "iso8601", "zone": "Europe"}, "there is no time zone 'Europe'"),
        ({"time": "iso8601", "zone": "../etc/passwd"}, "there is no time zone"),
        ({"time": "iso8601", "zone": "a" * 5000}, "there is no time zone"),
        ({"time": "iso8601", "dst": {"S": True}}, "dst needs a zone"),
        ({"time": "iso8601", "unset_before": "yesterday"}, "is not an ISO 8601 date, such as 2020-01-01"),
        ({"format": "%Q"}, "format: '%Q'"),
        ({"format": "%H:%M"}, "gives no date"),
        ({"format": "%Y-%m"}, "gives no date"),
        ({"format": "%Y-%m-%d %H:%M %Z"}, "%Z would be ignored"),
    ],
)
def test_what_is_wrong_with_a_time_is_named_before_the_first_message(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        compile_time(TimeSpec(**spec))

    assert says in str(caught.value)


def test_a_system_without_time_zones_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ZoneInfo:
        raise LookupError(name)

    monkeypatch.setattr(times, "ZoneInfo", missing)
    monkeypatch.setattr(times, "available_timezones", set[str])

    with pytest.raises(ValueError, match="no time zone data; install the package tzdata"):
        compile_time(TimeSpec("iso8601", zone="Europe/Zurich"))


def near_changes() -> st.SearchStrategy[datetime]:
    """Moments of this century, half of them within a few hours of a change of the clocks."""
    anywhere = st.datetimes(datetime(2001, 1, 1), datetime(2037, 12, 31))
    changes = st.sampled_from(
        [
            datetime(2026, 3, 29, 1),  # Europe
            datetime(2026, 10, 25, 1),
            datetime(2026, 3, 8, 7),  # New York
            datetime(2026, 11, 1, 6),
            datetime(2026, 4, 4, 15),  # Lord Howe
            datetime(2026, 10, 3, 15, 30),
        ]
    )
    near = st.builds(lambda change, minutes: change + timedelta(minutes=minutes), changes, st.integers(-180, 180))
    return (anywhere | near).map(lambda moment: moment.replace(tzinfo=UTC))


@given(near_changes(), st.sampled_from(ZONES))
@example(datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "Europe/Zurich")
@example(datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "Europe/Zurich")
def test_a_local_time_with_its_daylight_saving_is_the_moment_it_was_written_at(moment: datetime, zone: str) -> None:
    local = moment.astimezone(ZoneInfo(zone))
    offsets = {local.replace(month=month, day=1, hour=12, fold=0).utcoffset() or timedelta(0) for month in (1, 7)}
    is_dst = (local.utcoffset() or timedelta(0)) > min(offsets)
    text = local.replace(tzinfo=None).isoformat(" ") + (" S" if is_dst else " W")

    found = utc(text, time="iso8601", zone=zone, dst={"S": True, "W": False})

    assert found == moment.replace(tzinfo=None).isoformat()


@given(near_changes(), st.sampled_from(ZONES))
def test_a_local_time_alone_is_that_moment_or_the_first_of_the_two_with_its_text(moment: datetime, zone: str) -> None:
    local = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)

    found = datetime.fromisoformat(utc(local.isoformat(), time="iso8601", zone=zone)).replace(tzinfo=UTC)

    assert found.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local
    assert found <= moment


@given(
    st.text(max_size=40) | st.integers() | st.floats() | st.none(), st.sampled_from(["iso8601", "s", "%Y%m%d", "%c"])
)
def test_no_value_makes_a_parser_fail(value: Any, time: str) -> None:
    spec = {"format": time} if "%" in time else {"time": time}

    assert utc(value, **spec, unset_before="1999-12-31") is not False


@given(
    st.from_regex(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?([zZ]|[+-][0-9]{2}:[0-9]{2})?"
    )
)
def test_no_text_like_a_time_makes_a_parser_fail(text: str) -> None:
    assert utc(text, time="iso8601", zone="Europe/Zurich", dst={"Z": True, "": False}) is not False
