"""Texts reach string columns as they came, and no digit of a number is lost."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import cbor2
import jmespath
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import FieldSpec, FormatOptions, Mapper, Route
from bridge.mapping.explain import explain
from bridge.mapping.numbers import WrittenNumber, number_of
from bridge.message import DeadLetter, MqttMessage
from bridge.reasons import Reason
from bridge.streamql import parse
from bridge.streamql.streams import input_streams

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM s (v string); CREATE STREAM i (v int); CREATE STREAM l (v long); CREATE STREAM d (v double);
CREATE STREAM f (v float); CREATE STREAM o (v object); CREATE STREAM sd (v string, d double);
"""
STREAMS = dict(input_streams(parse(DEFINITION)))


def mapper(*routes: Route) -> Mapper:
    return Mapper(routes=routes, streams=STREAMS)


def message(payload: bytes) -> MqttMessage:
    return MqttMessage("t/dev", payload, 1, False, 1, 0)


def one(stream: str, payload: bytes, field: Any = None, format_: str = "json", **options: Any) -> Any:
    """The value of the column as the worker gets it, or the reason of the dead letter and its text."""
    route = Route("t/{x}", stream, {} if field is None else {"v": field}, format=FormatOptions(format_), **options)
    mapped = mapper(route).map(message(payload))
    if isinstance(mapped, DeadLetter):
        return Reason(mapped.reason), mapped.detail
    return bytes(msgspec.json.decode(mapped[0].payload, type=dict[str, msgspec.Raw])["v"])


def text(value: str) -> bytes:
    return msgspec.json.encode(value)


WRITTEN = [
    "5E12",
    "1.10",
    "-0",
    "007",
    "TRUE",
    "true",
    "False",
    "1e999",
    "-1.5E-3",
    "12345678.90123456789",
    "1e0000",
    "+1",
]


@pytest.mark.parametrize("written", [*WRITTEN, "+1", "4e5f", "18446744073709551616", "9" * 120])
def test_a_scalar_reaches_a_string_column_as_it_came(written: str) -> None:
    payload = written.encode()

    assert one("s", payload, "value", "scalar") == text(written)
    assert one("s", payload, FieldSpec("value", default="-"), "scalar") == text(written)
    assert one("s", payload, "{x}:{value}", "scalar") == text(f"dev:{written}")


def test_a_scalar_is_a_key_and_a_property_as_it_came() -> None:
    route = Route("t/#", "s", {"v": "=x"}, format=FormatOptions("scalar"), key="value", properties={"p": "a-{value}"})

    (row,) = mapper(route).map(message(b"1.10"))  # type: ignore[misc]

    assert row.extras == b',"key":"1.10","properties":{"p":"a-1.10"}'


def test_a_scalar_is_a_number_or_a_boolean_where_it_is_no_text() -> None:
    assert one("d", b"1.10", "value", "scalar") == b"1.1"
    assert one("s", b"TRUE", FieldSpec("value", map={"true": "on"}), "scalar") == text("on")
    assert one("s", b"1.10", "jmespath:type(value)", "scalar") == text("number")
    assert one("s", b"21", "value", "scalar", when="value > `20`") == text("21")


JSON_NUMBERS = [
    "1.10",
    "5E12",
    "0e000",
    "-0",
    "-0.0",
    "0",
    "1e0",
    "1e999",
    "-1e999",
    "1.0",
    "21.5",
    "100000000000000000000000000",
]


@pytest.mark.parametrize("written", [*JSON_NUMBERS, "12345678.90123456789", "1" * 5000])
def test_a_number_of_json_reaches_a_string_column_with_its_digits(written: str) -> None:
    payload = b'{"v": %b, "a": {"n": [%b]}}' % (written.encode(), written.encode())

    assert one("s", payload) == text(written)
    assert one("s", payload, "a.n.0") == text(written)
    assert one("s", payload, "{x}:{a.n.0}") == text(f"dev:{written}")
    assert one("s", payload, FieldSpec("v", map={written: "found"})) == text("found")
    assert one("s", payload, "jmespath:a.n[0]") == text(written)


def test_a_number_of_json_is_a_key_and_a_property_with_its_digits() -> None:
    route = Route("t/#", "s", {"v": "=x"}, key="v", properties={"p": "a-{v}"})

    (row,) = mapper(route).map(message(b'{"v": 1.10}'))  # type: ignore[misc]

    assert row.extras == b',"key":"1.10","properties":{"p":"a-1.10"}'


def test_constants_and_computed_numbers_reach_a_string_column() -> None:
    assert one("s", b"{}", 1.5) == text("1.5")
    assert one("s", b"{}", FieldSpec("v", default=1.5)) == text("1.5")
    assert one("s", b'{"a": [1.25, 1.25]}', "jmespath:sum(a)") == text("2.5")


def test_only_the_routes_of_the_format_that_needs_digits_keep_them_from_the_first_message_on() -> None:
    csv = Route("u/#", "d", format=FormatOptions("csv"))
    both = Route("t/#", "d", match="all"), Route("t/#", "s", match="all")
    tables = mapper(*both, Route("t/#", "l", {"v": "n"}), csv)
    before = tables.compiled_routes[:]

    for _ in range(2):
        rows = tables.map(message(b'{"v": 2.50, "n": 3}'))
        assert isinstance(rows, list)
        assert [row.payload for row in rows] == [b'{"v":2.5}', b'{"v":"2.50"}', b'{"v":3}']

    assert [one is other for one, other in zip(before, tables.compiled_routes, strict=True)] == [
        False,
        False,
        False,
        True,
    ]
    assert tables.rows_made() == {("t/#", "d"): 2, ("t/#", "s"): 2, ("t/#", "l"): 2, ("u/#", "d"): 0}


def test_explain_shows_the_digits_that_the_row_has() -> None:
    routes = [Route("t/#", "sd", {"d": "x"})]
    tables = mapper(*routes)
    given_ = message(b'{"v": 1.10, "x": "a", "big": 100000000000000000000000000}')

    steps = [step.text for step in explain(given_, routes, tables, tables.map(given_))]

    assert any('v <- the payload: 1.10, as string "1.10"' in step for step in steps), steps


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("1.724442618569203714e18", 1724442618569203714),
        ("9007199254740993.0", 9007199254740993),
        ("-9007199254740993.00", -9007199254740993),
        ("9007199254740992.0", 9007199254740992),
        ("1e18", 10**18),
        ("18.0", 18),
        ("-0.0", 0),
        ("0e999", 0),
        ("1" + "0" * 400 + "e-400", 1),
        ("9.223372036854775807e18", 2**63 - 1),
        ("9.223372036854775808e18", Reason.OUT_OF_RANGE),
        ("1e999", Reason.OUT_OF_RANGE),
        ("-1e99999999999999999999", Reason.OUT_OF_RANGE),
        ("1" * 5000, Reason.OUT_OF_RANGE),
        ("18.5", Reason.TYPE_MISMATCH),
        ("18.00000000000000000001", Reason.TYPE_MISMATCH),
        ("1e-99999999999999999999", Reason.TYPE_MISMATCH),
    ],
)
def test_no_digit_of_json_is_lost_in_a_long_column(written: str, whole: Any) -> None:
    payload = b'{"v": %b}' % written.encode()
    for field in (None, FieldSpec("v", scale=1)) if isinstance(whole, int) else (None,):
        found = one("l", payload, field)
        assert (found[0] if isinstance(found, tuple) else int(found)) == whole, field


@pytest.mark.parametrize("written", ["1.724442618569203714e18", "9007199254740993.0", "1e18"])
def test_no_digit_of_a_scalar_is_lost_in_a_long_column(written: str) -> None:
    assert int(one("l", written.encode(), "value", "scalar")) == Decimal(written)


def test_a_double_beyond_2_to_53_is_out_of_range_for_a_long_column_in_binary_formats() -> None:
    for format_, payload in (
        ("cbor", cbor2.dumps({"v": 2.0**60})),
        ("msgpack", msgspec.msgpack.encode({"v": 2.0**60})),
    ):
        reason, detail = one("l", payload, None, format_)
        assert reason is Reason.OUT_OF_RANGE
        assert detail.startswith("column v: 1.152921504606847e+18 is out of range for long: it would lose digits")


def test_a_decimal_fraction_of_cbor_keeps_its_digits() -> None:
    payload = cbor2.dumps({"v": Decimal("1.724442618569203714E+18")})

    assert one("l", payload, None, "cbor") == b"1724442618569203714"


TOO_LARGE = {
    "json": b'{"v": 1e999}',
    "scalar": b"1e999",
    "csv": b"v\n1e999",
    "cbor": cbor2.dumps({"v": Decimal("1e999")}),
}


@pytest.mark.parametrize("format_", TOO_LARGE)
@pytest.mark.parametrize("stream", ["f", "d"])
def test_a_number_beyond_a_double_is_out_of_range_with_the_columns_name(format_: str, stream: str) -> None:
    reason, detail = one(stream, TOO_LARGE[format_], "value" if format_ == "scalar" else None, format_)

    assert reason is Reason.OUT_OF_RANGE
    assert detail.startswith("column v: 1")


@pytest.mark.parametrize("number", ["1e999", "1" * 400, "1" * 5000, '"1e999"', f'"{"1" * 400}"'])
def test_a_number_in_json_beyond_a_double_is_out_of_range_with_the_columns_name(number: str) -> None:
    reason, detail = one("d", b'{"v": %b}' % number.encode())

    assert reason is Reason.OUT_OF_RANGE
    assert detail.startswith("column v: 1")


def test_a_number_beyond_a_double_that_no_column_takes_costs_nothing() -> None:
    assert one("d", b'{"v": 1.5, "other": 1e999, "more": %b}' % (b"1" * 5000)) == b"1.5"


def test_a_number_beyond_a_double_in_an_object_column_is_out_of_range_with_the_columns_name() -> None:
    reason, detail = one("o", b'{"v": {"a": [1e999]}}')

    assert reason is Reason.OUT_OF_RANGE
    assert detail.startswith("column v: ")


def test_an_object_column_is_sent_with_the_digits_that_came() -> None:
    tables = mapper(Route("t/#", "sd", {"d": "n"}, match="all"), Route("t/#", "o", {"v": "$root"}))
    tables.keep_digits()

    rows = tables.map(message(b'{"v": "x", "n": 1.10}'))

    assert isinstance(rows, list)
    assert [row.payload for row in rows] == [b'{"v":"x","d":1.1}', b'{"v":{"v":"x","n":1.10}}']


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(NUMBERS)
def test_any_number_of_json_keeps_its_text_and_is_exact_or_refused(written: str) -> None:
    payload = b'{"v": %b}' % written.encode()
    exact = Decimal(written)

    assert one("s", payload) == text(written)
    found = one("l", payload)
    if exact != exact.to_integral_value():
        assert found[0] in (Reason.TYPE_MISMATCH, Reason.OUT_OF_RANGE)
    elif -(2**63) <= exact < 2**63:
        assert int(found) == exact
    else:
        assert found[0] is Reason.OUT_OF_RANGE


@given(NUMBERS)
def test_a_written_number_is_a_number_for_expressions(written: str) -> None:
    number = WrittenNumber(written)

    assert (repr(number), number == float(written), number_of(written) == number) == (written, True, True)
    assert jmespath.search("type(@)", number) == "number"
    assert jmespath.search("max([@, @])", number) == number


def test_expressions_read_numbers_that_keep_their_digits() -> None:
    assert one("s", b'{"v": 2.50}', when="v > `2` && v == `2.5`") == text("2.50")
    assert one("s", b'{"v": 2.50}', when="sum([v, v]) == `5`") == text("2.50")
    assert one("s", b'{"v": 2.50, "w": [1.50, 2.50]}', "jmespath:max(w)") == text("2.50")


def test_a_double_that_may_have_lost_digits_is_refused_in_the_line_protocol() -> None:
    for written in (b"9007199254740993.0", b"1.724442618569203714e18"):
        assert one("l", b"m v=" + written, "fields.v", "influx")[0] is Reason.OUT_OF_RANGE


def test_strict_columns_take_what_they_took() -> None:
    assert one("d", b'{"v": 1.10}', types="strict") == b"1.1"
    assert one("s", b'{"v": 1.10}', types="strict")[0] is Reason.TYPE_MISMATCH
    assert one("s", b"1.10", "value", "scalar", types="strict") == text("1.10")
    assert json.loads(one("d", b'{"v": 1e3}', types="strict")) == 1000
