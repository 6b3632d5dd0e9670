"""Checks routes against the streams that the worker reads, before the first message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bridge.mapping.coercion import COERCIONS
from bridge.mapping.each import compile_each, count_names
from bridge.mapping.encoding import compile_encoding
from bridge.mapping.expressions import compile_condition
from bridge.mapping.extras import compile_extras
from bridge.mapping.fields import (
    KEY,
    FieldSpec,
    Scalar,
    compile_column,
    compile_row_id,
    key_position,
    named_in,
    readers,
)
from bridge.mapping.formats import FormatOptions, check_options, compile_decoder
from bridge.mapping.reports import compared_columns, compile_report
from bridge.mapping.route import Route, sources
from bridge.mapping.sparkplug import MEMBERS, require_protobuf
from bridge.mapping.topics import FilterTree, TopicTemplate
from bridge.mapping.unmappable import Unmappable
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import Attribute, AttributeType

MAX_NAMES = 15
"""Names listed where none is similar to the unknown one."""

# The formats whose decoded objects always have the same members.
_MEMBERS: dict[str, tuple[str, ...]] = {
    "scalar": ("value",),
    "raw": ("payload",),
    "influx": ("measurement", "tags", "fields", "time"),
    "sparkplug": MEMBERS,
}


_OPTIONS = ("columns", "delimiter", "compression", "encoding", "nan", "decimal", "null_values", "embedded_json")
# The formats that decode every text.
_TAKE_ANY_TEXT = ("scalar", "raw")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with a route. ``location`` is the path of its setting, such as ``("routes", 0, "topic")``."""

    location: tuple[str | int, ...]
    text: str
    in_definition: bool = False
    """Whether the worker's definition may be what is wrong."""

    def __str__(self) -> str:
        setting = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.location).lstrip(".")
        return f"{setting}: {self.text}"


def check(routes: Sequence[Route], streams: Mapping[str, InputStream]) -> list[Problem]:
    """The problems with the routes: each keeps the bridge from running."""
    problems: list[Problem] = []
    earlier = FilterTree()  # routes whose messages go to no later route
    for number, route in enumerate(routes):
        location = ("routes", number)
        captures: frozenset[str] = frozenset()
        try:
            template = TopicTemplate.parse(route.topic)
        except ValueError as exc:
            problems.append(Problem((*location, "topic"), f"{route.topic!r}: {exc}"))
        else:
            captures = frozenset(name for name in template.captures if name is not None)
            problems += _check_reachable(location, template, earlier, routes)
            passes_on = "next" in (route.on_unreadable, route.on_absent)
            if route.match == "first" and route.when is None and not passes_on:
                # Levels without the group: shared or not, a topic goes to the first route that matches it.
                earlier.add(template.levels, number)
        problems += _check_payload(location, route, captures)
        stream = streams.get(route.stream)
        at = (*location, "stream")
        if stream is None:
            hint = suggestion(route.stream, streams)
            problems.append(Problem(at, f"{route.stream!r}: the worker reads no such stream{hint}", True))
        elif stream.attributes is None:
            problems.append(Problem(at, f"{route.stream!r}: the worker declares no columns for it", True))
        elif not stream.read_by_worker:
            problems.append(Problem(at, f"{route.stream!r}: the worker writes to it but doesn't read it", True))
        else:
            problems += _check_encoding(at, route, stream)
            problems += _check_columns(location, route, stream, captures)
    return problems


def _check_encoding(location: tuple[str | int, ...], route: Route, stream: InputStream) -> list[Problem]:
    """Whether the bridge can send what the stream's sources take."""
    try:
        compile_encoding(stream)
    except ValueError as exc:
        return [Problem(location, f"{route.stream!r}: {exc}")]
    return []


def _check_reachable(
    location: tuple[str | int, ...], template: TopicTemplate, earlier: FilterTree, routes: Sequence[Route]
) -> list[Problem]:
    """Whether an earlier route takes every message that matches the template."""
    covering = earlier.covering(template.levels)
    if not covering:
        return []
    number = covering[0]
    other = TopicTemplate.parse(routes[number].topic)
    which = "the same topics" if other.levels == template.levels else "all of its topics"
    text = (
        f"{template.text!r}: routes[{number}] ({other.text!r}) takes {which}, so this route never gets a "
        'message; move it before that one, or set match = "all" there'
    )
    return [Problem((*location, "topic"), text)]


def _check_payload(location: tuple[str | int, ...], route: Route, captures: frozenset[str]) -> list[Problem]:
    problems = []

    def attempt(key: str, compile_: Callable[[], object]) -> None:
        try:
            compile_()
        except ValueError as exc:
            problems.append(Problem((*location, key), str(exc)))

    def attempt_options(compile_: Callable[[FormatOptions], object]) -> None:
        try:
            compile_(route.format)
        except ValueError as exc:
            problems.append(Problem((*location, _format_setting(route.format, str(exc))), str(exc)))

    if route.format.name == "sparkplug":
        attempt("format", require_protobuf)
        attempt_options(check_options)
        if route.topic.removeprefix("$share/").split("/", 1)[0] != "spBv1.0" and "/spBv1.0/" not in route.topic:
            problems.append(Problem((*location, "topic"), f"{route.topic!r}: Sparkplug topics start with spBv1.0/"))
    else:
        attempt_options(compile_decoder)
    attempt("each", lambda: compile_each(route.each))
    if route.on_absent == "next" and route.each is None:
        problems.append(Problem((*location, "on_absent"), "this route has no each that could be absent: remove it"))
    for key in ("fields", "event_time", "key", "device", "properties"):
        only = Route(route.topic, route.stream, each=route.each, **{key: getattr(route, key)})
        attempt(key, partial(_check_keys, only))
    if route.when is not None:
        when = route.when
        attempt("when", lambda: compile_condition(when, readers(captures)))
    attempt("id", lambda: compile_row_id(route.id, outbox_name=""))  # checked even if no field uses $id
    return problems


def _check_keys(route: Route) -> None:
    """Raise ValueError if ``each`` doesn't have the names that sources use as ``$key``."""
    try:
        count = count_names(route.each)
    except ValueError:  # reported where each is compiled
        return
    for source in sources(route):
        for name in named_in(source):
            head, _, position = name.partition(".")
            if head == KEY and count <= max(0, key_position(name, position)):
                raise ValueError(f'{name} is not the name of a member: each has {count} steps *, as in each = "*"')


def _format_setting(options: FormatOptions, problem: str) -> str:
    """The setting that a problem with the format refers to."""
    defaults = FormatOptions()
    # A problem with a pattern quotes it instead of naming the setting; the others are named in the text.
    for key in ("pattern", *_OPTIONS):
        if getattr(options, key) != getattr(defaults, key) and (key == "pattern" or key in problem):
            return key
    return "format"


def _check_columns(
    location: tuple[str | int, ...], route: Route, stream: InputStream, captures: frozenset[str]
) -> list[Problem]:
    problems = []
    attributes = {attribute.name: attribute for attribute in stream.attributes or ()}
    from_topic = {name: f"{{{name}}}" for name in attributes if name in captures}
    for name, value in {**from_topic, **route.fields}.items():
        at = (*location, "fields", name) if name in route.fields else (*location, "topic")
        attribute = attributes.get(name)
        if attribute is None:
            hint = suggestion(name, attributes)
            problems.append(Problem(at, f"stream {route.stream} has no such column{hint}", True))
            continue
        try:
            _check_field(value, attribute, route, captures)
        except Unmappable as exc:
            problems.append(Problem(at, f"this value never fits the column: {exc}"))
        except ValueError as exc:
            problems.append(Problem(at, str(exc)))
    problems += _check_report(location, route, stream, captures)
    problems += _check_extras(location, route, captures)
    # With `each`, rows are made of inner elements, whose members depend on the message.
    members = None if route.each is not None else _members(route.format)
    if members is not None and stream.fail_on_missing:
        for name in attributes:
            if name not in (*route.fields, *captures, *members):
                text = (
                    f"column {name} never gets a value: format {route.format.name!r} gives no such member"
                    f"{suggestion(name, members)}. Set its source in fields"
                )
                problems.append(Problem(location, text))
    return problems


def _check_report(
    location: tuple[str | int, ...], route: Route, stream: InputStream, captures: frozenset[str]
) -> list[Problem]:
    if route.every is None:
        keys = [key for key in ("change", "device") if getattr(route, key)]
        return [Problem((*location, key), f'{key} needs every, such as every = "10s"') for key in keys]
    columns = stream.attributes or ()
    names = [column.name for column in columns]
    problems = [
        Problem((*location, "change", name), f"stream {route.stream} has no such column{suggestion(name, names)}", True)
        for name in (route.change if isinstance(route.change, Mapping) else ())
        if name not in names
    ]
    try:
        compile_report(0, route, columns, captures)
    except ValueError as exc:
        problems.append(Problem((*location, "device"), str(exc)))
    if not problems and not compared_columns(route, columns, captures):
        problems.append(Problem((*location, "every"), "there is no column to compare: name them in change"))
    return problems


def _check_extras(location: tuple[str | int, ...], route: Route, captures: frozenset[str]) -> list[Problem]:
    # Each extra is compiled alone, to find the problems of all.
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
            problems.append(Problem((*location, *at), str(exc).removeprefix(f"{'.'.join(at)}: ")))
    return problems


def _check_field(value: Scalar | FieldSpec, attribute: Attribute, route: Route, captures: frozenset[str]) -> None:
    """Compile the field, and coerce every value of it that doesn't depend on the message.

    Raises:
        ValueError: the field is invalid.
        Unmappable: a value never fits the column.
    """
    field = compile_column(value, captures=captures, column_type=attribute.type)
    coerce = COERCIONS[route.types][attribute.type]
    if isinstance(value, FieldSpec):
        for constant in _constants(value):
            coerce(constant)
    elif not isinstance(value, str) or value.startswith("="):
        coerce(field({}, {}))
    elif value in ("$qos", "$retain"):
        coerce(1 if value == "$qos" else True)


def _constants(spec: FieldSpec) -> Iterator[Scalar]:
    """What the column gets whatever the message is."""
    # Mapped values that are scaled afterwards aren't what the column gets.
    if spec.map is not None and spec.scale is None:
        yield from spec.map.values()
    if isinstance(spec.default, FieldSpec):
        yield from _constants(spec.default)
    elif spec.default is not None:
        yield spec.default


def _members(options: FormatOptions) -> tuple[str, ...] | None:
    """The members that an element can have; None if they depend on the message."""
    if options.name == "text" and options.pattern is not None:
        try:
            # Python's syntax for named groups is RE2's, and this needs no optional library.
            return tuple(re.compile(options.pattern).groupindex)
        except re.error:  # invalid, which is reported elsewhere, or valid only in RE2
            return None
    if options.name == "csv":
        return options.columns or None
    return _MEMBERS.get(options.name)


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` if a known name is similar, else the list of known names."""
    names = list(known)
    similar = difflib.get_close_matches(name, names, n=1)
    if similar:
        return f"; did you mean {similar[0]!r}?"
    return f"; there are: {', '.join(names[:MAX_NAMES])}{', …' * (len(names) > MAX_NAMES)}" if names else ""


def find_warnings(routes: Sequence[Route], streams: Mapping[str, InputStream]) -> list[Problem]:
    """Probable mistakes in valid routes: the bridge runs with them."""
    found: list[Problem] = []
    earlier = FilterTree()
    for number, route in enumerate(routes):
        found += _never_readable(number, routes, earlier)
        earlier.add(TopicTemplate.parse(route.topic).levels, number)
        stream = streams.get(route.stream)
        if stream is None:
            continue
        if not stream.queried:
            text = (
                f"{route.stream!r}: no query of the worker reads it; rows sent there have no effect unless another "
                "worker reads them"
            )
            found.append(Problem(("routes", number, "stream"), text))
        found += _misnamed_captures(("routes", number, "topic"), route, stream)
        found += _dropped_objects(("routes", number, "stream"), route, stream)
    return found


def _never_readable(number: int, routes: Sequence[Route], earlier: FilterTree) -> Iterator[Problem]:
    """An earlier route of another format for all of the route's topics: it makes dead letters of what it can't read."""
    route = routes[number]
    for other in earlier.covering(TopicTemplate.parse(route.topic).levels):
        name = routes[other].format.name
        if routes[other].format != route.format and name not in _TAKE_ANY_TEXT:
            text = (
                f"this route never gets what routes[{other}] can't read as {name}: that is a dead letter there. Put "
                f"the route with format {route.format.name!r} first, if it has a condition (when) that only its own "
                "messages meet, or use another topic"
            )
            yield Problem(("routes", number, "format"), text)
            return


def _dropped_objects(location: tuple[str | int, ...], route: Route, stream: InputStream) -> Iterator[Problem]:
    """Object columns of flat rows for a source that names the engine's JSON mapper (gdn-api.md F.6)."""
    for mapping in stream.mappings:
        is_flat = mapping.type == "json" and not any(key.lower().startswith("attributes") for key, _ in mapping.options)
        names = [column.name for column in mapping.columns if column.type is AttributeType.OBJECT]
        if is_flat and names:
            text = (
                f"{route.stream!r}: with map.type = 'json' the engine drops a row whose object column "
                f"({', '.join(names)}) holds objects, or arrays of objects; with map.attributes it takes them, as text"
            )
            yield Problem(location, text)


def _misnamed_captures(location: tuple[str | int, ...], route: Route, stream: InputStream) -> Iterator[Problem]:
    """Unused captures with nearly the name of a column that has no source in the route."""
    names = [name for name in TopicTemplate.parse(route.topic).captures if name is not None]
    columns = [attribute.name for attribute in stream.attributes or ()]
    used = "".join(map(str, sources(route)))
    unfilled = {column.lower(): column for column in columns if column not in (*route.fields, *names)}
    for name in names:
        similar = difflib.get_close_matches(name.lower(), unfilled, n=1)
        if similar and name not in columns and f"{{{name}}}" not in used:
            column = unfilled[similar[0]]
            yield Problem(
                location,
                f"the capture {{{name}}} is not used. Is it meant for the column {column}? Rename it to {{{column}}}, "
                f'or set fields.{column} = "{{{name}}}"',
            )
