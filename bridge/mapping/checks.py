"""What is wrong with routes, said before the first message: held against the streams that the worker reads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bridge.mapping.coercion import COERCIONS
from bridge.mapping.extras import compile_extras
from bridge.mapping.fields import FieldSpec, Scalar, compile_column, compile_row_id
from bridge.mapping.formats import FormatOptions, compile_decoder
from bridge.mapping.paths import compile_expression, compile_getter
from bridge.mapping.route import Route, sources
from bridge.mapping.sparkplug import MEMBERS, need_protobuf
from bridge.mapping.topics import TopicTemplate, covers
from bridge.mapping.unmappable import Unmappable
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import Attribute

MAX_NAMES = 15
"""Named where none is near to what was written."""

_MEMBERS: dict[str, tuple[str, ...]] = {
    "scalar": ("value",),
    "raw": ("payload",),
    "influx": ("measurement", "tags", "fields", "time"),
    "sparkplug": MEMBERS,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a route. ``location`` is the way to its setting, as ``("routes", 0, "topic")``."""

    location: tuple[str | int, ...]
    text: str

    def __str__(self) -> str:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.location).lstrip(".")
        return f"{place}: {self.text}"


def check(routes: Sequence[Route], streams: Mapping[str, InputStream]) -> list[Problem]:
    """What is wrong with the routes; empty if nothing is."""
    problems: list[Problem] = []
    earlier: list[tuple[int, Route, TopicTemplate]] = []
    for number, route in enumerate(routes):
        place = ("routes", number)
        captures: frozenset[str] = frozenset()
        try:
            template = TopicTemplate.parse(route.topic)
        except ValueError as exc:
            problems.append(Problem((*place, "topic"), f"{route.topic!r}: {exc}"))
        else:
            captures = frozenset(name for name in template.captures if name is not None)
            problems += _shadowed(place, template, earlier)
            earlier.append((number, route, template))
        problems += _check_payload(place, route)
        stream = streams.get(route.stream)
        at = (*place, "stream")
        if stream is None:
            near = suggestion(route.stream, streams)
            problems.append(Problem(at, f"{route.stream!r}: the worker reads no such stream{near}"))
        elif stream.attributes is None:
            problems.append(Problem(at, f"{route.stream!r}: the worker declares no columns for it"))
        elif not stream.read_by_worker:
            problems.append(Problem(at, f"{route.stream!r}: the worker writes it and doesn't read it"))
        else:
            problems += _check_columns(place, route, stream, captures)
    return problems


def _shadowed(
    place: tuple[str | int, ...], template: TopicTemplate, earlier: Sequence[tuple[int, Route, TopicTemplate]]
) -> list[Problem]:
    for number, route, other in earlier:
        if route.match == "first" and route.when is None and covers("/".join(other.levels), "/".join(template.levels)):
            same = "the same topics" if other.levels == template.levels else "all of its topics"
            text = (
                f"{template.text!r}: routes[{number}] ({other.text!r}) takes {same}, so this one never gets a "
                'message; put this one before it, or give that one match = "all"'
            )
            return [Problem((*place, "topic"), text)]
    return []


def _check_payload(place: tuple[str | int, ...], route: Route) -> list[Problem]:
    problems = []

    def attempt(key: str, compile_: Callable[[], object]) -> None:
        try:
            compile_()
        except ValueError as exc:
            problems.append(Problem((*place, key), str(exc)))

    if route.format.name == "sparkplug":
        attempt("format", need_protobuf)
        if route.topic.removeprefix("$share/").split("/", 1)[0] != "spBv1.0" and "/spBv1.0/" not in route.topic:
            problems.append(Problem((*place, "topic"), f"{route.topic!r}: Sparkplug's topics begin with spBv1.0/"))
    else:
        try:
            compile_decoder(route.format)
        except ValueError as exc:
            problems.append(Problem((*place, _blamed(route.format, str(exc))), str(exc)))
    if route.each is not None:
        each = route.each
        attempt("each", lambda: compile_getter(each))
    if route.when is not None:
        when = route.when
        attempt("when", lambda: compile_expression(when))
    attempt("id", lambda: compile_row_id(route.id, outbox_name=""))
    return problems


def _blamed(options: FormatOptions, problem: str) -> str:
    """The setting that a problem with the format is about."""
    usual = FormatOptions()
    for key in ("pattern", "columns", "delimiter", "compression"):
        if getattr(options, key) != getattr(usual, key) and (key == "pattern" or key in problem):
            return key
    return "format"


def _check_columns(
    place: tuple[str | int, ...], route: Route, stream: InputStream, captures: frozenset[str]
) -> list[Problem]:
    problems = []
    attributes = {attribute.name: attribute for attribute in stream.attributes or ()}
    of_topic = {name: f"{{{name}}}" for name in attributes if name in captures}
    for name, value in {**of_topic, **route.fields}.items():
        at = (*place, "fields", name) if name in route.fields else (*place, "topic")
        attribute = attributes.get(name)
        if attribute is None:
            near = suggestion(name, attributes)
            problems.append(Problem(at, f"stream {route.stream} has no such column{near}"))
            continue
        try:
            _check_field(value, attribute, route, captures)
        except Unmappable as exc:
            problems.append(Problem(at, f"it never fits: {exc}"))
        except ValueError as exc:
            problems.append(Problem(at, str(exc)))
    problems += _check_extras(place, route, captures)
    known = None if route.each is not None else _members(route.format)
    if known is not None and stream.fail_on_missing:
        for name in attributes:
            if name not in (*route.fields, *captures, *known):
                text = (
                    f"column {name} never has a value: what format {route.format.name!r} gives has no such member"
                    f"{suggestion(name, known)}. Name its source in fields"
                )
                problems.append(Problem(place, text))
    return problems


def _check_extras(place: tuple[str | int, ...], route: Route, captures: frozenset[str]) -> list[Problem]:
    bare = replace(route, key=None, properties={}, event_time=None)
    alone: dict[tuple[str, ...], Route] = {
        ("key",): replace(bare, key=route.key),
        **{("properties", name): replace(bare, properties={name: value}) for name, value in route.properties.items()},
        ("event_time",): replace(bare, event_time=route.event_time),
    }
    problems = []
    for at, only in alone.items():
        try:
            compile_extras(only, captures)
        except ValueError as exc:
            problems.append(Problem((*place, *at), str(exc).removeprefix(f"{'.'.join(at)}: ")))
    return problems


def _check_field(value: Scalar | FieldSpec, attribute: Attribute, route: Route, captures: frozenset[str]) -> None:
    """Try what is known before the first message.

    Raises:
        ValueError: it describes no field.
        Unmappable: what it says can never fit the column.
    """
    compiled = compile_column(value, captures=captures, wanted=attribute.type)
    coerce = COERCIONS[route.types][attribute.type]
    if isinstance(value, FieldSpec):
        outcomes = [] if value.map is None or value.scale is not None else list(value.map.values())
        for outcome in [*outcomes, *([] if value.default is None else [value.default])]:
            coerce(outcome)
    elif not isinstance(value, str) or value.startswith("="):
        coerce(compiled({}, {}))
    elif value in ("$qos", "$retain"):
        coerce(1 if value == "$qos" else True)


def _members(options: FormatOptions) -> tuple[str, ...] | None:
    """The members that every element has or may have; None: they depend on the message."""
    if options.name == "text" and options.pattern is not None:
        try:
            return tuple(re.compile(options.pattern).groupindex)
        except re.error:
            return None
    if options.name == "csv":
        return options.columns or None
    return _MEMBERS.get(options.name)


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean …`` for a near miss, else the names there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(names[:MAX_NAMES])}{', …' * (len(names) > MAX_NAMES)}" if names else ""


def doubts(routes: Sequence[Route], streams: Mapping[str, InputStream]) -> list[Problem]:
    """What is probably not meant, but may be: the bridge runs all the same."""
    found: list[Problem] = []
    for number, route in enumerate(routes):
        stream = streams.get(route.stream)
        if stream is None:
            continue
        if not stream.queried:
            text = (
                f"{route.stream!r}: no query of the worker reads it; what is sent there comes to nothing, unless "
                "another worker reads it"
            )
            found.append(Problem(("routes", number, "stream"), text))
        found += _misnamed_captures(("routes", number, "topic"), route, stream)
    return found


def _misnamed_captures(place: tuple[str | int, ...], route: Route, stream: InputStream) -> Iterator[Problem]:
    """Captures that nothing takes, where a column that nothing names is called nearly the same."""
    names = [name for name in TopicTemplate.parse(route.topic).captures if name is not None]
    columns = [attribute.name for attribute in stream.attributes or ()]
    taken = "".join(map(str, sources(route)))
    free = {column.lower(): column for column in columns if column not in (*route.fields, *names)}
    for name in names:
        near = difflib.get_close_matches(name.lower(), free, n=1)
        if near and name not in columns and f"{{{name}}}" not in taken:
            column = free[near[0]]
            yield Problem(
                place,
                f"nothing takes the capture {{{name}}}. Is it meant for the column {column}? Call it so, or set fields."
                f'{column} = "{{{name}}}"',
            )
