"""Sources of every form that the bridge can send, and rows for them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from bridge.streamql import parse
from bridge.streamql.streams import InputStream, input_streams
from bridge.streamql.syntax import AttributeType

COLUMNS = "s string, i int, l long, f float, d double, b bool"
ALL = f"{COLUMNS}, o object"
PATHS = {"s": "$.a.s", "i": "a.i", "l": "$['a b'].l", "f": "$.list[0]", "d": "$.list[1].d", "b": "b", "o": "$.o.o"}


def stream_of(definition: str) -> InputStream:
    """The only stream of a definition without its head."""
    (stream,) = input_streams(parse(f"@App:name('w') @App:qlVersion('2') {definition}")).values()
    return stream


def source(properties: str, columns: str = ALL) -> str:
    """The definition of a source of the stream n."""
    return f"CREATE SOURCE S WITH (type='stream', stream.list='n', {properties}) ({columns});"


def paths(names: str) -> str:
    """The properties that map these columns."""
    return ", ".join(f'map.attributes.{name}="{PATHS[name]}"' for name in names)


FORMS = {
    "plain": f"CREATE STREAM n ({ALL});",
    "plain, object first": f"CREATE STREAM n (o object, {COLUMNS});",
    "json": source("map.type='json'"),
    "an enclosing element without attributes": source("map.type='json', map.enclosing.element='$.event'"),
    "paths": source(f"map.type='json', {paths('silfdbo')}"),
    "paths in an enclosing element": source(
        f"map.type='json', map.enclosing.element='$.p.q', {paths('sild')}", "s string, i int, l long, d double"
    ),
    "paths in an enclosing array": source(
        f"map.type='json', enclosing.element='$.p[*]', {paths('si')}", "s string, i int"
    ),
    "a list of paths": source("map.type='json', map.attributes=\"s='x.s', i='y'\"", "s string, i int"),
    "an annotation with paths": source("@map(type='json', @attributes('x.s', 'y'))", "s string, i int"),
    "columns that differ in case": source(
        "map.type='json', map.attributes.d='$.x.D', map.attributes.D='$.x.d'", "d double, D double"
    ),
    "a first column named event": "CREATE STREAM n (event string, i int);",
    "the only column named Event": "CREATE STREAM n (Event string);",
    "a path for the only column named event": source("map.attributes.event='$.event'", "event string"),
    "an object named event": "CREATE STREAM n (event object, i int);",
    "csv": source("map.type='csv'", COLUMNS),
    "csv with positions": source(
        "map.type='csv', map.delimiter=';', map.attributes.s='3', map.attributes.d='0'", "s string, d double"
    ),
    "csv in groups": source("map.type='csv', map.event.grouping.enabled='true'", "s string, i int"),
    "text": source("map.type='text'", COLUMNS),
}
"""Definitions by what is special about them."""

_ODD_TEXTS = [
    *('"', '""', "a,b", "a;b", "\n", "\r\n", "'", "\\", "\\n", " x ", "", "null", "true", "18", "{}", "[1]"),
    *("\x00", "\x7f", "é😀\u2028", "~~~~~~~~~~\n", "event", "$.a", "#"),
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(_ODD_TEXTS)
_LEAVES = st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | TEXTS
_VALUES: dict[AttributeType, st.SearchStrategy[Any]] = {
    AttributeType.STRING: TEXTS,
    AttributeType.INT: st.integers(-(2**31), 2**31 - 1),
    AttributeType.LONG: st.integers(-(2**63), 2**63 - 1),
    AttributeType.FLOAT: st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**24), 2**24),
    AttributeType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    AttributeType.BOOL: st.booleans(),
    # The engine drops a flat row with an object that holds objects or arrays of objects.
    AttributeType.OBJECT: st.dictionaries(TEXTS, _LEAVES, max_size=3) | st.lists(_LEAVES, max_size=3),
}


def rows(stream: InputStream) -> st.SearchStrategy[dict[str, Any]]:
    """Rows of a stream, with values of the columns' types."""
    return st.fixed_dictionaries({column.name: _VALUES[column.type] for column in stream.attributes or ()})
