"""The local GDN's C8QL on documents in memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.local.c8ql import C8QLError, run

DOCUMENTS = [{"n": n, "s": f"s{n}", "inner": {"list": [n]}} for n in (3, 1, 2)] + [{"s": "without"}]


def collections(name: str) -> list[dict[str, Any]]:
    if name != "c":
        raise C8QLError("not found", number=1203, status=404)
    return DOCUMENTS


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("RETURN 1", [1]),
        ("RETURN LENGTH(c)", [4]),
        ("return length(`c`)", [4]),
        ("FOR d IN c FILTER d.n < 2 RETURN d.s", ["s1", "without"]),
        ("FOR d IN c FILTER d.n != null SORT d.n RETURN d.n", [1, 2, 3]),
        ("FOR d IN c FILTER d.n-1 == 1 RETURN d.n", [2]),
        ("FOR d IN c SORT d.n DESC LIMIT 1, 2 RETURN d.n", [2, 1]),
        ("FOR d IN c FILTER d.n IN [1, 3] && !(d.s == 's1') RETURN {n: d.n, l: d.inner.list[0]}", [{"n": 3, "l": 3}]),
        ("FOR d IN c FILTER d.n > 1 COLLECT WITH COUNT INTO k RETURN k", [2]),
        ("FOR d IN c /* all */ RETURN DISTINCT d.n > 0 // kinds\n", [True, False]),
        ("RETURN 7 / 0", [None]),
    ],
)
def test_queries_return_what_c8ql_says(query: str, expected: list[Any]) -> None:
    assert run(query, {}, collections) == expected


def test_bound_values_and_collections_are_used() -> None:
    found = run("FOR d IN @@where FILTER d.s == @what RETURN d.n", {"@where": "c", "what": "s2"}, collections)

    assert found == [2]


@pytest.mark.parametrize(
    ("query", "binds", "number"),
    [
        ("RETURN @a", {}, 1551),
        ("RETURN 1", {"a": 1}, 1552),
        ("FOR d IN other RETURN d", {}, 1203),
        ("FOR d IN c FILTER d.n = 1 RETURN d", {}, 1501),
        ("FOR d IN c LET x = 1 RETURN x", {}, 1501),
        ("RETURN LENGTH()", {}, 1501),
        ("RETURN LENGTH(", {}, 1501),
    ],
)
def test_errors_have_gdns_error_number(query: str, binds: dict[str, Any], number: int) -> None:
    with pytest.raises(C8QLError) as refused:
        run(query, binds, collections)

    assert refused.value.number == number


def removing(query: str, binds: dict[str, Any] | None = None) -> tuple[list[Any], list[str]]:
    """A query's result, and which of the documents a, b and c remain. Another collection must stay unchanged."""
    there: list[dict[str, Any]] = [{"_key": key, "n": n} for n, key in enumerate("abc", 1)]
    kept = [{"_key": "a", "n": 1}]

    def found(name: str) -> list[dict[str, Any]]:
        return {"t": there, "kept": kept}[name]

    result = run(query, binds or {}, found)
    assert kept == [{"_key": "a", "n": 1}]
    return result, [document["_key"] for document in there]


@pytest.mark.parametrize(
    ("query", "result", "left"),
    [
        ("FOR d IN t FILTER d.n > 1 REMOVE d IN t", [], ["a"]),
        ("FOR d IN t FILTER d.n > 1 REMOVE d._key IN t", [], ["a"]),
        ("FOR d IN t FILTER d.n > 1 REMOVE {_key: d._key} IN t", [], ["a"]),
        ("FOR d IN t SORT d.n DESC LIMIT 1 REMOVE d IN t RETURN OLD.n", [3], ["a", "b"]),
        ("FOR d IN t REMOVE d IN t RETURN OLD._key", ["a", "b", "c"], []),
        ("FOR d IN t FILTER d.n > 9 REMOVE d IN t", [], ["a", "b", "c"]),
        ("REMOVE 'b' IN t", [], ["a", "c"]),
        ("REMOVE 'z' IN t OPTIONS {ignoreErrors: true} RETURN OLD", [], ["a", "b", "c"]),
        ("FOR d IN kept REMOVE d IN t", [], ["b", "c"]),
    ],
)
def test_documents_are_removed_by_key_from_the_named_collection(query: str, result: list[Any], left: list[str]) -> None:
    assert removing(query) == (result, left)


def test_a_collection_to_remove_from_may_be_bound() -> None:
    assert removing("FOR d IN @@c FILTER d.n == @n REMOVE d IN @@c", {"@c": "t", "n": 2}) == ([], ["a", "c"])


@pytest.mark.parametrize("query", ["FOR k IN ['b', 'z'] REMOVE k IN t", "FOR k IN ['b', 'b'] REMOVE k IN t"])
def test_no_document_is_removed_if_one_is_missing(query: str) -> None:
    there = [{"_key": "a"}, {"_key": "b"}]

    with pytest.raises(C8QLError) as refused:
        run(query, {}, lambda _name: there)

    assert (refused.value.number, refused.value.status) == (1202, 404)
    assert there == [{"_key": "a"}, {"_key": "b"}]


@pytest.mark.parametrize(
    "query",
    [
        "REMOVE 'a' IN t REMOVE 'b' IN t",
        "REMOVE 'a'",
        "REMOVE 'a' IN t OPTIONS {ignoreRevs: false}",
        "FOR d IN t REMOVE d IN t RETURN d",
        "FOR d IN t REMOVE d IN t RETURN LENGTH(d)",
    ],
)
def test_a_removal_that_cannot_be_parsed_removes_nothing(query: str) -> None:
    there = [{"_key": "a"}, {"_key": "b"}]

    with pytest.raises(C8QLError):
        run(query, {}, lambda name: there if name == "t" else collections(name))

    assert len(there) == 2


@given(st.text(alphabet="FORINcdRETURN .,@`'\"()[]{}<=>!&|+-*/%10\n", max_size=60))
def test_any_text_gives_a_result_or_a_c8ql_error(text: str) -> None:
    try:
        result = run(text, {}, collections)
    except C8QLError:
        return

    assert isinstance(result, list)
