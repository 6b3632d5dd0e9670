"""The local GDN's executor, without a socket."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.local.executor import EventError, Executor, NotExecutable
from bridge.streamql import parse


def executor(statements: str, rows: list[dict[str, Any]]) -> Executor:
    worker = parse(f"@App:name('t')\n@App:qlVersion(\"2\")\n{statements}")
    return Executor(worker, lambda _collection, row: rows.append(row))


def result_of(expression: str, kind: str, event: dict[str, Any], *, columns: str = "a int, b double, s string") -> Any:
    rows: list[dict[str, Any]] = []
    ready = executor(
        "CREATE FUNCTION js[javascript] return string { return data[0]; };"
        "CREATE FUNCTION join[javascript] return string { return data[0] + data[1]; };"
        f"CREATE STREAM i ({columns}); CREATE TABLE t (x {kind}); INSERT INTO t SELECT {expression} AS x FROM i;",
        rows,
    )
    ready.accept("i", {"a": 7, "b": 2.5, "s": "text", **event})
    return rows[0]["x"]


@pytest.mark.parametrize(
    ("expression", "kind", "expected"),
    [
        ("a / 2", "int", 3),
        ("(0 - a) / 2", "int", -3),
        ("(0 - a) % 4", "int", -3),
        ("a + b", "double", 9.5),
        ("a / 2.0", "double", 3.5),
        ("join(a, '-')", "string", "7-"),
        ("join(b, '-')", "string", "2.5-"),
        ("js(a)", "string", "7.0"),
        ("ifThenElse(a > 5, 'hot', 'cold')", "string", "hot"),
        ("coalesce(s, 'none')", "string", "text"),
        ("str:upper(s)", "string", "TEXT"),
        ("convert('12', 'int')", "int", 12),
        ("convert('no number', 'int')", "int", None),
        ("s is null", "bool", False),
        ("not (a == 7)", "bool", False),
    ],
)
def test_expressions_follow_the_engine_s_arithmetic(expression: str, kind: str, expected: Any) -> None:
    result = result_of(expression, kind, {})

    assert (result, type(result)) == (expected, type(expected))


def test_an_int_has_no_decimals_in_a_script_even_if_sent_as_18_point_0() -> None:
    assert result_of("join(a, '-')", "string", {"a": 200.0}) == "200-"


@pytest.mark.parametrize("event", [{"a": "7"}, {"a": 1.5}, {"a": 2**31}, {"b": float("inf")}, {"a": True}])
def test_a_value_of_another_type_fails_only_its_event(event: dict[str, Any]) -> None:
    with pytest.raises(EventError, match="doesn't fit"):
        result_of("a", "int", event)


@pytest.mark.parametrize("event", [{"a": 1}, {"a": 1, "b": None}])
def test_an_event_without_a_declared_attribute_is_dropped(event: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = []
    ready = executor(
        "CREATE STREAM i (a int, b int); CREATE TABLE t (a int); INSERT INTO t SELECT a FROM i;",
        rows,
    )

    assert (ready.accept("i", event), rows) == (False, [])


def test_every_source_on_a_stream_gets_its_events() -> None:
    rows: list[dict[str, Any]] = []
    ready = executor(
        "CREATE SOURCE one WITH (type='stream', stream.list='g') (a int);"
        "CREATE SOURCE two WITH (type='stream', stream.list='g') (a int);"
        "CREATE TABLE t (a int);"
        "INSERT INTO t SELECT a FROM one; INSERT INTO t SELECT a + 1 AS a FROM two;",
        rows,
    )
    ready.accept("g", {"a": 1})

    assert rows == [{"a": 1}, {"a": 2}]


def test_a_stream_that_feeds_itself_is_stopped() -> None:
    ready = executor("CREATE STREAM i (a int); INSERT INTO i SELECT a FROM i;", [])

    with pytest.raises(EventError, match="feeds itself"):
        ready.accept("i", {"a": 1})


def test_a_script_that_uses_too_much_memory_fails_only_its_event() -> None:
    ready = executor(
        "CREATE FUNCTION eat[javascript] return int { var all = []; while (true) { all.push(new Array(100000)); } };"
        "CREATE STREAM i (a int); CREATE TABLE t (a int); INSERT INTO t SELECT eat(a) AS a FROM i;",
        [],
    )

    with pytest.raises(EventError, match="eat"):
        ready.accept("i", {"a": 1})


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("convert(a, 'number')", "is not a type"),
        ("str:upper(a, a)", "str:upper doesn't take 2 arguments"),
        ("ifThenElse(a)", "ifThenElse doesn't take 1"),
        ("geo:distance(a)", "the local GDN can.t execute"),
        ("other.a", "no attribute a"),
    ],
)
def test_an_invalid_call_is_refused_when_the_worker_is_created(expression: str, says: str) -> None:
    with pytest.raises(NotExecutable, match=says):
        result_of(expression, "int", {})
