"""Executes a stream worker: passes the rows of its streams through its queries to tables and further streams.

Constructs that can't be executed are refused by name when the worker is created. Numbers behave as in GDN's engine
(Java): dividing whole numbers gives a whole number, arithmetic with null gives null, comparing with null is false.
"""

from __future__ import annotations

import inspect
import math
import operator as operators
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bridge.local.javascript import ScriptError, Scripts
from bridge.local.messages import READ, events
from bridge.streamql.streams import input_streams
from bridge.streamql.syntax import (
    AttributeRef,
    AttributeType,
    Binary,
    Call,
    Expression,
    Literal,
    OtherDefinition,
    Place,
    Query,
    StreamDefinition,
    Unary,
    Worker,
)

Event = dict[str, Any]
EvaluateEvent = Callable[[Event], Any]

MAX_HOPS = 20
"""Streams that a row may pass through: a worker that feeds its own input must not run forever."""


class NotExecutable(Exception):
    """The worker uses something that the local GDN can't execute, or that doesn't exist."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class EventError(Exception):
    """An event can't be processed; the engine drops it."""


def unsupported(construct: str, place: Place) -> NotExecutable:
    """The refusal of a construct that GDN supports and the local GDN doesn't."""
    return NotExecutable(f"the local GDN can't execute {construct}; GDN itself may", place)


class Executor:
    """A compiled worker.

    Args:
        worker: the parsed definition.
        insert: inserts a document into a table's collection.

    Raises:
        NotExecutable: the worker can't be executed.
    """

    def __init__(self, worker: Worker, insert: Callable[[str, Event], None]) -> None:
        _check_executable(worker)
        self._insert = insert
        self._tables = worker.tables
        self._inputs = streams = input_streams(worker)
        for stream in streams.values():
            for mapping in stream.mappings:
                if mapping.type not in READ:
                    raise unsupported(f"map.type = '{mapping.type}'", stream.place)
        self._streams = {
            name: [(a.name, a.type) for a in stream.attributes or ()]
            for name, stream in streams.items()
            if stream.read_by_worker
        }
        self._declared: dict[str, StreamDefinition] = worker.streams
        self._optional = {name for name, stream in streams.items() if not stream.fail_on_missing}
        # A source that reads other GDN streams passes their rows on under its own name.
        self._aliases: dict[str, list[str]] = {name: [] for name in self._streams}
        for definition in worker.streams.values():
            for name, stream in input_streams(replace(worker, definitions=(definition,))).items():
                if stream.read_by_worker:
                    self._aliases[name].append(definition.name)
        self._functions = worker.functions
        try:
            self._scripts = Scripts(worker.functions.values())
        except ScriptError as exc:
            raise NotExecutable(str(exc), next(iter(worker.functions.values())).place) from exc
        self._queries: dict[str, list[Callable[[Event, int], None]]] = {}
        for query in worker.queries:
            if not isinstance(query, Query):
                raise unsupported(f"{query.construct} in a query", query.place)
            self._queries.setdefault(query.source, []).append(self._compile(query))

    def reads(self, stream: str) -> bool:
        """Whether the worker reads the GDN stream with this name, given without prefix."""
        return stream in self._streams

    def events(self, stream: str, payload: bytes) -> list[object]:
        """The events in a message of a GDN stream.

        Raises:
            ValueError: the message isn't in the form that the stream's source takes.
        """
        return events(payload, self._inputs[stream])

    def accept(self, stream: str, event: object) -> bool:
        """Process one event of a GDN stream.

        Returns:
            False if the event was dropped because an attribute is missing (gdn-api.md F.6).

        Raises:
            EventError: a type doesn't fit, or a function failed.
        """
        if not isinstance(event, dict):
            raise EventError("the event is not an object")
        row: Event = {}
        for name, kind in self._streams[stream]:
            value = event.get(name)
            if value is None and stream not in self._optional:
                return False
            row[name] = _typed(value, kind, name)
        for name in self._aliases[stream]:
            self._emit(name, row, 0)
        return True

    def _emit(self, stream: str, row: Event, hops: int) -> None:
        if hops > MAX_HOPS:
            raise EventError(f"stream {stream} feeds itself")
        for run in self._queries.get(stream, ()):
            run(row, hops)

    def _compile(self, query: Query) -> Callable[[Event, int], None]:
        source = self._declared.get(query.source)
        if source is None or source.attributes is None:
            what = (
                "a query on a table"
                if query.source in self._tables
                else f"a query on {query.source}, which is not a stream"
            )
            raise unsupported(what, query.place)
        known = {a.name: a.type for a in source.attributes}
        filters = [self._expression(f, known, query.source) for f in query.filters]
        selection: list[tuple[str, EvaluateEvent]]
        if query.selection is None:
            selection = [(name, operators.itemgetter(name)) for name in known]
        else:
            selection = [(s.name, self._expression(s.expression, known, query.source)) for s in query.selection]
        table, stream = self._tables.get(query.target), self._declared.get(query.target)
        target = table or stream
        if target is None or target.attributes is None:
            raise NotExecutable(f"there is no table or stream {query.target} to insert into", query.place)
        wanted = {a.name: a.type for a in target.attributes}
        names = [name for name, _ in selection]
        if set(names) != set(wanted) or len(names) != len(wanted):
            raise NotExecutable(
                f"the query selects ({', '.join(names)}), but {query.target} has ({', '.join(wanted)})", query.place
            )

        def run(row: Event, hops: int) -> None:
            if not all(f(row) is True for f in filters):
                return
            values = {name: evaluate(row) for name, evaluate in selection}
            out = {name: _typed(values[name], kind, name) for name, kind in wanted.items()}
            if table is not None:
                self._insert(table.collection, out)
            else:
                self._emit(query.target, out, hops + 1)

        return run

    # --- expressions --------------------------------------------------------------------------------------

    def _expression(self, node: Expression, known: Mapping[str, AttributeType], source: str) -> EvaluateEvent:
        if isinstance(node, Literal):
            value = node.value
            return lambda _row: value
        if isinstance(node, AttributeRef):
            if node.name not in known or node.source not in (None, source):
                raise NotExecutable(f"{source} has no attribute {node.name}", node.place)
            name = node.name
            return lambda row: row[name]
        if isinstance(node, Unary):
            return _unary(node.operator, self._expression(node.operand, known, source))
        if isinstance(node, Binary):
            left = self._expression(node.left, known, source)
            right = self._expression(node.right, known, source)
            return _binary(node.operator, left, right)
        arguments = [self._expression(a, known, source) for a in node.arguments]
        return self._call(node, arguments)

    def _call(self, node: Call, arguments: list[EvaluateEvent]) -> EvaluateEvent:
        function = self._functions.get(node.name) if node.namespace is None else None
        if function is not None:
            scripts, name, returns = self._scripts, node.name, function.returns

            def script(row: Event) -> Any:
                try:
                    value = scripts.call(name, [a(row) for a in arguments])
                except ScriptError as exc:
                    raise EventError(str(exc)) from exc
                if isinstance(value, int) and not isinstance(value, bool):
                    value = float(value)  # JavaScript's numbers are doubles (gdn-api.md F.6)
                return _typed(value, returns, name)

            return script
        full = f"{node.namespace}:{node.name}" if node.namespace else node.name
        if full in ("convert", "cast"):
            if len(node.arguments) != 2 or not isinstance(node.arguments[1], Literal):
                raise NotExecutable(f"{full} takes a value and the name of a type", node.place)
            try:
                kind = AttributeType(str(node.arguments[1].value).lower())
            except ValueError:
                raise NotExecutable(f"{node.arguments[1].value!r} is not a type", node.place) from None
            return lambda row: _converted(arguments[0](row), kind)
        builtin = _BUILTINS.get(full)
        if builtin is None:
            raise unsupported(f"the function {full}", node.place)
        try:
            inspect.signature(builtin).bind(*arguments)
        except TypeError:
            raise NotExecutable(f"{full} doesn't take {len(arguments)} arguments", node.place) from None
        return lambda row: builtin(*[a(row) for a in arguments])


def _check_executable(worker: Worker) -> None:
    """Refuse definitions that can't be executed.

    Raises:
        NotExecutable: there is one.
    """
    for definition in worker.definitions:
        if isinstance(definition, OtherDefinition):
            raise unsupported(definition.construct, definition.place)
        if isinstance(definition, StreamDefinition) and definition.kind in ("source", "sink"):
            kind = definition.properties.get("type", "stream")
            if kind.lower() != "stream":
                raise unsupported(f"a {definition.kind} of type {kind}", definition.place)
    for function in worker.functions.values():
        if function.language != "javascript":
            raise unsupported(f"a function in {function.language}", function.place)


def _unary(operator: str, operand: EvaluateEvent) -> EvaluateEvent:
    if operator == "is null":
        return lambda row: operand(row) is None
    if operator == "not":
        return lambda row: operand(row) is not True
    return lambda row: None if (value := operand(row)) is None else -_number(value)


def _binary(operator: str, left: EvaluateEvent, right: EvaluateEvent) -> EvaluateEvent:
    if operator == "and":
        return lambda row: left(row) is True and right(row) is True
    if operator == "or":
        return lambda row: left(row) is True or right(row) is True
    if operator in _COMPARISONS:
        compare = _COMPARISONS[operator]

        def comparison(row: Event) -> bool:
            a, b = left(row), right(row)
            if a is None or b is None:
                return False
            if _kind(a) is not _kind(b):
                raise EventError(f"{a!r} can't be compared with {b!r}")
            return bool(compare(a, b))

        return comparison
    calculate = _ARITHMETIC[operator]

    def arithmetic(row: Event) -> Any:
        a, b = left(row), right(row)
        if a is None or b is None:
            return None
        try:
            return calculate(_number(a), _number(b))
        except (ZeroDivisionError, OverflowError) as exc:
            raise EventError(str(exc)) from exc

    return arithmetic


def _kind(value: Any) -> type:
    """The kind of a value for comparisons: all numbers are of one kind."""
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EventError(f"{value!r} is not a number")
    return value


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))  # towards zero, as Java
    return a / b


def _remainder(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a - b * _divide(a, b)
    return math.fmod(a, b)


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _remainder,
}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_BUILTINS: dict[str, Callable[..., Any]] = {
    "ifThenElse": lambda condition, yes, no: yes if condition is True else no,
    "coalesce": lambda *values: next((v for v in values if v is not None), None),
    "default": lambda value, otherwise: otherwise if value is None else value,
    "str:concat": lambda *values: "".join(_text(v) for v in values if v is not None),
    "str:upper": lambda text: None if text is None else _text(text).upper(),
    "str:lower": lambda text: None if text is None else _text(text).lower(),
    "str:length": lambda text: None if text is None else len(_text(text)),
    "math:abs": lambda value: None if value is None else abs(_number(value)),
    "math:round": lambda value: None if value is None else math.floor(_number(value) + 0.5),
    "math:floor": lambda value: None if value is None else float(math.floor(_number(value))),
    "math:ceil": lambda value: None if value is None else float(math.ceil(_number(value))),
    "currentTimeMillis": lambda: int(time.time() * 1000),
    "time:timestampInMilliseconds": lambda: int(time.time() * 1000),
}


def _converted(value: Any, kind: AttributeType) -> Any:
    """convert(value, 'type'): null if the value can't be parsed as the type."""
    if value is None:
        return None
    try:
        if kind in (AttributeType.INT, AttributeType.LONG):
            return int(float(value)) if not isinstance(value, int) else int(value)
        if kind in (AttributeType.FLOAT, AttributeType.DOUBLE):
            return float(value)
        if kind is AttributeType.BOOL:
            return value if isinstance(value, bool) else str(value).lower() == "true"
    except (TypeError, ValueError, OverflowError):
        return None
    return _text(value) if kind is AttributeType.STRING else value


_BITS = {AttributeType.INT: 31, AttributeType.LONG: 63}


def _typed(value: Any, kind: AttributeType, name: str) -> Any:
    """The value as the attribute's type; null stays null.

    Raises:
        EventError: the value doesn't fit.
    """
    if value is None or kind is AttributeType.OBJECT:
        return value
    if kind is AttributeType.STRING:
        # Numbers become text (gdn-api.md F.6).
        return value if isinstance(value, str) else _text(value)
    if kind is AttributeType.BOOL:
        if isinstance(value, bool):
            return value
    elif not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
        if kind in (AttributeType.FLOAT, AttributeType.DOUBLE):
            return float(value)
        if float(value).is_integer() and -(2 ** _BITS[kind]) <= value < 2 ** _BITS[kind]:
            return int(value)
    raise EventError(f"{value!r} doesn't fit {name} {kind.value}")
