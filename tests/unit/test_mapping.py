from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import Mapper, Route, check
from bridge.mapping.formats import FormatOptions
from bridge.mapping.topics import TopicTemplate
from bridge.message import DeadLetter, MqttMessage
from bridge.reasons import Reason
from bridge.streamql import parse
from bridge.streamql.streams import InputStream, input_streams

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM readings (deviceID string, roomNo int, temperature double);
CREATE STREAM wide (s string, i int, l long, f float, d double, b bool, o object);
CREATE STREAM one (v long);
CREATE SINK STREAM output (v long);
"""
TOPIC = "devices/{deviceID}/rooms/{roomNo}/telemetry"
READINGS = Route(TOPIC, "readings")


def streams() -> dict[str, InputStream]:
    return dict(input_streams(parse(DEFINITION)))


def mapper(*routes: Route) -> Mapper:
    return Mapper(routes=routes or (READINGS,), streams=streams())


def message(payload: bytes | object, topic: str = "devices/AD11/rooms/200/telemetry") -> MqttMessage:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return MqttMessage(topic, data, 1, False, 1, 5)


def mapped_rows(mapped: object) -> list[Any]:
    assert isinstance(mapped, list), mapped
    return mapped


def rows(mapped: object) -> list[dict[str, Any]]:
    return [json.loads(row.payload) for row in mapped_rows(mapped)]


def reason(mapped: Any) -> str:
    assert isinstance(mapped, DeadLetter), mapped
    return mapped.reason


def test_columns_come_from_captures_and_payload_by_name() -> None:
    (row,) = mapped_rows(mapper().map(message({"temperature": 18, "extra": [1]})))

    assert row.stream == "readings"
    assert row.payload == b'{"deviceID":"AD11","roomNo":200,"temperature":18.0}'


def test_a_bug_in_the_mapping_makes_its_message_a_dead_letter_and_no_exception() -> None:
    m = mapper()

    def buggy(_message: MqttMessage) -> Any:
        raise ZeroDivisionError

    m.compiled_routes[0] = m.compiled_routes[0]._replace(decode=buggy)
    mapped = m.map(message({"temperature": 18}))

    assert isinstance(mapped, DeadLetter)
    assert (mapped.reason, mapped.mapping, mapped.route) == ("internal_error", m.version, None)
    assert "ZeroDivisionError" in mapped.detail


def test_an_array_of_objects_gives_a_row_each() -> None:
    mapped = mapper().map(message([{"temperature": 1}, {"temperature": 2}]))

    assert [r["temperature"] for r in rows(mapped)] == [1, 2]


def test_one_bad_element_makes_the_whole_message_a_dead_letter_that_names_it() -> None:
    dead_letter = mapper().map(message([{"temperature": 1}, {"temperature": "x"}]))

    assert isinstance(dead_letter, DeadLetter)
    assert (dead_letter.reason, dead_letter.route) == (Reason.TYPE_MISMATCH, TOPIC)
    assert "element 1, column temperature" in dead_letter.detail


def test_fields_take_paths_captures_templates_and_constants() -> None:
    route = Route(
        "a/{x}/{n}",
        "wide",
        {
            "s": "{x}-{meta.site}",
            "i": "{n}",
            "l": 2**62,
            "f": 'values.1."odd.name"',
            "d": "values.0",
            "b": True,
            "o": "meta",
        },
    )
    payload = {"meta": {"site": "K"}, "values": [0.5, {"odd.name": 1.25}]}

    (row,) = rows(mapper(route).map(message(payload, "a/dev/-3")))

    assert row == {"s": "dev-K", "i": -3, "l": 2**62, "f": 1.25, "d": 0.5, "b": True, "o": {"site": "K"}}


def test_a_constant_text_starts_with_an_equals_sign() -> None:
    route = Route("t", "readings", {"deviceID": "=lab", "roomNo": 1, "temperature": 2})

    assert rows(mapper(route).map(message({}, "t"))) == [{"deviceID": "lab", "roomNo": 1, "temperature": 2}]


@given(st.integers(-(2**63), 2**63 - 1))
def test_64_bit_integers_are_kept_exactly(value: int) -> None:
    (row,) = mapped_rows(mapper(Route("t", "one")).map(message(b'{"v":%d}' % value, "t")))

    assert row.payload == b'{"v":%d}' % value


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("d", 18, 18),
        ("i", 18.0, 18),
        ("i", 18.5, Reason.TYPE_MISMATCH),
        ("i", " 18", 18),
        ("i", "18.0", Reason.TYPE_MISMATCH),
        ("i", "1_8", Reason.TYPE_MISMATCH),
        ("d", "2.15e1", 21.5),
        ("d", "nan", Reason.TYPE_MISMATCH),
        ("d", "1e999", Reason.OUT_OF_RANGE),
        ("i", True, Reason.TYPE_MISMATCH),
        ("i", 2**31, Reason.OUT_OF_RANGE),
        ("i", -(2**31), -(2**31)),
        ("l", 2**63, Reason.OUT_OF_RANGE),
        ("d", 2**53 + 1, Reason.OUT_OF_RANGE),
        ("d", True, Reason.TYPE_MISMATCH),
        ("f", 1e39, Reason.OUT_OF_RANGE),
        ("f", 0.1, 0.1),
        ("s", 18, "18"),
        ("s", 2**70, str(2**70)),
        ("s", False, "false"),
        ("s", "Zürich 東京", "Zürich 東京"),
        ("s", {}, Reason.TYPE_MISMATCH),
        ("b", 1, True),
        ("b", 2, Reason.TYPE_MISMATCH),
        ("b", "True", True),
        ("b", "on", Reason.TYPE_MISMATCH),
        ("o", [1], [1]),
        ("o", "x", Reason.TYPE_MISMATCH),
        ("d", None, Reason.MISSING_FIELD),
    ],
)
def test_values_are_converted_without_loss_or_refused(column: str, value: object, expected: object) -> None:
    payload = {"s": "", "i": 0, "l": 0, "f": 0, "d": 0, "b": False, "o": {}, column: value}
    mapped = mapper(Route("t", "wide")).map(message(payload, "t"))

    if isinstance(expected, Reason):
        assert reason(mapped) == expected
    else:
        assert rows(mapped)[0][column] == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", Reason.EMPTY),
        (b" \n", Reason.EMPTY),
        (b"[]", Reason.EMPTY),
        (b"\xff", Reason.NOT_JSON),
        (b'{"temperature": "\xff"}', Reason.NOT_JSON),
        (b'{"temperature": NaN}', Reason.NOT_JSON),
        (b'{"temperature": 1e999}', Reason.OUT_OF_RANGE),
        (b"[" * 10_000, Reason.NOT_JSON),
        (b'{"a":' * 10_000, Reason.NOT_JSON),
        (b"x" * 5_000_000, Reason.TOO_LARGE),
        (b"21.5", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b"[{}, 3]", Reason.NOT_AN_OBJECT),
        (b"{}", Reason.MISSING_FIELD),
    ],
)
def test_bad_payloads_become_dead_letters_with_their_bytes(payload: bytes, expected: Reason) -> None:
    dead_letter = mapper(replace(READINGS, on_empty="dead_letter")).map(message(payload))

    assert isinstance(dead_letter, DeadLetter)
    assert (dead_letter.reason, dead_letter.payload, dead_letter.route) == (expected, payload, TOPIC)
    assert len(dead_letter.detail) < 300


def test_a_byte_order_mark_is_skipped() -> None:
    assert rows(mapper().map(message(b'\xef\xbb\xbf{"temperature": 1}')))[0]["temperature"] == 1


def test_a_capture_that_is_not_a_number_does_not_fit_a_number_column() -> None:
    dead_letter = mapper().map(message({"temperature": 1}, "devices/AD11/rooms/kitchen/telemetry"))

    assert reason(dead_letter) == Reason.TYPE_MISMATCH
    assert "kitchen" in dead_letter.detail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("topic", "expected"),
    [("other", Reason.NO_ROUTE), ("devices/\udcff", Reason.BAD_TOPIC), ("a\0b", Reason.BAD_TOPIC)],
)
def test_topics_that_are_invalid_or_match_no_route_become_storable_dead_letters(topic: str, expected: Reason) -> None:
    dead_letter = mapper().map(message({}, topic))

    assert reason(dead_letter) == expected
    assert dead_letter.topic.encode()  # type: ignore[union-attr]


def test_the_first_matching_route_takes_the_message() -> None:
    m = mapper(Route("a/1", "one", {"v": 1}), Route("a/+", "one", {"v": 2}))

    assert rows(m.map(message({}, "a/1"))) == [{"v": 1}]
    assert rows(m.map(message({}, "a/2"))) == [{"v": 2}]
    assert m.filters == ("a/+",), "a broker may deliver a message for each filter that matches"


@given(st.binary(max_size=300), st.text(max_size=40))
def test_any_message_becomes_rows_or_a_dead_letter(payload: bytes, topic: str) -> None:
    m = mapper(READINGS, Route("#", "wide", {"s": "{a.b.0}", "o": "c"}))
    mapped = m.map(message(payload, topic))

    if isinstance(mapped, DeadLetter):
        assert mapped.reason in set(Reason)
        mapped.topic.encode()
    else:
        assert all(isinstance(json.loads(row.payload), dict) for row in mapped)


# --- the row's id ---------------------------------------------------------------------------------------


def identified(s: str, *, path: str | None = None, outbox_name: str = "east") -> Mapper:
    """A mapper whose column ``s`` of the stream ``wide`` is described by ``s``."""
    constants: dict[str, Any] = {"i": 1, "l": 1, "f": 1, "d": 1, "b": True, "o": "o"}
    route = Route("t/{x}", "wide", {"s": s, **constants}, id=path)
    return Mapper(routes=[route], streams=streams(), outbox_name=outbox_name)


def ids(mapped: Any) -> list[str]:
    return [row["s"] for row in rows(mapped)]


def test_the_default_row_id_is_outbox_name_and_record_id() -> None:
    m = identified("$id")
    three: list[dict[str, Any]] = [{"o": {}}] * 3

    assert ids(m.map(message(three, "t/1"), 8)) == ["east-8", "east-9", "east-10"]
    assert ids(m.map(message(three, "t/1"), 11)) == ["east-11", "east-12", "east-13"]


def test_the_same_message_with_the_same_record_id_has_the_same_bytes() -> None:
    m = identified("{x}/{$id}")

    assert m.map(message({"o": {}}, "t/1"), 5) == m.map(message({"o": {}}, "t/1"), 5)


@pytest.mark.parametrize(
    ("field", "path", "expected"),
    [
        ("$id", "meta.id", "7"),
        ("{$id}", "meta.id", "7"),
        ("{x}-{$id}-{meta.id}", "meta.id", "1-7-7"),
        ("$id", '"a.b".0', "text"),
        ("$id", "big", str(2**70)),
        ("=$id", "meta.id", "$id"),
        ("={$id}", None, "{$id}"),
        ('"$id"', "meta.id", "a member"),
        ("a$b", None, "dollar"),
    ],
)
def test_an_id_is_read_from_the_payload_and_can_be_part_of_a_template(
    field: str, path: str | None, expected: str
) -> None:
    payload = {"meta": {"id": 7}, "a.b": ["text"], "big": 2**70, "$id": "a member", "a$b": "dollar", "o": {}}

    assert ids(identified(field, path=path).map(message(payload, "t/1"), 1)) == [expected]


def test_each_element_of_an_array_has_its_own_id() -> None:
    m = identified("$id", path="n")

    assert ids(m.map(message([{"n": "a", "o": {}}, {"n": "b", "o": {}}], "t/1"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"o": {}}, Reason.MISSING_FIELD),
        ({"o": {}, "n": None}, Reason.MISSING_FIELD),
        ({"o": {}, "n": ""}, Reason.MISSING_FIELD),
        ({"o": {}, "n": 1.5}, Reason.TYPE_MISMATCH),
        ({"o": {}, "n": True}, Reason.TYPE_MISMATCH),
        ({"o": {}, "n": ["a"]}, Reason.TYPE_MISMATCH),
    ],
)
def test_an_invalid_id_makes_a_dead_letter(payload: dict[str, Any], expected: Reason) -> None:
    dead_letter = identified("$id", path="n").map(message([{"o": {}, "n": "good"}, payload], "t/1"))

    assert reason(dead_letter) == expected
    assert dead_letter.detail.startswith("element 1, $id: ")  # type: ignore[union-attr]


def test_an_id_that_no_field_uses_is_not_required() -> None:
    m = Mapper(routes=[Route("t", "one", id="meta.id")], streams=streams())

    assert rows(m.map(message({"v": 1}, "t"))) == [{"v": 1}]


@pytest.mark.parametrize(
    ("route", "place", "says"),
    [
        (Route("a", "readings", {"deviceID": "$ID"}), "routes[0].fields.deviceID", "there are: $id"),
        (Route("a", "readings", {"deviceID": "x-{$time}"}), "routes[0].fields.deviceID", "there are: $id"),
        (Route("a", "readings", {"deviceID": "$id.x"}), "routes[0].fields.deviceID", "there are: $id"),
        (Route("a", "one", {"v": "$id"}), "routes[0].fields.v", "$id is text, but the column is long"),
        (Route("a", "one", {"v": "{$id}"}), "routes[0].fields.v", "$id is text, but the column is long"),
        (Route("a", "one", id="a..b"), "routes[0].id", "a name"),
    ],
)
def test_check_reports_problems_with_ids(route: Route, place: str, says: str) -> None:
    (problem,) = check([route], streams())

    assert str(problem).startswith(f"{place}: ")
    assert says in str(problem)


def test_the_mapping_guides_example_of_an_id_is_correct() -> None:
    section = Path("docs/mapping.md").read_text().split("## A row's id")[1].split("\n## ")[0]
    config, definition = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("toml", "sql"))
    example = re.search(r"worker `(.*?)` from the device (\w+) is one document with the key `(.*?)`", section)
    assert config is not None
    assert definition is not None
    assert example is not None
    (route,) = tomllib.loads(config[1])["routes"]
    m = Mapper(routes=[Route(**route)], streams=input_streams(parse(definition[1])))

    (row,) = rows(m.map(message(example[1].encode(), f"devices/{example[2]}/readings")))

    assert row == {"rowID": example[3], "temperature": 18}


# --- topics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "topic", "expected"),
    [
        (TOPIC, "devices/a/rooms/1/telemetry", {"deviceID": "a", "roomNo": "1"}),
        (TOPIC, "devices/a/rooms/1", None),
        ("a/#", "a", {}),
        ("a/#", "a/b/c", {}),
        ("a/#", "ab", None),
        ("#", "$SYS/x", None),
        ("+/x", "$SYS/x", None),
        ("$SYS/{x}", "$SYS/uptime", {"x": "uptime"}),
        ("{x}", "", {"x": ""}),
        ("a/+/c", "a//c", {}),
        ("$share/g/a/{x}", "a/b", {"x": "b"}),
    ],
)
def test_templates_match_as_topic_filters_do(template: str, topic: str, expected: dict[str, str] | None) -> None:
    assert TopicTemplate.parse(template).match(topic) == expected


def test_a_shared_subscription_keeps_its_group_in_the_filter() -> None:
    assert TopicTemplate.parse("$share/g/a/{x}").filter == "$share/g/a/+"


@pytest.mark.parametrize(
    "text", ["", "a/{x}/{x}", "a/#/b", "a/b#", "a/+b", "a/{x}b", "a/{1}", "a/{", "$share/g", "$share//a", "a\0"]
)
def test_invalid_templates_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        TopicTemplate.parse(text)


# --- check ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "place", "says"),
    [
        (Route("a", "reading"), "routes[0].stream", "did you mean 'readings'"),
        (Route("a", "output"), "routes[0].stream", "doesn't read"),
        (Route("a/#/b", "one"), "routes[0].topic", "# can only be the last level"),
        (Route("a", "one", {"w": "x"}), "routes[0].fields.w", "there are: v"),
        (Route("a", "one", {"v": "=text"}), "routes[0].fields.v", "never fits"),
        (Route("a", "one", {"v": 1.5}), "routes[0].fields.v", "never fits"),
        (Route("a", "one", {"v": "a..b"}), "routes[0].fields.v", "a name"),
        (Route("a", "one", {"v": "{x"}), "routes[0].fields.v", "brace"),
    ],
)
def test_check_names_the_place_and_what_to_do(route: Route, place: str, says: str) -> None:
    (problem,) = check([route], streams())

    assert str(problem).startswith(f"{place}: ")
    assert says in str(problem)


def test_check_finds_a_route_that_never_gets_a_message() -> None:
    (problem,) = check([Route("a/{x}", "one"), Route("a/+", "one")], streams())

    assert str(problem).startswith("routes[1].topic")


def test_check_finds_nothing_in_valid_routes() -> None:
    assert check([READINGS], streams()) == []


def test_an_array_of_tiny_objects_cant_fill_memory() -> None:
    many = mapper(Route("t", "one", {"v": 1})).map(message(b"[" + b"{}," * 20_000 + b"{}]", "t"))
    wide = mapper(Route("t", "readings", {"deviceID": "=" + "x" * 5000, "roomNo": 1, "temperature": 1})).map(
        message(b"[" + b"{}," * 5_000 + b"{}]", "t")
    )

    assert reason(many) == Reason.TOO_LARGE
    assert reason(wide) == Reason.TOO_LARGE


def test_a_stream_that_takes_nulls_gets_them() -> None:
    definition = DEFINITION + (
        "CREATE SOURCE s WITH (type='stream', stream.list='loose', fail.on.missing.attribute='false') (v long, w int);"
    )
    m = Mapper(routes=[Route("t", "loose")], streams=input_streams(parse(definition)))

    assert rows(m.map(message({"w": 1}, "t"))) == [{"v": None, "w": 1}]


def test_messages_keep_their_order_by_stream_and_all_sparkplug_messages_among_each_other() -> None:
    sparkplug, births = FormatOptions(name="sparkplug"), {"deviceID": "node", "roomNo": "seq", "temperature": "value"}
    m = mapper(
        Route("a/#", "one", match="all"),
        Route("a/b", "wide"),
        Route("spBv1.0/+/+/+/x", "one", format=sparkplug, fields={"v": "timestamp"}),
        Route("spBv1.0/#", "readings", format=sparkplug, fields=births),
    )

    assert m.lanes("a/c") == {"one"}
    assert m.lanes("a/b") == {"one", "wide"}
    assert m.lanes("unknown") == frozenset()
    node, device = m.lanes("spBv1.0/g/NDATA/n"), m.lanes("spBv1.0/g/DDATA/n/x")
    assert not node.isdisjoint(device)
    assert len(node) == 2, "the stream and the births"
