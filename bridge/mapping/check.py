"""What is wrong with a set of routes, found before the first message (promise P9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from bridge.mapping.fields import Capture, Constant, Source, Template
from bridge.mapping.fields import parse_field as _parse_field
from bridge.mapping.reason import Unmappable, shown
from bridge.mapping.routes import Route, constant
from bridge.mapping.topics import TopicTemplate
from bridge.streamql.syntax import AttributeType

if TYPE_CHECKING:
    from bridge.streamql.streams import InputStream
    from bridge.streamql.syntax import Attribute


def check(routes: Sequence[Route], streams: Mapping[str, InputStream]) -> list[str]:
    """One sentence for each problem, naming the setting, what is wrong with it and what to do; [] if there is none.

    Args:
        routes: as configured, in order.
        streams: the worker's streams that may be fed, by name.
    """
    if not routes:
        return ["routes: there is none, so no topic would be subscribed to; add a [[routes]] table"]
    problems: list[str] = []
    templates: list[tuple[int, TopicTemplate]] = []
    for index, route in enumerate(routes):
        place = f"routes[{index}]"
        template: TopicTemplate | None = None
        try:
            template = TopicTemplate.parse(route.topic)
        except ValueError as exc:
            problems.append(f"{place}.topic: {exc}")
        else:
            problems += _unreachable(index, template, templates)
            templates.append((index, template))
        attributes = streams[route.stream].attributes if route.stream in streams else None
        if route.stream not in streams:
            problems.append(
                f"{place}.stream: the worker has no input stream {route.stream!r}{_suggestion(route.stream, streams)}"
            )
        elif not attributes:
            problems.append(
                f"{place}.stream: {route.stream!r} declares no columns; "
                "give it a list such as (deviceID string, temperature double) in the worker's definition"
            )
        if template is not None and attributes:
            problems += _column_problems(place, route, template, attributes)
    return problems


def _unreachable(index: int, template: TopicTemplate, earlier: Iterable[tuple[int, TopicTemplate]]) -> list[str]:
    for at, other in earlier:
        if other.levels == template.levels:
            return [
                f"routes[{index}].topic: {template.text!r} takes the same topics as routes[{at}].topic {other.text!r}, "
                "so it is never reached; remove one of the two"
            ]
        if other.covers(template):
            return [
                f"routes[{index}].topic: {template.text!r} is never reached, because routes[{at}].topic {other.text!r} "
                f"takes all its topics; put it before routes[{at}]"
            ]
    return []


def _column_problems(place: str, route: Route, template: TopicTemplate, attributes: tuple[Attribute, ...]) -> list[str]:
    columns = {a.name: a for a in attributes}
    problems = [
        f"{place}.fields.{name}: {route.stream!r} has no column {name!r}{_suggestion(name, columns)}"
        for name in route.fields
        if name not in columns
    ]
    used: set[str] = set()
    for name, attribute in columns.items():
        if name not in route.fields:
            if name in template.names:
                used.add(name)
                problems += _misfit(f"{place}.topic", Capture(name), attribute)
            continue
        try:
            source = _parse_field(route.fields[name], template.names)
        except ValueError as exc:
            problems.append(f"{place}.fields.{name}: {exc}")
            continue
        used |= _captures(source)
        problems += _misfit(f"{place}.fields.{name}", source, attribute)
    problems += _near_misses(place, [n for n in template.names if n not in used], columns, route)
    return problems


def _captures(source: Source) -> set[str]:
    parts = source.parts if isinstance(source, Template) else (source,)
    return {p.name for p in parts if isinstance(p, Capture)}


def _misfit(place: str, source: Source, attribute: Attribute) -> list[str]:
    """A source that can't fit its column whatever comes."""
    kind = attribute.type
    column = f"the {kind.value} column {attribute.name!r}"
    match source:
        case Constant(value):
            try:
                constant(value, kind)
            except Unmappable as exc:
                fix = (
                    "; a number, true or false is written without quotes and ="
                    if isinstance(value, str)
                    else f"; {column} needs another value"
                )
                return [f"{place}: the constant {shown(value)} can't fill {column}: {exc.detail}{fix}"]
        case Capture(name) if kind is AttributeType.OBJECT:
            return [
                f"{place}: {{{name}}} is text from the topic and can't fill {column}; "
                "take it from the payload, or declare the column as string"
            ]
        case Template(text=text) if kind is not AttributeType.STRING:
            return [
                f"{place}: {text!r} makes text, which can't fill {column}; "
                "use a single path or capture, or declare the column as string"
            ]
    return []


def _near_misses(place: str, unused: Iterable[str], columns: Mapping[str, Attribute], route: Route) -> list[str]:
    """Captures that no column uses but that differ from one only in case or underscores: a slip, not a choice."""
    by_fold = {_folded(c): c for c in columns if c not in route.fields}
    return [
        f"{place}.topic: the capture {{{name}}} fills no column; did you mean {{{by_fold[_folded(name)]}}}? "
        "(names are case-sensitive; write + for a level that isn't needed)"
        for name in unused
        if _folded(name) in by_fold
    ]


def _folded(name: str) -> str:
    return name.replace("_", "").casefold()


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    by_fold = {_folded(n): n for n in names}
    close = get_close_matches(_folded(name), by_fold, n=1)
    if close:
        return f"; did you mean {by_fold[close[0]]!r}?"
    return f"; there is {', '.join(names)}" if names else "; there is none"
