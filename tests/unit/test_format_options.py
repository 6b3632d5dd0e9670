"""What devices write differently: no value, decimal comma, encodings, JSON that is none, JSON in texts."""

from __future__ import annotations

import json
import time
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.config.routes import RouteSettings
from bridge.mapping import FieldSpec, FormatOptions, Mapper, Route, check
from bridge.mapping.explain import explain
from bridge.mapping.formats import MAX_DEPTH, compile_decoder
from bridge.mapping.formats.substitutions import compile_cell
from bridge.mapping.payload import MAX_PAYLOAD, MAX_ROWS
from bridge.mapping.unmappable import Unmappable
from bridge.message import DeadLetter, MqttMessage
from bridge.reasons import Reason
from bridge.streamql import parse
from bridge.streamql.streams import input_streams
from tests.unit.test_formats import decode, refused

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM s (v string); CREATE STREAM i (v int); CREATE STREAM d (v double); CREATE STREAM b (v bool);
CREATE STREAM l (v long); CREATE STREAM o (v object); CREATE STREAM two (a string, b double);
"""
STREAMS = dict(input_streams(parse(DEFINITION)))


def rows(stream: str, payload: bytes, options: FormatOptions, **route: Any) -> Any:
    """The rows, or the reason of the dead letter."""
    mapper = Mapper(routes=[Route("t", stream, format=options, **route)], streams=STREAMS)
    mapped = mapper.map(MqttMessage("t", payload, 1, False, 1, 0))
    return Reason(mapped.reason) if isinstance(mapped, DeadLetter) else [json.loads(row.payload) for row in mapped]


def values(stream: str, payload: bytes, options: FormatOptions, field: Any = "v", **route: Any) -> Any:
    found = rows(stream, payload, options, fields={"v": field}, **route)
    return found if isinstance(found, Reason) else [row["v"] for row in found]


# --- no value ---------------------------------------------------------------------------------------------

CSV, MISSING = FormatOptions("csv"), Reason.MISSING_FIELD


@pytest.mark.parametrize("cell", ["", "  ", '""', "\t"])
@pytest.mark.parametrize("types", ["lenient", "strict"])
def test_an_empty_cell_is_no_value_for_a_column_that_is_no_string(cell: str, types: Any) -> None:
    payload = f"v,w\n{cell},1\n2,3".encode()

    assert values("d", payload, CSV, FieldSpec("v", default=-1), types=types) == [-1, 2]
    assert values("i", payload, CSV, types=types) is MISSING
    assert values("b", b"v,w\n,1", CSV, FieldSpec("v", default=True)) == [True]
    assert values("d", payload, CSV, FieldSpec("v", scale=0.1, default=-1)) == [-1, 0.2]
    assert values("l", b"v,w\n,1\n1700000000,2", CSV, FieldSpec("v", time="s", default=0)) == [0, 1700000000000]
    assert rows("d", payload, CSV) is MISSING


def test_an_empty_cell_stays_a_text_for_a_string_column() -> None:
    assert values("s", b"v,w\n,1", CSV) == [""]
    assert values("s", b"v,w\n,1", CSV, "{v}-{w}") == ["-1"]
    assert values("s", b"v,w\n,1", CSV, FieldSpec("v", map={"": "none"})) == ["none"]


def test_a_map_that_names_the_empty_cell_maps_it() -> None:
    mapped = {"on": 1, "": 0}

    assert values("i", b"v,w\n,1\non,1", CSV, FieldSpec("v", map=mapped)) == [0, 1]
    assert values("i", b"v,w\n,1", CSV, FieldSpec("v", map={"on": 1, "*": 2}, default=9)) == [9]


def test_an_empty_group_of_a_text_is_no_value_for_a_column_that_is_no_string() -> None:
    options = FormatOptions("text", pattern="v=(?P<v>[0-9.]*) C")

    assert values("d", b"v= C", options, FieldSpec("v", default=-1)) == [-1]
    assert values("d", b"v= C", options) is MISSING
    assert values("s", b"v= C", options) == [""]


@pytest.mark.parametrize("text", ["", " ", "N/A", " N/A ", "nan", "unavailable"])
def test_a_listed_text_is_no_value_in_every_format(text: str) -> None:
    nulls = ("", "N/A", "nan", "unavailable")
    member = {"v": text, "a": [{"v": text}]}
    given_ = {
        "json": json.dumps(member).encode(),
        "jsonl": json.dumps(member).encode(),
        "cbor": cbor2.dumps(member),
        "csv": f'v,w\n"{text}",1'.encode(),
    }

    for name, payload in given_.items():
        options = FormatOptions(name, null_values=nulls)
        assert values("d", payload, options, FieldSpec("v", default=-1)) == [-1], name
        assert values("s", payload, options, FieldSpec("v", map={"*": "x"}, default="-")) == ["-"], name
        assert values("s", payload, options, "{v}") is MISSING, name
        assert values("s", payload, options, "=x", when="v == null") == ["x"], name
    if text.strip():
        scalar = FormatOptions("scalar", null_values=nulls)
        assert values("s", text.encode(), scalar, FieldSpec("value", default="-")) == ["-"]
        assert values("d", text.encode(), scalar, FieldSpec("value", default=-1)) == [-1]


def test_a_scalar_number_can_be_listed() -> None:
    options = FormatOptions("scalar", null_values=("-999",))

    assert values("d", b"-999", options, FieldSpec("value", default=0)) == [0]
    assert values("d", b"-99", options, "value") == [-99]


def test_without_null_values_texts_are_what_they_were() -> None:
    assert values("d", b'{"v": "N/A"}', FormatOptions(), FieldSpec("v", default=-1)) is Reason.TYPE_MISMATCH
    assert values("d", b'{"v": ""}', FormatOptions(), FieldSpec("v", default=-1)) is Reason.TYPE_MISMATCH
    assert values("s", b'{"v": ""}', FormatOptions()) == [""]


# --- NaN --------------------------------------------------------------------------------------------------

CONSTANTS = [
    "NaN",
    "nan",
    "-nan",
    "NAN",
    "nan(ind)",
    "Infinity",
    "-Infinity",
    "inf",
    "-inf",
    "+inf",
    "1.#QNAN",
    "-1.#IND00",
]


@pytest.mark.parametrize("constant", CONSTANTS)
@pytest.mark.parametrize("name", ["json", "jsonl"])
def test_nan_and_infinities_are_null_on_request(constant: str, name: str) -> None:
    payload = f'{{"rssi":-52,"t":{constant},"h":[{constant},50],"s":"nan inf","nan":1}}'.encode()
    expected = {"rssi": -52, "t": None, "h": [None, 50], "s": "nan inf", "nan": 1}

    assert decode(payload, name, nan="null") == (expected if name == "json" else [expected])
    assert refused(payload, name)[0] is Reason.NOT_JSON


@pytest.mark.parametrize("payload", [b'{"t": nano}', b'{"t": banan}', b'{"t": inf1}', b"{nan: 1}", b'{"t": "a\\" nan}'])
def test_what_only_resembles_nan_is_refused(payload: bytes) -> None:
    assert refused(payload, nan="null")[0] is Reason.NOT_JSON


def test_nan_before_and_after_escaped_quotes_is_found_and_text_is_not() -> None:
    assert decode(rb'{"a":"\"nan\\","b":nan,"c":"\\","d":nan}', nan="null") == {
        "a": '"nan\\',
        "b": None,
        "c": "\\",
        "d": None,
    }


# --- NULs and white space at the end ----------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"\0", b"\0\0\0", b"\r\n\0", b"\0\r\n", b" \0 \0"])
def test_nuls_at_the_end_are_skipped(tail: bytes) -> None:
    assert decode(b'{"t": 1}' + tail) == {"t": 1}
    assert decode(b'{"t": 1}\n{"t": 2}' + tail, "jsonl") == [{"t": 1}, {"t": 2}]
    assert decode(b"21.5" + tail, "scalar") == {"value": 21.5}
    assert decode(b"21.5 C" + tail, "text", pattern="(?P<t>.*) C") == {"t": "21.5"}
    assert decode(b"a,b\n1,2" + tail, "csv") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("name", ["json", "jsonl", "scalar", "csv", "influx"])
def test_only_nuls_are_an_empty_payload(name: str) -> None:
    assert refused(b"\0\0", name)[0] is Reason.EMPTY


def test_nuls_elsewhere_are_refused_or_kept() -> None:
    assert refused(b'{"t": \x00 1}')[0] is Reason.NOT_JSON
    assert decode(b"a\0b", "scalar") == {"value": "a\0b"}


# --- decimal comma ----------------------------------------------------------------------------------------

COMMA: dict[str, Any] = {"decimal": ","}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("35,4", 35.4),
        ("-0,5", -0.5),
        ("+1,5e-3", 0.0015),
        ("1.234,5", 1234.5),
        ("1.234.567", 1234567),
        ("1 234,5", 1234.5),
        ("1\u202f234,5", 1234.5),
        ("1'234,5", 1234.5),
        (" 7 ", 7),
        (",5", 0.5),
        ("5,", 5),
        ("21.5", Reason.TYPE_MISMATCH),
        ("1.23,4", Reason.TYPE_MISMATCH),
        ("1.234'567,8", Reason.TYPE_MISMATCH),
        ("1,2,3", Reason.TYPE_MISMATCH),
        (",", Reason.TYPE_MISMATCH),
        ("warm", Reason.TYPE_MISMATCH),
        ("E0", Reason.TYPE_MISMATCH),
    ],
)
def test_a_decimal_comma_is_read_in_texts_of_every_format(text: str, number: Any) -> None:
    def expected(found: Any) -> Any:
        return found if isinstance(found, Reason) else found[0]

    assert expected(values("d", json.dumps({"v": text}).encode(), FormatOptions(**COMMA))) == number
    assert expected(values("d", f"v;w\n{text};1".encode(), FormatOptions("csv", delimiter=";", **COMMA))) == number
    assert expected(values("d", f"v={text}".encode(), FormatOptions("text", pattern="v=(?P<v>.*)", **COMMA))) == number
    assert expected(values("d", text.encode(), FormatOptions("scalar", **COMMA), "value")) == number


def test_a_decimal_comma_changes_neither_string_columns_nor_numbers_of_json() -> None:
    options = FormatOptions(**COMMA)

    assert values("s", b'{"v": "1.234,5"}', options) == ["1.234,5"]
    assert values("d", b'{"v": 21.5}', options) == [21.5]
    assert values("d", b'{"v": "35,4"}', options, types="strict") is Reason.TYPE_MISMATCH
    assert values("d", b'{"v": "35,4"}', options, FieldSpec("v", scale=10)) == [354]
    assert values("i", b'{"v": "1.234"}', options) == [1234]
    assert values("d", b'{"v": "a,b"}', options, FieldSpec("v", map={"a,b": 2})) == [2]
    assert values("d", b'{"v": ""}', options, FieldSpec("v", map={"a,b": 2}, default=1)) is Reason.TYPE_MISMATCH


def test_a_condition_reads_a_decimal_comma_as_columns_do() -> None:
    for name, payload in (("json", b'{"v": "35,4"}'), ("csv", b"v;w\n35,4;1")):
        options = FormatOptions(name, delimiter=";" if name == "csv" else ",", **COMMA)
        assert values("d", payload, options, when="v > `35`") == [35.4]
        assert values("d", payload, options, when="v > `36`") == []


def test_without_the_option_a_comma_is_no_decimal_separator() -> None:
    assert values("d", b'{"v": "35,4"}', FormatOptions()) is Reason.TYPE_MISMATCH


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_any_number_with_a_decimal_comma_is_read(digits: int, places: int) -> None:
    number = digits / 10**places
    grouped = f"{number:,.{places}f}"
    swapped = grouped.translate(str.maketrans(",.", ".,"))
    cell = compile_cell(FormatOptions(**COMMA))

    assert cell is not None
    assert float(cell(swapped) or "") == float(f"{number:.{places}f}")


@given(st.text("0123456789.,-+eE '\u00a0x", max_size=30))
def test_any_text_is_a_number_with_a_comma_or_left_or_refused(text: str) -> None:
    cell = compile_cell(FormatOptions(**COMMA))
    assert cell is not None
    try:
        found = cell(text)
    except Unmappable:
        assert "." in text
        return
    assert found == text or isinstance(float(found or ""), float)


# --- delimiters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", ["\t", ";", "|", " ", ":", "#"])
def test_csv_may_have_any_delimiter(delimiter: str) -> None:
    payload = f"a{delimiter}b\nx{delimiter}1.5".encode()

    assert rows("two", payload, FormatOptions("csv", delimiter=delimiter)) == [{"a": "x", "b": 1.5}]


@pytest.mark.parametrize("written", ["\t", "tab"])
def test_a_tab_is_written_as_it_is_or_by_its_name(written: str) -> None:
    assert RouteSettings(topic="t", stream="s", delimiter=written).delimiter == "\t"


@pytest.mark.parametrize(("written", "name"), [("Latin1", "latin-1"), ("ISO-8859-1", "latin-1"), ("UTF8", "utf-8")])
def test_encodings_may_have_their_usual_names(written: str, name: str) -> None:
    assert RouteSettings.model_validate({"topic": "t", "stream": "s", "encoding": written}).encoding == name


# --- encodings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize("name", ["json", "jsonl", "scalar", "text", "csv", "influx"])
def test_texts_may_have_another_encoding(encoding: str, name: str) -> None:
    text = {
        "json": '{"v": "Küche"}',
        "jsonl": '{"v": "Küche"}',
        "csv": "v,w\nKüche,1",
        "influx": 'm,t=Küche v="Küche"',
    }.get(name, "Küche")
    pattern = "(?P<v>.*)" if name == "text" else None

    found = decode(text.encode(encoding), name, encoding=encoding, pattern=pattern)

    assert found == decode(text.encode(), name, pattern=pattern)


def test_utf_16_is_read_by_its_byte_order_mark_else_as_little_endian() -> None:
    text = '{"v": "€"}'

    for encoded in (
        b"\xff\xfe" + text.encode("utf-16-le"),
        b"\xfe\xff" + text.encode("utf-16-be"),
        text.encode("utf-16-le"),
    ):
        assert decode(encoded, encoding="utf-16") == {"v": "€"}
    assert decode("21.5\0\0".encode("utf-16-le"), "scalar", encoding="utf-16") == {"value": 21.5}
    assert refused(b"\xff\xfe", encoding="utf-16")[0] is Reason.EMPTY


@pytest.mark.parametrize(("payload", "encoding"), [(b"a", "utf-16"), (b"\x00\xd8", "utf-16-le"), (b"\x81", "cp1252")])
def test_a_payload_in_another_encoding_is_undecodable(payload: bytes, encoding: str) -> None:
    reason, text = refused(payload, "scalar", encoding=encoding)

    assert (reason, f"is not {encoding}" in text) == (Reason.UNDECODABLE, True)


def test_the_bound_is_also_for_the_payload_as_utf_8() -> None:
    assert decode(b'"' + b"\xfc" * 49 + b'"', encoding="latin-1", max_payload=100) == "ü" * 49
    assert refused(b'"' + b"\xfc" * 50 + b'"', encoding="latin-1", max_payload=100)[0] is Reason.TOO_LARGE


# --- JSON Lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b'{"t":1}\n{"t":2}',
        b'{"t":1}\r\n\r\n{"t":2}\r\n',
        b'{"t":1}{"t":2}',
        b' {"t":\n1} {"t":2} ',
        b'\x1e{"t":1}\n\x1e{"t":2}\n',
        b'\xef\xbb\xbf{"t":1}\n{"t":2}',
    ],
)
def test_json_lines_and_joined_objects_are_a_row_each(payload: bytes) -> None:
    assert decode(payload, "jsonl") == [{"t": 1}, {"t": 2}]
    assert values("i", payload, FormatOptions("jsonl"), "t") == [1, 2]
    assert refused(payload)[0] is Reason.NOT_JSON


def test_json_lines_with_each_and_when() -> None:
    payload = b'{"r":[{"v":1},{"v":2}]}\n{"r":[{"v":3}]}'

    assert values("i", payload, FormatOptions("jsonl"), each="jmespath:[].r[]", when="v > `1`") == [2, 3]
    assert values("s", b'{"v":1.10}\n{"v":2}', FormatOptions("jsonl")) == ["1.10", "2"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"t":1}\n{"t":', Reason.NOT_JSON),
        (b'{"t":1},{"t":2}', Reason.NOT_JSON),
        (b'{"t":1}\nx', Reason.NOT_JSON),
        (b" \n ", Reason.EMPTY),
        (b"{}" * (MAX_ROWS + 1), Reason.TOO_LARGE),
        (b"1\n" * (MAX_PAYLOAD // 2), Reason.TOO_LARGE),
        (b"{}\n" + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
    ],
)
def test_invalid_json_lines_are_refused(payload: bytes, reason: Reason) -> None:
    assert refused(payload, "jsonl")[0] is reason


def test_json_lines_may_have_as_many_values_as_rows_are_allowed() -> None:
    assert len(decode(b"{}" * MAX_ROWS, "jsonl")) == MAX_ROWS


# --- JSON in texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "paths", "expected"),
    [
        ({"p": '{"t":21.5}'}, ("p",), {"p": {"t": 21.5}}),
        ({"a": {"p": '{"t":1}'}}, ("a.p",), {"a": {"p": {"t": 1}}}),
        ('{"t":1}', ("$root",), {"t": 1}),
        ('["{\\"t\\":1}"]', ("$root", "$root"), [{"t": 1}]),
        ({"p": '{"q":"[1]"}'}, ("p", "p.q"), {"p": {"q": [1]}}),
        ([{"p": "[1]"}, {"p": "2"}, {"p": 3}, {}, 4], ("p",), [{"p": [1]}, {"p": 2}, {"p": 3}, {}, 4]),
        ({"p": ["1", "{}"]}, ("p",), {"p": [1, {}]}),
        ({"p": {"t": 1}}, ("p",), {"p": {"t": 1}}),
        ({"p": " "}, ("p",), {"p": None}),
        ({"p": 1}, ("p.q",), {"p": 1}),
        ({}, ("p",), {}),
        ({"a.b": "1"}, ('"a.b"',), {"a.b": 1}),
    ],
)
@pytest.mark.parametrize("name", ["json", "cbor"])
def test_json_in_a_text_becomes_its_value(value: Any, paths: tuple[str, ...], expected: Any, name: str) -> None:
    payload = json.dumps(value).encode() if name == "json" else cbor2.dumps(value)

    assert decode(payload, name, embedded_json=paths) == expected


def test_json_in_a_cell_and_in_a_group_becomes_its_value() -> None:
    assert decode(b'v;w\n{"t":1};x', "csv", delimiter=";", embedded_json=("v",)) == [{"v": {"t": 1}, "w": "x"}]
    assert decode(b'DATA {"t":1}', "text", pattern="DATA (?P<v>.*)", embedded_json=("v",)) == {"v": {"t": 1}}


def test_json_in_a_text_is_there_for_each_when_and_fields_with_its_digits() -> None:
    payload = json.dumps({"p": '{"r":[{"v":1.10},{"v":NaN}]}'}).encode()
    options = FormatOptions(embedded_json=("p",), nan="null", null_values=("x",))

    assert values("s", payload, options, each="p.r", when="v != null") == ["1.10"]


def test_a_text_that_is_not_json_is_refused_with_its_path() -> None:
    reason, text = refused(b'{"p": "{\'t\': 1}"}', embedded_json=("p",))

    assert reason is Reason.NOT_JSON
    assert text.startswith("embedded_json p: \"{'t': 1}\": the payload is not JSON")


def test_values_and_json_in_texts_may_nest_together_up_to_the_bound() -> None:
    def nested(inner: int) -> bytes:
        return json.dumps({"p": "[" * inner + "]" * inner}).encode()

    assert decode(nested(MAX_DEPTH - 1), embedded_json=("p",))
    assert refused(nested(MAX_DEPTH), embedded_json=("p",)) == (
        Reason.NOT_JSON,
        "the payload nests deeper than 100 levels",
    )


# --- check, explain, bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "setting", "said"),
    [
        (FormatOptions("cbor", encoding="latin-1"), "encoding", "encoding is only for the formats json, jsonl"),
        (FormatOptions("csv", nan="null"), "nan", "nan is only for the formats json, jsonl"),
        (FormatOptions("msgpack", decimal=","), "decimal", "decimal is only for the formats"),
        (FormatOptions("raw", null_values=("",)), "null_values", "null_values is only for the formats"),
        (FormatOptions("sparkplug", embedded_json=("a",)), "embedded_json", "embedded_json is only for the formats"),
        (FormatOptions(embedded_json=("a..b",)), "embedded_json", "is not a path"),
        (FormatOptions(encoding="klingon"), "encoding", "unknown encoding"),
    ],
)
def test_options_that_a_format_does_not_have_are_refused_by_name(
    options: FormatOptions, setting: str, said: str
) -> None:
    topic = "spBv1.0/#" if options.name == "sparkplug" else "t"
    problems = check([Route(topic, "s", {"v": "=x"}, format=options)], STREAMS)

    assert [(problem.location[-1], said in problem.text) for problem in problems] == [(setting, True)]


def test_explain_names_the_options() -> None:
    options = FormatOptions(
        "json", nan="null", decimal=",", null_values=("",), encoding="latin-1", embedded_json=("a",)
    )
    mapper = Mapper(routes=[Route("t", "s", format=options)], streams=STREAMS)
    message = MqttMessage("t", b'{"v": "x"}', 1, False, 1, 0)

    steps = [step.text for step in explain(message, [Route("t", "s", format=options)], mapper, mapper.map(message))]

    said = "decoded as json, encoding 'latin-1', nan 'null', decimal ',', null_values [''], embedded_json ['a']: "
    assert any(step.startswith(said) for step in steps), steps


@pytest.mark.parametrize(
    "unit", [b'"', b'\\"', b"nan", b'"nan', b"-0", b"[nan,", b'{"a":', b'"\\', b"1", b"1.#", b"\x1e", b"nan("]
)
@pytest.mark.parametrize("name", ["json", "jsonl"])
def test_the_same_bytes_over_and_over_take_little_time(unit: bytes, name: str) -> None:
    payload = (b"[" + unit * MAX_PAYLOAD)[:MAX_PAYLOAD]
    decoder = compile_decoder(FormatOptions(name, nan="null", embedded_json=("$root", "a")), keep_digits=True)
    started = time.process_time()

    with pytest.raises(Unmappable):
        decoder(payload)

    assert time.process_time() - started < 5  # 0.7 in the worst case, twice that with coverage; its square: minutes


JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a"\\nif-0.é', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('nai"', max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_TEXT, st.sampled_from(CONSTANTS))
@example({"n": ['"', "\\"]}, "nan")
def test_options_leave_json_as_it_is_and_constants_are_null(value: Any, constant: str) -> None:
    text = json.dumps([value, "@"]).replace('"@"', constant)

    assert decode(text.encode(), nan="null") == [value, None]
    assert decode(f"{json.dumps(value)}\n{constant}".encode(), "jsonl", nan="null") == [value, None]
    assert decode(json.dumps(json.dumps({"v": value})).encode(), embedded_json=("$root",)) == {"v": value}


@pytest.mark.parametrize("when", ["v > `20`", "v == `21.5`", "max([v, '9']) == v", "v != `21`"])
def test_a_condition_reads_numbers_alike_in_texts_of_json_cells_groups_and_scalars(when: str) -> None:
    for name, payload in (("json", b'{"v": "21.5"}'), ("csv", b"v,w\n21.5,1"), ("text", b"v=21.5"), ("cbor", b"")):
        options = FormatOptions(name, pattern="v=(?P<v>.*)" if name == "text" else None)
        payload = payload or cbor2.dumps({"v": "21.5"})
        assert values("d", payload, options, when=when) == [21.5], name
        assert values("d", payload.replace(b"21.5", b"12.5"), options, when="v > `20`") == [], name
