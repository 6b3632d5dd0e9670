"""Stored rows and the definition that they were made for: markers, and conversion to the current definition."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import Mapper, Route
from bridge.mapping.row_formats import KEY_PREFIX, MAX_MARKERS, RowFormats
from bridge.mapping.unmappable import Unmappable
from bridge.message import MqttMessage
from bridge.reasons import Reason
from tests.sources import FORMS, rows, source, stream_of

PATHS = "map.type='json', map.attributes.a='$.x.a', map.attributes.t='$.x.t'"
NULLS = "fail.on.missing.attribute='false'"


def plain(columns: str) -> str:
    return f"CREATE STREAM n ({columns});"


def formats(*definitions: str, step: int = 100) -> RowFormats:
    """The formats under the last definition; each earlier one made ``step`` rows, beginning with the id 1."""
    saved: dict[str, str] = {}
    for number, definition in enumerate(definitions):
        found = RowFormats({"n": stream_of(definition)}, {key: form for key, form in saved.items() if form})
        changes = found.changes(["n"], 1 + number * step)
        found.apply(changes)
        saved |= changes
    return found


def converted(payload: bytes, *definitions: str) -> bytes:
    """The payload of a row that was made under the first definition, under the last one."""
    found = formats(*definitions)
    return found.converted("n", payload, found.version_of("n", 1))


def test_a_row_has_the_form_of_the_last_marker_at_or_before_it() -> None:
    found = formats(plain("a int"), plain("b int"), plain("a int"))

    assert found.current_from("n") == 201
    assert found.version_of("n", 0) == ""
    assert found.version_of("n", 1) == found.version_of("n", 100) == found.version_of("n", 201)
    assert found.version_of("n", 101) == found.version_of("n", 200) != found.version_of("n", 201)


def test_an_unchanged_definition_is_not_marked_again() -> None:
    stream = stream_of(plain("a int"))
    found = RowFormats({"n": stream}, {})
    first = found.changes(["n"], 7)
    found.apply(first)

    assert list(first) == [f"{KEY_PREFIX}7:n"]
    assert found.changes(["n"], 9) == {}
    assert RowFormats({"n": stream}, first).changes(["n"], 9) == {}


def test_the_oldest_markers_are_forgotten() -> None:
    found = formats(*(f"CREATE STREAM n (a{number} int);" for number in range(MAX_MARKERS + 3)))

    assert found.version_of("n", 1) == found.version_of("n", 300) == ""
    assert found.version_of("n", 301) != ""


def test_markers_from_a_damaged_outbox_count_as_unknown_forms() -> None:
    stream = stream_of(plain("a double"))
    found = RowFormats({"n": stream}, {f"{KEY_PREFIX}x:n": "", f"{KEY_PREFIX}1:n": "{", f"{KEY_PREFIX}5:n": "{}"})
    found.apply(found.changes(["n"], 9))

    for record_id in (1, 6):
        assert found.converted("n", b'{"a":18}', found.version_of("n", record_id)) == b'{"a":18.0}'


@pytest.mark.parametrize(
    ("before", "payload", "after", "expected"),
    [
        (
            plain("a int, t int"),
            b'{"a":1,"t":18}',
            plain("a int, t double"),
            b'{"a":1,"t":18.0}',
        ),
        (plain("a int, t int"), b'{"a":1,"t":18}', plain("t int"), b'{"t":18}'),
        (plain("a int"), b'{"a":1}', plain("a string"), b'{"a":"1"}'),
        (plain("t double"), b'{"t":18.0}', plain("t int"), b'{"t":18}'),
        (plain("a int, t int"), b'{"a":1,"t":2}', source(PATHS, "a int, t int"), b'{"x":{"a":1,"t":2}}'),
        (source(PATHS, "a int, t int"), b'{"x":{"a":1,"t":2}}', plain("a int, t int"), b'{"a":1,"t":2}'),
        (
            source("map.type='csv'", "a int, s string"),
            b'1,"x ""y"""',
            plain("s string"),
            b'{"s":"x \\"y\\""}',
        ),
        (plain("a int"), b'{"a":1}', source(NULLS, "a int, t int"), b'{"a":1,"t":null}'),
        (source(NULLS, "a int"), b'{"a":null}', source(f"{NULLS}, map.type='json'", "a int"), b'{"a":null}'),
    ],
)
def test_a_row_is_converted_to_the_current_definition(before: str, payload: bytes, after: str, expected: bytes) -> None:
    assert converted(payload, before, after) == expected


@pytest.mark.parametrize(
    ("before", "payload", "after", "why"),
    [
        (
            plain("a int"),
            b'{"a":1}',
            plain("a int, t int"),
            "column t: there is no value for it",
        ),
        (plain("a int"), b'{"a":1}', source(NULLS, "b int"), "column b: there is no value for it"),
        (source(NULLS, "a int"), b'{"a":null}', plain("a int"), "column a: there is no value for it"),
        (plain("t double"), b'{"t":18.5}', plain("t int"), "column t: a number (18.5)"),
        (plain("t string"), b'{"t":"x"}', plain("t int"), "column t: a string ('x')"),
        (plain("s string"), b'{"s":"a,\\nb"}', source("map.type='text'", "s string"), "a line break"),
        (plain("a int"), b'{"a":1}', source("map.type='xml'", "a int"), "can't send what the worker's"),
        (source("map.type='csv'", "a int"), b'{"a":1}', plain("a int"), "not a CSV record"),
    ],
)
def test_a_row_that_does_not_fit_the_current_definition_is_refused(
    before: str, payload: bytes, after: str, why: str
) -> None:
    with pytest.raises(Unmappable) as refused:
        converted(payload, before, after)

    assert refused.value.reason is Reason.OUTDATED_DEFINITION
    assert "the row of stream n was made for an earlier definition" in str(refused.value)
    assert why in str(refused.value)


def test_a_row_that_is_too_large_in_the_new_form_is_refused() -> None:
    long_path = "$." + "x" * 2000
    after = source(f"map.attributes.s='{long_path}'", "s string")

    with pytest.raises(Unmappable, match="at most 737280 can be sent"):
        converted(json.dumps({"s": "x" * 736_000}).encode(), plain("s string"), after)


def test_a_row_without_a_marker_counts_as_flat_json() -> None:
    """Rows of an outbox that an earlier build wrote."""
    found = formats(plain("event object, t double"))

    assert found.converted("n", b'{"event":{"t":1},"t":18}', "") == b'{"t":18.0,"event":{"t":1}}'


@given(st.data())
def test_a_converted_row_is_what_the_mapper_makes_today(data: st.DataObject) -> None:
    before, after = (data.draw(st.sampled_from(["plain", "plain, object first", "json", "paths"])) for _ in range(2))
    row = data.draw(rows(stream_of(FORMS["plain"])))

    def made(form: str) -> bytes:
        mapper = Mapper(routes=[Route("t", "n")], streams={"n": stream_of(FORMS[form])})
        mapped = mapper.map(MqttMessage("t", json.dumps(row).encode(), 1, False, 1, 0))
        assert isinstance(mapped, list)
        return mapped[0].payload

    assert converted(made(before), FORMS[before], FORMS[after]) == made(after)
