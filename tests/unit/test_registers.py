"""Numbers in registers: signed, of several words, in any order of the bytes, and single bits."""

from __future__ import annotations

import struct
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import FieldTable
from bridge.mapping.registers import MAX_BIT, ORDERS, REGISTER_TYPES, compile_bit, compile_registers
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

CODES = dict(zip(REGISTER_TYPES, "bhiqfBHIQd", strict=True))


@pytest.mark.parametrize(
    ("type_", "order", "value", "expected"),
    [
        ("int16", None, 65516, -20),
        ("int16", None, "65516", -20),
        ("int16", None, 65516.0, -20),
        ("int16", None, -20, -20),
        ("int16", "BA", 0x0100, 1),
        ("uint16", None, -1, 65535),
        ("int8", None, 255, -1),
        ("int16", None, [65516], -20),
        ("uint32", None, [1, 2], 65538),
        ("uint32", "CDAB", [2, 1], 65538),
        ("uint32", "BADC", [0x0100, 0x0200], 65538),
        ("uint32", "DCBA", [0x0200, 0x0100], 65538),
        ("int32", None, 0xFFFFFFFE, -2),
        ("float32", None, [0x41AC, 0], 21.5),
        ("float32", "CDAB", ["0", "16812"], 21.5),
        ("float32", None, 0x41AC0000, 21.5),
        ("float64", None, [0x4035, 0x8000, 0, 0], 21.5),
        ("float32", None, [0x7FC0, 0], None),
        ("uint64", None, 2**64 - 1, 2**64 - 1),
        ("int16", None, 65536, Reason.OUT_OF_RANGE),
        ("int16", None, -32769, Reason.OUT_OF_RANGE),
        ("uint32", None, [1, 65536], Reason.OUT_OF_RANGE),
        ("uint32", None, [1], Reason.TYPE_MISMATCH),
        ("uint32", None, [1, 2, 3], Reason.TYPE_MISMATCH),
        ("uint32", None, [1, None], Reason.TYPE_MISMATCH),
        ("int8", None, [1], Reason.TYPE_MISMATCH),
        ("int16", None, 1.5, Reason.TYPE_MISMATCH),
        ("int16", None, "FFEC", Reason.TYPE_MISMATCH),
        ("int16", None, True, Reason.TYPE_MISMATCH),
    ],
)
def test_the_number_in_registers(type_: str, order: str | None, value: Any, expected: Any) -> None:
    decode = compile_registers(type_, order)
    try:
        found: Any = decode(value)
    except Unmappable as exc:
        found = exc.reason

    assert found == expected


@given(st.sampled_from(REGISTER_TYPES), st.data())
def test_every_number_comes_back_from_its_registers_in_every_order(type_: str, data: st.DataObject) -> None:
    size = struct.calcsize(CODES[type_])
    order = data.draw(st.sampled_from(ORDERS[size]))
    big = data.draw(st.binary(min_size=size, max_size=size))
    (number,) = struct.unpack(f">{CODES[type_]}", big)
    sent = bytes(big[ord(letter) - ord("A")] for letter in order)

    values: list[Any] = [int.from_bytes(sent, "big"), int.from_bytes(sent, "big", signed=True)]
    if size > 1:
        values.append([int.from_bytes(sent[at : at + 2], "big") for at in range(0, size, 2)])
    for value in values:
        found = compile_registers(type_, order)(value)
        assert found == number or (found is None and type_.startswith("float") and number not in (number - 1,))


@given(st.integers(-(2**70), 2**70), st.integers(0, MAX_BIT))
def test_a_bit_is_that_of_twos_complement(number: int, bit: int) -> None:
    assert compile_bit(bit)(number) == int(f"{number % 2**80:080b}"[-1 - bit])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=1), inner, max_size=2),
)


@given(st.sampled_from(REGISTER_TYPES), json_values)
def test_a_value_is_a_register_or_unmappable(type_: str, value: Any) -> None:
    for decode in (compile_registers(type_, None), compile_bit(3)):
        try:
            found: Any = decode(value)
        except Unmappable as exc:
            found = exc.reason
        assert found is None or isinstance(found, int | float) or found in (Reason.TYPE_MISMATCH, Reason.OUT_OF_RANGE)


@pytest.mark.parametrize(
    ("type_", "order", "says"),
    [
        ("int17", None, "must be one of int8"),
        ("int16", "ABCD", "byte_order of int16 must be one of AB, BA"),
        ("uint32", "AB", "must be one of ABCD, CDAB, BADC, DCBA"),
    ],
)
def test_an_unknown_type_or_order_is_refused(type_: str, order: str | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        compile_registers(type_, order)


def test_there_are_64_bits() -> None:
    with pytest.raises(ValueError, match="from 0 to 63"):
        compile_bit(64)


def test_the_setting_takes_every_type() -> None:
    setting = FieldTable.model_fields["registers"].annotation

    assert set(get_args(get_args(setting)[0])) == set(REGISTER_TYPES)
