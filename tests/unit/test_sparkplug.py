"""Sparkplug B: payloads byte by byte, datatypes, births and deaths, and rebirth requests."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from bridge.mapping import sparkplug
from bridge.mapping.payload import MAX_PAYLOAD, MAX_ROWS
from bridge.mapping.sparkplug import MEMBERS, REBIRTH_INTERVAL, Sparkplug
from bridge.mapping.sparkplug_payload import message_class, parse
from bridge.mapping.sparkplug_values import DATATYPES, MAX_VALUES
from bridge.mapping.unmappable import NoReading, Unmappable
from bridge.reasons import Reason

NUMBERS = {name: number for number, name in DATATYPES.items()}

INT32, FLOAT, DOUBLE = NUMBERS["Int32"], NUMBERS["Float"], NUMBERS["Double"]


def payload(*metrics: dict[str, Any], seq: int | None = None, timestamp: int | None = 1000, **more: Any) -> bytes:
    """An encoded payload; metrics are given as dicts of fields."""
    message = message_class()(timestamp=timestamp, seq=seq, **more)
    for metric in metrics:
        message.metrics.add(**metric)
    encoded: bytes = message.SerializeToString()
    return encoded


def birth(*metrics: dict[str, Any], bd_seq: int = 1, seq: int = 0, timestamp: int = 1000) -> bytes:
    own = {"name": "bdSeq", "datatype": NUMBERS["UInt64"], "long_value": bd_seq}
    return payload(own, *metrics, seq=seq, timestamp=timestamp)


def death(bd_seq: int = 1, timestamp: int = 1000) -> bytes:
    own = {"name": "bdSeq", "datatype": NUMBERS["UInt64"], "long_value": bd_seq}
    return payload(own, timestamp=timestamp)


TEMPERATURE = {"name": "temperature", "alias": 1, "datatype": FLOAT, "float_value": 1.5}
COUNT = {"name": "count", "alias": 2, "datatype": INT32, "int_value": 7}


def values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["metric"]: row["value"] for row in rows}


def refusal(run: Callable[[], object]) -> Reason:
    with pytest.raises(Unmappable) as caught:
        run()
    assert str(caught.value)
    return caught.value.reason


def read(metric: dict[str, Any]) -> Any:
    """The decoded value of one metric with name and datatype."""
    (row,) = Sparkplug().decode("spBv1.0/g/DDATA/n/d", payload({"name": "m", **metric}, seq=0))
    return row["value"]


@pytest.fixture
def state() -> Sparkplug:
    """The state after the births of an edge node and a device of it."""
    state = Sparkplug()
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT))
    state.decode("spBv1.0/g/DBIRTH/n/d", payload(TEMPERATURE, seq=1))
    return state


# --- byte by byte (Sparkplug 3.0, 6.4.1) -----------------------------------------------------------------------


def message(*fields: bytes) -> bytes:
    return b"".join(fields)


def part(tag: int, data: bytes) -> bytes:
    """A field of bytes."""
    return (bytes([tag]) if tag < 0x80 else bytes([tag & 0x7F | 0x80, tag >> 7])) + bytes([len(data)]) + data


def test_a_birth_and_its_data_are_read_as_the_specification_lays_them_out() -> None:
    nbirth = message(
        b"\x08\xe8\x07",  # timestamp 1000
        part(0x12, b"\x0a\x05bdSeq" + b"\x20\x08" + b"\x58\x03"),  # UInt64, long_value 3
        part(0x12, b"\x0a\x04temp" + b"\x10\x05" + b"\x18\xd0\x0f" + b"\x20\x02" + b"\x50\xf6\xff\x03"),
        b"\x18\x00",  # seq 0
    )
    ndata = message(
        b"\x08\xb8\x17",  # timestamp 3000
        part(0x12, b"\x10\x05" + b"\x28\x01" + b"\x30\x01" + b"\x50\x0b"),
        b"\x18\x01",
    )
    state = Sparkplug()

    born = state.decode("spBv1.0/plant/NBIRTH/press", nbirth)
    data = state.decode("spBv1.0/plant/NDATA/press", ndata)

    common = {"group": "plant", "node": "press", "device": None, "online": True, "quality": None}
    assert born == [
        {
            **common,
            "type": "NBIRTH",
            "metric": "bdSeq",
            "value": 3,
            "datatype": "UInt64",
            "timestamp": 1000,
            "seq": 0,
            "historical": False,
            "transient": False,
        },
        {
            **common,
            "type": "NBIRTH",
            "metric": "temp",
            "value": -10,
            "datatype": "Int16",
            "timestamp": 2000,
            "seq": 0,
            "historical": False,
            "transient": False,
        },
    ]
    assert data == [
        {
            **common,
            "type": "NDATA",
            "metric": "temp",
            "value": 11,
            "datatype": "Int16",
            "timestamp": 3000,
            "seq": 1,
            "historical": True,
            "transient": True,
        }
    ]


def test_every_kind_of_value_is_read_as_the_specification_lays_it_out() -> None:
    quality = part(0x4A, part(0x0A, b"Quality") + part(0x12, b"\x08\x03\x18\xf4\x03"))  # int_value 500
    dataset = message(
        b"\x08\x02",  # columns
        part(0x12, b"a"),
        part(0x12, b"b"),
        b"\x18\x03\x18\x0c",  # Int32, String
        part(0x22, part(0x0A, b"\x08\x07") + part(0x0A, b"\x32\x01x")),
    )
    template = message(
        part(0x0A, b"v1"),
        part(0x12, b"\x0a\x01m" + b"\x20\x04" + b"\x58" + b"\xff" * 9 + b"\x01"),  # Int64, long_value -1
        part(0x1A, b"\x0a\x01p" + b"\x10\x0b" + b"\x38\x01"),  # Boolean, boolean_value
        part(0x22, b"Motor"),
        b"\x28\x00",
    )
    ddata = message(
        part(0x12, b"\x0a\x01f" + b"\x20\x09" + quality + b"\x65\x00\x00\xc0\x3f"),
        part(0x12, b"\x0a\x01d" + b"\x20\x0a" + b"\x69" + struct.pack("<d", 0.1)),
        part(0x12, b"\x0a\x01b" + b"\x20\x0b" + b"\x70\x01"),
        part(0x12, b"\x0a\x01s" + b"\x20\x0c" + part(0x7A, "é".encode())),
        part(0x12, b"\x0a\x01y" + b"\x20\x11" + part(0x82, b"\x00\xff")),
        part(0x12, b"\x0a\x01t" + b"\x20\x10" + part(0x8A, dataset)),
        part(0x12, b"\x0a\x01u" + b"\x20\x13" + part(0x92, template)),
        part(0x12, b"\x0a\x01n" + b"\x20\x03" + b"\x38\x01"),
        b"\x18\x05",
    )

    rows = Sparkplug().decode("spBv1.0/g/DDATA/n/d", ddata)

    assert values(rows) == {
        "f": 1.5,
        "d": 0.1,
        "b": True,
        "s": "é",
        "y": "AP8=",
        "t": [{"a": 7, "b": "x"}],
        "u": {
            "template": "Motor",
            "version": "v1",
            "definition": False,
            "metrics": {"m": -1},
            "parameters": {"p": True},
        },
        "n": None,
    }
    assert [row["quality"] for row in rows] == [500, *[None] * 7]
    assert {row["device"] for row in rows} == {"d"}
    assert {row["timestamp"] for row in rows} == {None}


def test_the_rebirth_command_is_written_as_the_specification_lays_it_out() -> None:
    state = Sparkplug()
    with pytest.raises(Unmappable):
        state.decode("spBv1.0/g/NDATA/n", payload({"alias": 1, "int_value": 1}, seq=3))

    asked = state.rebirths(0.0, 1000)

    metric = b"\x0a\x14Node Control/Rebirth" + b"\x18\xe8\x07" + b"\x20\x0b" + b"\x70\x01"
    assert asked == [("spBv1.0/g/NCMD/n", b"\x08\xe8\x07" + part(0x12, metric))]


def test_every_object_has_the_documented_members(state: Sparkplug) -> None:
    rows = [
        *state.decode("spBv1.0/g/DDATA/n/d", payload({"alias": 1, "float_value": 2.0}, seq=2)),
        *state.decode("spBv1.0/g/DDEATH/n/d", payload(seq=3)),
        *state.decode("spBv1.0/g/NDEATH/n", death()),
    ]

    assert [set(row) for row in rows] == [set(MEMBERS)] * 3


# --- datatypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "sent", "value"),
    [
        ("Int8", "int_value", 0xFF, -1),
        ("Int8", "int_value", 0xFFFFFFFF, -1),  # as Java encodes it
        ("Int8", "int_value", 0x7F, 127),
        ("Int8", "int_value", 0x80, -128),
        ("Int16", "int_value", 0x8000, -0x8000),
        ("Int16", "int_value", 0xFFFF8000, -0x8000),
        ("Int32", "int_value", 0x80000000, -0x80000000),
        ("Int32", "long_value", 0xFFFFFFFF80000000, -0x80000000),
        ("Int32", "int_value", 0x7FFFFFFF, 0x7FFFFFFF),
        ("Int64", "long_value", 2**64 - 1, -1),
        ("Int64", "long_value", 2**63, -(2**63)),
        ("Int64", "int_value", 0xFFFFFFFF, 0xFFFFFFFF),
        ("UInt8", "int_value", 0xFF, 255),
        ("UInt16", "int_value", 0xFFFF, 0xFFFF),
        ("UInt32", "int_value", 0xFFFFFFFF, 0xFFFFFFFF),
        ("UInt32", "long_value", 0xFFFFFFFF, 0xFFFFFFFF),
        ("UInt64", "long_value", 2**64 - 1, 2**64 - 1),
        ("DateTime", "long_value", 1486144502122, 1486144502122),
        ("Float", "float_value", math.nan, None),
        ("Double", "double_value", -math.inf, None),
        ("Text", "string_value", "a", "a"),
        ("UUID", "string_value", "a", "a"),
        ("File", "bytes_value", b"\x00\xff", base64.b64encode(b"\x00\xff").decode()),
        ("Int8Array", "bytes_value", b"\xff\x01", [-1, 1]),
        ("Int16Array", "bytes_value", b"\xff\xff\x01\x00", [-1, 1]),
        ("Int32Array", "bytes_value", b"\xff\xff\xff\xff", [-1]),
        ("Int64Array", "bytes_value", b"\xff" * 8, [-1]),
        ("UInt8Array", "bytes_value", b"\xff", [255]),
        ("UInt16Array", "bytes_value", b"\x01\x02", [0x201]),
        ("UInt32Array", "bytes_value", b"\x34\x00\x00\x00\x49\xfb\x55\xc4", [52, 3293969225]),
        ("UInt64Array", "bytes_value", b"\xff" * 8, [2**64 - 1]),
        ("FloatArray", "bytes_value", struct.pack("<2f", 1.5, -2), [1.5, -2.0]),
        ("DoubleArray", "bytes_value", struct.pack("<d", 0.1), [0.1]),
        (
            "BooleanArray",
            "bytes_value",
            b"\x0c\x00\x00\x00\x34\xd0",
            [c == "1" for c in "001101001101"],
        ),
        ("StringArray", "bytes_value", b"ABC\x00hello\x00", ["ABC", "hello"]),
        ("StringArray", "bytes_value", b"", []),
        ("DateTimeArray", "bytes_value", (1000).to_bytes(8, "little"), [1000]),
    ],
)
def test_values_are_read_by_their_datatype(name: str, field: str, sent: Any, value: Any) -> None:
    assert read({"datatype": NUMBERS[name], field: sent}) == value


@pytest.mark.parametrize(
    ("name", "field", "sent"),
    [
        ("Int8", "int_value", 300),
        ("Int16", "int_value", 0x10000),
        ("UInt8", "int_value", 256),
        ("Int32", "float_value", 1.0),
        ("Float", "int_value", 1),
        ("Boolean", "int_value", 1),
        ("DateTime", "string_value", "2026"),
        ("Bytes", "string_value", "a"),
        ("Int16Array", "bytes_value", b"\x00"),
        ("Int16Array", "int_value", 1),
        ("BooleanArray", "bytes_value", b"\x01\x00\x00"),
        ("BooleanArray", "bytes_value", b"\x09\x00\x00\x00\xff"),
        ("StringArray", "bytes_value", b"abc"),
        ("StringArray", "bytes_value", b"\xff\x00"),
        ("PropertySet", "string_value", "a"),
    ],
)
def test_a_value_that_does_not_fit_its_datatype_is_refused(name: str, field: str, sent: Any) -> None:
    assert refusal(lambda: read({"datatype": NUMBERS[name], field: sent})) is Reason.UNDECODABLE


def test_an_unknown_datatype_is_refused() -> None:
    assert refusal(lambda: read({"datatype": 35, "int_value": 1})) is Reason.UNDECODABLE


def test_an_extension_value_is_refused_and_not_null() -> None:
    assert refusal(lambda: read({"datatype": INT32, "extension_value": {}})) is Reason.UNDECODABLE


def test_is_null_makes_null_even_with_a_value() -> None:
    assert read({"datatype": INT32, "is_null": True, "int_value": 5}) is None


@pytest.mark.parametrize(
    "dataset",
    [
        {"columns": ["a", "b"], "types": [3]},
        {"columns": ["a", "a"], "types": [3, 3]},
        {"columns": ["a"], "types": [3], "rows": [{"elements": []}]},
        {"columns": ["a"], "types": [3], "rows": [{"elements": [{"string_value": "x"}]}]},
    ],
)
def test_a_dataset_that_contradicts_itself_is_refused(dataset: dict[str, Any]) -> None:
    assert refusal(lambda: read({"datatype": NUMBERS["DataSet"], "dataset_value": dataset})) is Reason.UNDECODABLE


@pytest.mark.parametrize(
    "metrics",
    [
        [{"name": "a", "datatype": 3}, {"name": "a", "datatype": 3}],
        [{"alias": 1, "datatype": 3, "int_value": 1}],
        [{"name": "a", "int_value": 1}],
    ],
)
def test_a_template_with_unnamed_or_equal_members_is_refused(metrics: list[dict[str, Any]]) -> None:
    template = {"template_ref": "T", "metrics": metrics}

    assert refusal(lambda: read({"datatype": NUMBERS["Template"], "template_value": template})) is Reason.UNDECODABLE


# --- topics and bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["spBv1.0/STATE/host", "spBv1.0/g/NCMD/n", "spBv1.0/g/DCMD/n/d"])
def test_commands_and_states_carry_no_readings(topic: str) -> None:
    with pytest.raises(NoReading):
        Sparkplug().decode(topic, b"{}")


@pytest.mark.parametrize(
    "topic",
    [
        "spBv1.0/g/NDATA",
        "spBv1.0/g/NDATA/n/d",
        "spBv1.0/g/DDATA/n",
        "spBv1.0/g/DDATA/n/d/e",
        "spBv1.0/g/data/n",
        "spBv1.0//NDATA/n",
        "spBv1.0/g/DDATA/n/",
        "spBv1.0/g/NDATA/+",
        "spBv1.0/g#/NDATA/n",
        "spBv1.0/g/NDATA/n\udcff",
        "spAv1.0/g/NDATA/n",
        "",
    ],
)
def test_a_topic_that_carries_no_readings_is_refused(topic: str) -> None:
    sent = payload({"name": "m", "datatype": INT32, "int_value": 1})

    assert refusal(lambda: Sparkplug().decode(topic, sent)) is Reason.UNDECODABLE


@pytest.mark.parametrize("sent", [b"\xff", b"{}", b"\x12\x04\x0a\x02\xff\xfe"], ids=["cut off", "JSON", "not UTF-8"])
def test_an_invalid_payload_is_refused(sent: bytes) -> None:
    assert refusal(lambda: Sparkplug().decode("spBv1.0/g/NDATA/n", sent)) is Reason.UNDECODABLE


def test_a_payload_with_a_body_is_refused_and_its_metrics_ignored() -> None:
    sent = payload({"name": "algorithm", "datatype": 12, "string_value": "GZIP"}, body=b"...")

    assert refusal(lambda: Sparkplug().decode("spBv1.0/g/NDATA/n", sent)) is Reason.UNDECODABLE


@pytest.mark.parametrize("sent", [b"", payload(seq=1)])
def test_a_message_without_metrics_is_empty(sent: bytes) -> None:
    assert refusal(lambda: Sparkplug().decode("spBv1.0/g/NDATA/n", sent)) is Reason.EMPTY


def nested(depth: int) -> dict[str, Any]:
    template: dict[str, Any] = {"metrics": [{"name": "m", "datatype": INT32, "int_value": 1}]}
    for _ in range(depth):
        template = {"metrics": [{"name": "m", "datatype": NUMBERS["Template"], "template_value": template}]}
    return {"name": "m", "datatype": NUMBERS["Template"], "template_value": template}


@pytest.mark.parametrize(
    "sent",
    [
        bytes(MAX_PAYLOAD + 1),
        b"\x12\x00" * (MAX_ROWS + 1),
        payload(nested(16)),
        payload(
            {
                "name": "m",
                "datatype": NUMBERS["BooleanArray"],
                "bytes_value": (MAX_VALUES + 8).to_bytes(4, "little") + bytes(MAX_VALUES // 8 + 1),
            }
        ),
        payload(
            *[{"name": "m", "datatype": NUMBERS["Int8Array"], "bytes_value": bytes(MAX_VALUES // 2)}] * 3,
        ),
        payload({"name": "m", "datatype": NUMBERS["StringArray"], "bytes_value": bytes(MAX_VALUES + 1)}),
        payload({"name": "m", "datatype": NUMBERS["DataSet"], "dataset_value": {"rows": [{}] * (MAX_VALUES + 1)}}),
        payload({"name": "m", "datatype": NUMBERS["Template"], "template_value": {"metrics": [{}] * (MAX_VALUES + 1)}}),
    ],
    ids=["bytes", "metrics", "depth", "bits", "elements of all arrays", "strings", "rows", "members"],
)
def test_a_message_beyond_the_bounds_is_too_large(sent: bytes) -> None:
    assert refusal(lambda: Sparkplug().decode("spBv1.0/g/NDATA/n", sent)) is Reason.TOO_LARGE


def test_templates_within_the_bound_are_read() -> None:
    rows = Sparkplug().decode("spBv1.0/g/NDATA/n", payload(nested(15)))

    assert rows[0]["value"]["metrics"]["m"]["metrics"].keys() == {"m"}


def test_an_id_beyond_the_bound_is_too_large() -> None:
    topic = f"spBv1.0/g/NDATA/{'n' * (sparkplug.MAX_ID + 1)}"

    assert refusal(lambda: Sparkplug().decode(topic, payload(COUNT))) is Reason.TOO_LARGE


# --- births and aliases ---------------------------------------------------------------------------------------


def test_aliases_belong_to_their_edge_node_or_device(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NBIRTH/other", birth({**TEMPERATURE, "name": "elsewhere"}))

    of_device = state.decode("spBv1.0/g/DDATA/n/d", payload({"alias": 1, "float_value": 2.5}, seq=2))
    of_node = state.decode("spBv1.0/g/NDATA/n", payload({"alias": 2, "int_value": 2**32 - 1}, seq=3))
    of_other = state.decode("spBv1.0/g/NDATA/other", payload({"alias": 1, "float_value": 3.5}, seq=1))

    assert [values(rows) for rows in (of_device, of_node, of_other)] == [
        {"temperature": 2.5},
        {"count": -1},
        {"elsewhere": 3.5},
    ]
    assert state.rebirths(0.0, 0) == []


@pytest.mark.parametrize(
    ("topic", "metric"),
    [
        ("spBv1.0/g/NDATA/n", {"alias": 9, "int_value": 1}),
        ("spBv1.0/g/NDATA/n", {"alias": 1, "float_value": 1.0}),  # the device's
        ("spBv1.0/g/DDATA/n/d", {"alias": 2, "int_value": 1}),  # the edge node's
        ("spBv1.0/g/DDATA/n/unborn", {"alias": 1, "float_value": 1.0}),
        ("spBv1.0/g/NDATA/unborn", {"alias": 1, "float_value": 1.0}),
        ("spBv1.0/g/NDATA/n", {"alias": 2, "datatype": FLOAT, "float_value": 1.0}),  # declared as Int32
        ("spBv1.0/g/NDATA/n", {"name": "new", "int_value": 1}),  # signed or not?
    ],
)
def test_undeclared_metrics_are_refused_and_a_rebirth_requested(
    state: Sparkplug, topic: str, metric: dict[str, Any]
) -> None:
    sent = payload(metric, seq=2)

    assert refusal(lambda: state.decode(topic, sent)) is Reason.UNKNOWN_ALIAS
    assert [asked for asked, _ in state.rebirths(0.0, 0)] == [f"spBv1.0/g/NCMD/{topic.split('/')[3]}"]


def test_a_metric_with_neither_name_nor_alias_is_refused(state: Sparkplug) -> None:
    sent = payload({"datatype": INT32, "int_value": 1}, seq=2)

    assert refusal(lambda: state.decode("spBv1.0/g/NDATA/n", sent)) is Reason.UNDECODABLE


def test_a_value_that_does_not_fit_its_declaration_requests_a_rebirth(state: Sparkplug) -> None:
    sent = payload({"alias": 2, "string_value": "x"}, seq=2)

    assert refusal(lambda: state.decode("spBv1.0/g/NDATA/n", sent)) is Reason.UNDECODABLE
    assert len(state.rebirths(0.0, 0)) == 1


def test_the_datatype_comes_from_the_birth_or_from_the_values_field(state: Sparkplug) -> None:
    sent = payload({"name": "count", "int_value": 2**32 - 5}, {"name": "new", "string_value": "x"}, seq=2)

    rows = state.decode("spBv1.0/g/NDATA/n", sent)

    assert [(row["metric"], row["value"], row["datatype"]) for row in rows] == [
        ("count", -5, "Int32"),
        ("new", "x", "String"),
    ]


def test_a_name_overrides_the_alias_of_another_metric_and_requests_a_rebirth(state: Sparkplug) -> None:
    rows = state.decode("spBv1.0/g/NDATA/n", payload({**COUNT, "name": "renamed"}, seq=2))

    assert values(rows) == {"renamed": 7}
    assert len(state.rebirths(0.0, 0)) == 1


def test_an_alias_that_a_birth_gives_twice_is_unknown() -> None:
    state = Sparkplug()
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT, {**COUNT, "name": "twin"}))
    sent = payload({"alias": 2, "int_value": 1}, seq=1)

    assert refusal(lambda: state.decode("spBv1.0/g/NDATA/n", sent)) is Reason.UNKNOWN_ALIAS


def test_a_name_that_a_birth_gives_two_datatypes_has_none() -> None:
    state = Sparkplug()
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT, {**COUNT, "alias": 3, "datatype": NUMBERS["UInt32"]}))
    by_name = payload({"name": "count", "int_value": 2**32 - 1}, seq=1)
    by_alias = payload({"alias": 3, "int_value": 2**32 - 1}, {"alias": 2, "int_value": 2**32 - 1}, seq=2)

    assert refusal(lambda: state.decode("spBv1.0/g/NDATA/n", by_name)) is Reason.UNKNOWN_ALIAS
    assert [row["value"] for row in state.decode("spBv1.0/g/NDATA/n", by_alias)] == [2**32 - 1, -1]


def test_a_birth_declares_its_aliases_even_if_a_value_cannot_be_read() -> None:
    state = Sparkplug()
    broken = {"name": "broken", "datatype": INT32, "string_value": "x"}

    assert refusal(lambda: state.decode("spBv1.0/g/NBIRTH/n", birth(broken, COUNT))) is Reason.UNDECODABLE
    assert values(state.decode("spBv1.0/g/NDATA/n", payload({"alias": 2, "int_value": 1}, seq=1))) == {"count": 1}


def test_a_birth_replaces_earlier_births_of_the_edge_node_and_its_devices(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NBIRTH/n", birth({**COUNT, "alias": 3}, timestamp=2000))

    for topic, alias in (("spBv1.0/g/NDATA/n", 2), ("spBv1.0/g/DDATA/n/d", 1)):
        sent = payload({"alias": alias, "float_value": 1.0}, seq=1, timestamp=2001)
        assert refusal(partial(state.decode, topic, sent)) is Reason.UNKNOWN_ALIAS


def test_data_from_before_a_birth_that_gave_its_aliases_another_meaning_is_refused(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NBIRTH/n", birth({**COUNT, "name": "other"}, timestamp=2000))
    late = payload({"alias": 2, "int_value": 1}, seq=5, timestamp=1999)

    assert refusal(lambda: state.decode("spBv1.0/g/NDATA/n", late)) is Reason.UNKNOWN_ALIAS


def test_data_from_before_a_birth_that_changed_nothing_is_read(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT, timestamp=2000))
    late = payload({"alias": 2, "int_value": 1}, seq=5, timestamp=1999)

    assert values(state.decode("spBv1.0/g/NDATA/n", late)) == {"count": 1}


def test_a_device_birth_from_before_its_edge_nodes_birth_gives_rows_and_declares_nothing(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT, timestamp=2000))

    late = state.decode("spBv1.0/g/DBIRTH/n/d", payload(TEMPERATURE, seq=1, timestamp=1999))
    sent = payload({"alias": 1, "float_value": 1.0}, seq=2, timestamp=2001)

    assert values(late) == {"temperature": 1.5}
    assert refusal(lambda: state.decode("spBv1.0/g/DDATA/n/d", sent)) is Reason.UNKNOWN_ALIAS


def test_a_device_birth_without_its_edge_nodes_birth_declares_and_requests_a_rebirth() -> None:
    state = Sparkplug()

    state.decode("spBv1.0/g/DBIRTH/n/d", payload(TEMPERATURE, seq=9))
    data = state.decode("spBv1.0/g/DDATA/n/d", payload({"alias": 1, "float_value": 1.0}, seq=10))

    assert values(data) == {"temperature": 1.0}
    assert len(state.rebirths(0.0, 0)) == 1


# --- deaths ---------------------------------------------------------------------------------------------------


def test_a_death_is_one_row_that_says_offline(state: Sparkplug) -> None:
    of_device = state.decode("spBv1.0/g/DDEATH/n/d", payload(seq=2, timestamp=1500))
    of_node = state.decode("spBv1.0/g/NDEATH/n", death(timestamp=1600))

    assert [(row["device"], row["online"], row["metric"], row["value"], row["timestamp"]) for row in of_device] == [
        ("d", False, None, None, 1500)
    ]
    assert [(row["device"], row["online"], row["metric"], row["value"], row["timestamp"]) for row in of_node] == [
        (None, False, None, None, 1600)
    ]


def test_a_device_that_died_is_forgotten_but_not_its_edge_node(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/DDEATH/n/d", payload(seq=2))
    of_node = state.decode("spBv1.0/g/NDATA/n", payload({"alias": 2, "int_value": 1}, seq=3))
    of_device = payload({"alias": 1, "float_value": 1.0}, seq=4)

    assert values(of_node) == {"count": 1}
    assert refusal(lambda: state.decode("spBv1.0/g/DDATA/n/d", of_device)) is Reason.UNKNOWN_ALIAS


def test_deaths_without_a_birth_give_rows_and_request_nothing() -> None:
    state = Sparkplug()

    rows = [
        *state.decode("spBv1.0/g/DDEATH/n/d", payload(seq=2)),
        *state.decode("spBv1.0/g/NDEATH/n", death()),
    ]

    assert [row["online"] for row in rows] == [False, False]
    assert state.rebirths(0.0, 0) == []
    assert state.changes() == {}


def test_data_after_the_death_of_the_edge_node_is_refused_and_a_rebirth_requested(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NDEATH/n", death())
    assert state.rebirths(0.0, 0) == []
    sent = payload({"alias": 1, "float_value": 1.0}, seq=2)

    assert refusal(lambda: state.decode("spBv1.0/g/DDATA/n/d", sent)) is Reason.UNKNOWN_ALIAS
    assert len(state.rebirths(0.0, 0)) == 1


def test_data_with_names_and_datatypes_is_read_after_a_death_and_a_rebirth_requested(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NDEATH/n", death())

    assert values(state.decode("spBv1.0/g/NDATA/n", payload(COUNT, seq=2))) == {"count": 7}
    assert len(state.rebirths(0.0, 0)) == 1


def test_a_will_of_an_earlier_session_gives_a_row_and_changes_nothing(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT, bd_seq=2, timestamp=2000))

    late = state.decode("spBv1.0/g/NDEATH/n", death(bd_seq=1))
    data = state.decode("spBv1.0/g/NDATA/n", payload({"alias": 2, "int_value": 1}, seq=1, timestamp=2001))

    assert [row["online"] for row in late] == [False]
    assert values(data) == {"count": 1}


# --- seq ------------------------------------------------------------------------------------------------------


def send(state: Sparkplug, seq: int | None, timestamp: int | None) -> bool:
    """Decode one NDATA. Returns whether it requests a rebirth."""
    rows = state.decode("spBv1.0/g/NDATA/n", payload({"alias": 2, "int_value": 1}, seq=seq, timestamp=timestamp))
    assert values(rows) == {"count": 1}
    asked = bool(state._need_rebirth)
    state._need_rebirth.clear()
    return asked


def test_seq_wraps_after_255(state: Sparkplug) -> None:
    assert not any(send(state, seq % 256, 1001 + seq) for seq in range(2, 600))


@pytest.mark.parametrize("seq", [3, 100, 200, 1])
def test_a_gap_requests_a_rebirth_and_loses_no_data(state: Sparkplug, seq: int) -> None:
    assert send(state, seq, 2000)
    assert not send(state, seq + 1, 2001)


def test_a_missing_seq_is_not_a_gap(state: Sparkplug) -> None:
    assert not send(state, None, 2000)
    assert not send(state, 77, 2001)
    assert not send(state, 300, 2002)
    assert not send(state, 5, 2003)


@pytest.mark.parametrize("has_time", [True, False])
def test_redelivered_messages_are_not_a_gap(state: Sparkplug, has_time: bool) -> None:
    sent = [(seq, 1000 + seq if has_time else None) for seq in range(2, 12)]

    asked = [send(state, *message) for message in (*sent, *sent[3:], *sent, (12, 1012 if has_time else None))]

    assert not any(asked)


def test_a_redelivered_birth_changes_nothing(state: Sparkplug) -> None:
    send(state, 2, 1002)
    state.changes()

    again = state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT))
    of_device = state.decode("spBv1.0/g/DDATA/n/d", payload({"alias": 1, "float_value": 2.0}, seq=3, timestamp=1003))

    assert values(again) == {"bdSeq": 1, "count": 7}
    assert values(of_device) == {"temperature": 2.0}
    assert state.changes() == {}
    assert state.rebirths(0.0, 0) == []


# --- replays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "sent"),
    [
        ("NBIRTH/n", birth({**COUNT, "alias": 1}, {**TEMPERATURE, "alias": 2}, seq=9, timestamp=500)),
        ("NBIRTH/n", birth({**COUNT, "alias": 1}, {**TEMPERATURE, "alias": 2}, seq=9, timestamp=5000)),
        ("NBIRTH/stranger", birth(COUNT)),
        ("DBIRTH/n/d", payload({**COUNT, "alias": 1}, seq=9, timestamp=5000)),
        ("NDEATH/n", death()),
        ("DDEATH/n/d", payload(seq=9)),
        ("NDATA/n", payload({**COUNT, "name": "renamed"}, seq=9, timestamp=5000)),
    ],
)
def test_a_replay_gives_its_rows_and_changes_nothing(state: Sparkplug, topic: str, sent: bytes) -> None:
    state.changes()

    rows = state.decode(f"spBv1.0/g/{topic}", sent, is_replay=True)

    assert rows
    assert values(rows).get("count", 7) == 7
    assert state.changes() == {}
    now = payload({"alias": 2, "int_value": 8}, seq=2, timestamp=5001)
    assert values(state.decode("spBv1.0/g/NDATA/n", now)) == {"count": 8}
    now = payload({"alias": 1, "float_value": 2.5}, seq=3, timestamp=5001)
    assert values(state.decode("spBv1.0/g/DDATA/n/d", now)) == {"temperature": 2.5}
    assert state.rebirths(0.0, 0) == []


def test_a_replayed_birth_is_read_by_its_own_declarations() -> None:
    state = Sparkplug()
    state.decode("spBv1.0/g/NBIRTH/n", birth({**COUNT, "datatype": NUMBERS["UInt32"]}, timestamp=2000))
    earlier = birth({"name": "count", "alias": 2, "int_value": 2**32 - 5}, timestamp=1000)

    assert refusal(lambda: state.decode("spBv1.0/g/NBIRTH/n", earlier, is_replay=True)) is Reason.UNKNOWN_ALIAS


def test_replayed_data_is_read_by_a_birth_known_to_be_older(state: Sparkplug) -> None:
    sent = payload({"alias": 2, "int_value": 8}, timestamp=1001)

    assert values(state.decode("spBv1.0/g/NDATA/n", sent, is_replay=True)) == {"count": 8}


@pytest.mark.parametrize("timestamp", [999, 1000, None])
@pytest.mark.parametrize("metric", [{"alias": 2, "int_value": 8}, {"name": "count", "int_value": 8}])
def test_replayed_data_that_may_precede_the_birth_is_refused_without_a_rebirth_request(
    state: Sparkplug, timestamp: int | None, metric: dict[str, Any]
) -> None:
    sent = payload(metric, timestamp=timestamp)

    assert refusal(lambda: state.decode("spBv1.0/g/NDATA/n", sent, is_replay=True)) is Reason.UNKNOWN_ALIAS
    assert state.rebirths(0.0, 0) == []


# --- rebirths -------------------------------------------------------------------------------------------------


def test_a_rebirth_is_requested_once_per_interval_and_only_while_needed() -> None:
    state = Sparkplug()

    def ask(now: float, *, need: bool) -> int:
        if need:
            state.decode("spBv1.0/g/NDATA/n", payload(COUNT))
        return len(state.rebirths(now, 0))

    assert ask(0.0, need=True) == 1
    assert ask(1.0, need=True) == 0
    assert ask(REBIRTH_INTERVAL, need=False) == 1
    assert ask(2 * REBIRTH_INTERVAL, need=False) == 0
    assert ask(2 * REBIRTH_INTERVAL, need=True) == 1
    assert ask(2 * REBIRTH_INTERVAL + 1, need=True) == 0
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT))
    assert ask(9 * REBIRTH_INTERVAL, need=False) == 0


def test_rebirth_requests_to_invented_edge_nodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "MAX_REBIRTHS", 5)
    state = Sparkplug()
    for number in range(20):
        state.decode(f"spBv1.0/g/NDATA/n{number}", payload(COUNT))

    assert len(state._need_rebirth) == 5
    assert len(state.rebirths(0.0, 0)) == 5
    for number in range(20, 40):
        state.decode(f"spBv1.0/g/NDATA/n{number}", payload(COUNT))
    assert state.rebirths(1.0, 0) == []
    assert len(state.rebirths(REBIRTH_INTERVAL, 0)) == 5


# --- the stored state ------------------------------------------------------------------------------------------


def test_after_a_restart_aliases_are_known_and_any_first_seq_is_accepted(state: Sparkplug) -> None:
    after = Sparkplug(state.changes())

    of_node = after.decode("spBv1.0/g/NDATA/n", payload({"alias": 2, "int_value": 2**32 - 1}, seq=99))
    of_device = after.decode("spBv1.0/g/DDATA/n/d", payload({"alias": 1, "float_value": 1.0}, seq=100))

    assert [values(of_node), values(of_device)] == [{"count": -1}, {"temperature": 1.0}]
    assert after.rebirths(0.0, 0) == []
    assert after.changes() == {}


def test_after_a_restart_a_late_will_is_not_a_death(state: Sparkplug) -> None:
    after = Sparkplug(state.changes())

    after.decode("spBv1.0/g/NDEATH/n", death(bd_seq=0))
    assert after.changes() == {}
    after.decode("spBv1.0/g/NDEATH/n", death(bd_seq=1))
    assert after.changes() == {"sparkplug:g/n": "", "sparkplug:g/n/d": ""}


def test_data_does_not_change_the_stored_state(state: Sparkplug) -> None:
    assert set(state.changes()) == {"sparkplug:g/n", "sparkplug:g/n/d"}

    send(state, 2, 1002)

    assert state.changes() == {}


def test_only_changed_certificates_are_stored_again(state: Sparkplug) -> None:
    state.decode("spBv1.0/g/DBIRTH/n/e", payload(TEMPERATURE, seq=2))
    state.changes()

    state.decode("spBv1.0/g/DBIRTH/n/d", payload(TEMPERATURE, seq=3))
    assert state.changes() == {}
    state.decode("spBv1.0/g/DBIRTH/n/d", payload(COUNT, seq=4))
    assert list(state.changes()) == ["sparkplug:g/n/d"]
    state.decode("spBv1.0/g/DDEATH/n/d", payload(seq=5))
    assert state.changes() == {"sparkplug:g/n/d": ""}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sparkplug:g/n", "rubbish"),
        ("sparkplug:g/n", ""),
        ("sparkplug:g/n", "[1]"),
        ("sparkplug:g/n", '{"metrics": [["a", "b", null]]}'),
        ("sparkplug:g/n", '{"metrics": [], "birth": 3}'),
        ("sparkplug:g/n", "\udcff"),
        ("sparkplug:g", '{"metrics": []}'),
        ("other:g/n", '{"metrics": []}'),
    ],
)
def test_invalid_stored_state_is_ignored(key: str, text: str) -> None:
    state = Sparkplug({key: text})

    assert state._nodes == {}


ONE_NODE = 2_000
"""Bytes that hold the birth of one edge node with a few metrics, and not of two."""


def test_at_the_bound_the_births_that_are_remembered_stay_and_new_ones_are_refused() -> None:
    state = Sparkplug(max_bytes=ONE_NODE)
    state.decode("spBv1.0/g/NBIRTH/first", birth(COUNT, TEMPERATURE))
    rows = state.decode("spBv1.0/g/NBIRTH/second", birth(COUNT, TEMPERATURE))

    assert [row["metric"] for row in rows][-1] == TEMPERATURE["name"], "its own birth is mapped all the same"
    assert (state.is_full, state.refused) == (True, 1)
    assert list(state._nodes) == [("g", "first")]
    assert state.changes()["sparkplug:g/second"] == ""


def test_at_the_bound_no_birth_is_requested_that_would_be_refused() -> None:
    state = Sparkplug(max_bytes=ONE_NODE)
    state.decode("spBv1.0/g/NBIRTH/first", birth(COUNT, TEMPERATURE))
    state.decode("spBv1.0/g/NBIRTH/second", birth(COUNT, TEMPERATURE))
    for device in ("", "/d"):
        with pytest.raises(Unmappable):
            state.decode(
                f"spBv1.0/g/{'D' if device else 'N'}DATA/second{device}", payload({"alias": 2, "int_value": 7}, seq=1)
            )
    assert state.rebirths(0.0, 0) == []

    state.decode("spBv1.0/g/NDATA/first", payload(COUNT, seq=9))
    assert [topic for topic, _ in state.rebirths(0.0, 0)] == ["spBv1.0/g/NCMD/first"], "its birth only replaces one"


def test_once_there_is_room_again_births_are_requested_again() -> None:
    state = Sparkplug(max_bytes=ONE_NODE)
    state.decode("spBv1.0/g/NBIRTH/first", birth(COUNT, TEMPERATURE))
    state.decode("spBv1.0/g/NBIRTH/second", birth(COUNT, TEMPERATURE))
    state.decode("spBv1.0/g/NDEATH/first", death())

    assert not state.is_full
    state.decode("spBv1.0/g/NDATA/second", payload(COUNT, seq=1))
    assert [topic for topic, _ in state.rebirths(0.0, 0)] == ["spBv1.0/g/NCMD/second"]


def test_a_birth_that_no_longer_fits_leaves_no_outdated_one() -> None:
    state = Sparkplug(max_bytes=ONE_NODE)
    state.decode("spBv1.0/g/NBIRTH/n", birth(COUNT, timestamp=1000))
    many = [{"name": f"metric {n}", "alias": n, "datatype": INT32, "int_value": n} for n in range(20)]
    state.decode("spBv1.0/g/NBIRTH/n", birth(*many, timestamp=2000))

    assert (state._nodes, state.bytes, state.refused) == ({}, 0, 1)


def test_memory_is_counted_and_bounded() -> None:
    state = Sparkplug(max_bytes=20_000)
    for number in range(50):
        state.decode(f"spBv1.0/g/NBIRTH/n{number % 7}", birth(COUNT, TEMPERATURE, timestamp=1000 + number))
        state.decode(f"spBv1.0/g/DBIRTH/n{number % 7}/d{number}", payload(TEMPERATURE, seq=1, timestamp=2000))

    assert 15_000 < state.bytes <= 20_000
    assert state.refused > 0
    for group, name in list(state._nodes):
        state.decode(f"spBv1.0/{group}/NDEATH/{name}", death())
    assert state.bytes == 0


def test_stored_state_over_the_bound_is_bounded_at_a_restart() -> None:
    state = Sparkplug()
    for number in range(5):
        state.decode(f"spBv1.0/g/NBIRTH/n{number}", birth(COUNT))

    after = Sparkplug(state.changes(), max_bytes=2 * ONE_NODE)

    assert 0 < len(after._nodes) < 5
    assert list(after.changes().values()) == [""] * (5 - len(after._nodes))


def test_the_rebirth_command_reads_as_a_payload() -> None:
    state = Sparkplug()
    state.decode("spBv1.0/g/NDATA/n", payload(COUNT))
    ((_, command),) = state.rebirths(0.0, 1234)

    (metric,) = parse(command).metrics

    assert (metric.name, metric.boolean_value, metric.timestamp) == ("Node Control/Rebirth", True, 1234)
