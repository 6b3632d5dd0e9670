"""Parses and runs whole queries: FOR and its steps, RETURN and REMOVE."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cmp_to_key
from typing import Any

from bridge.local.c8ql.expressions import SUM, Bindings, Collections, Evaluate, Expressions
from bridge.local.c8ql.token_reader import C8QLError, QueryTokenReader
from bridge.local.c8ql.values import compare, is_true

Operation = Callable[[list[Bindings]], list[Bindings]]


def run(query: str, bind_vars: Mapping[str, Any], collections: Collections) -> list[Any]:
    """The query's result.

    Args:
        query: C8QL text.
        bind_vars: as in the request; the key of a collection starts with ``@``.
        collections: returns a collection's list of documents, from which REMOVE deletes; raises C8QLError if there is
            no such collection.

    Raises:
        C8QLError: the query can't be parsed, isn't supported, or failed; nothing was removed.
    """
    if not query.strip():
        raise C8QLError("query is empty", number=1502)
    cursor = QueryTokenReader(query)
    return _Query(cursor, Expressions(cursor, bind_vars, collections)).run()


class _Query:
    def __init__(self, cursor: QueryTokenReader, expressions: Expressions) -> None:
        self._cursor = cursor
        self._expressions = expressions

    def run(self) -> list[Any]:
        scopes: list[Bindings] = [{}]
        steps: list[Operation] = []
        if self._cursor.take("FOR"):
            variable = self._cursor.expect_name()
            self._cursor.expect("IN")
            scopes = [{variable: document} for document in self._documents()]
            self._expressions.names = {variable}
            while self._cursor.word not in ("RETURN", "REMOVE"):
                steps.append(self._step())
        if self._cursor.take("REMOVE"):
            steps.append(self._remove())
            is_returned = bool(self._cursor.take("RETURN"))
        else:
            self._cursor.expect("RETURN")
            is_returned = True
        is_distinct = is_returned and self._cursor.take("DISTINCT")
        value = self._expressions.read() if is_returned else None
        if self._cursor.peek().kind != "end":
            raise self._cursor.error("unexpected text after the query")
        for name in self._expressions.unused:
            raise C8QLError(f"bind parameter '{name}' was not declared in the query", number=1552)
        for step in steps:
            scopes = step(scopes)
        result = [value(scope) for scope in scopes] if value else []
        return list({json.dumps(r, sort_keys=True): r for r in result}.values()) if is_distinct else result

    def _documents(self) -> list[Any]:
        kind, text, _ = self._cursor.peek()
        if text.startswith("@@") or (kind == "name" and self._cursor.peek(1).text != "("):
            return self._expressions.collection()
        value = self._expressions.read()({})
        if not isinstance(value, list):
            raise C8QLError("FOR needs a collection or an array", number=1563)
        return value

    def _step(self) -> Operation:
        if self._cursor.take("FILTER"):
            condition = self._expressions.read()
            return lambda scopes: [s for s in scopes if is_true(condition(s))]
        if self._cursor.take("SORT"):
            return self._sort()
        if self._cursor.take("LIMIT"):
            first = self._count()
            if self._cursor.take(","):
                count = self._count()
                return lambda scopes: scopes[first : first + count]
            return lambda scopes: scopes[:first]
        if self._cursor.take("COLLECT"):
            self._cursor.expect("WITH", "COUNT", "INTO")
            name = self._cursor.expect_name()
            self._expressions.names = {name}
            return lambda scopes: [{name: len(scopes)}]
        raise self._cursor.error("FILTER, SORT, LIMIT, COLLECT WITH COUNT INTO, REMOVE or RETURN was expected")

    def _remove(self) -> Operation:
        """REMOVE: all of the documents, or none if one doesn't exist; afterwards each is bound to OLD."""
        which = self._expressions.read(SUM)  # without comparisons, so that the next IN is REMOVE's own
        self._cursor.expect("IN")
        documents = self._expressions.collection()
        options: dict[str, Any] = {}
        if self._cursor.take("OPTIONS"):
            self._cursor.expect("{")
            options = self._expressions.object()({})
            if unsupported := options.keys() - {"ignoreErrors", "waitForSync", "exclusive"}:
                raise self._cursor.unsupported(f"the option {min(unsupported)}")
        self._expressions.names = {"OLD"}

        def remove(scopes: list[Bindings]) -> list[Bindings]:
            by_key = {document["_key"]: document for document in documents}
            removed = []
            for scope in scopes:
                found = which(scope)
                key = found.get("_key") if isinstance(found, dict) else found
                if isinstance(key, str) and key in by_key:
                    removed.append(by_key.pop(key))
                elif not is_true(options.get("ignoreErrors")):
                    raise C8QLError(f"C8QL: document not found: {key} (while executing)", number=1202, status=404)
            documents[:] = by_key.values()
            return [{"OLD": document} for document in removed]

        return remove

    def _sort(self) -> Operation:
        keys: list[tuple[Evaluate, bool]] = []
        while not keys or self._cursor.take(","):
            keys.append((self._expressions.read(), self._cursor.take("ASC", "DESC") == "DESC"))

        def sort(scopes: list[Bindings]) -> list[Bindings]:
            for key, descending in reversed(keys):  # sorting is stable, so the last key goes first
                scopes = sorted(scopes, key=_ordered_by(key), reverse=descending)
            return scopes

        return sort

    def _count(self) -> int:
        kind, text, start = self._cursor.next()
        value = self._expressions.bound(text) if kind == "bind" else int(text) if text.isdecimal() else None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._cursor.error("LIMIT takes whole numbers or bind parameters", start)
        return value


def _ordered_by(key: Evaluate) -> Callable[[Bindings], Any]:
    order = cmp_to_key(compare)
    return lambda scope: order(key(scope))
