from __future__ import annotations

import base64
import contextlib
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import cbor2
import msgspec
import pytest
import zstandard

from bridge.mapping.formats import COMPRESSIONS, FORMATS, MAX_DEPTH, FormatOptions, MissingExtra, compile_decoder
from bridge.mapping.payload import MAX_PAYLOAD, MAX_ROWS
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason
from tests.conftest import uninstall

TEMPERATURE = r"(?P<t>-?\d+(?:\.\d+)?) ?(?P<unit>[CF])?"


def decode(payload: bytes, name: str = "json", **options: Any) -> Any:
    return compile_decoder(FormatOptions(name, **options))(payload)


def refused(payload: bytes, name: str = "json", **options: Any) -> tuple[Reason, str]:
    with pytest.raises(Unmappable) as raised:
        decode(payload, name, **options)
    return raised.value.reason, str(raised.value)


# --- all formats ------------------------------------------------------------------------------------------


def options_of(name: str, **more: Any) -> FormatOptions:
    return FormatOptions(name, pattern="(?P<x>.*)" if name == "text" else None, **more)


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_payload_has_the_reason_empty(name: str) -> None:
    with pytest.raises(Unmappable) as raised:
        compile_decoder(options_of(name))(b"")

    assert raised.value.reason is Reason.EMPTY


@pytest.mark.parametrize("name", FORMATS)
def test_a_payload_over_the_bound_is_not_decoded(name: str) -> None:
    with pytest.raises(Unmappable) as raised:
        compile_decoder(options_of(name, max_payload=10))(b"x" * 11)

    assert raised.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("name", ["scalar", "text", "csv", "influx"])
@pytest.mark.parametrize(("payload", "reason"), [(b" \r\n", Reason.EMPTY), (b"a\xff", Reason.UNDECODABLE)])
def test_texts_are_utf_8_and_not_blank(name: str, payload: bytes, reason: Reason) -> None:
    with pytest.raises(Unmappable) as raised:
        compile_decoder(options_of(name))(payload)

    assert raised.value.reason is reason


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (FormatOptions("xml"), "unknown format 'xml'; there are: json, scalar"),
        (FormatOptions(compression="lzma"), "unknown compression 'lzma'; there are: none, gzip"),
        (FormatOptions("text"), "needs a pattern"),
        (FormatOptions("text", pattern="[0-9]+"), "has no named group"),
        (FormatOptions("text", pattern="(?P<x>"), "missing )"),
        (FormatOptions("text", pattern=r"(?P<x>a)\1"), "invalid escape sequence"),
        (FormatOptions("text", pattern="(?P<x>\ud800)"), "is not a valid pattern"),
        (FormatOptions("text", pattern=r"(?P<x>\pL{0,1000})"), "pattern too large"),
        (FormatOptions("text", pattern="(?P<x>a)" + "b" * 1000), "1008 characters"),
        (FormatOptions("json", pattern="(?P<x>a)"), "pattern is only for format"),
        (FormatOptions("json", columns=("a",)), "columns is only for format"),
        (FormatOptions("csv", delimiter=";;"), "one character"),
        (FormatOptions("csv", delimiter='"'), "one character"),
        (FormatOptions("csv", columns=("a", "a")), "'a' is used twice"),
        (FormatOptions("csv", columns=("a", "")), "has no name"),
    ],
)
def test_invalid_options_are_refused_before_the_first_message(options: FormatOptions, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        compile_decoder(options)

    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("options", "module"),
    [
        (FormatOptions("text", pattern="(?P<x>a)"), "re2"),
        (FormatOptions("influx"), "line_protocol_parser"),
        (FormatOptions(compression="zstd"), "zstandard"),
        (FormatOptions(compression="auto"), "zstandard"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_installs_it(
    options: FormatOptions, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall(module, monkeypatch)

    with pytest.raises(MissingExtra, match=rf"{module}.*install the extra `formats`"):
        compile_decoder(options)


# --- json -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"NaN", b'{"a": Infinity}', b"{'a': 1}", b'{"a": 1', b'"\xff"', b"[" * 10_000])
def test_invalid_json_is_refused(payload: bytes) -> None:
    assert refused(payload)[0] is Reason.NOT_JSON


def test_a_byte_order_mark_before_json_is_skipped() -> None:
    assert decode(b"\xef\xbb\xbf1") == 1
    assert refused(b"\xef\xbb\xbf ")[0] is Reason.EMPTY


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_may_nest_up_to_the_bound(opening: bytes, closing: bytes) -> None:
    def nested(levels: int) -> bytes:
        return opening * levels + b"1" + closing * levels

    assert json.loads(nested(MAX_DEPTH)) == decode(nested(MAX_DEPTH))
    assert refused(nested(MAX_DEPTH + 1)) == (Reason.NOT_JSON, "the payload nests deeper than 100 levels")


def test_many_brackets_side_by_side_are_not_nesting() -> None:
    assert decode(b"[" + b"[1]," * 500 + b"{}]") == [[1]] * 500 + [{}]


# --- scalar -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ("21.5", 21.5),
        (" -7\r\n", -7),
        ("\ufeff0", 0),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        ("true", True),
        ("FALSE", False),
        ("21,5", "21,5"),
        ("007", "007"),
        ("+1", "+1"),
        ("1_000", "1_000"),
        (".5", ".5"),
        ("٣", "٣"),  # a digit, but not JSON's
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", "18446744073709551616"),
        ("on", "on"),
        ("truethy", "truethy"),
        ("door open", "door open"),
        ("1" * 101, "1" * 101),
    ],
)
def test_a_scalar_is_a_number_as_json_writes_it_a_boolean_or_text(payload: str, value: Any) -> None:
    decoded = decode(payload.encode(), "scalar")

    assert {"value": value} == decoded
    assert type(value) is type(decoded["value"])


# --- text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "members"),
    [("21.5 C", {"t": "21.5", "unit": "C"}), (" -3\n", {"t": "-3", "unit": None})],
)
def test_named_groups_become_members_and_null_without_a_match(payload: str, members: Any) -> None:
    assert members == decode(payload.encode(), "text", pattern=TEMPERATURE)


def test_groups_can_hold_other_characters_than_ascii() -> None:
    assert decode("zimmer grün é".encode(), "text", pattern=r"\w+ (?P<Größe>\pL+) (?P<b>.)") == {
        "Größe": "grün",
        "b": "é",
    }


def test_the_whole_text_must_match() -> None:
    assert refused(b"it has 21.5 C", "text", pattern=TEMPERATURE) == (
        Reason.UNDECODABLE,
        "the text 'it has 21.5 C' doesn't match the pattern",
    )


def test_a_text_over_8_kib_is_not_matched() -> None:
    assert decode(b"x" * 8192, "text", pattern="(?P<x>x*)") == {"x": "x" * 8192}
    assert refused(b"x" * 8193, "text", pattern="(?P<x>x*)")[0] is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "pattern",
    [
        "(?P<x>(a+)+)$",
        "(?P<x>(a|aa)+)$",
        "(?P<x>(.*)(.*)(.*)(.*)(.*)(.*)(.*))$b",
        "(?P<x>(?:a?){1000}a*)",
        "(?P<x>(a{0,100}){0,9})*b",
    ],
)
@pytest.mark.parametrize("tail", ["", "!", "é"])
def test_no_pattern_is_slow_for_any_text(pattern: str, tail: str) -> None:
    """Python's own engine takes (a+)+$ years for 64 characters."""
    payload = ("a" * 8190 + tail).encode()
    match = compile_decoder(FormatOptions("text", pattern=pattern))
    started = time.process_time()

    for _ in range(5):
        with contextlib.suppress(Unmappable):
            match(payload)

    assert time.process_time() - started < 2


# --- csv --------------------------------------------------------------------------------------------------


def test_csv_cells_may_be_quoted_empty_or_hold_line_breaks() -> None:
    payload = b'\xef\xbb\xbfa, b\r\n"x, ""y""\nz",\r\n\r\n 1 ,2\r\n'

    assert decode(payload, "csv") == [{"a": 'x, "y"\nz', "b": ""}, {"a": " 1 ", "b": "2"}]


def test_the_delimiter_may_be_a_tab_and_cells_at_the_ends_empty() -> None:
    assert decode(b"\t1\t", "csv", delimiter="\t", columns=("a", "b", "c")) == [{"a": "", "b": "1", "c": ""}]


@pytest.mark.parametrize(
    ("payload", "reason", "said"),
    [
        (b"a,b\n1,2\n3", Reason.UNDECODABLE, "line 3 has 1 cells for 2 column names"),
        (b"a,b\n1,2,3", Reason.UNDECODABLE, "line 2 has 3 cells for 2 column names"),
        (b"a,a\n1,2", Reason.UNDECODABLE, "the name 'a' is used twice"),
        (b"a,\n1,2", Reason.UNDECODABLE, "a column has no name"),
        (b'a\n"1', Reason.UNDECODABLE, "line 2: unexpected end of data"),
        (b'a\n"1"2', Reason.UNDECODABLE, "line 2: ',' expected after '\"'"),
        (b"a\n" + b"x" * 140_000, Reason.UNDECODABLE, "line 2: field larger than field limit"),
        (b"a,b\n", Reason.EMPTY, "the payload has only the line of column names"),
        (b"a\n" + b"1\n" * (MAX_ROWS + 1), Reason.TOO_LARGE, "more than 10000 lines"),
    ],
)
def test_invalid_csv_is_refused_with_the_line(payload: bytes, reason: Reason, said: str) -> None:
    found, text = refused(payload, "csv")

    assert (reason, True) == (found, said in text), text


def test_csv_may_have_as_many_lines_as_rows_are_allowed() -> None:
    assert len(decode(b"a\n" + b"1\n" * MAX_ROWS, "csv")) == MAX_ROWS


# --- influx -----------------------------------------------------------------------------------------------


def point(measurement: str, fields: dict[str, Any], time: int | None = None, **tags: str) -> dict[str, Any]:
    return {"measurement": measurement, "tags": tags, "fields": fields, "time": time}


def test_each_point_of_the_line_protocol_is_an_object() -> None:
    payload = (
        b'# made up ="\nm,t=a f=1 5\r\n\r\n\n  m\\ 2 i=-7i,u=18446744073709551615u,b=t,s="x, y"\r\nm s="\xc3\xa9"\r\n'
    )

    assert decode(payload, "influx") == [
        point("m", {"f": 1.0}, 5, t="a"),
        point("m 2", {"i": -7, "u": 2**64 - 1, "b": True, "s": "x, y"}),
        point("m", {"s": "é"}),
    ]


def test_a_text_of_the_line_protocol_may_hold_line_breaks_and_quotes() -> None:
    payload = b'm,q=a" f="1\n2 \\"3\\"\n",g=1\nm f="a\\\\"\nm f=1'

    assert decode(payload, "influx") == [
        point("m", {"f": '1\n2 "3"\n', "g": 1.0}, q='a"'),
        point("m", {"f": "a\\"}),
        point("m", {"f": 1.0}),
    ]


@pytest.mark.parametrize(
    ("payload", "reason", "said"),
    [
        (b"m f=1\n\nm f=\n", Reason.UNDECODABLE, "line 3 is not line protocol"),
        (b'm f=1\nm f="a\nm f=2', Reason.UNDECODABLE, "line 2 is not line protocol"),
        (b"m f=1 99999999999999999999", Reason.UNDECODABLE, "timestamp"),
        (b"m f=99999999999999999999i", Reason.UNDECODABLE, "type of field value"),
        (b"m f=nan", Reason.UNDECODABLE, "type of field value"),
        (b"m\0 f=1", Reason.UNDECODABLE, "NUL"),
        (b"# nothing\n\n", Reason.EMPTY, "only comments"),
        (b"m f=1\n" * (MAX_ROWS + 1), Reason.TOO_LARGE, "more than 10000 points"),
    ],
)
def test_invalid_line_protocol_is_refused_with_the_line(payload: bytes, reason: Reason, said: str) -> None:
    found, text = refused(payload, "influx")

    assert (reason, True) == (found, said in text), text


@pytest.mark.parametrize("start", ["m,", " \t m,", "m\\ ,", "m\\\\ ,", '"m,'])
def test_thousands_of_tags_are_refused_at_once(start: str) -> None:
    """The parser takes quadratic time: these 90,000 took 8 s."""
    payload = (start + ",".join(f"t{n}=1" for n in range(70_000)) + " f=1").encode()[:MAX_PAYLOAD]
    started = time.process_time()

    assert refused(payload, "influx")[0] is Reason.UNDECODABLE
    assert time.process_time() - started < 0.5


# --- msgpack and cbor -------------------------------------------------------------------------------------


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


BINARY: dict[str, Callable[[Any], bytes]] = {"msgpack": packed, "cbor": cbor2.dumps}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, -1, 1.5, True, None, "é"]}, {"a": [1, -1, 1.5, True, None, "é"]}),
        ({1: {-2: "x"}}, {"1": {"-2": "x"}}),
        ({"b": b"\x00\xff"}, {"b": base64.b64encode(b"\x00\xff").decode()}),
        ([float("nan"), float("inf"), float("-inf")], [None, None, None]),
        ([2**64 - 1, -(2**63)], [2**64 - 1, -(2**63)]),
        ({str(n): n for n in range(300)}, {str(n): n for n in range(300)}),
        (list(range(70_000)), list(range(70_000))),
        ("x" * 70_000, "x" * 70_000),
    ],
)
def test_binary_formats_give_json_values(name: str, value: Any, expected: Any) -> None:
    assert expected == decode(BINARY[name](value), name)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("wrong", [b"\xc1\xff", packed(1) * 2, b"\x82\x61a", b"\xde\xff", b"\x9f\x1c"])
def test_invalid_payloads_of_binary_formats_are_refused(name: str, wrong: bytes) -> None:
    assert refused(wrong, name)[0] is Reason.UNDECODABLE


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("key", [b"a", 1.5, None, True, (1, 2)])
def test_keys_other_than_text_and_whole_numbers_are_refused(name: str, key: Any) -> None:
    assert refused(BINARY[name]({key: 1}), name)[0] is Reason.UNDECODABLE


@pytest.mark.parametrize(
    ("name", "opening"), [("msgpack", b"\x91"), ("msgpack", b"\x81\xa1a"), ("cbor", b"\x81"), ("cbor", b"\xa1\x61a")]
)
def test_binary_formats_may_nest_up_to_the_bound(name: str, opening: bytes) -> None:
    assert decode(opening * MAX_DEPTH + b"\x01", name)
    for levels in (MAX_DEPTH + 1, 100_000):
        assert refused(opening * levels + b"\x01", name)[0] is Reason.UNDECODABLE


def colliding(array: int, minus_one: int) -> bytes:
    """16,000 pairs of a key and 0; the keys are arrays of -1 and -2, whose tuples have equal hashes."""
    return b"".join(
        bytes([array + 14, *(minus_one ^ (number >> bit & 1) for bit in range(14)), 0]) for number in range(16_000)
    )


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("msgpack", b"\xde" + (16_000).to_bytes(2) + colliding(0x90, 0xFF)),
        ("cbor", b"\xb9" + (16_000).to_bytes(2) + colliding(0x80, 0x20)),
        ("msgpack", b"\x91\xde" + (16_000).to_bytes(2) + colliding(0x90, 0xFF)),
    ],
)
def test_keys_with_equal_hashes_take_no_time(name: str, payload: bytes) -> None:
    started = time.process_time()

    assert refused(payload, name)[0] is Reason.UNDECODABLE
    assert time.process_time() - started < 0.5


def test_a_msgpack_timestamp_is_iso_8601_and_other_extension_types_are_refused() -> None:
    moment = datetime(2026, 11, 25, 1, 2, 3, 4000, UTC)

    assert decode(packed([moment]), "msgpack") == ["2026-11-25T01:02:03.004000+00:00"]
    assert refused(packed(msgspec.msgpack.Ext(5, b"abc")), "msgpack")[0] is Reason.UNDECODABLE
    assert refused(b"\xc7\x0c\xff" + b"\xff" * 12, "msgpack")[0] is Reason.UNDECODABLE


@pytest.mark.parametrize(
    ("hexadecimal", "value"),
    [
        # RFC 8949, appendix A
        ("1bffffffffffffffff", 2**64 - 1),
        ("3bffffffffffffffff", "-18446744073709551616"),
        ("3b8000000000000000", "-9223372036854775809"),
        ("c249010000000000000000", "18446744073709551616"),
        ("c349010000000000000000", "-18446744073709551617"),
        ("c24103", 3),
        ("f93c00", 1.0),
        ("f97bff", 65504.0),
        ("fa7f7fffff", 3.4028234663852886e38),
        ("fb7ff0000000000000", None),
        ("f7", None),
        ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
        ("c11a514b67b0", 1363896240),
        ("c1fb41d452d9ec200000", 1363896240.5),
        ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", "http://www.example.com"),
        ("5f42010243030405ff", "AQIDBAU="),
        ("7f657374726561646d696e67ff", "streaming"),
        ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
        ("bf6346756ef563416d7421ff", {"Fun": True, "Amt": -2}),
        ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
        # RFC 8949, 3.4.4
        ("c48221196ab3", 273.15),
        ("d8255010101010101010101010101010101010", "10101010-1010-1010-1010-101010101010"),
        ("d9d9f7a10102", {"1": 2}),
        # RFC 8428, 6: SenML by labels
        ("81a200617402fb4035800000000000", [{"0": "t", "2": 21.5}]),
    ],
)
def test_cbor_examples_of_the_specification(hexadecimal: str, value: Any) -> None:
    decoded = decode(bytes.fromhex(hexadecimal), "cbor")

    assert value == decoded
    assert type(value) is type(decoded)


@pytest.mark.parametrize(
    ("hexadecimal", "said"),
    [
        ("d81c81d81d00", "a shared reference (tag 29)"),
        ("d9010082d8190001", "a string reference (tag 25)"),
        ("c482f403", "a decimal fraction"),  # the exponent is false
        ("c48200632d2d35", "a decimal fraction"),  # the mantissa is the text "--5"
        ("c482201a", "it ends inside a data item"),
        ("c4820161" + "61", "a decimal fraction"),
        ("c401", "a decimal fraction"),
        ("c201", "tag 2 has no byte string"),
        ("c25881" + "ff" * 129, "a number has 129 bytes"),
        ("d8254101", "a UUID has 1 bytes"),
        ("ff", "break (31)"),
        ("f820", "simple value"),
        ("e0", "simple value"),
        ("1f", "additional information 31"),
        ("1c", "additional information 28"),
        ("5f6161ff", "a chunk has another type"),
        ("7f7f6161ffff", "a chunk has another type"),
        ("61ff", "not UTF-8"),
        ("bf6161ff", "break (31)"),
        ("9bffffffffffffffff", "it ends inside a data item"),
        ("5bffffffffffffffff", "it ends inside a data item"),
        ("bbffffffffffffffff", "it ends inside a data item"),
        ("9f", "it ends inside a data item"),
        ("0000", "1 bytes follow"),
    ],
)
def test_cbor_that_is_invalid_or_has_references_is_refused(hexadecimal: str, said: str) -> None:
    reason, text = refused(bytes.fromhex(hexadecimal), "cbor")

    assert (reason, said in text) == (Reason.UNDECODABLE, True), text


# --- compression ------------------------------------------------------------------------------------------

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zstd": zstandard.compress,
}
TEXT = b'{"temperature": 21.5}'


def test_every_compression_is_tested() -> None:
    assert {"none", "auto", *COMPRESS} == set(COMPRESSIONS)


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("asked", ["itself", "auto"])
def test_compressed_payloads_are_decompressed(name: str, asked: str) -> None:
    compression = name if asked == "itself" else asked

    assert decode(COMPRESS[name](TEXT), compression=compression) == {"temperature": 21.5}


@pytest.mark.parametrize("payload", [TEXT, b"x^ f=1"])
def test_auto_leaves_uncompressed_payloads_unchanged(payload: bytes) -> None:
    assert decode(payload, "raw", compression="auto") == {"payload": base64.b64encode(payload).decode()}


@pytest.mark.parametrize("name", COMPRESS)
def test_compressed_emptiness_is_an_empty_payload(name: str) -> None:
    assert refused(COMPRESS[name](b""), compression=name)[0] is Reason.EMPTY


@pytest.mark.parametrize("name", COMPRESS)
def test_truncated_damaged_continued_or_uncompressed_payloads_are_refused(name: str) -> None:
    whole = COMPRESS[name](TEXT)

    for wrong in (whole[:-1], whole[:5], whole + b"x", b"\0" + whole, TEXT, whole + bytes(3)):
        assert refused(wrong, compression=name)[0] is Reason.UNDECODABLE


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_several_members_are_one_payload(name: str) -> None:
    compress = COMPRESS[name]

    assert decode(compress(TEXT[:5]) + compress(b"") + compress(TEXT[5:]), compression=name) == {"temperature": 21.5}
    assert refused(compress(b"") * 65, compression=name)[0] is Reason.UNDECODABLE


@pytest.mark.parametrize("name", COMPRESS)
def test_a_payload_may_decompress_to_exactly_the_bound(name: str) -> None:
    compress = COMPRESS[name]

    assert decode(compress(b" " * 999 + b"1"), compression=name, max_payload=1000) == 1
    assert refused(compress(b" " * 1000 + b"1"), compression=name, max_payload=1000)[0] is Reason.TOO_LARGE


def test_the_bound_is_for_all_members_together() -> None:
    assert refused(gzip.compress(b" " * 600) * 2, compression="gzip", max_payload=1000)[0] is Reason.TOO_LARGE


@pytest.mark.long
@pytest.mark.parametrize("name", COMPRESS)
def test_a_zip_bomb_takes_neither_time_nor_memory(name: str) -> None:
    bomb = COMPRESS[name](bytes(200_000_000))[:MAX_PAYLOAD]
    tracemalloc.start()
    started = time.process_time()
    try:
        assert refused(bomb, compression=name)[0] is Reason.TOO_LARGE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert time.process_time() - started < 0.5
    assert peak < 8_000_000


def test_a_zstd_frame_that_asks_for_a_large_window_is_refused() -> None:
    # RFC 8878, 3.1.1.1: descriptor 0, window descriptor by exponent, then a last raw block of one byte.
    def frame(exponent: int) -> bytes:
        return b"\x28\xb5\x2f\xfd\x00" + bytes([exponent - 10 << 3]) + b"\x09\x00\x001"

    assert decode(frame(23), compression="zstd") == 1
    assert refused(frame(24), compression="zstd")[0] is Reason.UNDECODABLE
