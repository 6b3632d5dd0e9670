from __future__ import annotations

import pytest

from bridge.gdn.drift import MAX_LINES, column_changes, losses, text_changes
from bridge.gdn.rest import WorkerState
from bridge.gdn.worker import differs, runs_elsewhere
from bridge.streamql import input_streams, parse

HEAD = "@App:name('w')\n@App:qlVersion(\"2\")\n"
TAIL = "CREATE TABLE t (a int);\nINSERT INTO t SELECT a FROM s;\n"
OURS = parse(f"{HEAD}CREATE STREAM s (a int, b string);\nCREATE STREAM unused (x int);\n{TAIL}")
STREAMS = input_streams(OURS)


def theirs(*streams: str, regions: tuple[str, ...] = ("here",)) -> WorkerState:
    return WorkerState("w", f"{HEAD}{''.join(f'{stream};{chr(10)}' for stream in streams)}{TAIL}", regions, True)


SAME = theirs("CREATE STREAM s (a int, b string)", "CREATE STREAM unused (x int)")


def test_white_space_around_a_definition_is_no_change() -> None:
    state = WorkerState("w", f"\n  {OURS.text}\n\n", ("here",), True)

    assert text_changes(state, OURS, ours="file") == []
    assert column_changes(state, STREAMS) == []
    assert losses(state, STREAMS, ["s"]) == {}


def test_another_text_gives_a_line_diff_from_gdn_to_the_file() -> None:
    diff = text_changes(theirs("CREATE STREAM s (a int)", "CREATE STREAM unused (x int)"), OURS, ours="file")

    assert diff[:2] == ["--- GDN", "+++ file"]
    assert "-CREATE STREAM s (a int);" in diff
    assert "+CREATE STREAM s (a int, b string);" in diff


def test_a_huge_definition_is_compared_up_to_the_first_difference_only() -> None:
    huge = WorkerState("w", OURS.text + "-- more\n" * MAX_LINES, (), True)

    (line,) = text_changes(huge, OURS, ours="file")
    assert "differ from line 7 on" in line


@pytest.mark.parametrize(
    ("stream", "change", "loss"),
    [
        ("CREATE STREAM s (a int, b string, c int)", "column c int is only in GDN", "they lack the column c int"),
        ("CREATE STREAM s (a int)", "column b string is only in the file", None),
        (
            "CREATE STREAM s (a long, b string)",
            "column a is long in GDN, int in the file",
            "their column a is int and not long",
        ),
        ("CREATE STREAM GLOBAL s (a int, b string)", "global in GDN, local in the file", "doesn't read a local stream"),
        ("CREATE SINK STREAM s (a int, b string)", None, "doesn't read a local stream"),
        (
            "CREATE SOURCE s WITH (type='stream', stream.list='s', map.type='json', fail.on.missing.attribute='false') "
            "(a int, b string, c int)",
            "column c int is only in GDN",
            None,
        ),
    ],
)
def test_different_columns_are_named_and_only_some_of_them_lose_rows(
    stream: str, change: str | None, loss: str | None
) -> None:
    state = theirs(stream, "CREATE STREAM unused (x int)")

    assert column_changes(state, STREAMS) == ([] if change is None else [f"stream s: {change}"])
    found = losses(state, STREAMS, ["s"])
    assert list(found) == ([] if loss is None else ["s"])
    assert loss is None or loss in found["s"]


@pytest.mark.parametrize(
    ("gdn", "lost"),
    [
        ("map.type='json', fail.on.missing.attribute='true'", False),
        ("map.type='csv'", True),
        ("map.type='json', map.attributes.a='$.x.a', map.attributes.b='$.b'", True),
    ],
)
def test_a_source_in_gdn_with_another_mapping_loses_rows(gdn: str, lost: bool) -> None:
    state = theirs(f"CREATE SOURCE s WITH (type='stream', stream.list='s', {gdn}) (a int, b string)")
    reason = "GDN's worker drops rows of s: its source's mapping (map.…) takes another form of message"

    assert losses(state, STREAMS, ["s"]) == ({"s": reason} if lost else {})
    assert ("stream s: the source's mapping (map.…) differs" in column_changes(state, STREAMS)) is lost


def test_only_streams_that_rows_are_sent_to_can_lose_rows() -> None:
    state = theirs("CREATE STREAM s (a int, b string)")

    assert column_changes(state, STREAMS) == ["stream unused: only in the file"]
    assert losses(state, STREAMS, ["s"]) == {}
    assert list(losses(state, STREAMS, ["s", "unused"])) == ["unused"]


def test_columns_are_compared_even_if_gdns_definition_has_no_version() -> None:
    unversioned = "@App:name('w')\nCREATE STREAM s (a int, b string, c int);\nCREATE STREAM unused (x int);\n"
    state = WorkerState("w", unversioned + TAIL, ("here",), True)

    assert column_changes(state, STREAMS) == ["stream s: column c int is only in GDN"]
    assert losses(state, STREAMS, ["s"]) == {"s": "GDN's worker drops rows of s: they lack the column c int"}


def test_an_unreadable_definition_is_reported_and_does_not_stop_the_sending() -> None:
    state = WorkerState("w", "define stream s (a int);", (), True)

    assert "can't be read" in column_changes(state, STREAMS)[0]
    assert losses(state, STREAMS, ["s"]) == {}


@pytest.mark.parametrize(
    ("wanted", "elsewhere"),
    [([], False), (["*"], False), (["here", "there"], False), (["there", "here"], False), (["here"], True)],
)
def test_regions_differ_only_if_regions_are_configured(wanted: list[str], elsewhere: bool) -> None:
    state = WorkerState("w", OURS.text, ("here", "there"), True)

    assert runs_elsewhere(state, wanted) is elsewhere
    assert differs(state, OURS, wanted) is elsewhere
