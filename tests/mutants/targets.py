"""The mutants: reads ``targets.toml`` and searches its modules for places to change."""

from __future__ import annotations

import ast
import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutants.statements import STATEMENTS

ROOT = Path(__file__).parent.parent.parent
FILE = Path(__file__).with_name("targets.toml")

Place = tuple[int, int]
"""Line from 1, column in characters from 0."""


@dataclass(frozen=True)
class Target:
    """Modules, patterns of the qualified names of their critical functions, and the tests that must fail."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    critical: tuple[str, ...]


@dataclass(frozen=True)
class Config:
    targets: tuple[Target, ...]
    operators: tuple[str, ...]
    ignore: tuple[str, ...]
    rest: int
    seed: int


@dataclass(frozen=True)
class Mutant:
    """One change of one place.

    ``key`` stays the same as long as the function around the place does: results outlast changes elsewhere.
    """

    key: str
    module: str
    function: str
    line: int
    operator: str
    occurrence: int
    tests: tuple[str, ...]
    is_critical: bool

    def applied_to(self, source: str) -> str:
        """The module's code, changed."""
        code: str | None = mutate_code(source, operator(self.operator), self.occurrence)
        assert code is not None, self
        return code


def load(file: Path = FILE) -> Config:
    read = tomllib.loads(file.read_text())
    targets = []
    for one in read["target"]:
        modules = sorted({str(found.relative_to(ROOT)) for name in one["modules"] for found in ROOT.glob(name)})
        modules = [module for module in modules if not module.endswith("__init__.py")]
        targets.append(Target(tuple(modules), tuple(one["tests"]), tuple(one["critical"])))
    return Config(tuple(targets), tuple(read["operators"]), tuple(read["ignore"]), read["rest"], read["seed"])


def chosen(config: Config) -> list[Mutant]:
    """All critical mutants, then random ones of the rest.

    Raises:
        ValueError: a module, test, operator or critical function of the file doesn't exist.
    """
    problems = list(_problems(config))
    if problems:
        raise ValueError("\n".join(problems))
    names = [name for name in _operator_names() if any(fnmatchcase(name, pattern) for pattern in config.operators)]
    found = [mutant for target in config.targets for mutant in _mutants(target, names, config.ignore)]
    found = [mutant for mutant in found if _can_be_applied(mutant)]
    rest = sorted(
        (mutant for mutant in found if not mutant.is_critical),
        key=lambda mutant: hashlib.sha256(f"{config.seed}/{mutant.key}".encode()).digest(),
    )
    return [mutant for mutant in found if mutant.is_critical] + rest[: config.rest]


def _can_be_applied(mutant: Mutant) -> bool:
    """Cosmic Ray 8.7 finds exceptions with a dotted name, but can't replace them."""
    if mutant.operator != "core/ExceptionReplacer":
        return True
    try:
        mutant.applied_to((ROOT / mutant.module).read_text())
    except AttributeError:
        return False
    return True


def operator(name: str) -> Any:
    """The operators, with Cosmic Ray's interface: ``mutation_positions(node)`` and ``mutate(node, index)``."""
    return STATEMENTS[name] if name in STATEMENTS else cosmic_ray.plugins.get_operator(name)()


def _operator_names() -> list[str]:
    return [*STATEMENTS, *sorted(cosmic_ray.plugins.operator_names())]


def _problems(config: Config) -> Iterator[str]:
    for pattern in config.operators:
        if not any(fnmatchcase(name, pattern) for name in _operator_names()):
            yield f"{FILE.name}: there is no operator {pattern}"
    for target in config.targets:
        if not target.modules:
            yield f"{FILE.name}: a target has no modules"
        yield from (f"{FILE.name}: there is no {test}" for test in target.tests if not (ROOT / test).exists())
        functions = {name for module in target.modules for name in _functions(module)}
        for pattern in target.critical:
            if not any(fnmatchcase(name, pattern) for name in functions):
                yield f"{FILE.name}: there is no function {pattern} in {Path(target.modules[0]).parent}"


def _functions(module: str) -> set[str]:
    """Qualified names of the functions, without and with the module's name."""
    nodes = ast_nodes(get_ast((ROOT / module).read_text()))
    names = {_function(node)[0] for node in nodes if node.type == "funcdef"}
    return names | {f"{Path(module).stem}.{name}" for name in names}


def _function(node: Any) -> tuple[str, str]:
    """Qualified name and code of the innermost function that is or contains the node; else of the class; else empty."""
    names, code = [], None
    while node is not None:
        if node.type in {"funcdef", "classdef"}:
            names.append(node.name.value)
            code = code or node.get_code()
        node = node.parent
    return ".".join(reversed(names)), code or ""


def _mutants(target: Target, names: Sequence[str], ignore: tuple[str, ...]) -> Iterator[Mutant]:
    for module in target.modules:
        source = (ROOT / module).read_text()
        tree = get_ast(source)
        skipped = list(_untested(source, ignore))
        for name in names:
            change = operator(name)
            places = [(node, start) for node in ast_nodes(tree) for start, _ in change.mutation_positions(node)]
            within: Counter[str] = Counter()
            for occurrence, (node, start) in enumerate(places):
                function, code = _function(node)
                within[function] += 1
                if node.parent is not None and node.parent.type == "parameters":  # the star of keyword-only ones
                    continue
                if any(first <= start < last for first, last in skipped):
                    continue
                identity = f"{module}/{function}/{name}/{within[function]}/{code}"
                yield Mutant(
                    key=hashlib.sha256(identity.encode()).hexdigest()[:16],
                    module=module,
                    function=function,
                    line=start[0],
                    operator=name,
                    occurrence=occurrence,
                    tests=target.tests,
                    is_critical=_is_critical(function, module, target.critical),
                )


def _is_critical(function: str, module: str, patterns: Sequence[str]) -> bool:
    """Whether the function, or one around it, is named."""
    parts = function.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    names += [f"{Path(module).stem}.{name}" for name in names]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _untested(source: str, ignore: tuple[str, ...]) -> Iterator[tuple[Place, Place]]:
    """Ranges without effect: annotations, which aren't evaluated, and the parts to ignore."""
    lines = source.splitlines()

    def place(line: int, offset: int) -> Place:
        return line, len(lines[line - 1].encode()[:offset].decode())

    for node in ast.walk(ast.parse(source)):
        part: ast.expr | ast.stmt | None = None
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                part = node.returns
            case ast.arg() | ast.AnnAssign():
                part = node.annotation
            case ast.Expr() if ast.unparse(node).startswith(ignore):
                part = node
        if part is not None and part.end_lineno is not None and part.end_col_offset is not None:
            yield place(part.lineno, part.col_offset), place(part.end_lineno, part.end_col_offset)
