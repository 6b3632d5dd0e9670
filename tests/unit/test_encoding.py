"""The payload that a worker's source takes, and what is refused because it isn't built."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from bridge.local.messages import events
from bridge.mapping import Mapper, Route, check, find_warnings
from bridge.mapping.encoding import NotReadable, compile_encoding
from bridge.message import DeadLetter, MqttMessage, Row
from bridge.reasons import Reason
from bridge.streamql import input_streams, parse
from bridge.streamql.streams import InputStream
from tests.sources import FORMS, rows, source, stream_of

AT, AS = "a int, t double", "a int, s string"


def sent(stream: InputStream, row: dict[str, Any]) -> bytes:
    made = mapped(stream, row)
    assert isinstance(made, list)
    return made[0].payload


def mapped(stream: InputStream, row: dict[str, Any]) -> list[Row] | DeadLetter:
    mapper = Mapper(routes=[Route("t", stream.name)], streams={stream.name: stream})
    return mapper.map(MqttMessage("t", json.dumps(row).encode(), 1, False, 1, 0))


@pytest.mark.parametrize(
    ("definition", "payload"),
    [
        ("CREATE STREAM n (a int, t double);", b'{"a":1,"t":18.0}'),
        (source("map.type='json'", AT), b'{"a":1,"t":18.0}'),
        (
            source("map.type='JSON', MAP.Attributes.a='$.A', map.attributes.t='$.d.T'", AT),
            b'{"A":1,"d":{"T":18.0}}',
        ),
        (source("attributes.a='$.x', attributes.t='$.y'", AT), b'{"x":1,"y":18.0}'),
        (source("map.type='json', map.enclosing.element='$.e', attributes.a='a'", "a int"), b'{"e":{"a":1}}'),
        (source("map.type='json', map.enclosing.element='$', attributes.a='a'", "a int"), b'{"a":1}'),
        (
            source("map.type='json', attributes.a='$.x[1].y', attributes.t='$.x[0]'", AT),
            b'{"x":[18.0,{"y":1}]}',
        ),
        (source("map.type='csv'", "a int, s string, t double"), b'1,"x ""y"", z",18.0'),
        (
            source("map.type='csv', map.delimiter='|', attributes.a='2', attributes.s='0'", AS),
            b'"x ""y"", z"||1',
        ),
        (source("map.type='text'", "a int, s string, b bool"), b'a:1,\ns:"x "y", z",\nb:true'),
        ("CREATE STREAM n (EVENT string, a int);", b'{"a":1,"EVENT":"e"}'),
        ("CREATE STREAM n (event string);", b'{"event":{"event":"e"}}'),
    ],
)
def test_a_row_is_sent_in_the_form_that_the_source_takes(definition: str, payload: bytes) -> None:
    row = {"a": 1, "t": 18, "s": 'x "y", z', "b": True, "event": "e", "EVENT": "e"}

    assert sent(stream_of(definition), row) == payload


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_back_by_the_bridge_and_by_the_local_gdn(form: str) -> None:
    stream = stream_of(FORMS[form])
    mapper = Mapper(routes=[Route("t", "n")], streams={"n": stream})

    @settings(max_examples=30)
    @given(rows(stream))
    def reads_back(row: dict[str, Any]) -> None:
        made = mapper.map(MqttMessage("t", json.dumps(row).encode(), 1, False, 1, 0))
        if isinstance(made, list):
            assert mapper.columns_of(made[0]) == row
            assert events(made[0].payload, stream) == [row], "the local GDN reads it otherwise"

    reads_back()


@pytest.mark.parametrize(
    ("properties", "warned"),
    [("map.type='json'", True), ("map.type='json', attributes.o='$.o'", False), ("attributes.o='$.x'", False)],
)
def test_object_columns_that_the_engine_may_drop_are_named(properties: str, warned: bool) -> None:
    found = find_warnings([Route("t", "n")], {"n": replace(stream_of(source(properties, "o object")), queried=True)})

    assert [warning.location for warning in found] == [("routes", 0, "stream")] * warned
    assert all("object column (o) holds objects" in warning.text for warning in found)


def test_the_forms_in_the_documentation_are_sent() -> None:
    section = Path("docs/mapping.md").read_text().split("## What the worker's source takes")[1].split("\n## ")[0]
    table = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    earlier = ""
    for left, right in table:
        said, expected = re.findall("`([^`]+)`", left), re.findall("`([^`]+)`", right)
        earlier = f"{earlier}, {said[0]}" if "the same" in left else ", ".join(said)
        stream = stream_of(source(earlier, "device string, temp double"))

        assert sent(stream, {"device": "a", "temp": 21.5}) == "\n".join(expected).encode()
    assert len(table) == 6


@pytest.mark.parametrize(
    ("properties", "columns", "problem"),
    [
        ("map.type='xml'", "a int", "map.type = 'xml': the bridge sends json, csv and text"),
        ("Map.Type='passThrough'", "a int", "map.type = 'passthrough'"),
        ("map.type='json', map.attributes.a='$.x..a'", "a int", "map.attributes.a = "),
        ("map.type='json', map.attributes.a='$.x[*].a'", "a int", "only paths to one place are supported"),
        ("map.type='json', map.attributes.a='$.x[?(@.b)]'", "a int", "only paths to one place are supported"),
        ("map.type='json', map.attributes.a='$.x.length()'", "a int", "only paths to one place are supported"),
        ("map.type='json', map.attributes.a='trp:id'", "a int", "only paths to one place are supported"),
        ("map.type='json', map.attributes.a='.x'", "a int", "only paths to one place are supported"),
        ("map.type='json', map.attributes.a='$x'", "a int", "only paths to one place are supported"),
        ("map.type='json', map.attributes.a='x y'", "a int", "only paths to one place are supported"),
        ("map.type='json', map.attributes.a='$[0].x'", "a int", "a column must be a member of the event"),
        ("map.type='json', map.attributes.a='$.x[9999]'", "a int", "an index may be at most 1000"),
        ("map.type='json', map.attributes.a='$'", "a object", "a column must be a member of the event"),
        ("map.type='json', map.attributes.a='$.a', enclosing.element='$..e'", "a int", "map.enclosing.element = "),
        ("map.type='json', map.attributes.b='$.a'", "a int", "there is no column b"),
        ("map.type='json', map.attributes.A='$.a'", "a int", "there is no column A"),
        ("map.type='json', map.attributes.a='$.a'", "a int, b int", "add map.attributes.b"),
        ("map.type='json', map.attributes=\"'x', 'y', 'z'\"", "a int, b int", "there is no column for it"),
        ("map.type='json', map.attributes='a=('", "a int", "map.attributes = 'a=(': can't be read"),
        ("map.type='json', attributes.a='$.x', attributes.b='$.x'", "a int, b int", "puts b where a is"),
        ("map.type='json', attributes.a='$.x', attributes.b='$.x.y'", "a int, b int", "puts b inside a, or around it"),
        ("map.type='json', attributes.a='$.x.y', attributes.b='$.x[0]'", "a int, b int", "makes an array where a"),
        ("map.type='json', map.validate='true'", "a int", "map.validate = 'true': this option is not supported"),
        ("map.type='csv', map.header='true'", "a int", "map.header = 'true': only 'false' is supported"),
        ("map.type='csv', delimiter='||'", "a int", "map.delimiter = '||': only one punctuation character"),
        ("map.type='csv', map.attributes.a='first'", "a int", "expected the column's own position"),
        ("map.type='csv', attributes.a='1', attributes.b='1'", "a int, b int", "expected the column's own position"),
        ("map.type='csv'", "a object", "it has no form for the object column a"),
        ("map.type='text'", "a object", "it has no form for the object column a"),
        ("map.type='text', regex.A='(.*)', map.attributes.a='A[1]'", "a int", "text by patterns is not supported"),
        ("map.type='text', event.grouping.enabled='true'", "a int", "only 'false' is supported"),
        ("map.type='text', map.new.line.character='\\r\\n'", "a int", "map.new.line.character"),
    ],
)
def test_a_form_that_is_not_built_is_refused_by_its_property(properties: str, columns: str, problem: str) -> None:
    stream = stream_of(source(properties, columns))

    (found,) = check([Route("t", "n")], {"n": stream})

    assert found.location == ("routes", 0, "stream")
    assert "source S" in found.text
    assert problem in found.text


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        (("map.type='json'", "a int", "", "b int"), "drops a row with the member b"),
        (("map.type='csv'", "a int", "map.type='text'", "a int"), "with different mappings"),
        (("map.type='csv'", "a int", "map.type='json'", "a int"), "with different mappings"),
        (("attributes.a='$.x'", "a int", "attributes.b='$.x'", "b int"), "puts b where a is"),
    ],
)
def test_sources_of_one_stream_that_take_different_forms_are_refused(sources: Any, problem: str) -> None:
    (one, columns, other, others) = sources
    text = source(one, columns) + source(other, others).replace("SOURCE S", "SOURCE R")
    streams = input_streams(parse(f"@App:name('w') @App:qlVersion('2') {text}"))

    (found,) = check([Route("t", "n")], streams)

    assert problem in found.text


def test_sources_of_one_stream_whose_paths_fit_together_get_one_payload() -> None:
    text = source("attributes.a='$.x.a'", "a int") + source("attributes.b='$.x.b'", "b int").replace(
        "SOURCE S", "SOURCE R"
    )
    stream = stream_of(text)

    assert sent(stream, {"a": 1, "b": 2}) == b'{"x":{"a":1,"b":2}}'


def test_text_that_the_workers_text_format_cannot_hold_is_a_dead_letter() -> None:
    found = mapped(stream_of(source("map.type='text'", "s string")), {"s": "a,\nb"})

    assert isinstance(found, DeadLetter)
    assert (found.reason, found.detail[:9]) == (Reason.TYPE_MISMATCH, "column s:")


@pytest.mark.parametrize("map_type", ["csv", "text"])
def test_forms_without_null_get_no_row_that_lacks_a_column(map_type: str) -> None:
    stream = stream_of(source(f"map.type='{map_type}', fail.on.missing.attribute='false'", AS))

    found = mapped(stream, {"a": 1})

    assert isinstance(found, DeadLetter)
    assert found.reason == Reason.MISSING_FIELD


@pytest.mark.parametrize("form", ["plain", "paths", "csv"])
@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"\xff", b'{"a":[]}', b'"a"b', b"1,2,3,4,5,6,7,8"])
def test_a_payload_of_another_form_is_not_readable(form: str, payload: bytes) -> None:
    encoding = compile_encoding(stream_of(FORMS[form]))
    if (form, payload) == ("plain", b'{"a":[]}'):
        assert encoding.decode(payload) == {"a": []}
        return

    with pytest.raises(NotReadable):
        encoding.decode(payload)
