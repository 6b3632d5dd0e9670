"""What the bridge sends, judged by the engine's own source mappers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from bridge.mapping import Mapper, Route
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import AttributeType
from tests.engine import Engine, mapping_of
from tests.sources import FORMS, rows, source, stream_of


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


def sent(stream: InputStream, row: dict[str, Any]) -> bytes | None:
    """The payload of a row; None if it is a dead letter."""
    mapper = Mapper(routes=[Route("t", "n")], streams={"n": stream})
    made = mapper.map(MqttMessage("t", json.dumps(row).encode(), 1, False, 1, 0))
    return None if isinstance(made, DeadLetter) else made[0].payload


@pytest.mark.parametrize("form", FORMS)
def test_the_engine_takes_what_is_sent_with_the_same_values(form: str, engine: Engine) -> None:
    stream = stream_of(FORMS[form])
    columns = stream.attributes or ()
    assert engine.start(mapping_of(stream)) == "ok"

    @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
    @given(rows(stream))
    def takes(row: dict[str, Any]) -> None:
        payload = sent(stream, row)
        assume(payload is not None)
        (event,) = engine.take(payload or b"")
        for column, found in zip(columns, event, strict=True):
            # With paths, the engine keeps the text of an object.
            is_text = column.type is AttributeType.OBJECT and isinstance(found, str)
            assert (json.loads(found) if is_text else found) == row[column.name], payload

    takes()


@pytest.mark.parametrize(
    "properties", ["map.type='json'", "map.type='json', map.attributes.a='$.x.a', attributes.b='b'"]
)
def test_the_engine_takes_nulls_where_the_source_allows_them(properties: str, engine: Engine) -> None:
    stream = stream_of(source(f"{properties}, fail.on.missing.attribute='false'", "a double, b string"))
    assert engine.start(mapping_of(stream)) == "ok"

    assert engine.take(sent(stream, {"a": 18}) or b"") == [[18.0, None]]
    assert engine.take(sent(stream, {}) or b"") == [[None, None]]


@pytest.mark.parametrize("map_type", ["json", "csv", "text"])
def test_the_engine_drops_what_was_sent_before_the_mapping_was_followed(map_type: str, engine: Engine) -> None:
    """The reason for it all: were the engine lenient, none of this would be needed."""
    stream = stream_of(source(f"map.type='{map_type}'", "a double, b string"))
    assert engine.start(mapping_of(stream)) == "ok"

    assert engine.take(b'{"a":18,"b":"x"}') == []
    assert engine.take(sent(stream, {"a": 18, "b": "x"}) or b"") == [[18.0, "x"]]


def test_the_engine_refuses_a_mapping_of_only_some_columns(engine: Engine) -> None:
    stream = stream_of(source("map.type='json', map.attributes.a='$.a'", "a int, b int"))

    assert "attribute 'b' is not mapped" in engine.start(mapping_of(stream))


def test_the_engine_drops_an_object_that_holds_objects_unless_it_has_a_path(engine: Engine) -> None:
    row = {"o": {"a": {"b": 1}, "c": [{"d": 2}]}}
    flat, at_path = stream_of(source("map.type='json'", "o object")), stream_of(source("attributes.o='o'", "o object"))

    assert engine.start(mapping_of(flat)) == "ok"
    assert engine.take(sent(flat, row) or b"") == []
    assert engine.start(mapping_of(at_path)) == "ok"
    assert [json.loads(text) for (text,) in engine.take(sent(at_path, row) or b"")] == [row["o"]]
