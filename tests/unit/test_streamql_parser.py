"""The syntax tree: the tutorial's worker, then every special case of the language."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.streamql import (
    Annotation,
    Attribute,
    AttributeRef,
    AttributeType,
    Binary,
    Call,
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
)
from bridge.streamql.syntax import find_property

HEAD = "@App:name('w')\n@App:qlVersion('2')\n"
TUTORIAL = Path(__file__).parents[2] / "config" / "worker.sql"


def worker(body: str) -> Worker:
    return parse(HEAD + body)


def stream(body: str) -> StreamDefinition:
    (definition,) = worker(body).definitions
    assert isinstance(definition, StreamDefinition)
    return definition


def query(body: str) -> Query:
    (found,) = worker(body).queries
    assert isinstance(found, Query)
    return found


def other_query(body: str) -> OtherQuery:
    (found,) = worker(body).queries
    assert isinstance(found, OtherQuery)
    return found


def shape(expression: Expression) -> object:
    """An expression without its places."""
    match expression:
        case Literal(value=value):
            return value
        case AttributeRef(name=name, source=source):
            return name if source is None else f"{source}.{name}"
        case Call(name=name, namespace=namespace, arguments=arguments):
            called = name if namespace is None else f"{namespace}:{name}"
            return (called + "()", *map(shape, arguments))
        case Unary(operator=operator, operand=operand):
            return (operator, shape(operand))
        case Binary(operator=operator, left=left, right=right):
            return (shape(left), operator, shape(right))


def filter_shape(condition: str) -> object:
    return shape(query(f"INSERT INTO t SELECT * FROM s[{condition}];").filters[0])


def test_the_tutorials_worker_has_exactly_this_tree() -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    string, double = AttributeType.STRING, AttributeType.DOUBLE

    assert parse(text) == Worker(
        annotations=(
            Annotation("App:name", ((None, "stream_worker_tutorial"),), Place(1, 1)),
            Annotation("App:qlVersion", ((None, "2"),), Place(2, 1)),
        ),
        definitions=(
            FunctionDefinition(
                name="concatFn",
                language="javascript",
                returns=string,
                body="\n    var str1 = data[0];\n    var str2 = data[1];\n    var str3 = data[2];\n"
                "    var response = str1 + str2 + str3;\n    return response;\n",
                place=Place(3, 1),
            ),
            StreamDefinition(
                kind="stream",
                name="tutorialAppInputStream",
                scope=StreamScope.LOCAL,
                attributes=(
                    Attribute("deviceID", string),
                    Attribute("roomNo", AttributeType.INT),
                    Attribute("temperature", double),
                ),
                properties={},
                place=Place(11, 1),
            ),
            TableDefinition(
                kind="table",
                name="tutorialAppOutputTable",
                scope=StreamScope.GLOBAL,
                attributes=(Attribute("id", string), Attribute("temperature", double)),
                properties={},
                place=Place(13, 1),
            ),
        ),
        queries=(
            Query(
                name="Query",
                target="tutorialAppOutputTable",
                source="tutorialAppInputStream",
                filters=(),
                selection=(
                    Selected(
                        "id",
                        Call(
                            "concatFn",
                            None,
                            (
                                AttributeRef("roomNo", None, Place(16, 17)),
                                Literal("-", string, Place(16, 24)),
                                AttributeRef("deviceID", None, Place(16, 28)),
                            ),
                            Place(16, 8),
                        ),
                    ),
                    Selected("temperature", AttributeRef("temperature", None, Place(16, 45))),
                ),
                place=Place(15, 1),
            ),
        ),
        text=text,
    )


# --- lexis -----------------------------------------------------------------------------------------------


def test_comments_may_stand_between_any_two_tokens() -> None:
    found = worker(
        "-- CREATE STREAM gone (a int);\n/** CREATE TABLE gone (a int); **/\n// also gone\n"
        "CREATE STREAM s (a /* the first */ int, -- one\n b int);\n"
        "@info(name='q') -- its name\nINSERT INTO t SELECT a, -- , b\n b FROM s;"
    )

    assert [d.name for d in found.definitions] == ["s"]
    assert len(found.queries) == 1


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'it \"is\"'", 'it "is"'),
        ('"it\'s"', "it's"),
        ('"""a "b" \'c\'\n\\d"""', "a \"b\" 'c'\n\\d"),
        (r"'it\'s'", "it's"),
        (r"'a\\'", "a\\"),
        (r"'\d+\n'", r"\d+\n"),
        (r'"say \"x\" \' "', r'say "x" \' '),
        ("'-- no comment /* none */ // none; '", "-- no comment /* none */ // none; "),
        ("'two\nlines'", "two\nlines"),
        ("''", ""),
        ('""', ""),
        ("5 sec", "5 sec"),
        ("text", "text"),
        ("tcp://broker:1883/a", "tcp://broker:1883/a"),
        ("1.5.2", "1.5.2"),
        ("f(a, b)", "f(a, b)"),
    ],
)
def test_a_property_value_is_read(written: str, value: str) -> None:
    definition = stream(f"CREATE SOURCE s WITH(x={written},y=1)(a int);")

    assert {"x": value, "y": "1"} == definition.properties


def test_property_keys_are_dotted_backticked_or_quoted_and_keep_their_case_and_the_last_wins() -> None:
    definition = stream(
        "CREATE SINK s WITH (map.Type='json', `sink.id`='1', 'a.b'='2', OnError.action='log', attributes.1='x',"
        " PrimaryKey='a', PrimaryKey='b', Type='Kafka',) (a int);"
    )

    assert definition.properties == {
        "map.Type": "json",
        "sink.id": "1",
        "a.b": "2",
        "OnError.action": "log",
        "attributes.1": "x",
        "PrimaryKey": "b",
        "Type": "Kafka",
    }
    assert definition.type == "kafka"
    assert find_property(definition.properties, "other", "map.type") == "json"
    assert find_property(definition.properties, "other") is None


def test_annotations_among_the_properties_are_properties_of_the_mapping() -> None:
    definition = stream(
        "CREATE SOURCE s WITH (type='stream', @map(type='json', Enclosing.Element='$.e', @attributes(a='$.A', b = 'b'),"
        " @other(x='y')), @payload('p'), stream.list='n') (a int, b int);"
    )

    assert definition.properties == {
        "type": "stream",
        "map.type": "json",
        "map.Enclosing.Element": "$.e",
        "map.attributes": "a='$.A', b = 'b'",
        "stream.list": "n",
    }


def test_with_may_be_glued_to_its_neighbours() -> None:
    definition = stream("CREATE SOURCE s WITH(type='stream',stream.list='A')(a int)")

    assert (Attribute("a", AttributeType.INT),) == definition.attributes


def test_attributes_may_be_called_like_keywords() -> None:
    names = [
        "value",
        "type",
        "time",
        "count",
        "key",
        "user",
        "order",
        "event",
        "timestamp",
        "last",
        "close",
        "exchange",
        "symbol",
        "select",
        "with",
        "end",
    ]
    definition = stream(f"CREATE STREAM s ({', '.join(f'{n} string' for n in names)}, `my column` int);")

    assert [*names, "my column"] == [a.name for a in definition.attributes or ()]


def test_attributes_called_like_keywords_are_selected() -> None:
    found = query("INSERT INTO t SELECT value, order, limit AS end, group, count() AS count FROM s;")

    assert [s.name for s in found.selection or ()] == ["value", "order", "end", "group", "count"]


def test_keywords_and_types_are_read_in_any_case() -> None:
    found = worker("create Stream s (a STRING, b Float);\ninsert Into t select a from s[Not (b IS Null) OR TRUE];")

    assert [a.type for a in found.streams["s"].attributes or ()] == [AttributeType.STRING, AttributeType.FLOAT]
    assert isinstance(found.queries[0], Query)
    assert (filter_shape("x or TRUE")[1], filter_shape("x or TRUE")[2]) == ("or", True)  # type: ignore[index]


def test_names_are_case_sensitive() -> None:
    assert {"s", "S"} == set(worker("CREATE STREAM s (a int); CREATE STREAM S (a int, A int);").streams)


def test_a_byte_order_mark_and_any_line_ends_are_taken() -> None:
    found = parse("\ufeff@App:name('w')\r\n@App:qlVersion('2')\rCREATE STREAM s (a int);\r\n")

    assert Place(3, 1) == found.streams["s"].place


# --- annotations -----------------------------------------------------------------------------------------


def test_annotations_are_read_whatever_their_shape() -> None:
    found = parse(
        '@app:name("w") @App:qlVersion(2) @App:description('
        + "'x') @App:instances('3')\n@app:playback(idle.time=100 millisec, increment='1 sec')\n"
        "@OnError(action='stream')\nCREATE STREAM s (a int);\n"
        "@purge(enable='true', @idle(period='5 sec', @deep('x')), interval='1 min')\n@INFO(name=\"q\")\n"
        "INSERT INTO t SELECT a FROM s;"
    )

    assert found.name == "w"
    assert found.queries[0].name == "q"
    assert [a.name.partition(":")[2] for a in found.annotations] == [
        "name",
        "qlVersion",
        "description",
        "instances",
        "playback",
    ]
    assert found.annotations[-1].elements == (("idle.time", "100 millisec"), ("increment", "1 sec"))


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        ("@info(name='q')", "q"),
        ('@INFO(Name = "q")', "q"),
        ("@infor(name='q')", "q"),
        ("@info('q')", "q"),
        ("@name('q')", "q"),
        ("@info(name=q)", "q"),
        ("@info(name='q') @purge(interval='1 sec')", "q"),
        ("@info", None),
        ("@info()", None),
        ("@sink(type='log')", None),
        ("", None),
    ],
)
def test_a_query_is_named_by_its_annotation(annotation: str, name: str | None) -> None:
    assert name == query(f"{annotation} INSERT INTO t SELECT a FROM s;").name


@pytest.mark.parametrize(
    ("metadata", "name", "version"),
    [
        ("", "", ""),
        ("@App:name('w')", "w", ""),
        ("@App:qlVersion('2')", "", "2"),
        ('@app:NAME("w") @app:qlversion(1)', "w", "1"),
        ("@App:name @App:qlVersion()", "", ""),
        ("@App:name('first') @App:name('second')", "first", ""),
    ],
)
def test_a_worker_is_read_whatever_it_says_or_leaves_out_of_name_and_version(
    metadata: str, name: str, version: str
) -> None:
    found = parse(f"{metadata} CREATE STREAM s (a int);")

    assert (found.name, found.language_version) == (name, version)
    assert list(found.streams) == ["s"]


def test_metadata_may_follow_statements() -> None:
    assert parse("CREATE STREAM s (a int); @App:name('late') @App:qlVersion('2')").name == "late"


# --- definitions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "name", "scope"),
    [
        ("CREATE STREAM N (a int);", "N", StreamScope.LOCAL),
        ("CREATE STREAM GLOBAL N (a int);", "N", StreamScope.GLOBAL),
        ("CREATE STREAM N GLOBAL (a int);", "N", StreamScope.GLOBAL),
        ("CREATE STREAM local N (a int);", "N", StreamScope.LOCAL),
        ("CREATE STREAM GLOBAL N WITH (async='true') (a int);", "N", StreamScope.GLOBAL),
        ("CREATE STREAM Global (a int);", "Global", StreamScope.LOCAL),
        ("CREATE STREAM Global WITH (async='true') (a int);", "Global", StreamScope.LOCAL),
        ("CREATE STREAM GLOBAL Global (a int);", "Global", StreamScope.GLOBAL),
        ("CREATE SOURCE N WITH (type='stream', replication.type='GLOBAL') (a int);", "N", StreamScope.GLOBAL),
        ("CREATE SOURCE GLOBAL N WITH (type='stream') (a int);", "N", StreamScope.GLOBAL),
    ],
)
def test_a_streams_scope_is_read_from_wherever_it_stands(body: str, name: str, scope: StreamScope) -> None:
    definition = stream(body)

    assert (name, scope) == (definition.name, definition.scope)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("CREATE STREAM s (a int);", "stream"),
        ("CREATE SOURCE STREAM s (a int);", "source stream"),
        ("CREATE SINK STREAM s (a int);", "sink stream"),
        ("CREATE SOURCE s WITH (type='mqtt') (a int);", "source"),
        ("CREATE SINK s WITH (type='log') (a int);", "sink"),
        ("CREATE SINK s WITH (type='log')\n(a int)", "sink"),
    ],
)
def test_every_kind_of_stream_is_told_apart(body: str, kind: str) -> None:
    assert kind == stream(body).kind


@pytest.mark.parametrize(
    "mapping", ['(symbol = "a.b", price = "c")', '("a.b","c")', "(a.b = 'x')", "('f(;)', y = '(')"]
)
def test_a_mapping_in_the_place_of_attributes_is_no_schema(mapping: str) -> None:
    assert stream(f"CREATE SOURCE s WITH (type='stream') {mapping};").attributes is None


@pytest.mark.parametrize(
    ("body", "kind", "scope", "collection"),
    [
        ("CREATE TABLE T (a int);", "table", StreamScope.LOCAL, "T"),
        ("CREATE TABLE GLOBAL T (a int);", "table", StreamScope.GLOBAL, "T"),
        ("CREATE TABLE SPOT T (a int);", "table", StreamScope.GLOBAL, "T"),
        ("CREATE TABLE T (a int) WITH (collection='C');", "table", StreamScope.LOCAL, "C"),
        ("CREATE STORE T WITH (type='database', collection='C') (a int);", "store", StreamScope.GLOBAL, "C"),
        ("CREATE STORE T WITH (replication.type='local') (a int);", "store", StreamScope.LOCAL, "T"),
    ],
)
def test_a_tables_scope_and_collection_are_read(body: str, kind: str, scope: StreamScope, collection: str) -> None:
    table = worker(body).tables["T"]

    assert (kind, scope, collection) == (table.kind, table.scope, table.collection)


@pytest.mark.parametrize(
    ("body", "construct", "name"),
    [
        ("CREATE WINDOW w (a int) SLIDING_TIME(1 min) OUTPUT ALL EVENTS;", "window", "w"),
        ("CREATE TRIGGER t WITH (interval = 5 sec)", "trigger", "t"),
        ("CREATE TRIGGER t WITH (expression='*/5 * * * * ?');", "trigger", "t"),
        (
            "CREATE AGGREGATION a WITH (store.type='database') SELECT x, avg(p) AS p FROM s GROUP BY x "
            "AGGREGATE BY ts EVERY sec...year;",
            "aggregation",
            "a",
        ),
        ("CREATE INDEX i ON TABLE t WITH (type='hash') (a);", "index", "i"),
        ("CREATE UNIQUE INDEX i ON TABLE t WITH (type='hash') (a, b);", "index", "i"),
        ("CREATE SECONDARY INDEX i ON STORE t (a);", "index", "i"),
        ("CREATE QUERY-WORKER q WITH (query='FOR d IN c RETURN d;') (a int);", "query-worker", "q"),
        (
            "@purge(enable='true') PARTITION WITH (end OF s, a < 5 AS 'low' OF r) BEGIN\n"
            "INSERT INTO #i SELECT a AS end, max(b) AS m FROM s GROUP BY end;\n"
            "INSERT INTO t SELECT * FROM #i;\nEND;",
            "partition",
            None,
        ),
        ("@info(name='p') PARTITION WITH (a OF s) BEGIN INSERT INTO t FROM s END", "partition", "p"),
    ],
)
def test_statements_that_are_not_parsed_are_skipped_whole(body: str, construct: str, name: str | None) -> None:
    (definition,) = worker(body + "\n\n").definitions

    assert isinstance(definition, OtherDefinition)
    assert (construct, name) == (definition.construct, definition.name)
    assert body.rstrip(";").endswith(definition.text)
    assert definition.text.startswith(("CREATE", "PARTITION"))


def test_create_as_select_gives_the_definition_and_a_query() -> None:
    found = worker("CREATE SINK STREAM GLOBAL s (a int) AS SELECT a FROM r[a > 1]; CREATE TABLE t AS SELECT * FROM s")

    assert (Attribute("a", AttributeType.INT),) == found.streams["s"].attributes
    assert found.tables["t"].attributes is None
    assert [(q.construct, q.target, q.sources) for q in found.queries if isinstance(q, OtherQuery)] == [
        ("CREATE SINK STREAM … AS SELECT", "s", ("r",)),
        ("CREATE TABLE … AS SELECT", "t", ("s",)),
    ]


def test_the_look_ups_find_definitions_by_name() -> None:
    found = worker(
        "CREATE STREAM s (a int); CREATE TABLE t (a int); CREATE FUNCTION f[javascript] RETURN int { return 1 };"
    )

    assert (list(found.streams), list(found.tables), list(found.functions)) == (["s"], ["t"], ["f"])


# --- functions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "return '}';",
        'return "}\\"}";',
        "return 1; // }\n",
        "/* } */ return 1;",
        "return `}`;",
        "return `a${ {b: `}${'}'}`}.b }}c`;",
        "return `\\`}\\${`;",
        "return /}/.test(data[0]);",
        "return /[/}]\\/}/g.test(data[0]);",
        "var re = /'/; return re;",
        "if (x) /}/.exec(y); return 1;",
        "return (a) / 2; // }'\n",
        "return a[0] / b / '}'.length;",
        "return i++ / 2 + '}' / 1;",
        "return o.return / 2 + '}' / 1;",
        "return typeof /}/;",
        "if (a) { while (b) { c = {d: {}}; } }",
        "var o = {a: 1} / 2; return '}' / 1;",
        "return 'a\\\nb}';",
        "",
    ],
)
def test_a_functions_body_ends_at_its_own_brace(body: str) -> None:
    found = worker(f"CREATE FUNCTION f[javascript] RETURN STRING {{{body}}};\nCREATE STREAM s (a int);")

    assert body == found.functions["f"].body
    assert "s" in found.streams


def test_a_function_may_span_lines_before_its_body() -> None:
    found = worker("create function f [javascript]\nreturn double\n{\n  return 1.5;\n}\n;")

    assert (found.functions["f"].returns, found.functions["f"].language) == (AttributeType.DOUBLE, "javascript")


# --- simple queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "INSERT INTO t SELECT a, b AS c FROM s[a > 1][b == 'x'];",
        "INSERT INTO t FROM s[a > 1][b == 'x'] SELECT a, b AS c",
    ],
)
def test_both_orders_of_the_simple_query_give_one_tree(body: str) -> None:
    found = query(body)

    assert (found.target, found.source) == ("t", "s")
    assert [shape(f) for f in found.filters] == [("a", ">", 1), ("b", "==", "x")]
    assert [(s.name, shape(s.expression)) for s in found.selection or ()] == [("a", "a"), ("c", "b")]


@pytest.mark.parametrize(
    "body", ["INSERT INTO t SELECT * FROM s;", "INSERT INTO t FROM s;", "INSERT INTO t FROM s SELECT *"]
)
def test_selecting_everything_is_no_selection(body: str) -> None:
    assert query(body).selection is None


def test_a_qualified_attribute_is_selected_under_its_own_name() -> None:
    (selected,) = query("INSERT INTO t SELECT s.a FROM s;").selection or ()

    assert Selected("a", AttributeRef("a", "s", Place(3, 22))) == selected


def test_an_aggregate_is_a_call_like_any_other() -> None:
    (selected,) = query("INSERT INTO t SELECT avg(a) AS m FROM s;").selection or ()

    assert shape(selected.expression) == ("avg()", "a")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a or b and c", ("a", "or", ("b", "and", "c"))),
        ("not a and b", (("not", "a"), "and", "b")),
        ("not a == b", (("not", "a"), "==", "b")),
        ("not (a == b)", ("not", ("a", "==", "b"))),
        ("a == not b == c", (("a", "==", ("not", "b")), "==", "c")),
        ("not a is null", ("not", ("is null", "a"))),
        ("not not -a", ("not", ("not", ("-", "a")))),
        ("not (a is null)", ("not", ("is null", "a"))),
        ("a is null and s.b is null", (("is null", "a"), "and", ("is null", "s.b"))),
        ("a + b is null", ("a", "+", ("is null", "b"))),
        ("(a + b) is null", ("is null", ("a", "+", "b"))),
        ("a - b - c", (("a", "-", "b"), "-", "c")),
        ("a + b * c % d", ("a", "+", (("b", "*", "c"), "%", "d"))),
        ("(a + b) * c", (("a", "+", "b"), "*", "c")),
        ("-a * b", (("-", "a"), "*", "b")),
        ("a - -1", ("a", "-", ("-", 1))),
        ("a < b == c", (("a", "<", "b"), "==", "c")),
        ("a == b > c", ("a", "==", ("b", ">", "c"))),
        ("a / b >= c or d != 'x'", ((("a", "/", "b"), ">=", "c"), "or", ("d", "!=", "x"))),
        ("f()", ("f()",)),
        ("and(a) and or(b)", (("and()", "a"), "and", ("or()", "b"))),
        ("a - +1 == +.5", (("a", "-", 1), "==", 0.5)),
        ("str:concat(a, ':', f(b))", ("str:concat()", "a", ":", ("f()", "b"))),
        ("not(a)", ("not", "a")),
        ("`or` == `a b`", ("or", "==", "a b")),
        ("s.`x y` == 1", ("s.x y", "==", 1)),
    ],
)
def test_operators_bind_as_they_should(condition: str, expected: object) -> None:
    assert expected == filter_shape(condition)


@pytest.mark.parametrize(
    ("written", "value", "literal_type"),
    [
        ("5", 5, AttributeType.INT),
        ("2147483648", 2147483648, AttributeType.INT),
        ("5L", 5, AttributeType.LONG),
        ("5l", 5, AttributeType.LONG),
        ("5f", 5.0, AttributeType.FLOAT),
        ("1.5F", 1.5, AttributeType.FLOAT),
        ("5d", 5.0, AttributeType.DOUBLE),
        ("1.5", 1.5, AttributeType.DOUBLE),
        (".5", 0.5, AttributeType.DOUBLE),
        ("1e3", 1000.0, AttributeType.DOUBLE),
        ("5.", 5.0, AttributeType.DOUBLE),
        ("5.f", 5.0, AttributeType.FLOAT),
        ("1.5E-3", 0.0015, AttributeType.DOUBLE),
        ("'5'", "5", AttributeType.STRING),
        ("True", True, AttributeType.BOOL),
        ("FALSE", False, AttributeType.BOOL),
    ],
)
def test_literals_have_the_type_their_spelling_gives(written: str, value: object, literal_type: AttributeType) -> None:
    (found,) = query(f"INSERT INTO t SELECT * FROM s[{written}];").filters

    assert Literal(value, literal_type, Place(3, 31)) == found  # type: ignore[arg-type]
    assert isinstance(found, Literal)
    assert type(value) is type(found.value)


def test_an_operators_place_is_its_own_and_a_calls_its_names() -> None:
    (found,) = query("INSERT INTO t SELECT * FROM s[f(a) ==\n1];").filters

    assert isinstance(found, Binary)
    assert (Place(3, 36), Place(3, 31), Place(4, 1)) == (found.place, found.left.place, found.right.place)


# --- other queries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "construct", "target", "sources"),
    [
        ("INSERT INTO t SELECT a FROM s WINDOW SLIDING_TIME(5 sec);", "WINDOW", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s#window.length(5);", "WINDOW", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s#log('x');", "a stream function", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s[x > 1] JOIN r ON s.a == r.a;", "JOIN", "t", ("s", "r")),
        (
            "INSERT INTO t SELECT a FROM s WINDOW LENGTH(1) AS x LEFT OUTER JOIN r AS y ON x.a == y.a and b;",
            "WINDOW",
            "t",
            ("s", "r"),
        ),
        ("INSERT INTO t SELECT x.a FROM s AS x JOIN r AS y ON x.a == y.a;", "an alias", "t", ("s", "r")),
        (
            "INSERT INTO t SELECT e1.a FROM every e1=s[a > 1] -> e2=r[b == e1.a] WITHIN 5 min;",
            "a pattern",
            "t",
            ("s", "r"),
        ),
        ("INSERT INTO t SELECT e1.a FROM every (e1=s -> e2=r) -> q;", "a pattern", "t", ("s", "r", "q")),
        ("INSERT INTO t SELECT e1.a FROM e1=s, e2=r;", "a pattern", "t", ("s", "r")),
        ("INSERT INTO t SELECT e1.a FROM every every -> not=not, order;", "a pattern", "t", ("every", "not", "order")),
        ("INSERT INTO t SELECT e1.a FROM e1=s WITHIN 5 sec -> e2=r;", "a pattern", "t", ("s", "r")),
        ("INSERT INTO t SELECT a FROM s JOIN r ON a == b WITHIN 'x', 'y' PER 'days';", "JOIN", "t", ("s", "r")),
        ("INSERT INTO t SELECT a FROM s JOIN r WITHIN 'x', y PER z;", "JOIN", "t", ("s", "r")),
        ("INSERT INTO t SELECT a FROM #s, s;", "an inner stream", "t", ("#s", "s")),
        ("SELECT a FROM s, r INSERT INTO t;", "SELECT before the action", "t", ("s", "r")),
        ("SELECT a, insert FROM s WINDOW LENGTH(1) update t SET t.a = a", "SELECT before the action", "t", ("s",)),
        ("SELECT a FROM s update or insert into t", "SELECT before the action", "t", ("s",)),
        ("SELECT a FROM s delete t on t.a == a", "SELECT before the action", "t", ("s",)),
        ("INSERT INTO t SELECT 1 AS a FROM not s[a == 1] for 5 sec;", "a pattern", "t", ("s",)),
        (
            "INSERT INTO t SELECT e1[0].a AS a FROM e1=s<2:5> -> r;",
            "an indexed event of a pattern",
            "t",
            ("s", "r"),
        ),
        ("INSERT INTO t SELECT a FROM s, r;", "a sequence", "t", ("s", "r")),
        ("INSERT INTO t SELECT a FROM !s;", "a fault stream", "t", ("!s",)),
        ("INSERT INTO #t SELECT a FROM s;", "an inner stream", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s WHERE a > 1;", "WHERE", "t", ("s",)),
        ("INSERT INTO t SELECT a, sum(b) AS b FROM s GROUP BY a;", "GROUP BY", "t", ("s",)),
        ("INSERT INTO t FROM s SELECT a GROUP BY a;", "GROUP BY", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s HAVING a > 1;", "HAVING", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s ORDER BY a DESC;", "ORDER BY", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s LIMIT 5;", "LIMIT", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s OUTPUT EVERY 5 events;", "OUTPUT", "t", ("s",)),
        ("INSERT ALL EVENTS INTO t SELECT a FROM s;", "INSERT ALL EVENTS", "t", ("s",)),
        ("INSERT EVENTS INTO t SELECT a FROM s;", "INSERT EVENTS", "t", ("s",)),
        ("insert expired events into t SELECT a FROM s", "INSERT EXPIRED EVENTS", "t", ("s",)),
        ("UPDATE t SET t.a = b ON t.id == id SELECT b, id FROM s;", "UPDATE", "t", ("s",)),
        ("UPDATE OR INSERT INTO t ON t.id == id SELECT b, id FROM s;", "UPDATE OR INSERT", "t", ("s",)),
        ("DELETE t ON t.id == id SELECT id FROM s;", "DELETE", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s[a in r];", "IN", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s[not (a == r.a in r)];", "IN", "t", ("s",)),
        ("INSERT INTO t SELECT a FROM s[a is not null];", "IS NOT NULL", "t", ("s",)),
        ("INSERT INTO t SELECT ifThenElse(a, b, null) AS c FROM s;", "NULL as a value", "t", ("s",)),
        ("INSERT INTO t SELECT time:add(a, 5 sec) AS c FROM s;", "a time constant", "t", ("s",)),
        ("INSERT INTO t SELECT count(*) AS c FROM s;", "'*' as a value", "t", ("s",)),
        ("INSERT INTO t SELECT s.* FROM s;", "'*' as a value", "t", ("s",)),
        ("INSERT INTO t SELECT a.b.c AS d FROM s;", "a path into an attribute", "t", ("s",)),
        ("INSERT INTO t SELECT count() FROM s;", "an expression without AS", "t", ("s",)),
        ("INSERT INTO t SELECT CASE WHEN a THEN b END AS c FROM s;", "CASE", "t", ("s",)),
    ],
)
def test_what_the_simple_form_cannot_hold_is_named(
    body: str, construct: str, target: str, sources: tuple[str, ...]
) -> None:
    found = other_query(body)

    assert (construct, target, sources) == (found.construct, found.target, found.sources)
    assert body.rstrip(";") == found.text


def test_the_place_of_another_query_is_that_of_its_construct() -> None:
    found = other_query("@info(name='q')\nINSERT INTO t\nSELECT a, sum(b) AS b\nFROM s\n  GROUP BY a;")

    assert ("q", Place(7, 3)) == (found.name, found.place)


def test_a_long_chain_of_operators_is_another_query() -> None:
    found = other_query(f"INSERT INTO t SELECT a FROM s[{' or '.join(['a == 1'] * 5000)}];")

    assert found.construct == "an expression of more than 150 levels"


def test_a_chain_at_the_limit_is_a_simple_query_that_can_be_compared() -> None:
    text = f"INSERT INTO t SELECT a FROM s[{' or '.join(['a'] * 150)}];"

    assert query(text) == query(text)
    assert hash(query(text)) == hash(query(text))
    assert repr(query(text))
