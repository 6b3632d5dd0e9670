"""JMESPath expressions in conditions and sources. The only user of jmespath.

Two rules differ from the library's (docs/mapping.md, *Conditions and expressions*): where a number is needed, text that
looks like a number is that number; and what can't be evaluated, because a member is absent or has the wrong type, is
neither true nor false and gives no value.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jmespath
import jmespath.exceptions
from jmespath.functions import Functions, signature
from jmespath.visitor import Options, TreeInterpreter

from bridge.mapping.coercion import parse_text
from bridge.mapping.numbers import EXACT_DOUBLE, WrittenNumber
from bridge.streamql.syntax import AttributeType

JMESPATH = "jmespath:"
"""Prefix of an expression."""

MAX_EXPRESSION = 2000
"""Characters of an expression: the parser is recursive."""

Context = Mapping[str, Any]
"""Captures and metadata by name."""

Expression = Callable[[Context, Any], Any]
"""(context, element) -> the value; None if there is none."""

Condition = Callable[[Context, Any], bool | None]
"""(context, element) -> whether it is true; None if it can't be evaluated."""

Readers = Mapping[str, Callable[[Context], Any]]
"""By ``$name`` or ``{name}`` as written in an expression: gets the value from the context."""

_Node = Any  # the library's tree: a dict with type, value and children

# Outside texts, quoted names and literals: metadata, or a capture. JMESPath's own braces always contain a colon.
_NAME = re.compile(
    r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|(\$[A-Za-z_]+|\{\s*[A-Za-z_][A-Za-z0-9_]*\s*\})""", re.S
)
_MARK = "\0"  # begins the member name that stands for metadata or a capture while JMESPath parses
_MARKED = re.compile(r'"\\u0000([^"]*)"')
_ORDERS = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}


class _Unanswerable(Exception):
    """A member is absent, or has a type that the operation doesn't take."""


def compile_expression(text: str, readers: Readers | None = None) -> Expression:
    """Compile an expression, with or without the prefix ``jmespath:``.

    Args:
        text: the expression.
        readers: the metadata and captures that it may use.

    Raises:
        ValueError: it is invalid; the message says where.
    """
    return _compile(text, readers or {}, _Interpreter)


def compile_condition(text: str, readers: Readers | None = None) -> Condition:
    """Compile a condition.

    Raises:
        ValueError: it is invalid; the message says where.
    """
    evaluate = _compile(text, readers or {}, _ConditionInterpreter)

    def is_true(context: Context, element: Any) -> bool | None:
        found = evaluate(context, element)
        return None if found is None else not _is_false(found)

    return is_true


def names_in(text: str) -> set[str]:
    """The metadata and captures that an expression uses, as ``$name`` and ``{name}``."""
    return {_spelling(found[1]) for found in _NAME.finditer(text) if found[1]}


def _compile(text: str, readers: Readers, interpreter: type[_Interpreter]) -> Expression:
    tree = _parse(text.removeprefix(JMESPATH), readers)
    if names_in(text):
        # The interpreter holds the context, so each evaluation needs its own.
        return lambda context, element: _evaluate(interpreter(context, readers), tree, element)
    shared = interpreter({}, {})
    return lambda _context, element: _evaluate(shared, tree, element)


def _evaluate(interpreter: _Interpreter, tree: _Node, element: Any) -> Any:
    try:
        return interpreter.visit(tree, element)
    except (_Unanswerable, RecursionError):
        return None


def _parse(expression: str, readers: Readers) -> _Node:
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"a JMESPath expression has at most {MAX_EXPRESSION} characters")
    if "\\u0000" in expression:
        raise ValueError(f"{expression!r}: a name or text can't contain NUL")
    marked = _NAME.sub(lambda found: _marked(found, readers), expression)
    try:
        tree = jmespath.compile(marked).parsed
        _check(tree)
        return _with_names(tree)
    except (jmespath.exceptions.JMESPathError, RecursionError) as exc:
        hint = "; write numbers in backticks" if "(NUMBER)" in str(exc) else ""
        raise ValueError(f"{expression!r} is not a JMESPath expression: {_in_one_line(exc)}{hint}") from exc
    except ValueError as exc:
        raise ValueError(f"{expression!r}: {exc}") from None


def _marked(found: re.Match[str], readers: Readers) -> str:
    if not found[1]:
        return found[0]
    name = _spelling(found[1])
    if name not in readers:
        usable = f"there are: {', '.join(readers)}" if readers else "metadata and captures can't be used here"
        raise ValueError(f"unknown {'capture' if name[0] == '{' else 'metadata'} {name}; {usable}")
    return f'"\\u0000{name}"'


def _spelling(name: str) -> str:
    return "".join(name.split())


def _with_names(node: _Node) -> _Node:
    """The tree, in which metadata and captures are nodes of a type of their own."""
    if node["type"] == "field" and node["value"].startswith(_MARK):
        return {"type": "name", "value": node["value"][1:], "children": []}
    children = [_with_names(child) if isinstance(child, dict) else child for child in node["children"]]
    if node["type"] == "subexpression" and any(child["type"] == "name" for child in children[1:]):
        raise ValueError("metadata and captures can't follow a dot")
    return {**node, "children": children}


def _in_one_line(exc: BaseException) -> str:
    return _MARKED.sub(r"\1", " ".join(str(exc).split()))[:300]


# --- checks before the first message ----------------------------------------------------------------------


def _check(node: _Node) -> None:
    """Raise ValueError for what can never be evaluated."""
    if node["type"] == "function_expression":
        _check_call(node["value"], node["children"])
    if node["type"] == "comparator":
        for child in node["children"]:
            value = child.get("value")
            if child["type"] == "field" and value in ("true", "false"):
                raise ValueError(f"{value} is the name of a member here; write `{value}` in backticks")
    for child in node["children"]:
        if isinstance(child, dict):
            _check(child)


def _check_call(name: str, arguments: list[_Node]) -> None:
    table = _FUNCTIONS.FUNCTION_TABLE
    if name not in table:
        similar = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {similar[0]}()?" if similar else f"there are: {', '.join(sorted(table))}"
        raise ValueError(f"unknown function {name}(); {hint}")
    parameters = table[name]["signature"]
    is_variadic = bool(parameters and parameters[-1].get("variadic"))
    if len(arguments) < len(parameters) or (len(arguments) > len(parameters) and not is_variadic):
        expected = f"{'at least ' if is_variadic else ''}{len(parameters)}"
        raise ValueError(f"{name}() takes {expected} argument{'s' * (len(parameters) != 1)}, not {len(arguments)}")
    for number, (parameter, argument) in enumerate(zip(parameters, arguments, strict=False), start=1):
        if (parameter["types"] == ["expref"]) != (argument["type"] == "expref"):
            needs = "an expression, such as &member" if parameter["types"] == ["expref"] else "a value, without &"
            raise ValueError(f"{name}(): argument {number} must be {needs}")


# --- evaluation -------------------------------------------------------------------------------------------


def _number(value: Any) -> int | float | None:
    """The value if it is a number, or as a number column reads it from text; None if it isn't one."""
    if type(value) is str:
        value = parse_text(value.strip(), AttributeType.DOUBLE)
    return value if _is_number(value) and (isinstance(value, int) or math.isfinite(value)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _needed_number(value: Any) -> int | float:
    number = _number(value)
    if number is None:
        raise _Unanswerable
    return number


def _rounded(number: float, to_whole: Callable[[Any], int]) -> int | float:
    """The whole number; beyond 2**53 the number itself, because its double may have lost digits."""
    return to_whole(number) if isinstance(number, int) or abs(number) < EXACT_DOUBLE else number


def _ranks(values: list[Any]) -> list[Any]:
    """What to compare the values by: all are numbers, or all are texts that don't look like numbers."""
    numbers = [_number(value) for value in values]
    if None not in numbers:
        return numbers
    if all(type(value) is str for value in values) and all(number is None for number in numbers):
        return values
    raise _Unanswerable


def _equal(left: Any, right: Any) -> bool:
    for text, other in ((left, right), (right, left)):
        if type(text) is str and _is_number(other):
            return bool(_number(text) == other)
        if type(text) is str and type(other) is bool:
            return bool(parse_text(text.strip(), AttributeType.BOOL) is other)
        if type(text) is bool and _is_number(other):
            return False  # in Python True == 1
    return bool(left == right)


def _is_false(value: Any) -> bool:
    """Truth as JMESPath defines it: false, null and empty values are false; 0 is true."""
    return value is None or value is False or value in ("", [], {})


class _Functions(Functions):
    """JMESPath's functions, where those that need numbers also take text that looks like one."""

    def call_function(self, function_name: str, resolved_args: Iterable[Any]) -> Any:
        try:
            return super().call_function(function_name, resolved_args)
        # Some functions raise Python's errors for values that they don't expect.
        except (jmespath.exceptions.JMESPathError, ArithmeticError, TypeError, ValueError) as exc:
            raise _Unanswerable from exc

    @signature({"types": []})
    def _func_abs(self, value: Any) -> Any:
        return abs(_needed_number(value))

    @signature({"types": []})
    def _func_ceil(self, value: Any) -> Any:
        return _rounded(_needed_number(value), math.ceil)

    @signature({"types": []})
    def _func_floor(self, value: Any) -> Any:
        return _rounded(_needed_number(value), math.floor)

    @signature({"types": []})
    def _func_to_string(self, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):  # JSON has no text for it
            raise _Unanswerable
        return repr(value) if type(value) is WrittenNumber else super()._func_to_string(value)  # type: ignore[misc]

    @signature({"types": []})
    def _func_to_number(self, value: Any) -> Any:
        return _number(value)

    @signature({"types": ["array"]})
    def _func_sum(self, values: list[Any]) -> Any:
        return sum(map(_needed_number, values))

    @signature({"types": ["array"]})
    def _func_avg(self, values: list[Any]) -> Any:
        return sum(map(_needed_number, values)) / len(values) if values else None

    @signature({"types": ["array"]})
    def _func_max(self, values: list[Any]) -> Any:
        return _extreme(max, values, _ranks(values))

    @signature({"types": ["array"]})
    def _func_min(self, values: list[Any]) -> Any:
        return _extreme(min, values, _ranks(values))

    @signature({"types": ["array"]})
    def _func_sort(self, values: list[Any]) -> Any:
        return _sorted(values, _ranks(values))

    @signature({"types": ["array"]}, {"types": ["expref"]})
    def _func_max_by(self, values: list[Any], key: Any) -> Any:
        return _extreme(max, values, _keys(values, key))

    @signature({"types": ["array"]}, {"types": ["expref"]})
    def _func_min_by(self, values: list[Any], key: Any) -> Any:
        return _extreme(min, values, _keys(values, key))

    @signature({"types": ["array"]}, {"types": ["expref"]})
    def _func_sort_by(self, values: list[Any], key: Any) -> Any:
        return _sorted(values, _keys(values, key))

    @signature({"types": ["array", "string"]}, {"types": []})
    def _func_contains(self, subject: Any, wanted: Any) -> bool:
        if type(subject) is str:
            if type(wanted) is not str:
                raise _Unanswerable
            return wanted in subject
        if any(_equal(value, wanted) for value in subject):
            return True
        if wanted is None:
            raise _Unanswerable
        return False


def _keys(values: list[Any], key: Any) -> list[Any]:
    return _ranks([key.visit(key.expression, value) for value in values])


def _extreme(choose: Callable[..., int], values: list[Any], ranks: list[Any]) -> Any:
    return values[choose(range(len(values)), key=ranks.__getitem__)] if values else None


def _sorted(values: list[Any], ranks: list[Any]) -> list[Any]:
    return [values[at] for at in sorted(range(len(values)), key=ranks.__getitem__)]


_FUNCTIONS = _Functions()
_OPTIONS = Options(custom_functions=_FUNCTIONS)


class _Interpreter(TreeInterpreter):
    """Evaluates a tree. What can't be evaluated decides neither ``!`` nor ``||`` nor ``&&``."""

    def __init__(self, context: Context, readers: Readers) -> None:
        super().__init__(_OPTIONS)
        self._context = context
        self._readers = readers

    def visit_name(self, node: _Node, _value: Any) -> Any:
        return self._readers[node["value"]](self._context)

    def visit_comparator(self, node: _Node, value: Any) -> Any:
        left, right = (self.visit(child, value) for child in node["children"])
        if node["value"] in _ORDERS:
            return _ORDERS[node["value"]](*_ranks([left, right]))
        is_equal = _equal(left, right)
        if node["value"] == "ne":
            return not is_equal
        return is_equal or self._unequal(node, left, right)

    def _unequal(self, _node: _Node, _left: Any, _right: Any) -> bool | None:
        """The result of ``==`` for two values that aren't equal."""
        return False

    def visit_or_expression(self, node: _Node, value: Any) -> Any:
        left, right = node["children"]
        try:
            found = self.visit(left, value)
        except _Unanswerable:
            found = self.visit(right, value)
            if _is_false(found):
                raise
            return found
        return self.visit(right, value) if _is_false(found) else found

    def visit_and_expression(self, node: _Node, value: Any) -> Any:
        left, right = node["children"]
        try:
            found = self.visit(left, value)
        except _Unanswerable:
            found = self.visit(right, value)
            if not _is_false(found):
                raise
            return found
        return found if _is_false(found) else self.visit(right, value)

    def visit_filter_projection(self, node: _Node, value: Any) -> Any:
        source, projected, condition = node["children"]
        base = self.visit(source, value)
        if not isinstance(base, list):
            return None
        taken = [self.visit(projected, element) for element in base if not _is_false(self._or_null(condition, element))]
        return [found for found in taken if found is not None]

    def visit_function_expression(self, node: _Node, value: Any) -> Any:
        visit = self._or_null if node["value"] == "not_null" else self.visit
        return _FUNCTIONS.call_function(node["value"], [visit(child, value) for child in node["children"]])

    def _or_null(self, node: _Node, value: Any) -> Any:
        try:
            return self.visit(node, value)
        except _Unanswerable:
            return None


class _ConditionInterpreter(_Interpreter):
    """Evaluates a condition: a comparison that is false only because a member is absent gives null, not false.

    So a misspelt member shows in the count of conditions that can't be evaluated.
    """

    def _unequal(self, node: _Node, left: Any, right: Any) -> bool | None:
        is_absent = left is None or right is None
        return None if is_absent and not any(map(_is_null, node["children"])) else False


def _is_null(node: _Node) -> bool:
    """Whether the node is null as written, also without backticks: then it is an absent member of that name."""
    return node["type"] in ("literal", "field") and node["value"] in (None, "null")
