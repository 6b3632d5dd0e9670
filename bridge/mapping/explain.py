"""What a message goes through, step by step, for a person who writes routes: the mapping's own plans, told aloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bridge.mapping.fields import ROOT, ROW_ID, FieldSpec
from bridge.mapping.mapper import Column, CompiledRoute, Mapper, found_in
from bridge.mapping.metadata import metadata_of
from bridge.mapping.paths import is_true
from bridge.mapping.route import Route
from bridge.mapping.unmappable import NoReading, Unmappable, shown
from bridge.message import DeadLetter, MqttMessage, Row

SHOWN_ELEMENTS = 3
"""Rows whose columns are told one by one."""

SHOWN_CHARACTERS = 300


class Step(NamedTuple):
    """A line of the account. ``depth`` 0: the outcome, 1: of a route, 2: within it, 3: of a column."""

    depth: int
    text: str


def explain(
    message: MqttMessage, routes: Sequence[Route], mapper: Mapper, mapped: list[Row] | DeadLetter
) -> list[Step]:
    """The account of how ``mapping``, made of ``routes``, makes ``mapped`` of the message."""
    steps: list[Step] = []
    for number, (route, compiled) in enumerate(zip(routes, mapper.compiled_routes, strict=True)):
        label = f"routes[{number}]{f' {route.name}' if route.name else ''} {route.topic}"
        captures = compiled.template.match(message.topic)
        if captures is None:
            steps.append(Step(1, f"{label}: the topic doesn't match"))
            continue
        told = ", ".join(f"{name} = {shown(value)}" for name, value in captures.items())
        steps.append(Step(1, f"{label}: matches{f', {told}' if told else ''}"))
        is_taken = _explain_route(message, route, compiled, captures, mapper, steps)
        if is_taken and compiled.is_last:
            break
    return [*steps, *_outcome(mapped)]


def _outcome(mapped: list[Row] | DeadLetter) -> list[Step]:
    if isinstance(mapped, DeadLetter):
        return [Step(0, f"dead letter, {mapped.reason}: {mapped.detail}")]
    if not mapped:
        why = "the condition (when) of no route takes it, or it has no reading"
        return [Step(0, f"no row: {why}; counted as dropped, filtered")]
    return [
        Step(
            0,
            f"row for {row.stream}: {row.payload.decode()}{f', with {row.extras[1:].decode()}' if row.extras else ''}",
        )
        for row in mapped
    ]


def _explain_route(
    message: MqttMessage,
    route: Route,
    compiled: CompiledRoute,
    captures: dict[str, Any],
    mapper: Mapper,
    steps: list[Step],
) -> bool:
    """Whether the route takes the message, be it that it fails on it."""
    try:
        decoded = compiled.decode(message)
        around = "" if route.format.compression == "none" else f", {route.format.compression}"
        steps.append(Step(2, f"decoded as {route.format.name}{around}: {_json(decoded)}"))
        found = found_in(decoded, compiled)
        if compiled.each is not None:
            steps.append(Step(2, f"each {compiled.each_text}: {len(found)} found"))
        if compiled.when is not None:
            taken = [element for element in found if is_true(compiled.when(element))]
            steps.append(Step(2, f"when {route.when}: true for {len(taken)} of {len(found)}"))
            found = taken
    except Unmappable as exc:
        steps.append(Step(2, f"{exc.reason.value}: {exc}"))
        return True
    except NoReading as exc:
        steps.append(Step(2, str(exc)))
        return True
    known = {**captures, **metadata_of(message, compiled.metadata, mapper.client), ROOT: decoded}
    for number, element in enumerate(found[:SHOWN_ELEMENTS]):
        if len(found) > 1:
            steps.append(Step(2, f"row {number} of {len(found)}, from {_json(element)}"))
        try:
            if compiled.row_id is not None:
                known[ROW_ID] = compiled.row_id(element, 0)
                steps.append(Step(3, f"{ROW_ID}: {known[ROW_ID]}"))
        except Unmappable as exc:
            steps.append(Step(3, f"{ROW_ID}: {exc.reason.value}, {exc}"))
            continue
        for column in compiled.columns:
            steps.append(Step(3, _explain_column(column, route, compiled, known, element)))
    return bool(found)


def _explain_column(
    column: Column, route: Route, compiled: CompiledRoute, known: dict[str, Any], element: dict[str, Any]
) -> str:
    name = column.name
    told = f"{name} <- {_source(route, name, known)}"
    try:
        value = element.get(name) if column.field is None else column.field(known, element)
        if value is None:
            return f"{told}: {'null' if compiled.takes_nulls else 'missing_field, there is no value for it'}"
        coerced = column.coerce(value)
    except Unmappable as exc:
        return f"{told}: {exc.reason.value}, {exc}"
    if type(coerced) is type(value) and coerced == value:
        return f"{told}: {_json(coerced)}"
    return f"{told}: {_json(value)}, as {column.type.value} {_json(coerced)}"


def _source(route: Route, name: str, captures: dict[str, Any]) -> str:
    if name not in route.fields:
        return "the topic" if name in captures else "the payload"
    value = route.fields[name]
    if not isinstance(value, FieldSpec):
        return _json(value)
    made = {
        "scale": value.scale,
        "offset": value.offset,
        "map": value.map,
        "time": value.time,
        "default": value.default,
    }
    return ", ".join([_json(value.source), *(f"{key} {_json(part)}" for key, part in made.items() if part is not None)])


def _json(value: Any) -> str:
    """A value in JSON, cut to a line; what devices sent must not steer the terminal."""
    text = msgspec.json.encode(value).decode()
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
