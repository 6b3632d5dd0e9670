"""``init``: samples become files that load and map them."""

from __future__ import annotations

import argparse
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
from bridge.cli.configuration import route_of
from bridge.cli.exits import UsageError
from bridge.cli.init.columns import MAX_COLUMNS
from bridge.cli.init.command import _filter, files_of
from bridge.cli.init.files import CONFIG_FILE, WORKER_FILE, configuration_text, definition_text
from bridge.cli.init.inference import MAX_ROUTES, MAX_SAMPLES, infer
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
        (["A1/B2"], "A1/B2"),
        (["plant/x/y", "plant/z/w"], "plant/{plant}/{level_3}"),
        (["devices/{x}/t"], "devices/{device}/t"),
        (["devices/a\x01/t"], "devices/{device}/t"),
        (["$SYS/broker/uptime9"], "$SYS/broker/{broker}"),
        (["a//b"], "a//b"),
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
        "devices/a/status": 1,
        "devices/a/lamp": 1,
    }
    assert len({one.route.stream for one in found}) == 3


def test_different_payloads_on_the_same_topics_share_a_route() -> None:
    found = the_one(("devices/A1", {"t": 1}), ("devices/A1", b"hello"), ("devices/A2", b"21"))

    assert found.route.format.name == "scalar"
    assert {"device": "A1", "value": "hello"} in rows(found)
    assert {"device": "A1", "value": '{"t": 1}'} in rows(found)


def test_a_capture_and_a_member_of_the_same_name_become_two_columns() -> None:
    found = the_one(("devices/a", {"device": 7}), ("devices/b", {"device": 8}))

    assert columns(found) == {"device": "string", "device_2": "long"}
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
        ([1, 2], "long"),
        ([1, 2.5], "double"),
        ([2**63], "string"),
        ([2**60, 0.5], "string"),
        ([True, False], "bool"),
        (["x"], "string"),
        ([1, "x"], "string"),
        ([True, 1], "string"),
        ([[1], [2]], "object"),
        ([{}, [1]], "object"),
        ([None, None], "string"),
    ],
)
def test_a_column_has_the_type_that_takes_every_value(values: list[Any], type_: str) -> None:
    found = the_one(*(("t", {"m": value}) for value in values))

    assert columns(found) == {"m": type_}
    assert len(found.route.examples) == len({json.dumps(value) for value in values})


def test_a_member_that_fits_no_type_is_left_out_with_a_note() -> None:
    found = the_one(("t", {"a": 1, "m": 1}), ("t", {"a": 1, "m": [1]}))

    assert columns(found) == {"a": "long"}
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


def test_a_member_missing_from_some_samples_gets_a_default_and_a_note() -> None:
    found = the_one(("t", {"a": 1, "b": 2.5, "c": "x"}), ("t", {"a": 2, "c": None}))

    assert rows(found) == [{"a": 1, "b": 2.5, "c": "x"}, {"a": 2, "b": 0.0, "c": ""}]
    assert [note.split(":")[0] for note in found.notes] == ["b", "c"]


@pytest.mark.parametrize(
    ("value", "time"),
    [(1764000000, '"s"'), (1764000000123, '"ms"'), ("2026-01-02T03:04:05Z", '"iso8601"'), (17, None), ("2026", None)],
)
def test_points_in_time_are_recognised_and_only_noted(value: Any, time: str | None) -> None:
    found = the_one(("t", {"at": value}))

    assert rows(found) == [{"at": value}]
    assert ([time in note for note in found.notes] == [True]) if time else not found.notes


def test_an_array_of_objects_in_a_member_is_noted() -> None:
    found = the_one(("t", {"readings": [{"t": 1}]}))

    assert any('each = "readings"' in note for note in found.notes)


def test_csv_without_a_header_gets_column_names() -> None:
    found = the_one(("t", b"21.5;open\n22;shut"))

    assert columns(found) == {"cell_1": "double", "cell_2": "string"}
    assert rows(found) == [[{"cell_1": 21.5, "cell_2": "open"}, {"cell_1": 22, "cell_2": "shut"}]]


def test_numbers_with_leading_zeros_stay_text() -> None:
    assert columns(the_one(("t", b"id,n\n007,1\n"))) == {"id": "string", "n": "long"}


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
    config = tomllib.loads(configuration_text(inference.routes, broker="mqtt://b", protocol="5"))
    streams = input_streams(parse(definition_text(inference.routes)))
    assert {r["stream"] for r in config["routes"]} == set(streams)
    files_of(inference, broker="mqtt://b", protocol="3.1.1")  # loads, checks and maps; raises if not


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
    config = tomllib.loads(configuration_text(inference.routes, broker="mqtt://b", protocol="5"))
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
        parser = argparse.ArgumentParser()
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


@pytest.mark.parametrize(("payload", "warned"), [('{"temperature": 18}', True), ('{"temperature": 18.5}', False)])
def test_a_single_sample_with_a_whole_number_gets_a_warning(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], payload: str, warned: bool
) -> None:
    run("--sample", "devices/AD11/telemetry", payload)

    assert ("based on a single sample" in capsys.readouterr().out) == warned


@pytest.mark.parametrize("name", [CONFIG_FILE, WORKER_FILE])
def test_an_existing_file_is_reported_and_kept(run: Callable[..., int], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(ConfigError, match=f"{name}: exists already"):
        run(*SAMPLE)

    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
    assert run(*SAMPLE, "--force") == 0
    assert "mine" not in (tmp_path / name).read_text()


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
        (("--from-topic", "a", "--broker", "http://h"), "must start with mqtt://"),
        (("--from-topic", "a/#/b", "--broker", "mqtt://h"), "# can only be the last level"),
    ],
)
def test_invalid_arguments_of_init_are_reported(run: Callable[..., int], arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        run(*arguments)


def test_init_without_samples_is_wrong_usage(run: Callable[..., int]) -> None:
    with pytest.raises(UsageError, match="--sample TOPIC PAYLOAD"):
        run()


def test_captures_in_a_filter_are_wildcards() -> None:
    assert _filter("devices/{device}/#") == "devices/+/#"
