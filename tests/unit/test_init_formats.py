"""``init`` with devices that don't send JSON: binary, compressed, line protocol, Sparkplug B."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli import main
from bridge.cli.init.command import files_of
from bridge.cli.init.inference import infer
from bridge.cli.init.results import Inference, InferredRoute, Sample
from bridge.cli.init.sparkplug import NO_BIRTH
from bridge.mapping.sparkplug_payload import message_class
from tests.conftest import uninstall

VALUE = {"temp": 21.5, "n": 7}
READINGS = [{"t": 1}, {"t": 2.5}]
LINE = b"cpu,host=web1 usage=1.5,idle=98i 1700000000000000000"
msgpack, cbor = msgspec.msgpack.encode, cbor2.dumps

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zstd": zstandard.compress,
}


def the_one(*payloads: bytes) -> InferredRoute:
    (found,) = infer([Sample("devices/A1/data", payload) for payload in payloads]).routes
    return found


def written(found: InferredRoute) -> tuple[str, str]:
    return found.route.format.name, found.route.format.compression


def sparkplug(type_: str, node: str, *metrics: dict[str, Any], timestamp: int = 1000) -> Sample:
    message = message_class()(timestamp=timestamp)
    for metric in metrics:
        message.metrics.add(**metric)
    levels = node.split("/")
    return Sample("/".join(["spBv1.0/plant", type_, *levels]), message.SerializeToString())


BORN = {"name": "level", "alias": 7, "datatype": 10, "double_value": 1.5}
BIRTH = sparkplug("NBIRTH", "n", {"name": "bdSeq", "datatype": 8, "long_value": 3}, BORN)
DATA = sparkplug("NDATA", "n", {"alias": 7, "double_value": 2.5}, timestamp=1001)


# --- recognised -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (msgpack(VALUE), "msgpack"),
        (msgpack(READINGS), "msgpack"),
        (msgpack({1: 2, "b": b"\xff"}), "msgpack"),
        (cbor(VALUE), "cbor"),
        (cbor(READINGS), "cbor"),
        (cbor(cbor2.CBORTag(55799, VALUE)), "cbor"),
        (LINE, "influx"),
        (b"# comment\n\n" + LINE + b"\n" + LINE + b"\n", "influx"),
        (b"room t=21.5", "influx"),
        (rb"my\ room,place=a\,b on=true", "influx"),
        (b'log text="a, b = c"', "influx"),
    ],
)
@pytest.mark.parametrize("compression", ["none", *COMPRESS])
def test_format_and_compression_are_recognised(payload: bytes, name: str, compression: str) -> None:
    assert written(the_one(COMPRESS.get(compression, bytes)(payload))) == (name, compression)


@pytest.mark.parametrize("level", [1, 5, 6, 9])
def test_zlib_is_recognised_at_each_level(level: int) -> None:
    assert written(the_one(zlib.compress(json.dumps(VALUE).encode(), level))) == ("json", "zlib")


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (msgpack(VALUE) + b"\0", "raw"),  # trailing byte
        (cbor(VALUE)[:-1] + b"\xff\xff", "raw"),
        (msgpack({}), "raw"),  # a single byte can be anything
        (b"\xa0", "raw"),
        (msgpack([{}, {}]), "raw"),
        (msgpack([1, 2]), "raw"),
        (b"\x1f\x8b\x08 no gzip", "raw"),
        (gzip.compress(b"{}", mtime=0)[:-1], "raw"),
        (b"\x28\xb5\x2f\xfd\xff", "raw"),
        (b"x^2 + y^2", "scalar"),
        (b"room t=warm", "scalar"),
        (b"T=21.5C H=40%", "scalar"),
        (b"T=21.5 H=40", "scalar"),
        (b"room t=1, h=2", "scalar"),
        (LINE + b"\nand text", "scalar"),
    ],
)
def test_a_format_is_rejected_if_the_payload_cant_be_decoded_to_its_end(payload: bytes, name: str) -> None:
    assert written(the_one(payload)) == (name, "none")


def test_one_sample_that_doesnt_decode_rules_out_a_binary_format() -> None:
    found = the_one(msgpack(VALUE), msgpack(VALUE), b"\x01\xff\xfe")

    assert written(found) == ("raw", "none")
    assert found.samples == 3


def test_compressed_and_plain_payloads_on_one_topic_share_a_route() -> None:
    plain = json.dumps(VALUE).encode()

    assert written(the_one(plain, gzip.compress(plain), zlib.compress(plain))) == ("json", "auto")
    assert written(the_one(b"on", gzip.compress(plain))) == ("scalar", "auto")
    assert written(the_one(b"\xff\xfe", gzip.compress(plain))) == ("raw", "none"), "any bytes may be a raw payload"
    assert written(the_one(gzip.compress(b"\xff\xfe"), gzip.compress(plain))) == ("raw", "gzip")


def test_a_compressed_empty_payload_stays_raw() -> None:
    assert written(the_one(gzip.compress(b""))) == ("raw", "none")


@pytest.mark.parametrize("payload", [msgpack(VALUE), cbor(VALUE), LINE])
def test_a_format_without_magic_bytes_is_noted_as_a_guess(payload: bytes) -> None:
    assert "check that the values make sense" in the_one(payload).notes[0]
    assert not the_one(json.dumps(VALUE).encode()).notes


def test_measurements_on_different_topics_get_separate_routes() -> None:
    found = infer([Sample("tele/web1/cpu", LINE), Sample("tele/web1/mem", b"mem,host=web1 used=5i")]).routes

    assert {one.route.topic for one in found} == {"tele/{device}/cpu", "tele/{device}/mem"}


@pytest.mark.parametrize(
    ("topic", "payload", "module"),
    [
        ("t", zstandard.compress(b"1"), "zstandard"),
        ("t", LINE, "line_protocol_parser"),
        (BIRTH.topic, BIRTH.payload, "google.protobuf.message_factory"),
    ],
)
def test_a_missing_library_is_reported_with_the_command_that_installs_it(
    topic: str, payload: bytes, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall(module, monkeypatch)
    message_class.cache_clear()

    inference = infer([Sample(topic, payload), Sample("good", b"1")])

    assert [one.route.topic for one in inference.routes] == ["good"]
    assert [one.topic for one in inference.left_out] == [topic]
    assert f"{module}, which isn't installed: install the extra `formats`" in inference.left_out[0].reason


def test_without_zstd_mixed_payloads_fall_back_to_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall("zstandard", monkeypatch)

    assert written(the_one(b"1", gzip.compress(b"1"))) == ("raw", "none")


# --- Sparkplug B ------------------------------------------------------------------------------------------


def rows(found: InferredRoute) -> list[Any]:
    return [example.expect for example in found.route.examples]


def test_edge_nodes_and_their_devices_share_a_route() -> None:
    device = sparkplug("DBIRTH", "n/d", {**BORN, "name": "flow", "alias": 8}, timestamp=1002)
    inference = infer([BIRTH, DATA, device, Sample("other/A1", b"1")])

    first, other = inference.routes
    assert (first.route.topic, first.route.format.name, first.samples) == (
        "spBv1.0/{group_id}/+/{edge_node_id}/#",
        "sparkplug",
        3,
    )
    assert other.route.topic == "other/{device}"
    row = {"group_id": "plant", "edge_node_id": "n"}
    assert rows(first) == [
        {**row, "metric": "level", "value": 1.5, "timestamp": 1000},
        {**row, "device_id": "d", "metric": "flow", "value": 1.5, "timestamp": 1002},
    ]
    assert inference.left_out == ()


def test_data_alone_gives_the_route_and_the_missing_birth_is_reported() -> None:
    inference = infer([DATA])

    (found,) = inference.routes
    assert (found.samples, found.route.examples) == (0, ())
    assert [one.reason for one in inference.left_out] == [NO_BIRTH]
    assert "is a guess" in found.notes[0]
    files_of(inference, mqtt={"mqtt.url": "mqtt://b"})


@pytest.mark.parametrize(
    ("datatype", "field", "value", "type_"),
    [(3, "int_value", 5, "double"), (11, "boolean_value", True, "bool"), (12, "string_value", "x", "string")],
)
def test_the_value_has_the_type_of_most_metrics_and_the_others_are_noted(
    datatype: int, field: str, value: Any, type_: str
) -> None:
    most = [{"name": name, "datatype": datatype, field: value} for name in ("a", "b")]
    other = {"name": "raw", "datatype": 17, "bytes_value": b"\0"} if type_ != "string" else BORN
    control = {"name": "Node Control/Rebirth", "datatype": 11, "boolean_value": False}

    (found,) = infer([sparkplug("NBIRTH", "n", *most, other, control)]).routes

    assert {column.name: column.type.value for column in found.columns}["value"] == type_
    assert f"1 metric has values of another type, such as '{other['name']}'" in found.notes[0]
    assert [row["metric"] for row in rows(found)[0] if row["metric"] != "Node Control/Rebirth"] == ["a", "b"]


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (Sample("spBv1.0/STATE/host", b'{"online": true}'), "carry no readings"),
        (Sample("spBv1.0/plant/NDATA/n", b'{"t": 1}'), "not Sparkplug B protobuf"),
        (Sample("spBv1.0/plant", BIRTH.payload), "a Sparkplug topic is"),
        (sparkplug("NBIRTH", "n", {"name": "huge", "datatype": 8, "long_value": 2**60}), "out of range"),
    ],
)
def test_samples_that_the_route_would_not_take_are_left_out_with_the_reason(sample: Sample, says: str) -> None:
    inference = infer([BIRTH, sample])

    assert [one.samples for one in inference.routes] == [1]
    assert [(one.topic, says in one.reason) for one in inference.left_out] == [(sample.topic, True)]


def test_data_after_a_left_out_birth_is_left_out_too() -> None:
    unfit = sparkplug("NBIRTH", "n", BORN, {"name": "huge", "datatype": 8, "long_value": 2**60})

    inference = infer([unfit, DATA])

    assert len(inference.left_out) == 2
    files_of(inference, mqtt={"mqtt.url": "mqtt://b"})


# --- the files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([Sample("mp/A1", msgpack(VALUE)), Sample("mp/A2", msgpack(READINGS))], id="msgpack"),
        pytest.param([Sample("cbor/A1", cbor(VALUE))], id="cbor"),
        pytest.param([Sample("tele/A1/cpu", LINE + b"\n" + LINE)], id="influx"),
        pytest.param([Sample("csv/A1", b"t;h\n21.5;40\n")], id="csv"),
        *(
            pytest.param([Sample("z/A1", compress(json.dumps(READINGS).encode()))], id=name)
            for name, compress in COMPRESS.items()
        ),
        pytest.param([Sample("z/A1", gzip.compress(b"21.5")), Sample("z/A1", b"22")], id="auto"),
        pytest.param([BIRTH], id="sparkplug"),
    ],
)
def test_files_from_init_pass_check_and_map_the_samples(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"API_KEY": "t.k.s", "TENANT": "t"}.items():
        monkeypatch.setenv(f"BRIDGE_GDN__{name}", value)
    arguments = []
    for number, sample in enumerate(samples):
        (tmp_path / str(number)).write_bytes(sample.payload)
        arguments += ["--sample", sample.topic, f"@{tmp_path / str(number)}"]
    config = ["--config", str(tmp_path / "made" / "bridge.toml")]

    assert main(["init", str(tmp_path / "made"), *arguments]) == 0
    assert main(["check", *config]) == 0
    assert main(["test", *config]) == 0
    assert f"{len(samples)} of {len(samples)} examples" in capsys.readouterr().out
    for number, sample in enumerate(samples):
        assert main(["explain", *config, sample.topic, f"@{tmp_path / str(number)}", "--json"]) == 0
        explained = json.loads(capsys.readouterr().out)["rows"]
        assert explained
        values = [value for one in explained for name, value in one["row"].items() if name != "device_id"]
        assert not {None, "", "null"} & set(values)


binary = (
    st.binary(max_size=12)
    | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), st.integers() | st.floats(), max_size=3).map(cbor)
    | st.dictionaries(st.text(max_size=3), st.integers(0, 99) | st.text(max_size=3), max_size=3).map(msgpack)
    | st.sampled_from([LINE, b"a b=1", b"21", b'{"t": 1}', b"t,h\n1,2\n", b""])
)
payloads = binary | st.builds(lambda name, content: COMPRESS[name](content), st.sampled_from(sorted(COMPRESS)), binary)
metrics = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "bdSeq", "é"]),
        "alias": st.integers(0, 2),
        "datatype": st.sampled_from([0, 3, 8, 10, 11, 12, 17]),
        "timestamp": st.integers(0, 2**64 - 1),
        "long_value": st.integers(0, 2**64 - 1),
    },
) | st.fixed_dictionaries({"name": st.sampled_from(["a", "s"]), "datatype": st.just(10), "double_value": st.floats()})
edge_nodes = st.builds(
    sparkplug,
    st.sampled_from(["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "NCMD", "x"]),
    st.sampled_from(["n", "m", "n/d"]),
    *[metrics] * 2,
    timestamp=st.integers(0, 5),
)
topics = st.sampled_from(["a/b", "devices/1/t", "devices/2/t", "7/8/9/10", "spBv1.0/plant/NDATA/n"])


@pytest.mark.long
@given(st.lists(st.builds(Sample, topics, payloads) | edge_nodes, min_size=1, max_size=8))
def test_any_samples_give_files_that_map_them_or_are_left_out_with_a_reason(samples: list[Sample]) -> None:
    inference: Inference = infer(samples)

    assert len(inference.taken) + len(inference.left_out) == len(samples)
    assert all(one.reason for one in inference.left_out)
    if inference.routes:
        files_of(inference, mqtt={"mqtt.url": "mqtt://b"})  # loads, checks and maps; raises if not
