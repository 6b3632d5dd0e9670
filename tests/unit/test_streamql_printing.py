"""Printed workers are parsed as the same worker."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.streamql import (
    Annotation,
    Attribute,
    AttributeRef,
    AttributeType,
    Binary,
    Call,
    Definition,
    Expression,
    FunctionDefinition,
    Literal,
    OtherDefinition,
    OtherQuery,
    Place,
    Query,
    Selected,
    StreamDefinition,
    StreamScope,
    TableDefinition,
    Unary,
    Worker,
    parse,
    to_text,
)
from tests.unit.test_streamql_corpus import without_places

HERE = Place(0, 0)
HEAD = "@App:name('w')\n@App:qlVersion('2')\n"


METADATA = (Annotation("App:name", ((None, "w"),), HERE), Annotation("App:qlVersion", ((None, "2"),), HERE))


def worker(*definitions: Definition, queries: tuple[Query | OtherQuery, ...] = ()) -> Worker:
    return Worker(METADATA, definitions, queries, "")


def stream(name: str, **changes: object) -> StreamDefinition:
    attributes = (Attribute("a", AttributeType.INT),)
    return replace(StreamDefinition("stream", name, StreamScope.LOCAL, attributes, {}, HERE), **changes)  # type: ignore[arg-type]


# --- what it looks like -----------------------------------------------------------------------------------


def test_a_worker_is_written_as_a_person_would() -> None:
    attributes = (Attribute("deviceID", AttributeType.STRING), Attribute("temperature", AttributeType.DOUBLE))
    made = worker(
        FunctionDefinition("twice", "javascript", AttributeType.DOUBLE, " return data[0] * 2; ", HERE),
        stream("Readings", attributes=attributes, scope=StreamScope.GLOBAL),
        TableDefinition("table", "Rows", StreamScope.LOCAL, attributes, {}, HERE),
        queries=(
            Query(
                name="Keep",
                target="Rows",
                source="Readings",
                filters=(
                    Binary(">", AttributeRef("temperature", None, HERE), Literal(20, AttributeType.INT, HERE), HERE),
                ),
                selection=(
                    Selected("deviceID", AttributeRef("deviceID", None, HERE)),
                    Selected("temperature", Call("twice", None, (AttributeRef("temperature", None, HERE),), HERE)),
                ),
                place=HERE,
            ),
        ),
    )

    assert to_text(made) == (
        "@App:name('w')\n"
        "@App:qlVersion('2')\n"
        "CREATE FUNCTION twice[javascript] RETURN double { return data[0] * 2; };\n"
        "CREATE STREAM GLOBAL Readings (deviceID string, temperature double);\n"
        "CREATE TABLE Rows (deviceID string, temperature double);\n"
        "@info(name='Keep')\n"
        "INSERT INTO Rows\n"
        "SELECT deviceID, twice(temperature) AS temperature\n"
        "FROM Readings[temperature > 20];\n"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "'plain'"),
        ("it's", '"it\'s"'),
        ('say "so"', '"""say "so""""'),
        ("two\nlines", '"""two\nlines"""'),
        (r"\d+", r"'\d+'"),
        ("ends in \\", '"""ends in \\"""'),
        (r"a\\b", '"""a\\\\b"""'),
        ('\'"""', "'\\'\"\"\"'"),
        ("", "''"),
    ],
)
def test_a_string_stands_in_the_quotes_that_need_the_fewest_escapes(value: str, written: str) -> None:
    text = to_text(worker(stream("s", properties={"x": value})))

    assert f"WITH (x={written})" in text
    assert parse(text).streams["s"].properties == {"x": value}


@pytest.mark.parametrize(
    ("condition", "written"),
    [
        ("(a and b) or c", "a and b or c"),
        ("a and (b or c)", "a and (b or c)"),
        ("a - (b - c)", "a - (b - c)"),
        ("(a - b) - c", "a - b - c"),
        ("- (-a)", "- -a"),
        ("- -1 - -2", "- -1 - -2"),
        ("not (a == b)", "not (a == b)"),
        ("(not a) == b", "not a == b"),
        ("(not a) is null", "(not a) is null"),
        ("not (a is null)", "not a is null"),
        ("`or`(a) and `from` == s.`null`", "`or`(a) and `from` == s.`null`"),
        ("1 + 2L + 3f + 4.0 == 5d", "1 + 2L + 3.0f + 4.0 == 5.0"),
        ("TRUE or str:f('x', \"y\")", "true or str:f('x', 'y')"),
    ],
)
def test_an_expression_has_the_parentheses_that_it_needs(condition: str, written: str) -> None:
    text = to_text(parse(f"{HEAD}INSERT INTO t FROM s[{condition}];"))

    assert f"FROM s[{written}];" in text


def test_a_query_in_a_create_keeps_its_position_among_the_queries() -> None:
    text = HEAD + (
        "CREATE INDEX b ON TABLE t (a);\n"
        "INSERT INTO x FROM a;\n"
        "@info(name='q') CREATE STREAM b (a int) AS SELECT a FROM x;\n"
        "CREATE STREAM c (a int);\n"
        "INSERT INTO y FROM b;\n"
        "CREATE TABLE d AS SELECT a FROM b;\n"
    )

    again = parse(to_text(parse(text)))

    assert without_places(parse(text)) == without_places(again)
    assert [query.target for query in again.queries] == ["x", "b", "y", "d"]


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("CREATE STREAM s GLOBAL (a int);", "CREATE STREAM GLOBAL s (a int);"),
        ("CREATE STREAM LOCAL s (a int);", "CREATE STREAM s (a int);"),
        ("CREATE TABLE SPOT s (a int);", "CREATE TABLE GLOBAL s (a int);"),
        ("CREATE STORE s WITH (x='y') (a int);", "CREATE STORE s WITH (x='y') (a int);"),
        ("CREATE STORE LOCAL s WITH (x='y') (a int);", "CREATE STORE LOCAL s WITH (x='y') (a int);"),
        (
            "CREATE SINK s WITH (Replication.Type=global) (a int);",
            "CREATE SINK s WITH (Replication.Type='global') (a int);",
        ),
    ],
)
def test_a_scope_is_printed_once_and_only_if_it_is_not_the_default(written: str, printed: str) -> None:
    assert f"{HEAD}{printed}\n" == to_text(parse(HEAD + written))


# --- what can't be written --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a`b", "a\nb", "a\rb"])
def test_a_name_that_no_definition_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can't contain the name"):
        to_text(worker(stream(name)))


def test_a_query_without_its_create_is_refused() -> None:
    query = OtherQuery(None, "CREATE STREAM … AS SELECT", "s", ("r",), "AS SELECT a FROM r", HERE)

    with pytest.raises(ValueError, match="fills s "):
        to_text(worker(stream("r"), queries=(query,)))
    with pytest.raises(ValueError, match="fills s "):
        to_text(worker(stream("s"), queries=(query, query)))


# --- arbitrary workers ------------------------------------------------------------------------------------

WORDS = (
    "a", "B", "_key", "value", "type", "order", "from", "select", "as", "and", "or", "not", "is", "in", "null", "true",
    "case", "every", "global", "LOCAL", "spot", "with", "stream", "table", "end", "begin", "into", "insert", "sec",
    "on", "x y", "device-id", "$test(0)", "ß", "1a", "--", "'", '"', "{", "@",
)  # fmt: skip
names = st.one_of(
    st.sampled_from(WORDS), st.text(min_size=1, max_size=5).filter(lambda name: not set(name) & set("`\r\n"))
)
texts = st.one_of(st.text(max_size=12), st.text(alphabet="'\"\\\n\ra;-/*{}", max_size=8))
types = st.sampled_from(AttributeType)
attributes = st.lists(st.builds(Attribute, names, types), min_size=1, max_size=4, unique_by=lambda a: a.name).map(tuple)
keys = st.one_of(
    st.sampled_from(["type", "map.type", "sink.id", "purge.a-b", "a:b"]),
    texts.filter(lambda key: key != "").map(str.lower),
)
properties = st.dictionaries(keys.filter(lambda key: key != "replication.type"), texts, max_size=3)

places = st.just(HERE)
literals = st.one_of(
    st.builds(Literal, st.integers(0, 2**31), st.just(AttributeType.INT), places),
    st.builds(Literal, st.integers(0, 2**63), st.just(AttributeType.LONG), places),
    st.builds(
        Literal,
        st.floats(0, allow_infinity=False).map(abs),
        st.sampled_from([AttributeType.FLOAT, AttributeType.DOUBLE]),
        places,
    ),
    st.builds(Literal, texts, st.just(AttributeType.STRING), places),
    st.builds(Literal, st.booleans(), st.just(AttributeType.BOOL), places),
)
references = st.builds(AttributeRef, names, st.none() | names, places)
expressions: st.SearchStrategy[Expression] = st.recursive(
    literals | references,
    lambda inner: st.one_of(
        st.builds(Unary, st.sampled_from(["not", "-", "is null"]), inner, places),
        st.builds(
            Binary,
            st.sampled_from("and or == != < <= > >= + - * / %".split()),  # noqa: SIM905
            inner,
            inner,
            places,
        ),
        st.builds(Call, names, st.none() | names, st.lists(inner, max_size=3).map(tuple), places),
    ),
    max_leaves=12,
)


def selected(expression: Expression, name: str) -> Selected:
    return Selected(name, expression)


queries = st.one_of(
    st.builds(
        Query,
        st.none() | texts,
        names,
        names,
        st.lists(expressions, max_size=2).map(tuple),
        st.none() | st.lists(st.builds(selected, expressions, names), min_size=1, max_size=3).map(tuple),
        places,
    ),
    st.builds(
        OtherQuery,
        st.none() | texts,
        st.just("WINDOW"),
        st.just("t"),
        st.just(("s",)),
        st.just("INSERT INTO t SELECT a FROM s WINDOW SLIDING_TIME(5 sec) -- a comment\nGROUP BY a"),
        places,
    ),
)


def unnamed_definitions() -> st.SearchStrategy[list[Definition]]:
    scopes = st.sampled_from(StreamScope)
    streams = st.builds(
        StreamDefinition,
        st.sampled_from(["stream", "source stream", "sink stream", "source", "sink"]),
        names,
        scopes,
        attributes,
        properties,
        places,
    ).map(lambda d: replace(d, properties=d.properties | {"type": "x"}) if d.kind in ("source", "sink") else d)
    mapped = streams.map(lambda d: replace(d, attributes=None, mapping='x = "$.a.b", y="c)"'))
    tables = st.builds(
        TableDefinition, st.sampled_from(["table", "store"]), names, scopes, attributes, properties, places
    )
    bodies = st.sampled_from(["", " return 1; ", "\n  return '}' + `${data[0]}`; // }\n", "if (a) { b = /}/; }"])
    functions = st.builds(FunctionDefinition, names, names, types, bodies, places)
    others = st.sampled_from(
        [
            OtherDefinition("trigger", "tick", "CREATE TRIGGER tick WITH (interval = 5 sec)", HERE),
            OtherDefinition("partition", "p", "PARTITION WITH (a OF s) BEGIN INSERT INTO t FROM s; END", HERE),
        ]
    )
    return st.lists(
        st.one_of(streams, mapped, tables, functions, others), max_size=5, unique_by=lambda definition: definition.name
    )


app_annotations = st.builds(
    Annotation,
    st.sampled_from(["App:name", "app:Name", "App:qlVersion", "App:description", "app:playback", "App:x.y"]),
    st.lists(st.tuples(st.none() | keys, texts), max_size=3).map(tuple),
    places,
)
workers = st.builds(
    lambda annotations, definitions, queries: Worker(tuple(annotations), tuple(definitions), tuple(queries), ""),
    st.lists(app_annotations, max_size=4),
    unnamed_definitions(),
    st.lists(queries, max_size=3),
)


@pytest.mark.long
@given(workers)
@settings(max_examples=600, deadline=None)
def test_any_printed_worker_is_parsed_as_itself_and_printed_the_same(made: Worker) -> None:
    text = to_text(made)
    again = parse(text)

    assert without_places(made) == without_places(again)
    assert (made.name, made.language_version) == (again.name, again.language_version)
    assert text == to_text(again)
