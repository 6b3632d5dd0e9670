"""Types of command line arguments: each refuses a wrong value with a sentence that says what is allowed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from bridge.cli.exits import UsageError


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


class Parser(argparse.ArgumentParser):
    """Raises ``UsageError`` instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for wrong usage."""
        raise UsageError(f"{message}; `{self.prog} --help` shows the usage")
