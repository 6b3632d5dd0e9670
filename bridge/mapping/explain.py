"""Explains step by step how a message is mapped, for people who write routes. Runs the mapper's own compiled routes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import msgspec

from bridge.mapping.compiled_route import Column, CompiledRoute
from bridge.mapping.each import Elements, Members
from bridge.mapping.fields import KEY, ROOT, ROW_ID, FieldSpec, Scalar
from bridge.mapping.mapper import Mapper
from bridge.mapping.metadata import metadata_of
from bridge.mapping.reports import compared_columns
from bridge.mapping.route import Route
from bridge.mapping.sharing import Group, Sharing
from bridge.mapping.unmappable import Unmappable, preview
from bridge.message import DeadLetter, MqttMessage, Row, Rows

MAX_ROWS_EXPLAINED = 3
"""Rows whose columns are explained one by one."""

MAX_FILTERED = 20
"""Filtered elements that are named."""

NOT_TAKEN = "no route's condition (when) is true for it"

MAX_VALUE_LENGTH = 300
"""Characters of a value in JSON."""


_encode = msgspec.json.Encoder(enc_hook=lambda number: msgspec.Raw(repr(number).encode())).encode
_CONVERSIONS = tuple(key.name for key in fields(FieldSpec) if key.name not in ("source", "default"))


class Step(NamedTuple):
    """A line of the explanation. ``depth`` 0: the result, 1: a route, 2: a step of a route, 3: a column."""

    depth: int
    text: str


def explain(
    message: MqttMessage, routes: Sequence[Route], mapper: Mapper, mapped: list[Row] | DeadLetter
) -> list[Step]:
    """Explain how ``mapper``, compiled from ``routes``, maps the message to ``mapped``."""
    mapper.keep_digits()
    steps: list[Step] = []
    sharing = Sharing()
    for number, (route, compiled) in enumerate(zip(routes, mapper.compiled_routes, strict=True)):
        label = f"routes[{number}]{f' {route.name}' if route.name else ''} {route.topic}"
        captures = compiled.template.match(message.topic)
        if captures is None:
            steps.append(Step(1, f"{label}: the topic doesn't match"))
            continue
        levels = "".join(f", {name} = {preview(value)}" for name, value in captures.items())
        steps.append(Step(1, f"{label}: matches{levels}"))
        if _explain_route(message, route, compiled, captures, mapper, sharing, steps):
            break
    return [*steps, *_result(mapped, sharing)]


def _result(mapped: list[Row] | DeadLetter, sharing: Sharing) -> list[Step]:
    if isinstance(mapped, DeadLetter):
        return [Step(0, f"dead letter, {mapped.reason}: {mapped.detail}")]
    rows = [
        Step(
            0,
            f"row for {row.stream}: {row.payload.decode()}{f', with {row.extras[1:].decode()}' if row.extras else ''}",
        )
        for row in mapped
    ]
    return rows + _filtered(mapped, sharing) if isinstance(mapped, Rows) else rows


def _filtered(mapped: Rows, sharing: Sharing) -> list[Step]:
    """The elements that no route takes."""
    named = [_name(group, element) for group, element in sharing.untaken()]
    if not named and mapped.filtered:
        return [Step(0, f"no row: {NOT_TAKEN}, it is empty, or it has no reading; counted as dropped, filtered")]
    steps = [Step(0, f"no row for {text}: {NOT_TAKEN}") for text in named[:MAX_FILTERED]]
    more = f"{len(named) - MAX_FILTERED} more of these; " if len(named) > MAX_FILTERED else ""
    count = f"{len(named)} element{'s' * (len(named) != 1)}"
    return [*steps, Step(0, f"{more}{count} counted as dropped, filtered")] if named else []


def _name(group: Group, element: dict[str, Any]) -> str:
    names = group.found.names[id(element)] if isinstance(group.found, Members) else ()
    key = f" {'.'.join(map(preview, names))}" if names else ""
    return f"{f'each {group.each}, ' if group.each else ''}element{key} {_json(element)}"


def _explain_route(
    message: MqttMessage,
    route: Route,
    compiled: CompiledRoute,
    captures: dict[str, Any],
    mapper: Mapper,
    sharing: Sharing,
    steps: list[Step],
) -> bool:
    """Append the steps of a matching route. Returns whether later routes get nothing of the message."""
    try:
        group = sharing.offer(compiled, message)
        if not isinstance(group, Group):
            steps.append(Step(2, f"goes on to the next route: {group}"))
            return False
        steps.append(Step(2, f"decoded as {route.format.described()}: {_json(group.payload)}"))
        context = {**captures, **metadata_of(message, compiled.metadata, mapper.client), ROOT: group.payload}
        if isinstance(group.found, Members):
            context[KEY] = group.found.names
        if compiled.each_text:
            steps.append(Step(2, f"each {compiled.each_text}: {len(group.found)} found"))
        if len(group.offered) < len(group.found):
            steps.append(Step(2, f"{len(group.found) - len(group.offered)} of them taken by earlier routes"))
        taken = group.offered
        if compiled.when is not None:
            answers = [compiled.when(context, element) for element in group.offered]
            taken = [element for element, answer in zip(group.offered, answers, strict=True) if answer]
            steps.append(Step(2, f"when {route.when}: {_answers(answers)}"))
    except Unmappable as exc:
        steps.append(Step(2, f"{exc.reason.value}: {exc}"))
        return True
    if route.every is not None:
        compared = ", ".join(compared_columns(route, mapper.streams[route.stream].attributes or (), captures))
        steps.append(Step(2, f"every {route.every:g}s: held back within this time unless one changes: {compared}"))
    _explain_rows(taken, route, compiled, context, steps)
    group.take(taken, is_last=compiled.is_last)
    return not group.offered


def _explain_rows(
    elements: Elements, route: Route, compiled: CompiledRoute, context: dict[str, Any], steps: list[Step]
) -> None:
    for number, element in enumerate(elements[:MAX_ROWS_EXPLAINED]):
        if len(elements) > 1:
            steps.append(Step(2, f"row {number} of {len(elements)}, from {_json(element)}"))
        try:
            if compiled.row_id is not None:
                context[ROW_ID] = compiled.row_id(element, 0)
                steps.append(Step(3, f"{ROW_ID}: {context[ROW_ID]}"))
        except Unmappable as exc:
            steps.append(Step(3, f"{ROW_ID}: {exc.reason.value}, {exc}"))
            continue
        for column in compiled.columns:
            steps.append(Step(3, _explain_column(column, route, compiled, context, element)))


def _answers(answers: Sequence[bool | None]) -> str:
    text = f"true for {answers.count(True)} of {len(answers)}"
    if None not in answers:
        return text
    return f"{text}, can't be evaluated for {answers.count(None)}: a member is absent or has another type"


def _explain_column(
    column: Column, route: Route, compiled: CompiledRoute, context: dict[str, Any], element: dict[str, Any]
) -> str:
    name = column.name
    source = f"{name} <- {_source(route, name, context)}"
    try:
        value = element.get(name) if column.field is None else column.field(context, element)
        if value is None:
            return f"{source}: {'null' if compiled.takes_nulls else 'missing_field, there is no value for it'}"
        coerced = column.coerce(value)
    except Unmappable as exc:
        return f"{source}: {exc.reason.value}, {exc}"
    if type(coerced) is type(value) and coerced == value:
        return f"{source}: {_json(coerced)}"
    return f"{source}: {_json(value)}, as {column.type.value} {_json(coerced)}"


def _source(route: Route, name: str, context: dict[str, Any]) -> str:
    """Where a column's value comes from, with its conversions."""
    if name not in route.fields:
        return "the topic" if name in context else "the payload"
    return _described(route.fields[name])


def _described(value: Scalar | FieldSpec) -> str:
    if not isinstance(value, FieldSpec):
        return _json(value)
    options = {key: option for key in _CONVERSIONS if (option := getattr(value, key)) is not None}
    parts = [f"{key} {_json(option)}" for key, option in options.items()]
    if value.default is not None:
        default = _described(value.default)
        parts.append(f"default ({default})" if isinstance(value.default, FieldSpec) else f"default {default}")
    return ", ".join([_json(value.source), *parts])


def _json(value: Any) -> str:
    """A value in JSON, cut to a line. Control characters from devices are escaped: they could control the terminal."""
    try:
        text = _encode(value).decode()
    except OverflowError:  # a whole number beyond 64 bits
        text = json.dumps(value, ensure_ascii=False)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."
