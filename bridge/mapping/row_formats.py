"""The form of stored rows: which definition they were made for, and their conversion to the current one.

When the form of a stream's rows changes, a marker with the first record id of the new form is saved. Ids increase, so
rows need no version of their own. A row that the current worker would drop is converted, or refused if it can't be.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from bridge.mapping.coercion import LENIENT
from bridge.mapping.encoding import Encoding, NotReadable, Values, compile_encoding, decode_flat
from bridge.mapping.mapper import MAX_ROW
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason
from bridge.streamql.streams import InputStream, SourceMapping
from bridge.streamql.syntax import Attribute, AttributeType, Place, StreamScope

KEY_PREFIX = "row_format:"
"""Of the keys in the outbox, followed by the first record id, a colon and the stream."""

MAX_MARKERS = 16
"""Per stream. Beyond it the oldest marker is deleted, and older rows are read as flat JSON."""


class Marker(NamedTuple):
    """From the record ``first_id`` on, a stream's rows have this form."""

    first_id: int
    form: str
    """As ``form_of`` describes it."""
    version: str
    """Hash of the form."""


class RowFormats:
    """The forms of the rows of each stream.

    Args:
        streams: those that the worker reads, by name.
        saved: the markers that the outbox holds, by key.
    """

    def __init__(self, streams: Mapping[str, InputStream], saved: Mapping[str, str]) -> None:
        self._streams = streams
        self._markers: dict[str, list[Marker]] = {}
        self._current: dict[str, tuple[str, str]] = {}  # form and version by stream; a cache
        self._encodings: dict[str, Encoding | None] = {}
        self.apply(saved)

    def changes(self, names: Iterable[str], next_id: int) -> dict[str, str]:
        """The changes that mark the rows of these streams from ``next_id`` on as having the current form.

        Returns:
            The values to save, by key; an empty value deletes the key. Pass them to ``apply`` once they are saved.
        """
        changes: dict[str, str] = {}
        for name in names:
            markers = self._markers.get(name, [])
            form, _ = self._current_form(name)
            if markers and markers[-1].form == form:
                continue
            changes |= {_key(name, old.first_id): "" for old in markers[: 1 - MAX_MARKERS]}
            changes[_key(name, next_id)] = form
        return changes

    def apply(self, values: Mapping[str, str]) -> None:
        """Apply markers that are saved in the outbox; an empty value deletes one."""
        for key, form in values.items():
            text, _, stream = key.removeprefix(KEY_PREFIX).partition(":")
            if not text.isdecimal():  # from a damaged outbox
                continue
            first_id = int(text)
            others = [marker for marker in self._markers.get(stream, ()) if marker.first_id != first_id]
            self._markers[stream] = sorted([*others, *([Marker(first_id, form, _version(form))] if form else [])])

    def current_from(self, stream: str) -> int:
        """The first record id of the stream's current form."""
        return self._markers[stream][-1].first_id

    def version_of(self, stream: str, record_id: int) -> str:
        """The version of the form that the record has; empty if it is unknown."""
        markers = self._markers[stream]
        at = bisect_right(markers, record_id, key=lambda marker: marker.first_id)
        return markers[at - 1].version if at else ""

    def converted(self, stream: str, payload: bytes, version: str) -> bytes:
        """A stored row's payload in the stream's current form.

        Args:
            stream: one that the worker reads.
            payload: of the row.
            version: of its form; a row of an unknown one is read as a flat JSON object.

        Raises:
            Unmappable: it doesn't fit the current definition.
        """
        form, current = self._current_form(stream)
        if version == current:
            return payload
        old = next((m.form for m in self._markers.get(stream, ()) if m.version == version), None)
        try:
            new = self._encoding(form)
            if new is None:
                raise Unmappable(Reason.OUTDATED_DEFINITION, "the bridge can't send what the worker's source takes")
            encoding = None if old is None else self._encoding(old)
            decode = decode_flat if encoding is None else encoding.decode
            fitted = new.encode(_fitted(decode(payload), new))
            if len(fitted) > MAX_ROW:
                raise Unmappable(
                    Reason.TOO_LARGE, f"converted, it has {len(fitted)} bytes; at most {MAX_ROW} can be sent"
                )
            return fitted
        except (NotReadable, Unmappable) as exc:
            detail = f"the row of stream {stream} was made for an earlier definition and doesn't fit the current one"
            raise Unmappable(Reason.OUTDATED_DEFINITION, f"{detail}: {exc}") from exc

    def _current_form(self, stream: str) -> tuple[str, str]:
        if stream not in self._current:
            form = form_of(self._streams[stream])
            self._current[stream] = form, _version(form)
        return self._current[stream]

    def _encoding(self, form: str) -> Encoding | None:
        if form not in self._encodings:
            try:
                self._encodings[form] = compile_encoding(_stream_of(form))
            except (ValueError, LookupError, TypeError):  # not supported, or from a damaged outbox
                self._encodings[form] = None
        return self._encodings[form]


def form_of(stream: InputStream) -> str:
    """Everything that determines the form of a stream's rows, as JSON."""
    return json.dumps(
        {
            "columns": _described(stream.attributes or ()),
            "nulls": not stream.fail_on_missing,
            "mappings": [[m.type, m.options, _described(m.columns)] for m in stream.mappings],
        },
        separators=(",", ":"),
    )


def _stream_of(form: str) -> InputStream:
    found = json.loads(form)
    mappings = tuple(
        SourceMapping(f"{number}", type_, tuple((key, value) for key, value in options), _attributes(columns))
        for number, (type_, options, columns) in enumerate(found["mappings"])
    )
    attributes = _attributes(found["columns"])
    place = Place(1, 1)
    return InputStream("", StreamScope.LOCAL, attributes, True, place, not found["nulls"], mappings=mappings)


def _described(columns: Iterable[Attribute]) -> list[list[str]]:
    return [[column.name, column.type.value] for column in columns]


def _attributes(described: Iterable[tuple[str, str]]) -> tuple[Attribute, ...]:
    return tuple(Attribute(name, AttributeType(type_)) for name, type_ in described)


def _fitted(found: Values, encoding: Encoding) -> Values:
    """The columns of the current definition, by name."""
    names = [column.name for column in encoding.columns]
    # A row that lacks a column may hold it under an earlier name: null would lose the value.
    is_renamed = any(name not in names for name in found)
    row: Values = {}
    for column in encoding.columns:
        name = column.name
        value = found.get(name)
        if value is not None:
            try:
                row[name] = LENIENT[column.type](value)
            except Unmappable as exc:
                raise Unmappable(exc.reason, f"column {name}: {exc}") from None
        elif encoding.takes_nulls and (name in found or not is_renamed):
            row[name] = None
        else:
            raise Unmappable(Reason.MISSING_FIELD, f"column {name}: there is no value for it")
    return row


def _key(stream: str, first_id: int) -> str:
    return f"{KEY_PREFIX}{first_id}:{stream}"


def _version(form: str) -> str:
    return blake2b(form.encode(), digest_size=8).hexdigest()
