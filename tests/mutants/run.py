"""A mutation run: ``python -m tests.mutants.run``. Changes the code in one place at a time; a test must fail.

``targets.toml`` says what is changed and which tests run. Each worker changes its own copy of the tree. Results are
kept in a file: an interrupted run continues where it was.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.mutants.targets import ROOT, Mutant, chosen, load

RESULTS = ROOT / "build" / "mutants.jsonl"
COPIED = ("bridge", "config", "deploy", "docs", "tests", "pyproject.toml", "README.md", "CHANGELOG.md")

MEMORY = 4 << 30
"""Bytes of address space that the tests of a mutant may take: a loop that collects must not use up the memory."""

PYTEST = (
    f"import resource, sys, pytest; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY})); "
    "sys.exit(pytest.main(sys.argv[1:]))"
)
OPTIONS = (
    *("-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"),
    *("--hypothesis-profile=quick", "--hypothesis-seed=0"),
)

FAST, LONG = "not long", "long"
"""Stages, by marker: with ``--long`` survivors of the fast tests are tried with the long ones of the same files."""

NO_TESTS = 5
"""Pytest's exit code where a file has no tests of a stage."""

Verdict = Literal["killed", "survived", "timeout"]


@dataclass(frozen=True)
class Result:
    """The outcome of a mutant; ``change`` is its diff without context."""

    key: str
    verdict: Verdict
    seconds: float
    change: str
    by: str = ""


class Tree:
    """A copy of the tree that a worker changes and tests."""

    def __init__(self, directory: Path) -> None:
        self._root = directory
        directory.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, directory / name)
        foreign = ("BRIDGE_", "PYTEST_", "COV_", "PYTHONDONTWRITEBYTECODE")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}

    def test(self, tests: Sequence[str], stage: str, timeout: float) -> tuple[int | None, str]:
        """Exit code of pytest, None if it took too long; and the first line that names a failure."""
        run = subprocess.Popen(
            [sys.executable, "-c", PYTEST, *OPTIONS, "-m", stage, *tests],
            cwd=self._root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = run.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        if run.returncode == NO_TESTS:
            return 0, ""
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return run.returncode, failed[0] if failed else output[-2000:]

    def try_out(self, mutant: Mutant, timeouts: Mapping[str, float]) -> Result:
        """``timeouts``: seconds, by the stages to try."""
        began = time.monotonic()
        file = self._root / mutant.module
        original = file.read_text()
        changed = mutant.applied_to(original)
        self._write(file, changed)
        try:
            for stage, timeout in timeouts.items():
                code, by = self.test(mutant.tests, stage, timeout)
                if code != 0:
                    break
        finally:
            self._write(file, original)
        verdict: Verdict = "timeout" if code is None else "killed" if code else "survived"
        return Result(mutant.key, verdict, round(time.monotonic() - began, 1), _diff(original, changed), by[:300])

    @staticmethod
    def _write(file: Path, source: str) -> None:
        """Write a module and delete its byte code, which Python checks only by size and second."""
        file.write_text(source)
        for stale in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            stale.unlink()


def _diff(original: str, changed: str) -> str:
    lines = list(difflib.unified_diff(original.splitlines(), changed.splitlines(), n=0, lineterm=""))[3:]
    return "\n".join(line for line in lines if not line.startswith("@@"))


class Run:
    """Tries mutants with several workers, each with its own tree, and keeps the results.

    Args:
        stages: which tests are tried, in this order.
        workers: how many.
        results: the file that each result is added to.
    """

    def __init__(self, mutants: Sequence[Mutant], *, stages: Sequence[str], workers: int, results: Path) -> None:
        self._stages = stages
        self._mutants: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for mutant in mutants:
            self._mutants.put(mutant)
        self._count = len(mutants)
        self._workers = workers
        self._results = results
        self._lock = threading.Lock()
        self._timeouts: dict[tuple[str, ...], dict[str, float]] = {}
        self._done = 0
        self._failure: Exception | None = None
        self._is_over = False

    def execute(self) -> None:
        """Try all of them.

        Raises:
            RuntimeError: the tests fail without a change: they prove nothing about one.
        """
        self._results.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="gdn-bridge-mutants-") as directory:
            trees = [Tree(Path(directory) / str(n)) for n in range(self._workers)]
            self._measure(trees[0])
            threads = [threading.Thread(target=self._work, args=(tree,)) for tree in trees]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            finally:  # interrupted: mutants under way are completed
                self._is_over = True
                for thread in threads:
                    thread.join()
        if self._failure is not None:
            raise self._failure

    def _measure(self, tree: Tree) -> None:
        """Duration of the unchanged tests. The limit is three times that, and the time of a start."""
        waiting = [self._mutants.get() for _ in range(self._count)]
        for tests in dict.fromkeys(mutant.tests for mutant in waiting):
            for stage in self._stages:
                began = time.monotonic()
                code, what = tree.test(tests, stage, timeout=900)
                if code != 0:
                    raise RuntimeError(f"without a change {' '.join(tests)} ended with {code}: {what}")
                took = time.monotonic() - began
                print(f"{took:5.1f} s without a change: {stage} of {' '.join(tests)}", flush=True)
                self._timeouts.setdefault(tests, {})[stage] = 20 + 3 * took
        for mutant in waiting:
            self._mutants.put(mutant)

    def _work(self, tree: Tree) -> None:
        while not self._is_over and self._failure is None:
            try:
                mutant = self._mutants.get_nowait()
            except queue.Empty:
                return
            try:
                result = tree.try_out(mutant, self._timeouts[mutant.tests])
            except Exception as exc:
                self._failure = exc
                return
            with self._lock, self._results.open("a") as out:
                out.write(json.dumps(vars(result)) + "\n")
                self._done += 1
                if result.verdict != "killed" or self._done % 20 == 0:
                    print(f"{self._done}/{self._count} {line_of(mutant, result)}", flush=True)


def line_of(mutant: Mutant, result: Result) -> str:
    place = f"{mutant.module}:{mutant.line}"
    return f"{result.verdict:8} {place}  {mutant.function}  {mutant.operator}  {result.seconds:g} s"


def read_results(file: Path) -> dict[str, Result]:
    """Results by key; of several, the last."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {result.key: result for line in lines for result in [Result(**json.loads(line))]}


def report(mutants: Sequence[Mutant], results: dict[str, Result]) -> str:
    """All survivors with their changes, and the totals."""
    lines = []
    for mutant in sorted(mutants, key=lambda mutant: (mutant.module, mutant.line)):
        result = results.get(mutant.key)
        if result is not None and result.verdict != "killed":
            lines += [line_of(mutant, result), *(f"    {line}" for line in result.change.splitlines())]
    for critical, name in ((True, "critical"), (False, "rest")):
        these = [mutant for mutant in mutants if mutant.is_critical is critical]
        sums = Counter(results[mutant.key].verdict if mutant.key in results else "open" for mutant in these)
        counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(sums.items()))
        lines.append(f"{name}: {len(these)} mutants, {counts}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 0 if no mutant survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, help="try out so many of those that are open, spread evenly")
    parser.add_argument("--only", default="", help="only mutants whose module and function contain this")
    parser.add_argument("--again", action="store_true", help="try survivors and timeouts out again")
    parser.add_argument("--long", action="store_true", help="try what the fast tests leave with the long ones, too")
    parser.add_argument("--list", action="store_true", help="print the mutants and try nothing out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        mutants = [m for m in chosen(load()) if arguments.only in f"{m.module}:{m.function}"]
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 2
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.module}:{mutant.line}  {mutant.function}  {mutant.operator}")
        print(Counter("critical" if mutant.is_critical else "rest" for mutant in mutants))
        return 0
    results = read_results(arguments.results)
    waiting = [
        mutant
        for mutant in mutants
        if mutant.key not in results or (arguments.again and results[mutant.key].verdict != "killed")
    ]
    if arguments.sample and arguments.sample < len(waiting):
        waiting = [waiting[n * len(waiting) // arguments.sample] for n in range(arguments.sample)]
    waiting.sort(key=lambda mutant: not mutant.is_critical)
    stages = (FAST, LONG) if arguments.long else (FAST,)
    Run(waiting, stages=stages, workers=arguments.workers, results=arguments.results).execute()
    results = read_results(arguments.results)
    print(report(mutants, results))
    return int(any(results[m.key].verdict == "survived" for m in mutants if m.key in results))


if __name__ == "__main__":
    sys.exit(main())
