"""The GDN streams of a definition (gdn-api.md C.2)."""

from __future__ import annotations

import pytest

from bridge.streamql import Attribute, AttributeType, InputStream, Place, StreamScope, input_streams, parse, tables_read

HEAD = "@App:name('w')\n@App:qlVersion('2')\n"
A_INT = (Attribute("a", AttributeType.INT),)


def streams(body: str) -> dict[str, InputStream]:
    return input_streams(parse(HEAD + body))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("CREATE STREAM N (a int);", [("N", StreamScope.LOCAL, True)]),
        ("CREATE SOURCE STREAM N (a int);", [("N", StreamScope.LOCAL, True)]),
        ("CREATE STREAM GLOBAL N (a int);", [("N", StreamScope.GLOBAL, True)]),
        ("CREATE STREAM N GLOBAL (a int);", [("N", StreamScope.GLOBAL, True)]),
        ("CREATE SINK STREAM N (a int);", [("N", StreamScope.LOCAL, False)]),
        ("CREATE SINK STREAM GLOBAL N (a int);", [("N", StreamScope.GLOBAL, False)]),
        (
            "CREATE SOURCE N WITH (type='stream', stream.list='A, B,', replication.type='GLOBAL') (a int);",
            [("A", StreamScope.GLOBAL, True), ("B", StreamScope.GLOBAL, True)],
        ),
        ("CREATE SOURCE N WITH (type='STREAM', stream.list=A) (a int);", [("A", StreamScope.LOCAL, True)]),
        (
            "CREATE SOURCE N WITH (type='stream', stream.list='A', replication.type='local') (a int);",
            [("A", StreamScope.LOCAL, True)],
        ),
        ("CREATE SOURCE N WITH (type='stream') (a int);", []),
        ("CREATE SINK N WITH (type='stream', stream='A') (a int);", [("A", StreamScope.LOCAL, False)]),
        (
            "CREATE SINK N WITH (type='stream', stream='A', replication.type='global') (a int);",
            [("A", StreamScope.GLOBAL, False)],
        ),
        ("CREATE SOURCE N WITH (type='mqtt', topic='A', url='tcp://b') (a int);", []),
        ("CREATE SOURCE N WITH (type='database', collection='A', replication.type='global') (a int);", []),
        ("CREATE STREAM N WITH (type='inMemory') (a int);", []),
        ("CREATE STREAM N WITH (type='stream') (a int);", [("N", StreamScope.LOCAL, True)]),
        ("CREATE SOURCE N WITH (x='y') (a int);", []),
        ("CREATE SINK N WITH (type='log') (a int);", []),
        ("CREATE SOURCE N WITH (source.type='stream', stream.list='A') (a int);", [("A", StreamScope.LOCAL, True)]),
        ("CREATE SINK N WITH (sink.type='kafka', stream='A') (a int);", []),
        ("CREATE SINK N WITH (type='stream', stream='A,{{a}}') (a int);", [("A", StreamScope.LOCAL, False)]),
        ("CREATE STREAM !N (a int, _error object);", []),
        ("CREATE TABLE N (a int); INSERT INTO inferred SELECT a FROM N;", []),
    ],
)
def test_the_streams_of_a_declaration(body: str, expected: list[tuple[str, StreamScope, bool]]) -> None:
    assert expected == [(s.name, s.scope, s.read_by_worker) for s in streams(body).values()]


def test_a_stream_has_the_attributes_and_the_place_of_its_source() -> None:
    found = streams("\nCREATE SOURCE N WITH (type='stream', stream.list='A') (a int);")

    assert found == {"A": InputStream("A", StreamScope.LOCAL, A_INT, True, Place(4, 1), True, queried=False)}


def test_a_source_without_types_gives_a_stream_without_attributes() -> None:
    found = streams("CREATE SOURCE N WITH (type='stream', stream.list='A') (b = 'x.y');")

    assert found["A"].attributes is None


@pytest.mark.parametrize(
    ("properties", "fails"),
    [
        ("x='y'", True),
        ("fail.on.missing.attribute='true'", True),
        ("fail.on.missing.attribute='false'", False),
        ("fail.on.missing.attribute=FALSE", False),
        ("map.fail.on.missing.attribute='false'", False),
    ],
)
def test_rows_must_be_complete_unless_the_definition_allows_nulls(properties: str, fails: bool) -> None:
    assert fails is streams(f"CREATE STREAM N WITH ({properties}) (a int);")["N"].fail_on_missing


@pytest.mark.parametrize(
    "body",
    [
        "CREATE SINK STREAM A (b int); CREATE SOURCE s WITH (type='stream', stream.list='A') (a int);",
        "CREATE SOURCE s WITH (type='stream', stream.list='A') (a int); CREATE SINK STREAM A (b int);",
    ],
)
def test_a_stream_that_is_sink_and_source_is_read_by_the_worker(body: str) -> None:
    (found,) = streams(body).values()

    assert (found.read_by_worker, found.attributes) == (True, A_INT)


def test_a_stream_with_several_sources_needs_what_all_of_them_need() -> None:
    (found,) = streams(
        "CREATE SOURCE s WITH (type='stream', stream.list='A', fail.on.missing.attribute='false') (a int);"
        "CREATE SOURCE r WITH (type='stream', stream.list='A') (b bool, a string);"
        "CREATE SOURCE q WITH (type='stream', stream.list='A') ('x');"
    ).values()

    assert found.attributes == (*A_INT, Attribute("b", AttributeType.BOOL))
    assert found.fail_on_missing


def test_of_a_local_and_a_global_source_of_one_name_the_first_is_taken() -> None:
    (found,) = streams(
        "CREATE SOURCE s WITH (type='stream', stream.list='A', replication.type='global') (a int);"
        "CREATE STREAM A (b int);"
    ).values()

    assert (found.scope, found.attributes) == (StreamScope.GLOBAL, A_INT)


# --- what queries read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "queried"),
    [
        ("INSERT INTO t FROM N;", True),
        ("INSERT INTO t FROM n;", True),
        ("INSERT INTO t FROM r; INSERT INTO t FROM N[a > 1];", True),
        ("INSERT INTO t SELECT a FROM r JOIN N ON r.a == N.a;", True),
        ("INSERT INTO t SELECT e.a FROM every r -> e=N;", True),
        ("INSERT INTO t FROM r[a in N];", True),
        ("CREATE AGGREGATION g SELECT sum(a) AS a FROM N AGGREGATE EVERY sec;", True),
        ("CREATE TABLE t AS SELECT a FROM N;", True),
        ("PARTITION WITH (a OF N) BEGIN INSERT INTO t FROM r; END;", True),
        ("SELECT a FROM N INSERT INTO t;", True),
        # statements that aren't parsed: these may be read from
        ("INSERT INTO t SELECT a FROM r WINDOW x(N);", True),
        ("PARTITION WITH (a OF r) BEGIN INSERT INTO t SELECT N FROM r; END;", True),
        # none of these reads from N
        ("", False),
        ("INSERT INTO N FROM r;", False),
        ("INSERT INTO t SELECT N FROM r;", False),
        ("INSERT INTO t SELECT r.N AS N FROM r[N > 1];", False),
        ("INSERT INTO N SELECT a FROM r WINDOW LENGTH(1);", False),
        ("INSERT INTO t SELECT 'N' AS a FROM r /* FROM N */ WINDOW LENGTH(1) -- FROM N;\n;", False),
        ("UPDATE OR INSERT INTO N ON N2.a == a SELECT a FROM r;", False),
        ("PARTITION WITH (a OF r) BEGIN INSERT INTO N SELECT a FROM r; END;", False),
    ],
)
def test_a_stream_is_unread_only_where_no_query_can_read_it(statement: str, queried: bool) -> None:
    assert queried is streams(f"CREATE STREAM N (a int); {statement}")["N"].queried


def test_a_stream_with_several_sources_is_read_if_one_of_them_is() -> None:
    both = (
        "CREATE SOURCE r WITH (type='stream', stream.list='A') (a int);"
        "CREATE SOURCE s WITH (type='stream', stream.list='A,B') (a int);"
    )

    assert {name: s.queried for name, s in streams(both + "INSERT INTO t FROM r;").items()} == {"A": True, "B": False}
    assert {name: s.queried for name, s in streams(both + "INSERT INTO t FROM s;").items()} == {"A": True, "B": True}


def test_a_source_is_read_under_its_own_name_not_its_streams() -> None:
    (found,) = streams("CREATE SOURCE s WITH (type='stream', stream.list='A') (a int); INSERT INTO t FROM A;").values()

    assert not found.queried


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("INSERT INTO u FROM t;", {"t": Place(3, 1)}),
        ("\n INSERT INTO u FROM t; INSERT INTO u FROM t;", {"t": Place(4, 2)}),
        ("INSERT INTO u SELECT a FROM t\nWHERE a > 1;", {"t": Place(4, 1)}),
        ("INSERT INTO u SELECT a FROM s JOIN t ON s.a == t.a;", {}),
        ("INSERT INTO t FROM s;", {}),
        ("INSERT INTO u SELECT a, _error FROM !t WINDOW LENGTH(1);", {}),
        ("INSERT INTO u FROM s[t.a == a in t];", {}),
        ("DELETE t ON t.a == 1;", {}),
    ],
)
def test_a_table_is_read_as_a_stream_where_only_tables_are_read_from(
    statement: str, expected: dict[str, Place]
) -> None:
    text = f"{HEAD}{statement}\n; CREATE STREAM s (a int); CREATE TABLE t (a int); CREATE STORE u WITH (x='y') (a int);"

    assert expected == tables_read(parse(text))
