"""Options of routes together, and values at the limits of what numbers can hold."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.mapping import FieldSpec, FormatOptions, Mapper, Route
from bridge.message import DeadLetter, MqttMessage, Rows
from bridge.streamql import input_streams, parse

WORKER = parse(
    """@App:name("a")
@App:qlVersion("2")
CREATE STREAM d (v double);
CREATE STREAM s (v string);
CREATE STREAM l (v long);
"""
)
COMMA = FormatOptions("json", decimal=",")


def mapper(*routes: Route) -> Mapper:
    return Mapper(routes=routes, streams=dict(input_streams(WORKER)), outbox_name="x")


def mapped(mapper: Mapper, payload: bytes) -> Any:
    """The rows' payloads, or a dead letter's reason."""
    found = mapper.map(MqttMessage("t", payload, 1, False, 1, 10**18))
    return found.reason if isinstance(found, DeadLetter) else [row.payload for row in found]


@pytest.mark.parametrize(
    ("source", "payload", "expected"),
    [
        (FieldSpec("r", registers="int16"), b'{"r": 65516.0}', [b'{"v":-20}']),
        (FieldSpec("r", registers="int64"), b'{"r": 9.223372036854775807e18}', "out_of_range"),
        (FieldSpec("r", bit=0), b'{"r": 9007199254740993.0}', "out_of_range"),
        ("jmespath:floor(x)", b'{"x": 2.7}', [b'{"v":2}']),
        ("jmespath:floor(x)", b'{"x": 1724442618569203714.0}', [b'{"v":1724442618569203714}']),
        ("jmespath:ceil(x)", b'{"x": 9007199254740993.0}', [b'{"v":9007199254740993}']),
        (FieldSpec("v", time="s"), b'{"v": "1e1000000"}', "type_mismatch"),
        (FieldSpec("v", scale=0.1), b'{"v": 1e9999999999}', "out_of_range"),
        (FieldSpec("v", offset=1), b'{"v": 1e1000000}', "out_of_range"),
    ],
)
def test_a_number_that_cannot_be_exact_is_refused(source: Any, payload: bytes, expected: Any) -> None:
    assert mapped(mapper(Route("t", "l", {"v": source})), payload) == expected


def test_to_string_invents_no_text_for_what_is_beyond_a_double() -> None:
    assert mapped(mapper(Route("t", "s", {"v": "jmespath:to_string(x)"})), b'{"x": 1e999}') == "missing_field"


@pytest.mark.parametrize(
    ("format_", "text"), [("%y%m%d,%H%M%S", "231114,221320"), ("%Y%m%d.%H%M%S", "20231114.221320")]
)
def test_commas_and_points_in_a_date_are_no_decimal_commas(format_: str, text: str) -> None:
    route = Route("t", "l", {"v": FieldSpec("ts", format=format_)}, format=COMMA)

    assert mapped(mapper(route), f'{{"ts": "{text}"}}'.encode()) == [b'{"v":1700000000000}']


def test_routes_that_differ_only_in_an_option_of_the_format_count_an_element_once() -> None:
    numbers = Route("t", "d", when="type(v) == 'number'")
    texts = Route("t", "s", when="type(v) == 'string'", format=FormatOptions("json", null_values=("N/A",)))
    found = mapper(numbers, texts).map(MqttMessage("t", b'[{"v": 1}, {"v": "x"}, {"v": true}]', 1, False, 1, 0))

    assert isinstance(found, Rows)
    assert ([row.payload for row in found], found.filtered) == ([b'{"v":1.0}', b'{"v":"x"}'], 1)


def test_what_is_no_row_is_a_dead_letter_and_never_held_back() -> None:
    reporting = mapper(Route("t", "d", every=10, key="k"))

    assert mapped(reporting, b'{"v": 1, "k": "a"}') == [b'{"v":1.0}']
    reporting.committed(())
    assert mapped(reporting, b'{"v": 1}') == "missing_field"
    assert mapped(reporting, b'{"v": 1, "k": "a"}') == []


def test_devices_are_distinguished_by_all_digits_of_their_number() -> None:
    reporting = mapper(Route("t", "d", every=10, device="serial"))

    for serial in ("9007199254740993.0", "9007199254740992.0"):
        assert mapped(reporting, f'{{"v": 1, "serial": {serial}}}'.encode()) == [b'{"v":1.0}']
        reporting.committed(())


def test_rows_of_a_message_that_becomes_a_dead_letter_are_not_counted() -> None:
    tables = mapper(Route("t", "d", match="all"), Route("t", "l", {"v": "w"}))

    assert mapped(tables, b'{"v": 1, "w": "x"}') == "type_mismatch"
    assert set(tables.rows_made().values()) == {0}


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        (Route("t", "l", {"v": FieldSpec("x", format="%Y%m%d%Y")}), "has a directive twice"),
        (Route("t", "d", every=5, device="$key"), r"routes\[0\].device: \$key is not the name of a member"),
        (Route("t", "d", format=FormatOptions("scalar", embedded_json=("value",))), "embedded_json is only for"),
    ],
)
def test_what_can_never_work_is_refused_with_the_name_of_its_setting(route: Route, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        mapper(route)


def test_an_unset_clock_is_recognised_by_a_bound_with_an_offset() -> None:
    spec = FieldSpec("ts", time="s", unset_before="2020-01-01T00:00:00+02:00", default=-1)
    tables = mapper(Route("t", "l", {"v": spec}))

    assert mapped(tables, b'{"ts": 1577829600}') == [b'{"v":1577829600000}']
    assert mapped(tables, b'{"ts": 1577829599}') == [b'{"v":-1}']
