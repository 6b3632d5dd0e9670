"""Every syntax error is reported at its place with what was expected there."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.cli.configuration import read_worker
from bridge.errors import ConfigError
from bridge.streamql import StreamQLError, parse, require_metadata

HEAD = "@App:name('w')\n@App:qlVersion('2')\n"


def error(text: str) -> StreamQLError:
    with pytest.raises(StreamQLError) as caught:
        require_metadata(parse(text))
    return caught.value


def error_in(body: str) -> StreamQLError:
    """The error of a worker with valid metadata; ``body`` starts on line 3."""
    return error(HEAD + body)


def test_an_error_is_a_value_error_with_its_place() -> None:
    found = error_in("CREAT STREAM s (a int);")

    assert isinstance(found, ValueError)
    assert str(found) == (
        "line 3, column 1: expected CREATE, INSERT, UPDATE, DELETE or PARTITION, found 'CREAT'; did you mean CREATE?"
    )


def test_a_keyword_in_the_wrong_place_is_not_called_mistyped() -> None:
    assert "did you mean" not in error_in("INSERT INTO t SELECT a FROM s select b;").message


@pytest.mark.parametrize(
    ("body", "line", "column", "message"),
    [
        # keywords
        ("CREATE STREM s (a int);", 3, 8, "did you mean STREAM?"),
        ("CREATE s (a int);", 3, 8, "QUERY-WORKER after CREATE, found 's'"),
        ("CREATE SOURCE STREM s (a int);", 3, 21, "did you mean STREAM?"),
        ("CREATE SOURCE s (a int);", 3, 17, "CREATE SOURCE STREAM s"),
        ("CREATE STREAM s WHIT (x='y') (a int);", 3, 17, "did you mean WITH?"),
        ("CREATE FUNCTION f[javascript] RETRUN int { };", 3, 31, "did you mean RETURN?"),
        ("INSRT INTO t SELECT a FROM s;", 3, 1, "did you mean INSERT?"),
        ("INSERT IN t SELECT a FROM s;", 3, 8, "expected INTO, found 'IN'"),
        ("INSERT INTO t SELEC a FROM s;", 3, 15, "did you mean SELECT?"),
        ("INSERT INTO t SELECT a FORM s;", 3, 24, "did you mean FROM?"),
        ("INSERT INTO t SELECT a FROM s GROPU BY a;", 3, 31, "did you mean GROUP?"),
        ("PARTITION WITH (a OF s) BEGN END;", 3, 33, "expected BEGIN in the partition, found ';'"),
        ("SELECT a FROM s;", 3, 1, "expected INSERT INTO, UPDATE or DELETE in the query, found none"),
        ("\n SELECT insert, update FROM s;", 4, 2, "expected INSERT INTO, UPDATE or DELETE in the query"),
        # names and attributes
        ("CREATE STREAM (a int);", 3, 15, "expected the name of the stream, found '('"),
        ("CREATE STREAM ! (a int);", 3, 17, "expected the name of the stream, found '('"),
        ("CREATE STREAM 5s (a int);", 3, 15, "expected the name of the stream, found '5'"),
        ("CREATE STREAM s;", 3, 16, "expected WITH or '(' and the attributes, found ';'"),
        ("CREATE STREAM s ();", 3, 18, "expected an attribute's name, found ')'"),
        ("CREATE STREAM s (a);", 3, 19, "expected a type for the attribute a"),
        ("CREATE STREAM s (a strng);", 3, 20, "did you mean STRING?"),
        (
            "CREATE STREAM s (a int,\n  b number);",
            4,
            5,
            "(string, int, long, float, double, bool, object)",
        ),
        ("CREATE STREAM s (a int b int);", 3, 24, "expected ',' or ')' after an attribute, found 'b'"),
        ("CREATE STREAM s (a int", 3, 23, "expected ',' or ')' after an attribute, found the end of the definition"),
        ("CREATE STREAM s (a int, a string);", 3, 25, "the attribute 'a' is declared twice"),
        ("CREATE SOURCE s WITH (type='x') ('a', ", 3, 33, "this '(' is never closed"),
        ("CREATE STREAM s (a int);\nCREATE TABLE s (a int);", 4, 14, "found 's', which is already defined on line 3"),
        (
            "CREATE FUNCTION s[javascript] RETURN int { };\nCREATE WINDOW s (a int) LENGTH(5);",
            4,
            15,
            "expected a new name, found 's'",
        ),
        # semicolons
        (
            "CREATE STREAM s (a int) CREATE TABLE t (a int);",
            3,
            25,
            "expected ';' at the end of the statement, found 'CREATE'",
        ),
        ("CREATE STREAM s (a int)\n@info(name='q')", 4, 1, "expected ';'"),
        ("INSERT INTO t SELECT a FROM s\nINSERT INTO r SELECT a FROM t;", 4, 1, "expected ';' at the end of the query"),
        ("CREATE TRIGGER t WITH (interval=5 sec)\nCREATE STREAM s (a int);", 4, 1, "expected ';'"),
        ("INSERT INTO t SELECT a FROM s GROUP BY a\n@info(name='q') INSERT INTO t FROM s;", 4, 1, "expected ';'"),
        ("SELECT a FROM s INSERT INTO t\nINSERT INTO r SELECT a FROM t;", 4, 1, "expected ';'"),
        ("SELECT a FROM s\nCREATE STREAM r (a int);", 4, 1, "expected ';'"),
        (
            "CREATE AGGREGATION a SELECT b FROM s AGGREGATE EVERY day\n@info(name='q') INSERT INTO t FROM s;",
            4,
            1,
            "expected ';'",
        ),
        ("CREATE AGGREGATION a WITH (x='y')\n@info(name='q') INSERT INTO t FROM s;", 4, 17, "expected ';'"),
        ("DELETE t ON t.a == b FROM s\nINSERT INTO r SELECT a FROM t;", 4, 1, "expected ';'"),
        # properties and annotations
        ("CREATE SOURCE s WITH (type 'mqtt') (a int);", 3, 28, "expected '=' after the property type"),
        ("CREATE SOURCE s WITH (type=) (a int);", 3, 28, "expected a value for type"),
        ("CREATE SOURCE s WITH (type='a' topic='b') (a int);", 3, 32, "expected ',' or ')' after a property"),
        ("CREATE SOURCE s WITH (type=a topic='b') (a int);", 3, 35, "expected ',' or ')' after a property"),
        ("CREATE SOURCE s WITH (='b') (a int);", 3, 23, "expected a property's name or ')'"),
        ("CREATE SOURCE s WITH (type='a'", 3, 31, "found the end of the definition"),
        ("CREATE SOURCE s WITH (x=f(a", 3, 26, "'(' is never closed"),
        ("CREATE SOURCE s WITH (@attributes(a='b') (a int);", 3, 42, "expected ',' or ')' after a property"),
        ("CREATE SOURCE s WITH (@attributes(a='b'", 3, 40, "expected ',' or ')' in @attributes"),
        (
            "CREATE AGGREGATION a WITH (x) SELECT b FROM s AGGREGATE EVERY day;",
            3,
            29,
            "expected '=' after the property x",
        ),
        ("CREATE SOURCE s WITH (x={a: 1}) (a int);", 3, 25, "expected a value for x (in quotes"),
        ("CREATE SOURCE s WITH (replication.type='globl') (a int);", 3, 23, "expected local or global"),
        ("@info(name='q'", 3, 15, "expected ',' or ')' in @info"),
        ("@info(name='q')", 3, 16, "expected a statement after @info"),
        ("@('q')", 3, 2, "expected the annotation's name"),
        # unclosed things are reported where they open
        ("CREATE STREAM s (a int);\n  /* no end", 4, 3, "this comment is never closed: expected */"),
        ("CREATE SOURCE s WITH (type='x) (a int);\n\n", 3, 28, "this string is never closed: expected '"),
        ('CREATE SOURCE s WITH (type="""x"") (a int);', 3, 28, 'this string is never closed: expected """'),
        ("CREATE STREAM `s (a int);", 3, 15, "this name is never closed: expected `"),
        ("CREATE STREAM `` (a int);", 3, 15, "expected a name between backticks"),
        ("CREATE STREAM `a\nb` (a int);", 3, 15, "expected a name between backticks, on one line"),
        ("PARTITION WITH (a OF s)\nBEGIN INSERT INTO t FROM s;", 4, 1, "this BEGIN is never closed: expected END"),
        ("CREATE FUNCTION f[javascript] RETURN int {\n if (a) {\n};", 3, 42, "this '{' is never closed"),
        ("CREATE FUNCTION f[javascript] RETURN int {\n return 'a\n};", 4, 9, "this string in the function's body"),
        ("CREATE FUNCTION f[javascript] RETURN int {\n /* }", 4, 2, "this comment in the function's body"),
        ("CREATE FUNCTION f[javascript] RETURN int {\n x = `a }", 4, 6, "this template in the function's body"),
        ("CREATE FUNCTION f[javascript] RETURN int {\n x = `a${ b }", 4, 6, "this template in the function's body"),
        ("CREATE FUNCTION f[javascript] RETURN int {\n x = `a${ b ", 4, 6, "expected '}'"),
        (
            "CREATE FUNCTION f[javascript] RETURN int {\n x = /a\n}",
            4,
            6,
            "this regular expression in the function",
        ),
        # functions
        ("CREATE FUNCTION f RETURN int { };", 3, 19, "expected '[javascript]'"),
        ("CREATE FUNCTION f[javascript] RETURN number { };", 3, 38, "expected a type for the function f"),
        ("CREATE FUNCTION f[javascript] RETURN int return 1;", 3, 42, "expected the function's body in braces"),
        # characters
        ("CREATE STREAM s (a int); €", 3, 26, "unexpected character '€'"),
        ("CREATE SOURCE s WITH (type=‘x’) (a int);", 3, 28, "write strings in straight quotes"),
        ("INSERT INTO t FROM s[a && b];", 3, 24, "write AND or OR"),
        ("CREATE STREAM s (a int); }", 3, 26, "found '}'"),
        # queries
        ("INSERT INTO t SELECT a;", 3, 23, "expected ',' or FROM after the selection, found ';'"),
        ("INSERT INTO t;", 3, 14, "expected SELECT or FROM after the target, found ';'"),
        ("INSERT INTO t SELECT a, FROM s;", 3, 25, "expected an expression, found 'FROM'"),
        ("INSERT INTO t SELECT FROM s;", 3, 22, "expected an expression, found 'FROM'"),
        ("INSERT INTO t SELECT a b FROM s;", 3, 24, "expected ',' or FROM after the selection, found 'b'"),
        ("INSERT INTO t SELECT a AS FROM s;", 3, 27, "expected a name after AS, found 'FROM'"),
        ("INSERT INTO t SELECT a FROM ;", 3, 29, "expected the name of a stream or table after FROM"),
        ("INSERT INTO t FROM s[a == 1;", 3, 21, "this '[' is never closed: expected ']'"),
        ("INSERT INTO t FROM s[+a > 1];", 3, 22, "expected an expression, found '+'"),
        ("INSERT INTO t FROM s[a == and b];", 3, 27, "expected an expression, found 'and'"),
        ("INSERT INTO t FROM s[];", 3, 22, "expected an expression, found ']'"),
        ("INSERT INTO t FROM s[a = 1];", 3, 24, "expected '==' (a single '=' is not a comparison), found '='"),
        ("INSERT INTO t FROM s[a 1];", 3, 24, "expected an operator or ']' after the filter, found '1'"),
        ("INSERT INTO t FROM s[(a == 1];", 3, 29, "expected an operator or ')', found ']'"),
        ("INSERT INTO t FROM s[f(a];", 3, 25, "expected an operator or ')', found ']'"),
        ("INSERT INTO t FROM s[f(a;", 3, 23, "this '(' is never closed: expected ')'"),
        ("INSERT INTO t FROM s[a is 1];", 3, 27, "expected NULL, found '1'"),
        ("INSERT INTO t FROM s[a:b];", 3, 25, "expected '(' after the function's name"),
        ("INSERT INTO t FROM s[a.1 > 2];", 3, 23, "found '.1'"),
        ("INSERT INTO t FROM s[a == 2147483649];", 3, 27, "fits int; write a long with the suffix L"),
        ("INSERT INTO t FROM s[a == 9223372036854775809L];", 3, 27, "expected one that fits long"),
        (f"INSERT INTO t FROM s[a == {'9' * 5000}L];", 3, 27, "expected one that fits long"),
        ("INSERT INTO t FROM s[a == 1e999];", 3, 27, "expected one that fits double"),
        ("INSERT INTO t FROM s[a == 1.5L];", 3, 27, "expected a whole number before the suffix L"),
    ],
)
def test_a_mistake_is_reported_at_its_place(body: str, line: int, column: int, message: str) -> None:
    found = error_in(body)

    assert message in found.message
    assert (found.line, found.column) == (line, column)


def test_a_string_over_several_lines_is_named_as_the_probable_error() -> None:
    found = error_in(
        "CREATE SOURCE s WITH (type='mqtt, url='tcp://b') (a int);\nCREATE SINK r WITH (type='log') (a int);"
    )

    assert found.line == 3
    assert "expected ',' or ')'" in found.message

    found = error_in("CREATE SOURCE s WITH (type='mqtt) (a int);\nCREATE SINK r WITH (type='log') (a int);")

    assert (found.line, found.column) == (4, 27)
    assert "the string before it starts on line 3: is its closing quote missing?" in found.message


# --- metadata and versions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "expected @App:name('…'), found none"),
        ("@App:qlVersion('2') CREATE STREAM s (a int);", 1, 1, "expected @App:name('…'), found none"),
        ("\n@App:name('')\n@App:qlVersion('2')", 2, 1, "expected a name in @App:name"),
        ("\n@App:name\n@App:qlVersion('2')", 2, 1, "expected a name in @App:name"),
        ("@App:name('a') @App:qlVersion('2')\n @App:name('b')", 2, 2, "expected one @App:name, found another"),
        ("@App:name('w') CREATE STREAM s (a int);", 1, 1, 'add @App:qlVersion("2") at the top'),
        ("@App:name('w')\n@App:qlVersion('1')", 2, 1, 'add @App:qlVersion("2") at the top'),
        ("@App:name('w')\ndefine stream s (a int);", 2, 1, "the bridge reads version 2 of the language"),
        (
            "@App:name('w') @source(type='x', @map(type='json', @attributes(a='$.a')))\ndefine stream s (a int);",
            2,
            1,
            "version 1",
        ),
        ("@App:name('w') @App:qlVersion('2')\nfrom s select a insert into t;", 2, 1, "put the action first in queries"),
    ],
)
def test_metadata_that_is_missing_or_of_version_1_is_explained(text: str, line: int, column: int, message: str) -> None:
    found = error(text)

    assert message in found.message
    assert (found.line, found.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "place_and_message"),
    [
        ("CREATE STREAM s (a int);", "1:1: expected @App:name('…'), found none"),
        ("@App:name('w')\nCREATE STREAM s (a int);", "1:1: expected @App:qlVersion, found none"),
        ("@App:name('w')\n@App:qlVersion('1')", "2:1: expected version 2 in @App:qlVersion, found another"),
        (f"{HEAD}CREAT STREAM s (a int);", "3:1: expected CREATE"),
    ],
)
def test_a_definition_file_that_the_bridge_would_not_run_is_refused_with_file_and_place(
    text: str, place_and_message: str, tmp_path: Path
) -> None:
    file = tmp_path / "worker.sql"
    file.write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_worker(file)

    assert caught.value.problems[0].startswith(f"{file}:{place_and_message}")


@pytest.mark.parametrize(
    "body",
    [
        "CREATE SOURCE s WITH (password='hunter2' 'hunter2') (a int);",
        "CREATE SOURCE s WITH (password hunter2) (a int);",
        "CREATE SOURCE s WITH (password=hunter2 'hunter2') (a int);",
        "CREATE SOURCE s WITH (password=hunter2; x='y') (a int);",
        "CREATE SOURCE s 'hunter2' (a int);",
        "CREATE SOURCE s WITH (password='hunter2) (a int);",
        "CREATE FUNCTION f[javascript] { var key = 'hunter2'; };",
    ],
)
def test_no_value_is_shown_that_may_be_a_secret(body: str) -> None:
    assert "hunter2" not in str(error_in(body))


def test_a_long_word_is_cut_in_the_message() -> None:
    assert len(str(error_in("x" * 100_000))) < 200


# --- bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 10_000 + "a" + ")" * 10_000,
        "f(" * 10_000 + "a" + ")" * 10_000,
        "not " * 10_000 + "a",
        "- " * 10_000 + "a",
        "a or (" * 10_000,
        "a == b + c * (" * 10_000,
        "a and not -f(b, " * 10_000,
    ],
)
def test_nesting_beyond_the_limit_is_an_error(condition: str) -> None:
    found = error_in(f"INSERT INTO t FROM s[{condition}];")

    assert "expected at most 50 nested parentheses, calls and signs" in found.message


def test_nesting_to_the_limit_is_read() -> None:
    worker = parse(f"{HEAD}INSERT INTO t FROM s[{'a or b and c == d < e + f * g(' * 50}h{')' * 50}];")

    assert [query.target for query in worker.queries] == ["t"]


@pytest.mark.long
@pytest.mark.parametrize(
    "text",
    [
        "@a(" * 20_000,
        "@a(@b" * 20_000,
        "@a(@b(" + "(" * 50_000,
        "CREATE SOURCE s WITH (x=" + "(" * 50_000,
        "CREATE SOURCE s WITH (" + "a." * 50_000,
        "@i(" + "a." * 50_000,
        "@a:" + "b." * 50_000,
        "CREATE WINDOW w " + "[(" * 50_000,
        "CREATE FUNCTION f[j] RETURN int " + "{(" * 50_000,
        "CREATE FUNCTION f[j] RETURN int {" + "`${" * 50_000,
        "CREATE FUNCTION f[j] RETURN int {" + "/[" * 50_000,
        "CREATE FUNCTION f[j] RETURN int {" + "/" * 50_000,
        "CREATE FUNCTION f[j] RETURN int {'" + "\\" * 50_000,
        "'" * 50_001,
        '"""' * 50_001,
        "/*" * 50_000,
        "-- x\n" * 50_000,
        "1." * 50_000,
        "9" * 100_000,
        "PARTITION WITH (a OF s) BEGIN " + "x.end " * 50_000,
        "INSERT INTO t FROM e1=" + "s -> e=" * 30_000,
        "INSERT INTO t FROM s[" + "a or " * 30_000,
        "CREATE STREAM s (" + "a int, " * 30_000,
    ],
)
def test_hostile_text_is_parsed_or_refused_quickly(text: str) -> None:
    started = time.process_time()
    parses_or_says_where(HEAD + text)

    assert time.process_time() - started < 5.0


@pytest.mark.long
def test_parsing_time_is_linear_in_the_length() -> None:
    def seconds(statements: int) -> float:
        text = HEAD + "".join(
            f"CREATE STREAM s{n} (a int, b string); -- one\n"
            f"INSERT INTO t SELECT a + {n} AS a, f(b, 'x') AS b FROM s{n}[a > 1 and not (b is null)];\n"
            for n in range(statements)
        )
        started = time.process_time()
        parse(text)
        return time.process_time() - started

    small = min(seconds(250) for _ in range(3))
    large = min(seconds(2000) for _ in range(2))

    assert large < 8 * small * 4


# --- arbitrary text --------------------------------------------------------------------------------------

FRAGMENTS = (
    "@App:name('w')", "@App:qlVersion('2')", "@info(name='q')", "@", "CREATE", "STREAM", "SOURCE", "SINK",
    "TABLE", "STORE", "WINDOW", "TRIGGER", "AGGREGATION", "FUNCTION", "INDEX", "UNIQUE", "QUERY-WORKER", "GLOBAL",
    "WITH(", "(", ")", "[", "]", "{", "}", ",", ";", "=", "==", "->", "-", "--", "/*", "*/", "//", "\n", "'", '"',
    '"""', "`", "\\", "a", "b", "int", "string", "5", "5L", "1.5f", "sec", ".", ":", "#", "!", "*", "INSERT INTO",
    "UPDATE", "DELETE", "SELECT", "FROM", "AS", "and", "or", "not", "is null", "in", "JOIN", "GROUP BY", "PARTITION",
    "BEGIN", "END", "RETURN", "[javascript]", "${", "/a/", "type='stream'", "replication.type=", "null", "true",
    "define",
)  # fmt: skip


def refusal(text: str) -> StreamQLError | None:
    try:
        parse(text)
    except StreamQLError as found:
        return found
    return None


def parses_or_says_where(text: str) -> None:
    found = refusal(text)
    if found is None:
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    assert 1 <= found.line <= len(lines)
    assert 1 <= found.column <= len(lines[found.line - 1]) + 1
    assert found.message


@pytest.mark.long
@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    parses_or_says_where(text)


@pytest.mark.long
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=60), st.sampled_from(["", " "]))
@settings(max_examples=1500, deadline=None)
def test_any_run_of_tokens_is_read_or_refused_with_a_place(fragments: list[str], between: str) -> None:
    parses_or_says_where(HEAD + between.join(fragments))


@pytest.mark.long
@given(st.integers(), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_a_damaged_definition_is_read_or_refused_with_a_place(seed: int, wounds: int) -> None:
    rng = random.Random(seed)
    text = DAMAGED
    for _ in range(wounds):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", "'", "{", "(", ";", "`", "\\", "/"]) + text[at + rng.randrange(4) :]
    parses_or_says_where(text)


DAMAGED = (
    HEAD
    + """CREATE FUNCTION f[javascript] RETURN string { return `${data[0]}` + '}' + /[}]/.source; };
CREATE SOURCE STREAM GLOBAL s WITH (map.type='json', a=5 sec) (a int, `b c` string);
CREATE TABLE t (a int); -- a table
@info(name='q') INSERT INTO t SELECT f(a, 'x') AS a FROM s[a > 1 and not (a is null)][a < 5L];
PARTITION WITH (a OF s) BEGIN INSERT INTO t SELECT a AS end FROM s; END;
"""
)
