"""Types of command line arguments: each refuses a wrong value with a sentence that says what is allowed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bridge.cli.exits import UsageError
from bridge.errors import ConfigError

_NEGATIVE = re.compile(r"-[.,]?[0-9].*", re.DOTALL)


def whole_number_between(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a whole number within these bounds."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def number_between(low: float, high: float) -> Callable[[str], float]:
    """A type for argparse: a number within these bounds."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:  # also NaN
            raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}")
        return value

    return parse


def read_password(file: Path | None) -> str | None:
    """The password in the file that ``--password-file`` names; None if it isn't given.

    Raises:
        ConfigError: the file can't be read.
    """
    if file is None:
        return None
    try:
        return file.read_text().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--password-file: {file} can't be read: {exc}") from exc


class Parser(argparse.ArgumentParser):
    """Raises ``UsageError`` instead of printing and exiting. A word such as ``-0,5`` is a value, not an option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._negative_number_matcher = _NEGATIVE  # argparse's own takes only -5 and -0.5

    def error(self, message: str) -> NoReturn:
        """Called by argparse for wrong usage."""
        raise UsageError(f"{message}; `{self.prog} --help` shows the usage")
