"""Conditions of routes: what they compare, what they read besides the element, and what can't be evaluated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import FormatOptions, Mapper, Route, check, find_warnings
from bridge.mapping.explain import explain
from bridge.mapping.expressions import compile_condition
from bridge.mapping.fields import readers
from bridge.message import MqttMessage, Row
from bridge.streamql import parse
from bridge.streamql.streams import InputStream, input_streams

STREAMS: dict[str, InputStream] = dict(
    input_streams(
        parse("""@App:name('w') @App:qlVersion("2")
CREATE STREAM first (v double);
CREATE STREAM second (v double);
""")
    )
)


def holds(condition: str, element: Any) -> bool | None:
    return compile_condition(condition)({}, element)


def mapped_to(routes: list[Route], payload: Any, topic: str = "t", **options: Any) -> list[str]:
    """The streams of the rows."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    message = MqttMessage(topic, data, 1, **{"retain": False, "packet_id": 1, "received_at": 5, **options})
    mapped = Mapper(routes=routes, streams=STREAMS).map(message)
    assert isinstance(mapped, list), mapped
    return [row.stream for row in mapped]


@pytest.mark.parametrize(
    "condition",
    [
        "starts_with(kind, 'num')",
        "ends_with(kind, 'num')",
        "!starts_with(kind, 'num')",
        "contains(kind, 'num')",
        'contains(`["num"]`, kind)',
        "length(kind) > `0`",
        "max(kind) > `0`",
        "sum(kind) > `0`",
        "keys(kind)",
        "join(',', kind)",
        "kind > `0`",
        "!(kind > `0`)",
        "`1` < kind",
        "kind == 'num'",
        "kind",
        "kind == 'num' || starts_with(kind, 'n')",
        "v == `1` && kind == 'num'",
        "starts_with(kind, 'n') && v == `1`",
    ],
)
def test_a_condition_that_cannot_be_evaluated_is_not_true(condition: str) -> None:
    assert holds(condition, {"v": 1}) is None
    assert mapped_to([Route("t", "first", when=condition), Route("t", "second")], {"v": 1}) == ["second"]


@pytest.mark.parametrize("kind", [5, True, {"a": 1}, [{}]])
@pytest.mark.parametrize("condition", ["starts_with(kind, 'num')", "abs(kind) > `9` && ceil(kind) < to_array('x')"])
def test_nor_is_one_on_a_value_of_another_type(condition: str, kind: Any) -> None:
    assert not holds(condition, {"kind": kind})


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("starts_with(kind, 'n') || v == `1`", True),
        ("v == `1` || starts_with(kind, 'n')", True),
        ("starts_with(kind, 'n') && v == `2`", False),
        ("!(starts_with(kind, 'n') && v == `2`)", True),
        ("kind == null", True),
        ("kind == `null`", True),
        ("v == null", False),
        ("kind != 'num'", True),
        ("!(kind == 'num')", True),
        ("v != null", True),
        ("not_null(max(kind), v) == `1`", True),
    ],
)
def test_what_is_absent_decides_only_what_depends_on_it(condition: str, expected: bool) -> None:
    assert holds(condition, {"v": 1}) is expected


@pytest.mark.parametrize(
    ("condition", "element", "expected"),
    [
        ("t > `20`", {"t": "21.5"}, True),
        ("t > `20`", {"t": "9"}, False),
        ("t > `20`", {"t": "hot"}, None),
        ("t > u", {"t": "10", "u": "9"}, True),
        ("t > u", {"t": "b", "u": "a"}, True),
        ("t > u", {"t": "b", "u": "9"}, None),
        ("t > u", {"t": True, "u": 0}, None),
        ("t > u", {"t": 10**400, "u": 1.5}, True),
        ("t == u", {"t": 10**400, "u": "1e400"}, False),
        ("t == `1`", {"t": "1"}, True),
        ("t == `1`", {"t": " 1.0 "}, True),
        ("t == `1`", {"t": "one"}, False),
        ("t == `1`", {"t": True}, False),
        ("t == '1'", {"t": 1}, True),
        ("t == '1'", {"t": "01"}, False),
        ("t == `true`", {"t": "True"}, True),
        ("t == `false`", {"t": "True"}, False),
        ("t != `1`", {"t": "1"}, False),
        ("contains(`[1, 2]`, t)", {"t": "2"}, True),
        ("contains(`[1, 2]`, t)", {"t": True}, False),
        ("t == `9007199254740993`", {"t": "9007199254740992"}, False),
        ("t == `[1]`", {"t": [1]}, True),
    ],
)
def test_comparing_is_by_what_values_are(condition: str, element: Any, expected: bool | None) -> None:
    assert holds(condition, element) is expected


@pytest.mark.parametrize("condition", ["v > `20`", "v == `21.5`", "max([v, `3`]) == v"])
@pytest.mark.parametrize(
    ("options", "payload"),
    [
        (FormatOptions(), b'{"v": 21.5}'),
        (FormatOptions(), b'{"v": "21.5"}'),
        (FormatOptions("scalar"), b"21.5"),
        (FormatOptions("csv", columns=("v",)), b"21.5"),
        (FormatOptions("text", pattern="v=(?P<v>.*)"), b"v=21.5"),
    ],
)
def test_and_the_same_in_every_format(options: FormatOptions, payload: bytes, condition: str) -> None:
    fields = {"v": "value"} if options.name == "scalar" else {}
    when = condition.replace("v", "value") if options.name == "scalar" else condition

    assert mapped_to([Route("t", "first", fields, format=options, when=when)], payload) == ["first"]


numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, numbers)
def test_text_of_a_number_is_compared_as_that_number(left: float, right: float) -> None:
    for a in (left, str(left)):
        for b in (right, str(right)):
            if type(a) is type(b) is str:
                assert holds("a < b", {"a": a, "b": b}) is (left < right)
                continue
            assert holds("a < b", {"a": a, "b": b}) is (left < right)
            assert holds("a == b", {"a": a, "b": b}) is (left == right)


json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.just(10**400) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.sampled_from(
        [
            "max({})",
            "min({})",
            "sort({})",
            "sum({})",
            "avg({})",
            "length({})",
            "contains({}, b)",
            "starts_with({}, b)",
            "max_by({}, &a)",
            "sort_by({}, &a)",
            "ceil({})",
            "to_number({})",
            "join(b, {})",
            "{} < b",
            "{} == b",
            "!{}",
        ]
    ),
    st.dictionaries(st.sampled_from("ab"), json_values),
)
def test_no_value_makes_a_condition_fail(condition: str, element: Any) -> None:
    assert holds(condition.format("a"), element) in (True, False, None)


tokens = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "[",
        "]",
        "*",
        "[?",
        "&&",
        "||",
        "!",
        "==",
        "<",
        "(",
        ")",
        "{",
        "}",
        ":",
        ",",
        "&",
        "@",
        "|",
        "'x'",
        "`1`",
        "`null`",
        '"q"',
        "$topic",
        "$x",
        "{room}",
        "{a:",
        "max(",
        "sort_by(",
        "not_null(",
        "0",
        "[1:2]",
        "true",
    ]
)


@given(st.lists(tokens, max_size=8).map(" ".join) | st.text(max_size=20), json_values)
def test_every_text_is_a_condition_or_refused_with_a_reason(text: str, element: Any) -> None:
    reason, answer = "", None
    try:
        answer = compile_condition(text, readers(frozenset({"room"})))({"$topic": "t", "room": "200"}, element)
    except ValueError as exc:
        reason = str(exc)

    assert answer in (True, False, None)
    assert "\\u0000" not in reason


class Decoded(float):
    """A number of a decoder that keeps more than the double."""


@pytest.mark.parametrize(
    "condition", ["t > `20`", "t == '21.5'", "max([t, `3`]) == t", "ceil(t) == `22`", "t != `true`"]
)
def test_a_number_of_a_class_of_its_own_is_a_number(condition: str) -> None:
    assert holds(condition, {"t": Decoded(21.5)}) is True


def test_a_deep_value_cannot_be_compared() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    assert holds("a == b", {"a": deep, "b": [[]]}) is False


@pytest.mark.parametrize(
    ("condition", "options", "expected"),
    [
        ("$retain == `false`", {"retain": False}, ["first"]),
        ("$retain == `false`", {"retain": True}, []),
        ("!$retain", {"retain": False}, ["first"]),
        ("$qos > `0` && starts_with($topic, 'site/')", {}, ["first"]),
        ("{room} == '200'", {}, ["first"]),
        ("{ room } > `100`", {}, ["first"]),
        ("{room} == '{room}' || v == '$retain'", {}, []),
        ("$received_at > `1`", {"received_at": 1_700_000_000 * 10**9}, ["first"]),
        ("$received_at > `1`", {"received_at": 1}, []),
        ("$user.site == 'K'", {"properties": b"\x26\x00\x04site\x00\x01K"}, ["first"]),
        ("$root.v == v", {}, ["first"]),
        ("[v, $qos] == `[1, 1]`", {}, ["first"]),
    ],
)
def test_a_condition_reads_metadata_and_captures(condition: str, options: Any, expected: list[str]) -> None:
    route = Route("site/{room}", "first", when=condition)

    assert mapped_to([route], {"v": 1}, "site/200", **options) == expected


def test_a_route_whose_condition_is_never_evaluated_is_noted() -> None:
    routes = [
        Route("t", "first", when="knid == 'a'", name="misspelt"),
        Route("t", "first", when="kind == 'a'", name="right"),
        Route("t", "second"),
    ]
    mapper = Mapper(routes=routes, streams=STREAMS)
    assert mapper.notes() == ()

    for kind in ("a", "b", "b"):
        mapper.map(MqttMessage("t", json.dumps({"v": 1, "kind": kind}).encode(), 1, False, 1, 5))
    mapper.map(MqttMessage("t", b'{"v": 1}', 1, False, 1, 5))

    assert mapper.unanswerable() == {("misspelt", "first"): 4, ("right", "first"): 1, ("t", "second"): 0}
    (note,) = mapper.notes()
    assert note.startswith("misspelt: its condition (when) could be evaluated for none of 4 elements")


def test_explain_says_that_a_condition_cannot_be_evaluated() -> None:
    routes = [Route("t", "first", when="kind == 'a' && $retain == `false`")]
    mapper = Mapper(routes=routes, streams=STREAMS)
    message = MqttMessage("t", b'[{"v": 1}, {"v": 2, "kind": "a"}]', 1, False, 1, 5)
    mapped: Any = mapper.map(message)

    texts = [step.text for step in explain(message, routes, mapper, mapped)]

    assert [type(row) for row in mapped] == [Row]
    assert any("true for 1 of 2, can't be evaluated for 1: a member is absent" in text for text in texts)


@pytest.mark.parametrize(
    ("routes", "warned"),
    [
        ([Route("t", "first", when="v"), Route("t", "second", {"v": "value"}, format=FormatOptions("scalar"))], True),
        ([Route("+", "first", when="v"), Route("t", "second", {"v": "value"}, format=FormatOptions("scalar"))], True),
        ([Route("t", "first", when="v"), Route("u", "second", {"v": "value"}, format=FormatOptions("scalar"))], False),
        ([Route("t", "first", when="v"), Route("t", "second")], False),
        (
            [Route("t", "first", {"v": "value"}, when="value", format=FormatOptions("scalar")), Route("t", "second")],
            False,
        ),
    ],
)
def test_check_warns_of_a_route_that_never_gets_what_another_cannot_read(routes: list[Route], warned: bool) -> None:
    assert not check(routes, STREAMS)

    found = [str(problem) for problem in find_warnings(routes, STREAMS) if problem.location[-1] == "format"]

    assert [text.split(":")[0] for text in found] == (["routes[1].format"] if warned else [])
    assert all("never gets what routes[0] can't read as json" in text for text in found)
