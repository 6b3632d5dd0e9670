"""Encodes a row's columns as the payload that a worker's source takes (gdn-api.md F.6), and decodes it.

Most sources take a flat JSON object. A source may name paths for its columns (``map.attributes.temp='$.data.t'``), an
enclosing element, or another mapper (``map.type='csv'``). A source's mapper silently drops what it doesn't take, so
whatever isn't supported here is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from bridge.mapping.coercion import parse_text
from bridge.mapping.numbers import WrittenNumber
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason
from bridge.streamql.properties import read_mapping_list
from bridge.streamql.source import StreamQLError
from bridge.streamql.streams import InputStream, SourceMapping
from bridge.streamql.syntax import Attribute, AttributeType

Values = dict[str, Any]
"""The columns of a row by name, in the order of the stream's definition; None: null."""

Path = tuple[str | int, ...]
"""Steps into a JSON document: names of members, indexes of elements."""

_PATH_STEP = re.compile(r"""\.?(?P<name>[\w-]+)|\[(?:'(?P<single>[^'\\]*)'|"(?P<double>[^"\\]*)"|(?P<index>\d+))\]""")
MAX_INDEX = 1000
"""The highest array index in a path: the elements before it are sent, too."""

_TEXT_SEPARATOR = ",\n"


def encode_number(number: object) -> msgspec.Raw:
    """A number as it was written, for the JSON encoder.

    Raises:
        OverflowError: it is larger than a double.
    """
    if not isinstance(number, WrittenNumber):
        raise TypeError(f"{type(number)} is not a JSON value")
    if math.isinf(number):
        raise OverflowError(f"{preview(number)} is out of range for a number in JSON")
    return msgspec.Raw(repr(number).encode())


_encode = msgspec.json.Encoder(enc_hook=encode_number).encode
_decode = msgspec.json.Decoder().decode


class NotReadable(Exception):
    """A payload isn't in the form that was expected."""


class Encoding(NamedTuple):
    """How the rows of one stream are written."""

    encode: Callable[[Values], bytes]
    """(columns) -> the payload; raises Unmappable if the mapper couldn't read it back."""
    decode: Callable[[bytes], Values]
    """(payload) -> the columns that it has, not coerced; raises NotReadable if it isn't in this form."""
    columns: tuple[Attribute, ...]
    takes_nulls: bool
    """Whether the worker keeps a row that has null in a column."""


def compile_encoding(stream: InputStream) -> Encoding:
    """Compile the encoding that all sources of the stream take.

    Raises:
        ValueError: there is none, or it isn't supported; the message names the source and the property.
    """
    columns = stream.attributes or ()
    kinds = {_kind(mapping) for mapping in stream.mappings}
    if kinds <= {"json"}:
        return _json(stream, columns)
    first, *others = stream.mappings
    for other in others:
        if other != replace(first, source=other.source):
            raise ValueError(
                f"the sources {first.source} and {other.source} read it with different mappings; the bridge can send "
                "only one form"
            )
    options = _options(first)
    if first.type == "csv":
        return _csv(first, options, columns)
    if first.type == "text":
        return _text(first, options, columns)
    raise _refusal(first, "map.type", first.type, "the bridge sends json, csv and text")


def _kind(mapping: SourceMapping) -> str:
    # Attributes without a type are JSON paths in every definition that has them.
    return mapping.type or "json"


def _refusal(mapping: SourceMapping, key: str, value: str, why: str) -> ValueError:
    return ValueError(f"source {mapping.source} has {key} = {preview(value)}: {why}")


def _options(mapping: SourceMapping) -> dict[str, tuple[str, str]]:
    """The mapper's options by key in lower case, without attributes: the key as written and the value."""
    return {key.lower(): (key, value) for key, value in mapping.options if not _is_attribute(key)}


def _is_attribute(key: str) -> bool:
    return key.lower() == "attributes" or key.lower().startswith("attributes.")


def _attributes(mapping: SourceMapping) -> dict[str, tuple[str, str]]:
    """The path of each column: property and value; empty if the source names none.

    Raises:
        ValueError: they don't fit the columns.
    """
    found: dict[str, tuple[str, str]] = {}
    names = [column.name for column in mapping.columns]
    for key, value in mapping.options:
        if not _is_attribute(key):
            continue
        if len(key) > len("attributes"):
            found[key[len("attributes.") :]] = (f"map.{key}", value)
            continue
        try:
            listed = read_mapping_list(value)
        except StreamQLError as exc:
            raise _refusal(mapping, "map.attributes", value, f"can't be read: {exc.message}") from exc
        for name, (given, path) in zip([*names, *[""] * len(listed)], listed, strict=False):
            found[name if given is None else given] = ("map.attributes", path)
    if not found:
        return {}
    if unknown := [name for name in found if name not in names]:
        raise _refusal(mapping, *found[unknown[0]], f"there is no column {unknown[0] or 'for it'}")
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"source {mapping.source} maps other columns, but not {missing[0]}: the worker takes none or all; "
            f"add map.attributes.{missing[0]}"
        )
    return found


def _refuse_options(
    mapping: SourceMapping, options: Mapping[str, tuple[str, str]], *, known: Sequence[str], only: Mapping[str, str]
) -> None:
    """Refuse options that are neither ``known`` nor in ``only``, and those in ``only`` with a different value."""
    for lowered, (key, value) in options.items():
        if lowered in only and value.lower() != only[lowered]:
            raise _refusal(mapping, f"map.{key}", value, f"only {only[lowered]!r} is supported")
        if lowered not in known and lowered not in only:
            raise _refusal(mapping, f"map.{key}", value, "this option is not supported")


# --- JSON -------------------------------------------------------------------------------------------------


def _json(stream: InputStream, columns: tuple[Attribute, ...]) -> Encoding:
    places: dict[Path, str] = {}
    strict = []  # sources that drop a row with a member that they don't declare
    is_flat = True
    for mapping in stream.mappings:
        options = _options(mapping)
        known = ("enclosing.element", "fail.on.missing.attribute")
        _refuse_options(mapping, options, known=known, only={})
        attributes = _attributes(mapping)
        is_flat = is_flat and not attributes
        if mapping.type and not attributes:
            strict.append(mapping)
        for path, name, property_ in _placed(mapping, attributes, options):
            _place(places, path, name, mapping, property_)
    for mapping in strict:
        own = {(column.name,) for column in mapping.columns}
        if foreign := [path for path in places if path not in own]:
            raise ValueError(
                f"source {mapping.source} has map.type = 'json' without map.attributes, so it drops a row with the "
                f"member {foreign[0][0]}, which another source of the stream needs"
            )
    if is_flat:
        encode, decode = _flat(columns)
    else:
        encode, decode = _compile_template(places), _decoder_at({name: path for path, name in places.items()})
    return Encoding(encode, decode, columns, takes_nulls=not stream.fail_on_missing)


def _placed(
    mapping: SourceMapping, attributes: Mapping[str, tuple[str, str]], options: Mapping[str, tuple[str, str]]
) -> list[tuple[Path, str, str]]:
    """Path, column and property of each column of the source."""
    if not attributes:  # the mapper ignores an enclosing element then
        return [((column.name,), column.name, "map.type") for column in mapping.columns]
    enclosing: Path = ()
    if "enclosing.element" in options:
        key, value = options["enclosing.element"]
        # An array's elements are events: one element is sent.
        text, is_array = (value[:-3], True) if value.endswith("[*]") else (value, False)
        enclosing = (*_path(mapping, f"map.{key}", text, may_be_root=True), *([0] if is_array else []))
    return [
        ((*enclosing, *_path(mapping, property_, text)), name, property_)
        for name, (property_, text) in attributes.items()
    ]


def _path(mapping: SourceMapping, property_: str, text: str, *, may_be_root: bool = False) -> Path:
    """The steps of a JSONPath that leads to one place."""
    steps: list[str | int] = []
    at = 1 if text.startswith("$") else 0
    while at < len(text):
        step = _PATH_STEP.match(text, at)
        # A path without "$" must begin with a bare name; nowhere else may a name have no dot.
        is_name = step is not None and bool(step["name"]) and text[at] != "."
        if step is None or is_name is not (at == 0):
            raise _refusal(mapping, property_, text, "only paths to one place are supported, such as $.a.b or $.a[0].b")
        if step["index"] and int(step["index"]) > MAX_INDEX:
            raise _refusal(mapping, property_, text, f"an index may be at most {MAX_INDEX}")
        index, *names = step["index"], step["name"], step["single"], step["double"]
        steps.append(int(index) if index else next(name for name in names if name is not None))
        at = step.end()
    if not may_be_root and (not steps or isinstance(steps[0], int)):  # the elements of an array are events
        raise _refusal(mapping, property_, text, "a column must be a member of the event")
    return tuple(steps)


def _place(places: dict[Path, str], path: Path, name: str, mapping: SourceMapping, property_: str) -> None:
    """Add a column's place.

    Raises:
        ValueError: no document can have both this place and an earlier one.
    """
    if places.get(path, name) != name:
        raise ValueError(f"source {mapping.source}: {property_} puts {name} where {places[path]} is")
    for other, column in places.items():
        length = min(len(other), len(path))
        if other != path and other[:length] == path[:length]:
            raise ValueError(f"source {mapping.source}: {property_} puts {name} inside {column}, or around it")
        at = next((n for n in range(length) if other[n] != path[n]), None)
        if at is not None and type(other[at]) is not type(path[at]):
            raise ValueError(f"source {mapping.source}: {property_} makes an array where {column} makes an object")
    places[path] = name


def _flat(columns: tuple[Attribute, ...]) -> tuple[Callable[[Values], bytes], Callable[[bytes], Values]]:
    # The mapper treats a first member named event as the envelope of the row.
    if not columns or columns[0].name.lower() != "event":
        return _encode, decode_flat
    if len(columns) == 1:
        return lambda values: _encode({"event": values}), _decoder_at({columns[0].name: ("event", columns[0].name)})
    order = [*[column.name for column in columns[1:]], columns[0].name]
    return lambda values: _encode({name: values[name] for name in order}), decode_flat


def decode_flat(payload: bytes) -> Values:
    """The members of a JSON object.

    Raises:
        NotReadable: the payload isn't one.
    """
    found = _document(payload)
    if not isinstance(found, dict):
        raise NotReadable("the row is not a JSON object")
    return found


def _document(payload: bytes) -> Any:
    try:
        return _decode(payload)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise NotReadable("the row is not JSON") from exc


def _compile_template(places: Mapping[Path, str]) -> Callable[[Values], bytes]:
    """Compile the function that puts the columns into a document of nested objects and arrays."""
    build = _node([(path, name) for path, name in places.items()])
    # The mapper's parser drops a bare DEL from text.
    return lambda values: _encode(build(values)).replace(b"\x7f", b"\\u007f")


def _node(leaves: Sequence[tuple[Path, str]]) -> Callable[[Values], Any]:
    if leaves[0][0] == ():
        name = leaves[0][1]
        return lambda values: values[name]
    children: dict[str | int, list[tuple[Path, str]]] = {}
    for (first, *rest), name in leaves:
        children.setdefault(first, []).append((tuple(rest), name))
    built = {step: _node(below) for step, below in children.items()}
    if isinstance(next(iter(built)), str):
        return lambda values: {step: build(values) for step, build in built.items()}
    length = 1 + max(step for step in built if isinstance(step, int))
    elements = [built.get(index) for index in range(length)]
    return lambda values: [None if build is None else build(values) for build in elements]


def _decoder_at(paths: Mapping[str, Path]) -> Callable[[bytes], Values]:
    def decode(payload: bytes) -> Values:
        document = _document(payload)
        values = {}
        for name, path in paths.items():
            found = document
            try:
                for step in path:
                    found = found[step]
            except (LookupError, TypeError) as exc:
                raise NotReadable(f"the row has no value for column {name}") from exc
            values[name] = found
        return values

    return decode


# --- CSV and text -----------------------------------------------------------------------------------------


def _csv(mapping: SourceMapping, options: Mapping[str, tuple[str, str]], columns: tuple[Attribute, ...]) -> Encoding:
    known = ("delimiter", "fail.on.unknown.attribute", "fail.on.missing.attribute", "event.grouping.enabled")
    _refuse_options(mapping, options, known=known, only={"header": "false"})
    key, delimiter = options.get("delimiter", ("delimiter", ","))
    if len(delimiter) != 1 or delimiter in '"\\\r\n\t ' or delimiter.isalnum() or delimiter in "+-.":
        raise _refusal(mapping, f"map.{key}", delimiter, "only one punctuation character is supported")
    _refuse_objects(mapping, columns)
    order = _csv_order(mapping, columns)
    writers = [None if column is None else (column.name, _csv_writer(column)) for column in order]
    # A field is quoted or bare, and follows the start of the record or a delimiter.
    field = re.compile(rf'(?:^|{re.escape(delimiter)})(?:"((?:[^"]|"")*)"|([^"{re.escape(delimiter)}\r\n]*))')

    def encode(values: Values) -> bytes:
        fields = ["" if writer is None else writer[1](values[writer[0]]) for writer in writers]
        return delimiter.join(fields).encode()

    def decode(payload: bytes) -> Values:
        text = payload.decode(errors="replace")
        found = list(field.finditer(text))
        is_record = found and all(one.end() == other.start() for one, other in pairwise(found))
        if len(found) != len(order) or not is_record or found[-1].end() != len(text):
            raise NotReadable("the row is not a CSV record of its columns")
        cells = [match[2] if match[1] is None else match[1].replace('""', '"') for match in found]
        return {c.name: _typed(cell, c) for c, cell in zip(order, cells, strict=True) if c is not None}

    return Encoding(encode, decode, columns, takes_nulls=False)


def _csv_order(mapping: SourceMapping, columns: tuple[Attribute, ...]) -> list[Attribute | None]:
    """The column of each field of a record; None: an empty field."""
    attributes = _attributes(mapping)
    if not attributes:
        return list(columns)
    order: dict[int, Attribute] = {}
    for column in columns:
        property_, text = attributes[column.name]
        if not text.isascii() or not text.isdigit() or int(text) > MAX_INDEX or int(text) in order:
            raise _refusal(mapping, property_, text, f"expected the column's own position, from 0 to {MAX_INDEX}")
        order[int(text)] = column
    return [order.get(index) for index in range(max(order) + 1)]


def _csv_writer(column: Attribute) -> Callable[[Any], str]:
    if column.type is AttributeType.STRING:
        return lambda value: '"' + value.replace('"', '""') + '"'
    return lambda value: _encode(value).decode()


def _text(mapping: SourceMapping, options: Mapping[str, tuple[str, str]], columns: tuple[Attribute, ...]) -> Encoding:
    known = ("fail.on.missing.attribute", "delimiter")
    only = {"event.grouping.enabled": "false", "new.line.character": "\n"}
    if attributes := _attributes(mapping):
        property_, text = next(iter(attributes.values()))
        raise _refusal(mapping, property_, text, "text by patterns is not supported")
    _refuse_options(mapping, options, known=known, only=only)
    _refuse_objects(mapping, columns)

    def encode(values: Values) -> bytes:
        lines = []
        for column in columns:
            value = values[column.name]
            if column.type is not AttributeType.STRING:
                lines.append(f"{column.name}:{_encode(value).decode()}")
                continue
            if _TEXT_SEPARATOR in value:
                detail = f"column {column.name}: a comma and a line break separate columns in the worker's text format"
                raise Unmappable(Reason.TYPE_MISMATCH, detail)
            lines.append(f'{column.name}:"{value}"')
        return _TEXT_SEPARATOR.join(lines).encode()

    def decode(payload: bytes) -> Values:
        lines = payload.decode(errors="replace").split(_TEXT_SEPARATOR)
        found = dict(line.split(":", 1) for line in lines if ":" in line)
        return {c.name: _typed(_unquoted(found[c.name], c), c) for c in columns if c.name in found}

    return Encoding(encode, decode, columns, takes_nulls=False)


def _unquoted(text: str, column: Attribute) -> str:
    return text[1:-1] if column.type is AttributeType.STRING else text


def _typed(text: str, column: Attribute) -> Any:
    return text if column.type is AttributeType.STRING else parse_text(text, column.type)


def _refuse_objects(mapping: SourceMapping, columns: tuple[Attribute, ...]) -> None:
    for column in columns:
        if column.type is AttributeType.OBJECT:
            why = f"it has no form for the object column {column.name}"
            raise _refusal(mapping, "map.type", mapping.type, why)
