"""A test that asserts nothing passes whatever the code does: there is none."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent.parent
ASSERTING = frozenset({"pytest.raises", "pytest.warns", "pytest.fail", "run_state_machine_as_test"})
"""Calls that fail a test by themselves, a state machine by its invariants."""


@dataclass(frozen=True)
class Function:
    """A function or method: the line it begins on, whether it has an assert statement, and what it calls.

    A call is there with its dotted name and with the last part alone, which is how methods are found.
    """

    line: int
    has_assert: bool
    calls: frozenset[str]

    @classmethod
    def of(cls, definition: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
        nodes = list(ast.walk(definition))
        dotted = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        has_assert = any(isinstance(node, ast.Assert) for node in nodes)
        return cls(definition.lineno, has_assert, frozenset(dotted | {name.rpartition(".")[2] for name in dotted}))

    def asserts(self, helpers: frozenset[str]) -> bool:
        return self.has_assert or not helpers.isdisjoint(self.calls)


@dataclass
class Module:
    """The functions and methods of one module, by name, and the modules that it imports names from."""

    functions: dict[str, list[Function]] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, text: str) -> Module:
        module = cls()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                module.functions.setdefault(node.name, []).append(Function.of(node))
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                module.imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return module


def asserting_helpers(module: Module, others: dict[str, Module]) -> frozenset[str]:
    """Names of the functions that a module has or imports and that assert, themselves or by what they call."""
    visible = [module, *(others[name] for name in module.imports if name in others)]
    found = ASSERTING
    while True:
        more = {
            name
            for one in visible
            for name, functions in one.functions.items()
            if any(function.asserts(found) for function in functions)
        }
        if more <= found:
            return found
        found |= more


def without_assertion(modules: dict[str, Module]) -> list[str]:
    """The tests that assert nothing, as ``module:line name``."""
    return [
        f"{module_name}:{function.line} {name}"
        for module_name, module in modules.items()
        if module_name.rpartition(".")[2].startswith("test_")
        for helpers in [asserting_helpers(module, modules)]
        for name, functions in module.functions.items()
        if name.startswith("test_")
        for function in functions
        if not function.asserts(helpers)
    ]


def test_every_test_asserts_something() -> None:
    files = {file.relative_to(TESTS.parent).with_suffix(""): file for file in TESTS.rglob("*.py")}
    modules = {
        ".".join(path.parts).removesuffix(".__init__"): Module.of(file.read_text()) for path, file in files.items()
    }

    assert len(modules) > 100
    assert without_assertion(modules) == []


def test_one_that_asserts_nothing_is_found_through_its_helpers() -> None:
    text = """
import pytest
from tests.other import checked, plain
def helper(): assert False
def indirect(): helper()
def silent(): print()
def test_itself(): assert True
def test_by_an_exception():
    with pytest.raises(ValueError): int("x")
def test_by_a_helper(): indirect()
def test_by_an_imported_helper(): checked()
def test_by_nothing(): silent(); plain()
"""
    other = "def checked(): assert True\ndef plain(): pass"
    modules = {"tests.test_one": Module.of(text), "tests.other": Module.of(other)}

    assert without_assertion(modules) == ["tests.test_one:12 test_by_nothing"]
