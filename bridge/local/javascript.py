"""A worker's JavaScript functions, run by QuickJS with limits on time and memory.

Arguments and results are passed as JSON text: passed directly, QuickJS turns integers above 2**53 into floats.
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
            # The body is wrapped in a function, so that nothing it declares outlives the call.
            body = f"(function (data) {{{function.body}\n}})(JSON.parse(text))"
            source = f"(text) => JSON.stringify({body})"
            try:
                self._calls[function.name] = self._context.eval(source)
            except quickjs.JSException as exc:
                raise ScriptError(f"function {function.name}: {exc}") from exc

    def call(self, name: str, arguments: list[Any]) -> Any:
        """The function's result for ``data = arguments``; None for undefined and null.

        Raises:
            ScriptError: the function threw or exceeded a limit.
        """
        try:
            text = self._calls[name](json.dumps(arguments))
        except quickjs.JSException as exc:
            raise ScriptError(f"function {name}: {exc}") from exc
        return None if text is None else json.loads(text)
