"""Complete workers as people write them, one per file: parsed, printed and damaged.

A file has its expected result in comments: ``-- expect …`` for each element, and ``-- not run LINE:COLUMN …``
if the bridge parses it but refuses to run it; or ``-- refused LINE:COLUMN …``.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.streamql import (
    Attribute,
    Definition,
    FunctionDefinition,
    InputStream,
    OtherDefinition,
    OtherQuery,
    Place,
    Query,
    StreamDefinition,
    StreamQLError,
    TableDefinition,
    Worker,
    input_streams,
    parse,
    require_metadata,
    tables_read,
    to_text,
)

CORPUS = Path(__file__).parents[1] / "corpus"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CORPUS.glob("*.sql"))}
REFUSED = {name: text for name, text in TEXTS.items() if "-- refused " in text}
READ = {name: text for name, text in TEXTS.items() if name not in REFUSED}


def expected(text: str) -> list[str]:
    return re.findall(r"^-- expect (.*)", text, re.MULTILINE)


def described(worker: Worker) -> Iterator[str]:
    """The lines of ``-- expect``, in order."""
    yield f"worker {worker.name}" if worker.name else "worker without a name"
    if worker.language_version != "2":
        yield f"version {worker.language_version or 'not said'}"
    yield from map(definition_line, worker.definitions)
    for stream in input_streams(worker).values():
        yield f"topic c8{stream.scope.value}s.{stream.name}: {use(stream)} {columns(stream.attributes)}"
    for query in worker.queries:
        sources = (query.source,) if isinstance(query, Query) else query.sources
        name = "" if query.name is None else f" {query.name}"
        construct = f" ({query.construct})" if isinstance(query, OtherQuery) else ""
        yield f"query{name}: {query.target} from {', '.join(sources)}{construct}"
    for table in tables_read(worker):
        yield f"table read as a stream: {table}"


def definition_line(definition: Definition) -> str:
    match definition:
        case StreamDefinition():
            return f"{definition.kind} {definition.name}: {definition.type} {columns(definition.attributes)}"
        case TableDefinition(kind=kind, name=name, scope=scope, attributes=attributes):
            return f"{kind} {name}: {scope.value} collection {definition.collection} {columns(attributes)}"
        case FunctionDefinition(name=name, language=language, returns=returns):
            return f"function {name}: {language} to {returns.value}"
        case OtherDefinition(construct=construct, name=name):
            return construct if name is None else f"{construct} {name}"


def columns(attributes: tuple[Attribute, ...] | None) -> str:
    return "(?)" if attributes is None else f"({', '.join(f'{a.name} {a.type.value}' for a in attributes)})"


def use(stream: InputStream) -> str:
    words = "written" if not stream.read_by_worker else "read" if stream.queried else "not queried"
    return words if stream.fail_on_missing else f"{words}, nulls and all"


def without_places(node: Any) -> Any:
    """A tree with every place the same, and the worker's text left out."""
    if isinstance(node, tuple):
        return tuple(map(without_places, node))
    if isinstance(node, Place):
        return Place(0, 0)
    if not is_dataclass(node) or isinstance(node, type):
        return node
    values = {f.name: without_places(getattr(node, f.name)) for f in fields(node)}
    return replace(node, **(values | {"text": ""} if isinstance(node, Worker) else values))


# --- as the files expect ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READ)
def test_a_worker_of_the_corpus_is_parsed_as_its_file_expects(name: str) -> None:
    worker = parse(READ[name])

    assert expected(READ[name]) == list(described(worker))
    assert READ[name] == worker.text


@pytest.mark.parametrize("name", READ)
def test_the_description_of_a_worker_does_not_depend_on_places(name: str) -> None:
    assert expected(READ[name]) == list(described(without_places(parse(READ[name]))))


def complaint(kind: str, text: str) -> list[tuple[int, int, str]]:
    found = re.findall(rf"^-- {kind} (\d+):(\d+) (.*)", text, re.MULTILINE)
    return [(int(line), int(column), message) for line, column, message in found]


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_worker_is_refused_at_the_place_of_the_error(name: str) -> None:
    ((line, column, message),) = complaint("refused", REFUSED[name])

    with pytest.raises(StreamQLError) as caught:
        parse(REFUSED[name])

    assert (line, column) == (caught.value.line, caught.value.column)
    assert message in caught.value.message


NOT_RUN = [name for name, text in READ.items() if complaint("not run", text)]


@pytest.mark.parametrize("name", NOT_RUN)
def test_a_worker_without_name_or_version_is_parsed_but_refused(name: str) -> None:
    ((line, column, message),) = complaint("not run", READ[name])

    with pytest.raises(StreamQLError) as caught:
        require_metadata(parse(READ[name]))

    assert (line, column) == (caught.value.line, caught.value.column)
    assert message in caught.value.message


@pytest.mark.parametrize("name", [name for name in READ if name not in NOT_RUN])
def test_a_worker_with_name_and_version_is_accepted(name: str) -> None:
    worker = parse(READ[name])

    require_metadata(worker)

    assert worker.name
    assert worker.language_version == "2"


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_line_ends_of_every_kind_give_the_same_worker(name: str, line_end: str) -> None:
    assert expected(READ[name]) == list(described(parse(READ[name].replace("\n", line_end))))


def test_the_corpus_shows_each_construct_of_the_language() -> None:
    workers = [parse(text) for text in READ.values()]
    definitions = [d for worker in workers for d in worker.definitions]
    streams = [d for d in definitions if isinstance(d, StreamDefinition)]
    queries = [q for worker in workers for q in worker.queries]

    assert len(workers) >= 40
    assert {d.kind for d in definitions if isinstance(d, StreamDefinition | TableDefinition)} == {
        "stream", "source stream", "sink stream", "source", "sink", "table", "store",
    }  # fmt: skip
    assert {d.construct for d in definitions if isinstance(d, OtherDefinition)} == {
        "window", "trigger", "aggregation", "index", "query-worker", "partition", "fault stream",
    }  # fmt: skip
    assert {d.type for d in streams if d.kind == "source"} >= {
        "stream", "database", "http", "http-service", "http-call-response", "kafka", "mqtt", "googlepubsub", "sse",
        "query-worker", "inmemory", "rabbitmq", "nats", "tcp", "grpc", "websocket", "email", "prometheus",
    }  # fmt: skip
    assert {d.type for d in streams if d.kind == "sink"} >= {
        "stream", "log", "http", "http-service-response", "http-call", "kafka", "mqtt", "googlepubsub", "s3",
        "query-worker", "inmemory", "rabbitmq", "nats", "tcp", "grpc-call", "websocket-server", "email", "prometheus",
        "jms",
    }  # fmt: skip
    assert {q.construct for q in queries if isinstance(q, OtherQuery)} >= {
        "WINDOW", "JOIN", "WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "OUTPUT", "IN", "UPDATE",
        "UPDATE OR INSERT", "DELETE", "INSERT EXPIRED EVENTS", "INSERT ALL EVENTS", "INSERT CURRENT EVENTS",
        "a pattern", "a sequence", "an indexed event of a pattern", "a fault stream", "a stream function",
        "an alias", "a time constant", "SELECT before the action", "CREATE TABLE … AS SELECT",
        "CREATE STREAM … AS SELECT",
    }  # fmt: skip


# --- printed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READ)
def test_a_worker_that_is_printed_and_read_again_is_the_same(name: str) -> None:
    worker = parse(READ[name])
    printed = to_text(worker)
    again = parse(printed)

    assert without_places(worker) == without_places(again)
    assert printed == to_text(again)


# --- damaged ----------------------------------------------------------------------------------------------


def read_or_refused(text: str) -> None:
    try:
        worker = parse(text)
    except StreamQLError as exc:
        refusal = exc
    else:
        list(described(worker))

        assert without_places(parse(to_text(worker))) == without_places(worker)
        return
    lines = re.split(r"\r\n|\r|\n", text)

    assert 1 <= refusal.line <= len(lines)
    assert 1 <= refusal.column <= len(lines[refusal.line - 1]) + 1
    assert refusal.message


PIECES = ["", "'", '"', '"""', "`", "{", "}", "(", ")", "[", "]", ";", ",", "\\", "/", "/*", "--", "@", "!", "#", "->"]


@pytest.mark.long
@given(st.sampled_from(list(TEXTS.values())), st.integers(), st.integers(1, 6))
@settings(max_examples=1500, deadline=None)
def test_a_damaged_worker_is_read_or_refused_with_a_place(text: str, seed: int, wounds: int) -> None:
    rng = random.Random(seed)
    for _ in range(wounds):
        at = rng.randrange(len(text) + 1)
        other = rng.choice(list(TEXTS.values()))
        start = rng.randrange(len(other))
        piece = rng.choice([*PIECES, other[start : start + rng.randrange(80)], text[at : at + rng.randrange(40)]])
        text = text[:at] + piece + text[at + rng.choice([0, 0, 1, 3, 30]) :]
    read_or_refused(text)


@pytest.mark.long
@pytest.mark.parametrize("name", READ)
def test_a_worker_cut_off_anywhere_is_read_or_refused_with_a_place(name: str) -> None:
    text = READ[name]
    for at in range(0, len(text), 7):
        read_or_refused(text[:at])


@pytest.mark.long
@pytest.mark.parametrize("construct", ["query", "partition"])
def test_a_worker_of_200_kilobytes_is_parsed_printed_and_described_quickly(construct: str) -> None:
    workers = [parse(text) for text in READ.values()]
    if construct == "query":
        texts = [q.text for worker in workers for q in worker.queries if isinstance(q, OtherQuery)]
        statements = [text for text in texts if not text.upper().startswith("AS ")]
    else:
        others = [d for worker in workers for d in worker.definitions if isinstance(d, OtherDefinition)]
        statements = [d.text for d in others if d.construct == construct]
    copies = 200_000 // sum(map(len, statements)) + 1
    text = "@App:name('w') @App:qlVersion('2') " + ";\n".join(statements * copies)

    started = time.perf_counter()
    read_or_refused(text)

    assert parse(text).queries or parse(text).definitions
    assert time.perf_counter() - started < 20
