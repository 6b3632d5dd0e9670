"""``init``: samples become files that load and map them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.cli import examples, init
from bridge.cli.arguments import Parser
from bridge.cli.configuration import route_of
from bridge.cli.exits import UsageError
from bridge.cli.init.columns import MAX_COLUMNS
from bridge.cli.init.command import _filter, files_of
from bridge.cli.init.files import CONFIG_FILE, WORKER_FILE, configuration_text, definition_text
from bridge.cli.init.groups import MAX_ROUTES
from bridge.cli.init.inference import MAX_SAMPLES, infer
from bridge.cli.init.names import safe_name
from bridge.cli.init.results import MAX_EXAMPLES, Inference, InferredRoute, Sample
from bridge.config import load
from bridge.errors import ConfigError
from bridge.mapping import Mapper
from bridge.mapping.payload import MAX_PAYLOAD
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql import input_streams, parse
from tests.conftest import API_KEY


def found_in(*samples: tuple[str, Any]) -> tuple[InferredRoute, ...]:
    """Routes from samples. Payloads that aren't bytes are encoded as JSON."""
    return infer([Sample(topic, p if isinstance(p, bytes) else json.dumps(p).encode()) for topic, p in samples]).routes


def the_one(*samples: tuple[str, Any]) -> InferredRoute:
    (found,) = found_in(*samples)
    return found


def columns(found: InferredRoute) -> dict[str, str]:
    return {column.name: column.type.value for column in found.columns}


def rows(found: InferredRoute) -> list[Any]:
    return [example.expect for example in found.route.examples]


# --- topics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topics", "template"),
    [
        (["devices/AD11"], "devices/{device}"),
        (["devices/a", "devices/b"], "devices/{device}"),
        (["devices/AD11/rooms/200/telemetry"], "devices/{device}/rooms/{room}/telemetry"),
        (["a/batteries/7", "a/batteries/8"], "a/batteries/{battery}"),
        (["v1/gateway/telemetry"], "v1/gateway/telemetry"),
        (["A1/B2"], "A1/{device}"),
        (["plant/x/y", "plant/z/w"], "plant/{plant}/{device}"),
        (["devices/{x}/t"], "devices/{device}/t"),
        (["devices/a\x01/t"], "devices/{device}/t"),
        (["$SYS/broker/uptime9"], "$SYS/broker/{broker}"),
        (["a//b"], "a//b"),
        (["zigbee2mqtt/kitchen"], "zigbee2mqtt/{device}"),
        (["rtl_433/1a/t", "rtl_433/2b/t"], "rtl_433/{device}/t"),
        (["ems-esp32/boiler"], "ems-esp32/boiler"),
        (["site1/floor2/kitchen/t", "site1/floor2/hall/t"], "site1/floor2/{device}/t"),
        (["tele/cellar/SENSOR"], "tele/{device}/SENSOR"),
        (["tele/cellar/SENSOR", "tele/attic/SENSOR"], "tele/{device}/SENSOR"),
        (["shellyplus1pm-a8032ab/events/rpc"], "{device}/events/rpc"),
        (["lab/00:1b:63:84:45:e6/t"], "lab/{device}/t"),
        (["sensors/0011223344556677/x", "sensors/0011223344556677/y"], "sensors/{sensor}/{device}"),
        (["x/a/b/c", "x/d/e/f"], "x/{site}/{area}/{device}"),
        (["hall/temperature", "attic/temperature"], "{device}/temperature"),
    ],
)
def test_levels_that_differ_or_look_like_identifiers_become_captures(topics: list[str], template: str) -> None:
    found = the_one(*((topic, {"t": 1}) for topic in topics))

    assert found.route.topic == template


def test_topics_with_nothing_in_common_get_separate_routes() -> None:
    found = found_in(("kitchen/temp", {"t": 1}), ("garden/soil", {"t": 1}))

    assert {one.route.topic for one in found} == {"kitchen/temp", "garden/soil"}


def test_different_payloads_get_separate_routes() -> None:
    found = found_in(
        ("devices/a/telemetry", {"temperature": 1.5}),
        ("devices/b/telemetry", {"temperature": 2}),
        ("devices/a/status", {"online": True}),
        ("devices/a/lamp", b"ON"),
    )

    assert {one.route.topic: one.samples for one in found} == {
        "devices/{device}/telemetry": 2,
        "devices/{device}/status": 1,
        "devices/{device}/lamp": 1,
    }
    assert len({one.route.stream for one in found}) == 3


def test_payloads_of_different_formats_on_one_topic_share_a_route_with_a_note() -> None:
    found = the_one(("devices/A1", {"t": 1}), ("devices/A1", b"hello"))

    assert found.route.format.name == "scalar"
    assert {row["value"] for row in rows(found)} == {'{"t": 1}', "hello"}
    assert "several formats" in found.notes[0]


def test_numbers_and_texts_on_the_same_topics_are_split_by_their_type() -> None:
    found = found_in(("devices/A1", b"21"), ("devices/A2", b"open"), ("devices/A3", b"true"), ("devices/A1", b"shut"))

    assert {one.route.when: (one.samples, columns(one)["value"]) for one in found} == {
        "type(value) == 'number'": (1, "double"),
        "type(value) == 'string'": (2, "string"),
        "type(value) == 'boolean'": (1, "bool"),
    }
    assert {one.route.topic for one in found} == {"devices/{device}"}


def test_several_shapes_on_one_topic_are_split_by_their_members() -> None:
    found = found_in(
        ("home/a", {"temperature": 1.5, "battery": 90}),
        ("home/a", {"contact": True, "battery": 80}),
        ("home/b", {"temperature": 2.5, "humidity": 40}),
    )

    assert {(one.route.when, one.samples, one.route.stream, one.route.topic) for one in found} == {
        ("temperature != null || humidity != null", 2, "home_temperature", "home/{device}"),
        ("contact != null", 1, "home_contact", "home/{device}"),
    }
    assert [row for one in found for row in rows(one) if "contact" in row] == [
        {"device": "a", "contact": True, "battery": 80}
    ]


def test_kinds_of_messages_are_split_by_the_member_that_names_them() -> None:
    found = found_in(("t", {"_type": "location", "lat": 1.5, "tst": 1}), ("t", {"_type": "lwt", "tst": 1}))

    assert [one.route.when for one in found] == ["_type == 'location'", "_type == 'lwt'"]
    assert [one.route.stream for one in found] == ["t_location", "t_lwt"]


def test_elements_of_one_message_go_to_the_routes_of_their_shapes() -> None:
    (numbers, texts) = found_in(
        (
            "kep",
            {"timestamp": 1712345678901, "values": [{"id": "a", "v": 1}, {"id": "b", "v": "x"}, {"id": "c", "v": 2}]},
        )
    )

    assert (numbers.route.each, texts.route.each) == ("values", "values")
    assert (numbers.route.when, texts.route.when) == ("type(v) == 'number'", "type(v) == 'string'")
    assert numbers.route.fields == {"timestamp": "$root.timestamp"}


def test_a_topic_whose_payloads_have_another_format_keeps_a_route_of_its_own() -> None:
    found = found_in(("devices/A1", {"t": 1}), ("devices/A2", {"t": 1}), ("devices/A3", b"hello"))

    assert [(one.route.topic, one.route.format.name) for one in found] == [
        ("devices/A3", "scalar"),
        ("devices/{device}", "json"),
    ]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b'{"t": nan}', "not_json: the payload is not JSON"),
        (b'{"t": 2', "not_json: the payload is not JSON"),
        (b"offline", "'offline' is no reading: it is a will"),
        (b"", "clears a retained message"),
    ],
)
@pytest.mark.parametrize("good", [1, 2, 49])
def test_one_bad_sample_among_good_ones_is_left_out_and_named(bad: bytes, says: str, good: int) -> None:
    samples = [Sample("clock/st", b'{"t": %d.5}' % n) for n in range(good)]

    inference = infer([*samples[:1], Sample("clock/st", bad), *samples[1:]])

    (found,) = inference.routes
    assert (found.route.format.name, found.samples) == ("json", good)
    assert [(one.topic, one.reason) for one in inference.left_out if says in one.reason] == [
        ("clock/st", inference.left_out[0].reason)
    ]


def test_payloads_that_look_like_json_but_are_not_get_a_note() -> None:
    assert "look like JSON" in the_one(("t", b'{"t": nan}')).notes[0]


def test_a_topic_with_many_shapes_gets_one_route() -> None:
    found = the_one(*(("t", {f"m{n}": 1.5, f"k{n}": "x"}) for n in range(40)))

    assert (found.samples, len(found.columns), found.takes_nulls) == (40, 80, True)


def test_a_word_for_no_value_among_numbers_is_left_out_and_filtered() -> None:
    inference = infer([Sample("ha/x", b"21.5"), Sample("ha/x", b"unavailable")])

    assert [(columns(one), one.route.when) for one in inference.routes] == [
        ({"value": "double"}, "type(value) == 'number'")
    ]
    assert [one.reason.split(" is ")[0] for one in inference.left_out] == ["'unavailable'"]


def test_a_capture_and_a_member_of_the_same_name_become_two_columns() -> None:
    found = the_one(("devices/a", {"device": 7}), ("devices/b", {"device": 8}))

    assert columns(found) == {"device": "string", "device_2": "double"}
    assert rows(found) == [{"device": "a", "device_2": 7}, {"device": "b", "device_2": 8}]


# --- payloads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (b'{"t": 1}', "json"),
        (b'[{"t": 1}, {"t": 2}]', "json"),
        (b"[1, 2]", "json"),
        (b"21.5", "scalar"),
        (b"open", "scalar"),
        (b"null", "scalar"),
        (b"hello, world", "scalar"),
        (b"t,h\n1,2\n3,4", "csv"),
        (b"t;h\r\n1;2\r\n", "csv"),
        (b"21.5,40", "csv"),
        (b"\xff\x00\x01", "raw"),
        (b"   ", "raw"),
        (b"{'t': 1}", "scalar"),
    ],
)
def test_the_format_is_recognised(payload: bytes, name: str) -> None:
    assert the_one(("t", payload)).route.format.name == name


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([1, 2], "double"),
        ([1, 2.5], "double"),
        ([2**60], "long"),
        ([2**63], "string"),
        ([2**60, 0.5], "string"),
        ([1700000000], "long"),
        ([True, False], "bool"),
        (["x"], "string"),
        ([1, "x"], "string"),
        ([True, 1], "string"),
        ([[1], [2]], "object"),
        ([{}, [1]], "object"),
        ([None, None], "string"),
        (["21.5", "-3"], "double"),
        (["21.5", 3], "double"),
        (["0.1234567890123456789"], "string"),
        (["007"], "string"),
        (["21,5"], "double"),
        (["21,5", "7"], "double"),
        (["21,5", "21.5"], "string"),
        (["unavailable"], "string"),
        (["unavailable", 21.5], "double"),
        (["unavailable", "open"], "string"),
        (["2026-01-02T03:04:05Z", "2026-01-02 03:04:05.123+01:00"], "long"),
        (["2026-01-02T03:04:05"], "string"),
        (["1700000000"], "long"),
    ],
)
def test_a_column_has_the_type_that_takes_every_value(values: list[Any], type_: str) -> None:
    found = the_one(*(("t", {"m": value, "o": 1.5}) for value in values))

    assert columns(found) == {"m": type_, "o": "double"}
    assert len(found.route.examples) == min(MAX_EXAMPLES, len({json.dumps(value) for value in values}))


@pytest.mark.parametrize("name", ["id", "deviceId", "boot_count", "uptime", "fCnt", "seq", "errorCode"])
def test_whole_numbers_that_are_ids_and_counters_stay_whole(name: str) -> None:
    assert columns(the_one(("t", {name: 17, "o": 1.5})))[name] == "long"


@pytest.mark.parametrize("name", ["id", "fw_version", "serial", "deviceName", "ip"])
def test_texts_that_look_like_numbers_stay_texts_if_they_name_something(name: str) -> None:
    assert columns(the_one(("t", {name: "1.10", "o": 1.5})))[name] == "string"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("21.5", "is a number in text; the column is double"),
        ("2026-01-02T03:04:05Z", "is a time in text; the column gets milliseconds since 1970"),
        ("2026-01-02T03:04:05", "is a local time without an offset, kept as text"),
        ("35,4", "has a decimal comma; the column is double"),
    ],
)
def test_a_text_that_stands_for_something_else_is_noted(value: str, says: str) -> None:
    (note,) = the_one(("t", {"m": value})).notes

    assert says in note


def test_a_member_that_fits_no_type_is_left_out_with_a_note() -> None:
    found = the_one(("t", {"a": 1, "b": 2, "m": 1}), ("t", {"a": 1, "b": 2, "m": [1]}))

    assert columns(found) == {"a": "double", "b": "double"}
    assert any("'m'" in note for note in found.notes)


def test_members_of_nested_objects_become_columns_down_to_two_levels() -> None:
    found = the_one(("t", {"meta": {"site": "x", "pos": {"lat": 1.5, "deep": {"er": 1}}}}))

    assert columns(found) == {"meta_site": "string", "meta_pos_lat": "double", "meta_pos_deep": "object"}
    assert found.route.fields["meta_site"] == "meta.site"
    assert rows(found) == [{"meta_site": "x", "meta_pos_lat": 1.5, "meta_pos_deep": {"er": 1}}]


@pytest.mark.parametrize(
    "name", ["from", "SELECT", "a b", "a.b", "ä", "9", "_key", "", '"', "a\\b", "{x}", "$id", "=x", "jmespath:x", "\n"]
)
def test_any_name_becomes_a_column_with_a_safe_name(name: str) -> None:
    found = the_one(("t", {name: 1}))

    (column,) = found.columns
    assert column.name.isidentifier()
    assert not column.name.startswith("_")
    assert column.name not in ("from", "SELECT")
    assert rows(found) == [{column.name: 1}]


def test_a_member_missing_from_some_samples_is_null_there_and_noted() -> None:
    found = the_one(("t", {"a": 1, "b": 2.5, "c": "x"}), ("t", {"a": 2, "c": None}))

    assert found.takes_nulls
    assert not found.route.fields
    assert rows(found) == [{"a": 1, "b": 2.5, "c": "x"}, {"a": 2}]
    assert [note.split(":")[0] for note in found.notes] == ["b", "c"]


def test_the_workers_source_takes_nulls_only_if_a_row_may_have_some() -> None:
    one, several = found_in(("t", {"a": 1, "b": 2.5}), ("u/v", {"a": 1}))

    assert [several.takes_nulls, one.takes_nulls] == [True, False]
    text = definition_text([several, one])
    assert (
        "CREATE SOURCE t WITH (type='stream', stream.list='t', map.type='json', fail.on.missing.attribute='false')"
        in text
    )
    assert "CREATE STREAM u_v (" in text


def test_a_message_without_any_known_reading_becomes_no_row_of_nulls() -> None:
    found = the_one(("t", {"ts": 1700000000, "temperature": 1.5, "battery": 90}))

    assert found.route.when == "temperature != null || battery != null"


@pytest.mark.parametrize(("value", "time"), [(1764000000, '"s"'), (1764000000123, '"ms"'), (17, None), (1.5, None)])
def test_numbers_that_may_be_times_are_only_noted(value: Any, time: str | None) -> None:
    found = the_one(("t", {"at": value}))

    assert rows(found) == [{"at": value}]
    assert ([time in note for note in found.notes] == [True]) if time else not found.notes


def test_an_array_of_objects_in_a_member_is_noted() -> None:
    found = the_one(("t", {"temperature": 21.5, "readings": [{"t": 1}]}))

    assert any('each = "readings"' in note for note in found.notes)


def test_an_array_of_objects_beside_descriptions_becomes_rows() -> None:
    found = the_one(("t", {"device": "a", "readings": [{"t": 1}, {"t": 2}]}))

    assert found.route.each == "readings"
    assert rows(found) == [[{"device": "a", "t": 1}, {"device": "a", "t": 2}]]


@pytest.mark.parametrize(("payload", "name"), [(b"-0,5", "scalar"), (b"1.234,5", "scalar"), (b"-0,5;7", "csv")])
def test_a_lone_decimal_comma_is_no_csv(payload: bytes, name: str) -> None:
    found = the_one(("heat/flow", payload))

    assert found.route.format.name == name
    assert found.route.format.decimal == ","
    assert "has a decimal comma; the column is double" in found.notes[0]


def test_a_device_that_sends_one_or_several_lines_of_json_has_one_route() -> None:
    found = the_one(("t", {"t": 1}), ("t", {"t": 2}), ("t", b'{"t":1}\n{"t":2}\n'))

    assert (found.route.format.name, found.samples) == ("jsonl", 3)


def test_texts_for_no_value_among_numbers_become_null_values() -> None:
    found = the_one(("t", {"t": 21.5, "s": "none", "o": 1}), ("t", {"t": "unavailable", "s": "x", "o": "N/A"}))

    assert found.route.format.null_values == ("N/A", "unavailable")
    assert rows(found) == [{"t": 21.5, "s": "none", "o": 1}, {"s": "x"}]


@pytest.mark.parametrize(("payload", "name"), [(b'{"t":1}\n{"t":2}\n', "jsonl"), (b"t\th\n1\t2\n", "csv")])
def test_json_lines_and_tabs_are_recognised(payload: bytes, name: str) -> None:
    inference = infer([Sample("t", payload)])

    assert inference.routes[0].route.format.name == name
    files_of(inference, mqtt={"mqtt.url": "mqtt://b"})


def test_csv_without_a_header_gets_column_names() -> None:
    found = the_one(("t", b"21.5;open\n22;shut"))

    assert columns(found) == {"cell_1": "double", "cell_2": "string"}
    assert rows(found) == [[{"cell_1": 21.5, "cell_2": "open"}, {"cell_1": 22, "cell_2": "shut"}]]


def test_numbers_with_leading_zeros_stay_text() -> None:
    assert columns(the_one(("t", b"id,n\n007,1\n"))) == {"id": "string", "n": "double"}


def test_a_payload_without_members_still_gives_a_row() -> None:
    assert rows(the_one(("t", {}))) == [{"topic": "t"}]


# --- bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "payload", "says"),
    [
        ("a/+", b"1", "wildcards"),
        ("", b"1", "at least one character"),
        ("a\0", b"1", "NUL"),
        ("a\udcff", b"1", "UTF-8"),
        ("$share/g/t", b"1", "subscription"),
        ("$a{b}/t", b"1", "first level"),
        ("/".join("a" * 40), b"1", "32 levels"),
        ("a", b"", "empty"),
        ("a", b"1" * (MAX_PAYLOAD + 1), "more than"),
    ],
)
def test_an_unusable_sample_is_left_out_with_the_reason(topic: str, payload: bytes, says: str) -> None:
    inference = infer([Sample(topic, payload), Sample("good", b"1")])

    assert [one.route.topic for one in inference.routes] == ["good"]
    assert [(one.topic, says in one.reason) for one in inference.left_out] == [(topic, True)]


def test_routes_columns_and_samples_are_bounded() -> None:
    many_topics = infer([Sample("x" * (n + 1), b"1") for n in range(MAX_ROUTES + 5)])
    wide = the_one(("t", {f"m{n}": n for n in range(2000)}))
    many_samples = infer([Sample("t", b"%d" % n) for n in range(MAX_SAMPLES + 5)])

    assert (len(many_topics.routes), len(many_topics.left_out)) == (MAX_ROUTES, 5)
    assert len(wide.columns) == MAX_COLUMNS
    assert len(wide.notes) < 100
    assert many_samples.routes[0].samples == MAX_SAMPLES
    assert len(many_samples.routes[0].route.examples) == MAX_EXAMPLES


def test_names_that_differ_only_in_case_become_different_columns() -> None:
    taken: set[str] = set()

    assert [safe_name(text, taken) for text in ("Temp", "temp", "temp_2")] == ["Temp", "temp_2", "temp_2_2"]


# --- whatever comes --------------------------------------------------------------------------------------

names = st.text(max_size=6) | st.sampled_from(["t", "from", "_key", "a.b", "{x}", '"q"', "$id"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["2026-01-02T03:04:05Z", "1,2", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
payloads = (
    json_values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20)
    | st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass"))
    | st.sampled_from([b"1,2\n3,4", b"a;b\n1;2\n", b"a,b\n1,\n", b"21.5", b"ON"])
)
levels = st.sampled_from(["a", "b", "devices", "AD11", "7", "v1", "", "$x", "{y}", "é"]) | st.text(max_size=4)
topics = st.lists(levels, min_size=1, max_size=4).map("/".join) | st.sampled_from(["a/b", "devices/1/t", "devices/2/t"])
many_samples = st.lists(st.builds(Sample, topics, payloads), min_size=1, max_size=8)


@pytest.mark.long
@settings(max_examples=400)
@given(many_samples)
def test_any_samples_give_files_that_map_them_or_are_left_out_with_a_reason(samples: list[Sample]) -> None:
    inference = infer(samples)

    assert len(inference.taken) + len(inference.left_out) == len(samples)
    assert all(one.reason for one in inference.left_out)
    if not inference.routes:
        return
    config = tomllib.loads(configuration_text(inference.routes, mqtt={"mqtt.url": "mqtt://b"}))
    streams = input_streams(parse(definition_text(inference.routes)))
    assert {r["stream"] for r in config["routes"]} == set(streams)
    files_of(
        inference, mqtt={"mqtt.url": "mqtt://b", "mqtt.protocol": "3.1.1"}
    )  # loads, checks and maps; raises if not


@pytest.mark.long
@settings(max_examples=200)
@given(many_samples)
def test_the_examples_in_the_files_pass(samples: list[Sample]) -> None:
    inference = infer(samples)
    if not inference.routes:
        return
    mapping = loaded(inference)

    for one in inference.routes:
        for example in one.route.examples:
            assert not examples._difference(mapping, example, "here")


def loaded(inference: Inference) -> Mapper:
    """A mapper for the files, and the examples in the file."""
    config = tomllib.loads(configuration_text(inference.routes, mqtt={"mqtt.url": "mqtt://b"}))
    for one, route in zip(inference.routes, config["routes"], strict=True):
        said = [(test["topic"], test["payload"], test["expect"]) for test in route.get("test", [])]
        assert said == [(e.topic, e.payload, e.expect) for e in one.route.examples]
    return Mapper(
        routes=[one.route for one in inference.routes], streams=input_streams(parse(definition_text(inference.routes)))
    )


# --- the verb --------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.delenv("BRIDGE_MQTT__URL", raising=False)

    def run(*arguments: str) -> int:
        parser = Parser()
        init.add_arguments(parser)
        parser.set_defaults(json=False)
        return init.init(parser.parse_args([str(tmp_path), *arguments]))

    return run


SAMPLE = ("--sample", "devices/AD11/telemetry", '{"temperature": 18.5}')


def test_the_files_load_and_the_sample_maps(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SAMPLE) == 0

    loaded_settings = load(
        config_file=tmp_path / CONFIG_FILE, environ={"BRIDGE_GDN__API_KEY": API_KEY}, secret_directories=()
    )
    mapping = Mapper(
        routes=[route_of(route) for route in loaded_settings.routes],
        streams=input_streams(parse((tmp_path / WORKER_FILE).read_text())),
    )
    mapped = mapping.map(MqttMessage("devices/AD12/telemetry", b'{"temperature": 1}', 1, False, 1, 0))
    assert not isinstance(mapped, DeadLetter)
    assert json.loads(mapped[0].payload) == {"device": "AD12", "temperature": 1}
    said = capsys.readouterr().out
    assert "next: set mqtt.url, gdn.url and gdn.tenant in" in said
    assert "BRIDGE_GDN__API_KEY" in said
    assert f"gdn-bridge run --config {tmp_path / CONFIG_FILE}\n" in said


@pytest.mark.parametrize("name", [CONFIG_FILE, WORKER_FILE])
def test_an_existing_file_is_reported_and_kept(run: Callable[..., int], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(ConfigError, match=f"{name}: exists already"):
        run(*SAMPLE)

    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
    assert run(*SAMPLE, "--force") == 0
    assert "mine" not in (tmp_path / name).read_text()


@pytest.mark.parametrize("payload", ["-0,5", "-3.5", "-7 C"])
def test_a_payload_may_begin_with_a_minus(run: Callable[..., int], tmp_path: Path, payload: str) -> None:
    assert run("--sample", "heat/flow", payload) == 0

    assert f'payload = "{payload}"' in (tmp_path / CONFIG_FILE).read_text()


def test_a_payload_can_be_read_from_a_file(run: Callable[..., int], tmp_path: Path) -> None:
    file = tmp_path / "payload"
    file.write_bytes(b'{"from_file": true}')

    assert run("--sample", "t", f"@{file}") == 0

    assert "from_file" in (tmp_path / CONFIG_FILE).read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sample", "t", ""), "empty"),
        (("--sample", "t", "@/nowhere/at/all"), "can't be read"),
        (("--from-topic", "$share/g/#"), "shared subscription"),
        (("--from-topic", "a/#"), "--broker"),
        (("--from-topic", "a", "--broker", "http://h"), "--broker: must start with mqtt://"),
        (("--from-topic", "a", "--broker", "mqtt://h", "--username", ""), "--username: must not be empty"),
        (
            ("--from-topic", "a", "--broker", "mqtt://h", "--ca-file", "/x"),
            "--ca-file: is for TLS, but mqtt.url is without",
        ),
        (("--from-topic", "a", "--broker", "mqtts://h", "--ca-file", "/nowhere"), "--ca-file: "),
        (("--from-topic", "a", "--broker", "mqtts://h", "--key-file", "/x"), "--key-file: is set, but mqtt.cert_file"),
        (
            ("--from-topic", "a", "--broker", "mqtt://h", "--password-file", "/nowhere"),
            "--password-file: /nowhere can't be",
        ),
        (("--from-topic", "a/#/b", "--broker", "mqtt://h"), "# can only be the last level"),
    ],
)
def test_invalid_arguments_of_init_are_reported(run: Callable[..., int], arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        run(*arguments)


def test_options_of_the_broker_are_written_but_not_the_password(run: Callable[..., int], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")

    run(*SAMPLE, "--broker", "mqtt://b", "--username", "ann", "--client-id", "b7", "--password-file", str(secret))

    text = (tmp_path / CONFIG_FILE).read_text()
    assert tomllib.loads(text)["mqtt"] == {"url": "mqtt://b", "username": "ann", "client_id": "b7"}
    assert "horse" not in text


def test_init_without_samples_is_wrong_usage(run: Callable[..., int]) -> None:
    with pytest.raises(UsageError, match="--sample TOPIC PAYLOAD"):
        run()


def test_captures_in_a_filter_are_wildcards() -> None:
    assert _filter("devices/{device}/#") == "devices/+/#"
