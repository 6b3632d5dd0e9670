"""For any bytes a decoder quickly gives a JSON value or a reason."""

from __future__ import annotations

import contextlib
import gzip
import math
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import msgspec
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.mapping.encoding import encode_number
from bridge.mapping.formats import FORMATS, MAX_DEPTH, FormatOptions, compile_decoder
from bridge.mapping.formats.options import JSON_FORMATS
from bridge.mapping.numbers import WrittenNumber
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

VALUE = {"id": "AD11", "t": [21.5, -7, None, True, {"é": b"\0\xff", "n": 2**63}], "7": {}}

SEEDS: dict[str, tuple[FormatOptions, bytes]] = {
    "json": (FormatOptions(), b'{"id": "AD11", "t": [21.5, -7, null, true, {"\xc3\xa9": "\\u00e9", "n": 1e300}]}'),
    "jsonl": (FormatOptions("jsonl"), b'{"id": "AD11"}\n{"t": [21.5, -0]}{"t": 1e999}'),
    "json as devices write it": (
        FormatOptions(nan="null", null_values=("", "N/A"), embedded_json=("p", "p.q"), decimal=","),
        b'{"t": -nan, "u": "N/A", "p": "{\\"q\\": \\"[1, NaN, 2.50]\\"}", "i": [inf, 1.10]}\0\0',
    ),
    "utf-16": (FormatOptions("jsonl", encoding="utf-16"), '\ufeff{"é": "\U0001f600"}\n[1]'.encode("utf-16-le")),
    "cp1252": (FormatOptions("csv", encoding="cp1252", null_values=("-",)), b"a,b\n\xfc,-"),
    "scalar": (FormatOptions("scalar"), b"-21.5e+3"),
    "scalar with a comma": (FormatOptions("scalar", decimal=",", null_values=("7",)), b"-1.5,0"),
    "text": (FormatOptions("text", pattern=r"(?P<a>-?\d+(\.\d+)?)\s*(?P<b>[CFé])?(?P<rest>(.*,)*)"), b"-21.5 F,x,"),
    "csv": (FormatOptions("csv"), b'id;x,t\r\n"a ""b""\n",21.5\r\nc,\xc3\xa9'),
    "csv with columns": (FormatOptions("csv", delimiter=";", columns=("a", "b")), b"1;2\n3;4"),
    "msgpack": (FormatOptions("msgpack"), msgspec.msgpack.encode([VALUE, msgspec.msgpack.Ext(5, b"x")])),
    "msgpack map": (FormatOptions("msgpack"), msgspec.msgpack.encode(VALUE)),
    "cbor": (FormatOptions("cbor"), cbor2.dumps(VALUE)),
    "cbor with tags": (
        FormatOptions("cbor"),
        bytes.fromhex("9fc48221196ab3c249010000000000000000c1fb41d452d9ec200000ff"),
    ),
    "influx": (FormatOptions("influx"), b'# c\nm,t=a,u=b\\ c f=1,i=-7i,s="x\n\\"y",b=t 1732500000000000000\nm f=2u'),
    "raw": (FormatOptions("raw"), b"\0\1\2"),
}

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zstd": zstandard.compress,
}


def is_json(value: Any, room: int = MAX_DEPTH) -> bool:
    """Whether it is a JSON value within the bound on nesting."""
    if isinstance(value, dict):
        return room > 0 and all(type(name) is str and is_json(member, room - 1) for name, member in value.items())
    if type(value) is list:
        return room > 0 and all(is_json(element, room - 1) for element in value)
    if isinstance(value, WrittenNumber):
        return float(repr(value)) == value
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def judge(options: FormatOptions, payload: bytes) -> None:
    started = time.process_time()
    value, refusal = outcome(options, payload)

    assert time.process_time() - started < 0.5
    if options.name in JSON_FORMATS:
        exact, again = outcome(options, payload, keep_digits=True)
        assert (exact, str(again)) == (value, str(refusal)), "the digits that are kept change no value"
    if refusal is not None:
        own = {Reason.NOT_JSON if options.name in JSON_FORMATS else Reason.UNDECODABLE}
        own |= {Reason.NOT_JSON} if options.embedded_json else set()
        own |= {Reason.UNDECODABLE} if options.encoding != "utf-8" else set()
        assert refusal.reason in {Reason.EMPTY, Reason.TOO_LARGE, *own}
        assert len(str(refusal)) < 400
        return
    assert is_json(value)
    try:
        msgspec.json.encode(value, enc_hook=encode_number)
    except OverflowError:
        # Numbers beyond 64 bits or a double stay exact there.
        assert options.name in ("cbor", *JSON_FORMATS)


def outcome(options: FormatOptions, payload: bytes, *, keep_digits: bool = False) -> tuple[Any, Unmappable | None]:
    try:
        return compile_decoder(options, keep_digits=keep_digits)(payload), None
    except Unmappable as exc:
        return None, exc


def replaced(payload: bytes, start: int, size: int, new: bytes) -> bytes:
    return payload[:start] + new + payload[start + size :]


def mutations(payload: bytes) -> st.SearchStrategy[bytes]:
    once = st.tuples(st.integers(0, len(payload)), st.integers(0, 4), st.binary(max_size=6))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        found = payload
        for start, size, new in changes:
            found = replaced(found, start, size, new)
        return found

    return st.lists(once, min_size=1, max_size=4).map(apply)


def test_every_format_has_a_seed() -> None:
    assert {options.name for options, _ in SEEDS.values()} == set(FORMATS)


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_of_the_mutations_are_valid(name: str) -> None:
    options, payload = SEEDS[name]

    if name == "msgpack":  # the extension type is refused, but a mutation of it may be valid
        payload = payload.replace(b"\xd4\x05x", b"\xc0")
    assert is_json(compile_decoder(options)(payload))


@pytest.mark.parametrize("name", SEEDS)
@given(data=st.data())
def test_any_bytes_give_json_values_or_a_reason(name: str, data: st.DataObject) -> None:
    judge(SEEDS[name][0], data.draw(st.binary(max_size=400)))


@pytest.mark.parametrize("name", SEEDS)
@given(data=st.data())
def test_any_text_gives_json_or_a_reason(name: str, data: st.DataObject) -> None:
    judge(SEEDS[name][0], data.draw(st.text("aé1-.,;\"'=\\ \n\r\t\0#[]{}:", max_size=100)).encode())


@pytest.mark.parametrize("name", SEEDS)
@given(data=st.data())
def test_damaged_payloads_give_json_or_a_reason(name: str, data: st.DataObject) -> None:
    options, payload = SEEDS[name]

    judge(options, data.draw(mutations(payload)))


@pytest.mark.parametrize("name", SEEDS)
@given(unit=st.binary(min_size=1, max_size=6), head=st.binary(max_size=6))
def test_the_same_bytes_over_and_over_give_json_or_a_reason_soon(name: str, unit: bytes, head: bytes) -> None:
    judge(SEEDS[name][0], (head + unit * 20_000)[:60_000])


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=20)
@given(unit=st.binary(min_size=1, max_size=4), head=st.binary(max_size=4))
@example(unit=b"{},", head=b"[")
@example(unit=b"\xa0", head=b"\x9f")
@example(unit=b"\x80", head=b"\xdc\x40\x00")
@example(unit=b"x\n", head=b"")
@example(unit=b"a a=1\n", head=b"")
def test_the_same_bytes_over_and_over_take_memory_by_their_length(name: str, unit: bytes, head: bytes) -> None:
    payload = (head + unit * 20_000)[:20_000]
    decode = compile_decoder(SEEDS[name][0])
    tracemalloc.start()
    try:
        with contextlib.suppress(Unmappable):
            decode(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 200 * len(payload)


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("compression", COMPRESS)
@given(data=st.data())
def test_damaged_payloads_that_were_compressed_give_json_or_a_reason(
    compression: str, name: str, data: st.DataObject
) -> None:
    options, payload = SEEDS[name]

    judge(replace(options, compression=compression), COMPRESS[compression](data.draw(mutations(payload))))


@pytest.mark.parametrize("compression", [*COMPRESS, "auto"])
@given(data=st.data())
def test_damaged_compressed_payloads_give_json_or_a_reason(compression: str, data: st.DataObject) -> None:
    options = FormatOptions("raw", compression=compression, max_payload=1000)
    content = data.draw(st.binary(max_size=40)) * data.draw(st.integers(1, 100))
    compressed = COMPRESS[data.draw(st.sampled_from(sorted(COMPRESS)))](content)

    judge(options, data.draw(st.one_of(st.just(compressed), mutations(compressed), st.binary(max_size=100))))


@pytest.mark.parametrize("compression", COMPRESS)
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_decompression_gives_what_was_compressed(compression: str, parts: list[bytes]) -> None:
    compress = COMPRESS[compression]
    members = [b"".join(parts)] if compression == "zlib" else parts
    decode = compile_decoder(FormatOptions("raw", compression=compression))
    expected = compile_decoder(FormatOptions("raw"))

    if any(parts):
        assert decode(b"".join(map(compress, members))) == expected(b"".join(parts))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text("aé0", max_size=30), inner, max_size=30),
    max_leaves=40,
)


@given(JSON)
def test_json_msgpack_and_cbor_give_what_others_have_written(value: Any) -> None:
    assert value == compile_decoder(FormatOptions())(msgspec.json.encode(value))
    assert value == compile_decoder(FormatOptions(), keep_digits=True)(msgspec.json.encode(value))
    assert value == compile_decoder(FormatOptions("msgpack"))(msgspec.msgpack.encode(value))
    assert value == compile_decoder(FormatOptions("cbor"))(cbor2.dumps(value))
    assert value == compile_decoder(FormatOptions("cbor"))(cbor2.dumps(value, indefinite_containers=True))


@given(st.one_of(st.binary(max_size=60), mutations(cbor2.dumps({"a": [1, -2, 1.5, "é", None, {"b": [True]}]}))))
@example(bytes.fromhex("bf61610161629f0203ffff"))
def test_cbor_is_read_as_another_decoder_reads_it(payload: bytes) -> None:
    try:
        theirs = cbor2.loads(payload, strict_hashable_types=True)
    except (cbor2.CBORError, ValueError, OverflowError, MemoryError):
        theirs = None
    ours, refusal = outcome(FormatOptions("cbor"), payload)

    if refusal is None and theirs is not None and is_json(theirs):
        assert ours == theirs


@given(st.lists(st.lists(st.text("a,\"é \n'", min_size=1, max_size=8), min_size=2, max_size=2), min_size=1, max_size=5))
def test_quoted_csv_cells_keep_their_text(rows: list[list[str]]) -> None:
    text = "\r\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)

    decoded = compile_decoder(FormatOptions("csv", columns=("a", "b")))(text.encode())

    assert rows == [[row["a"], row["b"]] for row in decoded]
