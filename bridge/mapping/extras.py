"""A row's Pulsar key, properties and event time (gdn-api.md C.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.mapping.coercion import PLAIN, Reading
from bridge.mapping.fields import RECEIVED_AT, CompiledField, FieldSpec, Scalar, compile_field, compile_spec
from bridge.mapping.route import Route
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason
from bridge.streamql.syntax import AttributeType

MAX_EXTRAS = 64 * 1024
"""Bytes of key, properties and event time of a row."""

_encode = msgspec.json.Encoder().encode


def compile_extras(route: Route, captures: frozenset[str], reading: Reading = PLAIN) -> CompiledField | None:
    """Compile what makes a row's ``extras``; None if the route sets none.

    Raises:
        ValueError: a part is invalid; the message says which and why.
    """
    key = None if route.key is None else _text("key", route.key, captures, reading)
    properties = {
        name: _text(f"properties.{name}", value, captures, reading) for name, value in route.properties.items()
    }
    time = _event_time(route, captures)
    if key is None and not properties and time is None:
        return None

    def extras(context: Mapping[str, Any], element: Any) -> bytes:
        members: dict[str, Any] = {}
        if key is not None:
            members["key"] = _required(key(context, element), "key")
        found = {name: value for name, field in properties.items() if (value := field(context, element)) is not None}
        if found:
            members["properties"] = found
        if time is not None:
            members["eventTime"] = _required(time(context, element), "event_time")
        text = _encode(members)
        if len(text) > MAX_EXTRAS:
            detail = f"key, properties and event time have more than {MAX_EXTRAS} bytes in total"
            raise Unmappable(Reason.TOO_LARGE, detail)
        return b"," + text[1:-1] if members else b""  # without braces: appended to the members of the frame

    return extras


def _required(value: Any, what: str) -> Any:
    if value is None or value == "":
        raise Unmappable(Reason.MISSING_FIELD, f"{what}: there is no value for it")
    return value


def _text(what: str, source: Scalar, captures: frozenset[str], reading: Reading) -> CompiledField:
    try:
        field = compile_field(source, captures=captures, column_type=AttributeType.STRING, reading=reading)
    except ValueError as exc:
        raise ValueError(f"{what}: {exc}") from exc
    as_text = reading.text

    def text(context: Mapping[str, Any], element: Any) -> str | None:
        found = field(context, element)
        try:
            return None if found is None else as_text(found)
        except Unmappable as exc:
            raise Unmappable(exc.reason, f"{what}: {exc}") from None

    return text


def _event_time(route: Route, captures: frozenset[str]) -> CompiledField | None:
    spec = route.event_time
    if spec is None:
        return None
    try:
        _require_time(spec)
        field = compile_spec(spec, captures=captures, column_type=AttributeType.STRING)
    except ValueError as exc:
        raise ValueError(f"event_time: {exc}") from exc

    def time(context: Mapping[str, Any], element: Any) -> str | None:
        try:
            found: str | None = field(context, element)
        except Unmappable as exc:
            raise Unmappable(exc.reason, f"event_time: {exc}") from None
        return found

    return time


def _require_time(spec: FieldSpec) -> None:
    if not spec.is_time and spec.source != RECEIVED_AT:
        raise ValueError('set its time, such as time = "ms"')
    if isinstance(spec.default, FieldSpec):
        _require_time(spec.default)
    elif spec.default is not None:
        raise ValueError('default must be a time, as in default = { source = "$received_at" }')
