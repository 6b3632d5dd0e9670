"""Script functions of a worker, run by QuickJS within limits of time and memory.

Values cross as JSON text: QuickJS would turn integers above 2**53 into floats on the way, JSON keeps what it can.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import quickjs

from bridge.streamql.syntax import FunctionDefinition

CALL_SECONDS = 0.5
MEMORY_BYTES = 64 * 1024 * 1024


class ScriptError(Exception):
    """A function can't be compiled, threw, or broke a limit."""


class Scripts:
    """The compiled functions of one worker."""

    def __init__(self, functions: Iterable[FunctionDefinition]) -> None:
        self._context = quickjs.Context()
        self._context.set_memory_limit(MEMORY_BYTES)
        self._context.set_time_limit(CALL_SECONDS)
        self._calls: dict[str, Any] = {}
        for function in functions:
            # A function of its own for each body, so that nothing it declares outlives the call.
            body = f"(function (data) {{{function.body}\n}})(JSON.parse(text))"
            source = f"(text) => JSON.stringify({body})"
            try:
                self._calls[function.name] = self._context.eval(source)
            except quickjs.JSException as exc:
                raise ScriptError(f"function {function.name}: {exc}") from exc

    def call(self, name: str, arguments: list[Any]) -> Any:
        """What the function returns for ``data = arguments``; None for undefined and null.

        Raises:
            ScriptError: it threw or took too much.
        """
        try:
            text = self._calls[name](json.dumps(arguments))
        except quickjs.JSException as exc:
            raise ScriptError(f"function {name}: {exc}") from exc
        return None if text is None else json.loads(text)
