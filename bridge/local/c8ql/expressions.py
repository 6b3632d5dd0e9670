"""Expressions: parsed once, evaluated for each document."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bridge.local.c8ql.token_reader import UNSUPPORTED, C8QLError, QueryTokenReader
from bridge.local.c8ql.values import calculate, compare, contains, is_true, member

Bindings = dict[str, Any]
"""Variables by name."""
Evaluate = Callable[[Bindings], Any]
Collections = Callable[[str], list[dict[str, Any]]]

MAX_DEPTH = 50
_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None}
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_LEVELS = [level.split() for level in ("OR ||", "AND &&", "== != <= >= < > IN", "+ -", "* / %")]
"""Binary operators by precedence, lowest first; all are left-associative."""
SUM = 3
"""The precedence level of + and -, above IN and the other comparisons."""


class Expressions:
    """Parses expressions at a cursor's position.

    Args:
        cursor: the reader of the query's tokens.
        bind_vars: as in the request; those not used remain in ``unused``.
        collections: returns a collection's documents.
    """

    def __init__(self, cursor: QueryTokenReader, bind_vars: Mapping[str, Any], collections: Collections) -> None:
        self.names: set[str] = set()
        """The variables in scope."""
        self.unused = dict(bind_vars)
        self._cursor = cursor
        self._bind_vars = bind_vars
        self._collections = collections
        self._depth = 0

    def read(self, level: int = 0) -> Evaluate:
        """Parse an expression with operators of this precedence or higher.

        Raises:
            C8QLError: there is no expression, or it isn't supported.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._cursor.error("the query is nested too deeply")
        value = self._chain(level)
        self._depth -= 1
        if level == 0 and self._cursor.take("="):
            raise self._cursor.error("equality is written ==")
        if level == 0 and self._cursor.word in ("LIKE", "?", "NOT"):
            raise self._cursor.unsupported(self._cursor.word)
        return value

    def object(self) -> Evaluate:
        """Parse an object whose opening brace has been taken."""
        members: list[tuple[str, Evaluate]] = []
        for _ in self._cursor.items("}"):
            kind, text, start = self._cursor.next()
            if kind not in ("name", "string"):
                raise self._cursor.error("the name of an attribute was expected", start)
            self._cursor.expect(":")
            members.append((text[1:-1] if kind == "string" else text.strip("`"), self.read()))
        return lambda scope: {key: value(scope) for key, value in members}

    def collection(self) -> list[dict[str, Any]]:
        """The documents of the collection that the next token names or binds."""
        if self._cursor.peek().text.startswith("@@"):
            return self._collections(str(self.bound(self._cursor.next().text)))
        return self._collections(self._cursor.expect_name())

    def bound(self, parameter: str) -> Any:
        """The value of a bind parameter, given with its @."""
        name = parameter[1:]
        if name not in self._bind_vars:
            raise C8QLError(f"no value specified for declared bind parameter '{name}'", number=1551)
        self.unused.pop(name, None)
        return self._bind_vars[name]

    def _chain(self, level: int) -> Evaluate:
        if level == len(_LEVELS):
            return self._unary()
        left = self._chain(level + 1)
        while operator := self._cursor.take(*_LEVELS[level]):
            left = _binary(operator, left, self._chain(level + 1))
        return left

    def _unary(self) -> Evaluate:
        prefixes: list[str] = []
        while prefix := self._cursor.take("!", "NOT", "-"):
            prefixes.append(prefix)
        value = self._primary()
        while subscript := self._cursor.take(".", "["):
            if subscript == ".":
                key = _constant(self._cursor.expect_name())
            else:
                key = self.read()
                self._cursor.expect("]")
            value = _applied(member, value, key)
        for prefix in reversed(prefixes):
            value = _binary("-", _constant(0), value) if prefix == "-" else _negated(value)
        return value

    def _primary(self) -> Evaluate:
        kind, text, start = self._cursor.next()
        if kind == "number":
            return _constant(int(text) if text.isdecimal() else float(text))
        if kind == "string":
            return _constant(re.sub(r"\\(.)", lambda m: _ESCAPED.get(m[1], m[1]), text[1:-1]))
        if kind == "bind":
            if text.startswith("@@"):
                raise self._cursor.error("a collection is only allowed after IN", start)
            return _constant(self.bound(text))
        if kind == "name":
            return self._named(text, start)
        return self._bracketed(text, start)

    def _bracketed(self, text: str, start: int) -> Evaluate:
        """A parenthesis, an array or an object, whose opening symbol has been taken."""
        if text == "(":
            value = self.read()
            self._cursor.expect(")")
            return value
        if text == "[":
            items = [self.read() for _ in self._cursor.items("]")]
            return lambda scope: [item(scope) for item in items]
        if text == "{":
            return self.object()
        raise self._cursor.error(f"unexpected {text or 'end of the query'!r}", start)

    def _named(self, text: str, start: int) -> Evaluate:
        """A constant, a function call or a variable, whose name has been taken."""
        if text.upper() in _CONSTANTS:
            return _constant(_CONSTANTS[text.upper()])
        if self._cursor.take("("):
            return self._call(text.upper(), start)
        name = text.strip("`")
        if name in self.names:
            return lambda scope: scope[name]
        if name.upper() in UNSUPPORTED:
            raise self._cursor.unsupported(name.upper())
        self._collections(name)  # raises if there is no such collection
        raise self._cursor.error(f"the collection {name} is not allowed here", start)

    def _call(self, function: str, start: int) -> Evaluate:
        if function not in ("LENGTH", "COUNT", "COLLECTION_COUNT"):
            raise self._cursor.error(f"the local GDN doesn't support the function {function}", start)
        kind, text, _ = self._cursor.peek()
        is_name = text.startswith("@@") or (kind == "name" and text.strip("`") not in self.names)
        value = _constant(self.collection()) if is_name and self._cursor.peek(1).text == ")" else self.read()
        self._cursor.expect(")")
        return lambda scope: len(counted) if isinstance(counted := value(scope), list | str | dict) else 0


def _constant(value: Any) -> Evaluate:
    return lambda _scope: value


def _negated(value: Evaluate) -> Evaluate:
    return lambda scope: not is_true(value(scope))


def _applied(function: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: function(left(scope), right(scope))


def _binary(operator: str, left: Evaluate, right: Evaluate) -> Evaluate:
    if operator in ("OR", "||"):
        return lambda scope: a if is_true(a := left(scope)) else right(scope)
    if operator in ("AND", "&&"):
        return lambda scope: right(scope) if is_true(a := left(scope)) else a
    return _applied(_OPERATIONS[operator], left, right)


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: compare(a, b) == 0,
    "!=": lambda a, b: compare(a, b) != 0,
    "<=": lambda a, b: compare(a, b) <= 0,
    ">=": lambda a, b: compare(a, b) >= 0,
    "<": lambda a, b: compare(a, b) < 0,
    ">": lambda a, b: compare(a, b) > 0,
    "IN": lambda value, array: contains(array, value),
    **{symbol: partial(calculate, symbol) for symbol in "+-*/%"},
}
