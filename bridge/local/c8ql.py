"""C8QL, the part that health checks and the tutorial use (gdn-api.md G): read by recursive descent, run over documents.

``FOR v IN collection`` with FILTER, SORT, LIMIT and ``COLLECT WITH COUNT INTO n`` in any order, then RETURN or REMOVE;
or one of these alone. Everything else is refused by name.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from functools import cmp_to_key
from typing import Any

Scope = dict[str, Any]
Evaluate = Callable[[Scope], Any]
Collections = Callable[[str], list[dict[str, Any]]]

MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|//[^\n]*|/\*[\s\S]*?\*/)
    | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<bind>@@?[A-Za-z_0-9]+)
    | (?P<name>[A-Za-z_][A-Za-z_0-9]*|`[^`]+`)
    | (?P<symbol>==|!=|<=|>=|&&|\|\||[<>+\-*/%!?:,.(){}\[\]=])
    """,
    re.VERBOSE,
)


class C8QLError(Exception):
    """``number`` is GDN's errorNum, ``status`` the HTTP status (gdn-api.md A.6)."""

    def __init__(self, message: str, *, number: int = 1501, status: int = 400) -> None:
        super().__init__(message)
        self.number = number
        self.status = status


def run(query: str, bind_vars: Mapping[str, Any], collections: Collections) -> list[Any]:
    """The query's result.

    Args:
        query: C8QL text.
        bind_vars: as in the request; a collection's key starts with ``@``.
        collections: a collection's documents by name, which a REMOVE takes them from; raises C8QLError where there is
            none.

    Raises:
        C8QLError: it can't be read, is beyond what runs here, or failed; then nothing was removed.
    """
    if not query.strip():
        raise C8QLError("query is empty", number=1502)
    return _Reader(query, bind_vars, collections).run()


class _Reader:
    def __init__(self, query: str, bind_vars: Mapping[str, Any], collections: Collections) -> None:
        self._query = query
        self._bind_vars = bind_vars
        self._used: set[str] = set()
        self._collections = collections
        self._names: set[str] = set()
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._depth = 0
        at = 0
        while at < len(query):
            match = _TOKEN.match(query, at)
            if match is None:
                raise self._error(f"unexpected character {query[at]!r}", at)
            if match.lastgroup != "skip":
                self._tokens.append((match.lastgroup or "", match.group(), at))
            at = match.end()
        self._tokens.append(("end", "", len(query)))

    def run(self) -> list[Any]:
        steps: list[Callable[[list[Scope]], list[Scope]]] = []
        if self._word("FOR"):
            variable = self._name()
            self._expect_word("IN")
            documents = self._documents()
            self._names.add(variable)
            scopes: list[Scope] = [{variable: document} for document in documents]
            while self._peek()[1].upper() not in ("RETURN", "REMOVE"):
                steps.append(self._step())
        else:
            scopes = [{}]
        if self._word("REMOVE"):
            steps.append(self._remove())
            is_returned = self._word("RETURN")
        else:
            self._expect_word("RETURN")
            is_returned = True
        distinct = is_returned and self._word("DISTINCT")
        value = self._expression() if is_returned else _constant(None)
        if self._peek()[0] != "end":
            raise self._error("unexpected text after the query")
        unused = [name for name in self._bind_vars if name not in self._used]
        if unused:
            raise C8QLError(f"bind parameter '{unused[0]}' was not declared in the query", number=1552)
        for step in steps:
            scopes = step(scopes)
        result = [value(scope) for scope in scopes] if is_returned else []
        if distinct:
            result = list({json.dumps(r, sort_keys=True): r for r in result}.values())
        return result

    def _documents(self) -> list[Any]:
        kind, text, _ = self._peek()
        if text.startswith("@@") or (kind == "name" and self._tokens[self._at + 1][1] != "("):
            return list(self._collection())
        value = self._expression()({})
        if not isinstance(value, list):
            raise C8QLError("FOR needs a collection or an array", number=1563)
        return value

    def _collection(self) -> list[dict[str, Any]]:
        kind, text, _ = self._peek()
        if kind == "bind" and text.startswith("@@"):
            self._next()
            return self._collections(str(self._bound(text[1:])))
        return self._collections(self._name())

    def _step(self) -> Callable[[list[Scope]], list[Scope]]:
        if self._word("FILTER"):
            condition = self._expression()
            return lambda scopes: [s for s in scopes if _truth(condition(s))]
        if self._word("SORT"):
            return self._sort()
        if self._word("LIMIT"):
            first = self._count()
            if self._symbol(","):
                count = self._count()
                return lambda scopes: scopes[first : first + count]
            return lambda scopes: scopes[:first]
        if self._word("COLLECT"):
            for word in ("WITH", "COUNT", "INTO"):
                self._expect_word(word)
            name = self._name()
            self._names = {name}
            return lambda scopes: [{name: len(scopes)}]
        raise self._error("FILTER, SORT, LIMIT, COLLECT WITH COUNT INTO, REMOVE or RETURN was expected")

    def _remove(self) -> Callable[[list[Scope]], list[Scope]]:
        """REMOVE: all of the documents or, where one of them isn't there, none; each is OLD afterwards."""
        which = self._sum()  # an IN in it would be a comparison's
        self._expect_word("IN")
        documents = self._collection()
        options: dict[str, Any] = {}
        if self._word("OPTIONS"):
            self._expect("{")
            options = self._object()({})
            if beyond := options.keys() - {"ignoreErrors", "waitForSync", "exclusive"}:
                raise self._beyond(f"the option {min(beyond)}")
        self._names = {"OLD"}

        def remove(scopes: list[Scope]) -> list[Scope]:
            there = {document["_key"]: document for document in documents}
            removed = []
            for scope in scopes:
                found = which(scope)
                key = found.get("_key") if isinstance(found, dict) else found
                if isinstance(key, str) and key in there:
                    removed.append(there.pop(key))
                elif not _truth(options.get("ignoreErrors")):
                    raise C8QLError(f"C8QL: document not found: {key} (while executing)", number=1202, status=404)
            documents[:] = there.values()
            return [{"OLD": document} for document in removed]

        return remove

    def _sort(self) -> Callable[[list[Scope]], list[Scope]]:
        keys: list[tuple[Evaluate, bool]] = []
        while True:
            key = self._expression()
            descending = self._word("DESC")
            if not descending:
                self._word("ASC")
            keys.append((key, descending))
            if not self._symbol(","):
                break

        def sort(scopes: list[Scope]) -> list[Scope]:
            for key, descending in reversed(keys):  # stable: the last key first
                scopes = sorted(scopes, key=_ordered_by(key), reverse=descending)
            return scopes

        return sort

    def _count(self) -> int:
        kind, text, at = self._next()
        value = (
            self._bound(text[1:]) if kind == "bind" else int(text) if kind == "number" and text.isdecimal() else None
        )
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._error("LIMIT takes whole numbers or bind parameters", at)
        return value

    # --- expressions --------------------------------------------------------------------------------------

    def _expression(self) -> Evaluate:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error("the query is nested too deeply")
        value = self._or()
        self._depth -= 1
        return value

    def _or(self) -> Evaluate:
        left = self._and()
        while self._word("OR") or self._symbol("||"):
            left = _either(left, self._and())
        return left

    def _and(self) -> Evaluate:
        left = self._comparison()
        while self._word("AND") or self._symbol("&&"):
            left = _both(left, self._comparison())
        return left

    def _comparison(self) -> Evaluate:
        left = self._sum()
        while True:
            for symbol, test in _TESTS.items():
                if self._symbol(symbol):
                    left = _tested(test, left, self._sum())
                    break
            else:
                if self._symbol("="):
                    raise self._error("equality is written ==")
                if self._word("IN"):
                    left = _contained(left, self._sum())
                    continue
                if self._peek()[1].upper() in ("LIKE", "?", "NOT"):
                    raise self._beyond(self._peek()[1].upper())
                return left

    def _sum(self) -> Evaluate:
        left = self._product()
        while self._peek()[1] in ("+", "-") and self._peek()[0] == "symbol":
            symbol = self._next()[1]
            left = _calculated(symbol, left, self._product())
        return left

    def _product(self) -> Evaluate:
        left = self._unary()
        while self._peek()[1] in ("*", "/", "%") and self._peek()[0] == "symbol":
            symbol = self._next()[1]
            left = _calculated(symbol, left, self._unary())
        return left

    def _unary(self) -> Evaluate:
        flips: list[str] = []
        while True:
            if self._symbol("!") or self._word("NOT"):
                flips.append("!")
            elif self._symbol("-"):
                flips.append("-")
            else:
                break
        value = self._postfix()
        for flip in reversed(flips):
            value = _negated(value) if flip == "!" else _calculated("-", _constant(0), value)
        return value

    def _postfix(self) -> Evaluate:
        value = self._primary()
        while True:
            if self._symbol("."):
                name = self._name()
                value = _subscripted(value, _constant(name))
            elif self._symbol("["):
                key = self._expression()
                self._expect("]")
                value = _subscripted(value, key)
            else:
                return value

    def _primary(self) -> Evaluate:
        kind, text, at = self._next()
        if kind == "number":
            number: Any = int(text) if text.isdecimal() else float(text)
            return lambda _s: number
        if kind == "string":
            string = re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t", "r": "\r"}.get(m[1], m[1]), text[1:-1])
            return lambda _s: string
        if kind == "bind":
            if text.startswith("@@"):
                raise self._error("a collection can only stand after IN", at)
            bound = self._bound(text[1:])
            return lambda _s: bound
        if text == "(":
            value = self._expression()
            self._expect(")")
            return value
        if text == "[":
            items = self._list("]")
            return lambda s: [item(s) for item in items]
        if text == "{":
            return self._object()
        if kind != "name":
            raise self._error(f"unexpected {text or 'end of the query'!r}", at)
        constant = {"true": True, "false": False, "null": None}
        if text.lower() in constant:
            result = constant[text.lower()]
            return lambda _s: result
        if self._symbol("("):
            return self._call(text.upper(), at)
        name = text.strip("`")
        if name not in self._names:
            if name.upper() in _BEYOND:
                raise self._beyond(name.upper())
            self._collections(name)  # says so if there is none
            raise self._error(f"the collection {name} can't stand here", at)
        return lambda s: s[name]

    def _call(self, function: str, at: int) -> Evaluate:
        if function in ("LENGTH", "COUNT", "COLLECTION_COUNT"):
            kind, text, _ = self._peek()
            if self._tokens[self._at + 1][1] == ")" and (
                (kind == "name" and text.strip("`") not in self._names) or text.startswith("@@")
            ):
                self._next()
                name = str(self._bound(text[1:])) if kind == "bind" else text.strip("`")
                self._expect(")")
                documents = self._collections(name)
                return lambda _s: len(documents)
            (value,) = self._list(")")
            return lambda s: len(v) if isinstance(v := value(s), list | str | dict) else 0
        raise self._error(f"the function {function} can't be executed here: that is a limit of the local GDN", at)

    def _object(self) -> Evaluate:
        members: list[tuple[str, Evaluate]] = []
        while not self._symbol("}"):
            kind, text, at = self._next()
            if kind not in ("name", "string"):
                raise self._error("an attribute's name was expected", at)
            key = text[1:-1] if kind == "string" else text.strip("`")
            self._expect(":")
            members.append((key, self._expression()))
            if not self._symbol(","):
                self._expect("}")
                break
        return lambda s: {key: value(s) for key, value in members}

    def _list(self, closing: str) -> list[Evaluate]:
        items: list[Evaluate] = []
        while not self._symbol(closing):
            items.append(self._expression())
            if not self._symbol(","):
                self._expect(closing)
                break
        return items

    # --- tokens -------------------------------------------------------------------------------------------

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._at]

    def _next(self) -> tuple[str, str, int]:
        token = self._tokens[self._at]
        if token[0] != "end":
            self._at += 1
        return token

    def _word(self, word: str) -> bool:
        kind, text, _ = self._peek()
        if kind == "name" and text.upper() == word:
            self._at += 1
            return True
        return False

    def _symbol(self, symbol: str) -> bool:
        kind, text, _ = self._peek()
        if kind == "symbol" and text == symbol:
            self._at += 1
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._symbol(symbol):
            raise self._error(f"{symbol!r} was expected")

    def _expect_word(self, word: str) -> None:
        if not self._word(word):
            if self._peek()[1].upper() in _BEYOND:
                raise self._beyond(self._peek()[1].upper())
            raise self._error(f"{word} was expected")

    def _name(self) -> str:
        kind, text, at = self._next()
        if kind != "name":
            raise self._error("a name was expected", at)
        return text.strip("`")

    def _bound(self, name: str) -> Any:
        if name not in self._bind_vars:
            raise C8QLError(f"no value specified for declared bind parameter '{name}'", number=1551)
        self._used.add(name)
        return self._bind_vars[name]

    def _beyond(self, construct: str) -> C8QLError:
        return self._error(f"{construct} can't be executed here: that is a limit of the local GDN")

    def _error(self, message: str, at: int | None = None) -> C8QLError:
        at = self._peek()[2] if at is None else at
        line = self._query.count("\n", 0, at) + 1
        column = at - (self._query.rfind("\n", 0, at) + 1) + 1
        near = self._query[at : at + 20]
        return C8QLError(f"C8QL: syntax error, {message} near '{near}' at position {line}:{column} (while parsing)")


_BEYOND = frozenset(["INSERT", "UPDATE", "UPSERT", "REPLACE", "LET", "WITH", "WINDOW", "FOR", "SEARCH", "GRAPH"])

_TESTS: dict[str, Callable[[int], bool]] = {
    "==": lambda c: c == 0,
    "!=": lambda c: c != 0,
    "<=": lambda c: c <= 0,
    ">=": lambda c: c >= 0,
    "<": lambda c: c < 0,
    ">": lambda c: c > 0,
}


def _ordered_by(key: Evaluate) -> Callable[[Scope], Any]:
    order = cmp_to_key(_compare)
    return lambda scope: order(key(scope))


def _constant(value: Any) -> Evaluate:
    return lambda _scope: value


def _either(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: a if _truth(a := left(scope)) else right(scope)


def _both(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: right(scope) if _truth(a := left(scope)) else a


def _tested(test: Callable[[int], bool], left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: test(_compare(left(scope), right(scope)))


def _contained(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: any(_compare(left(scope), item) == 0 for item in _array(right(scope)))


def _calculated(symbol: str, left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: _calculate(symbol, left(scope), right(scope))


def _negated(value: Evaluate) -> Evaluate:
    return lambda scope: not _truth(value(scope))


def _subscripted(value: Evaluate, key: Evaluate) -> Evaluate:
    return lambda scope: _member(value(scope), key(scope))


def _truth(value: Any) -> bool:
    return value not in (None, False, 0, "") or isinstance(value, list | dict)


def _array(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _member(value: Any, key: Any) -> Any:
    if isinstance(value, dict):
        return value.get(str(key))
    if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return None


def _rank(value: Any) -> int:
    """Order of kinds: null < bool < number < string < array < object."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return 1
    if isinstance(value, int | float):
        return 2
    if isinstance(value, str):
        return 3
    return 4 if isinstance(value, list) else 5


def _compare(a: Any, b: Any) -> int:
    ranks = _rank(a), _rank(b)
    if ranks[0] != ranks[1]:
        return -1 if ranks[0] < ranks[1] else 1
    if ranks[0] >= 4:
        a, b = json.dumps(a, sort_keys=True), json.dumps(b, sort_keys=True)
    return 0 if a == b else -1 if a is None or a < b else 1


def _calculate(symbol: str, a: Any, b: Any) -> Any:
    """C8QL turns what is no number into one: null and text that isn't a number count as 0."""
    a, b = _as_number(a), _as_number(b)
    if symbol in "/%" and b == 0:
        return None
    return _OPERATIONS[symbol](a, b)


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
}


def _as_number(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0
