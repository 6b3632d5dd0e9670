"""The command's exit codes, and errors that name theirs."""

from __future__ import annotations

from bridge.errors import BridgeError

FAILED = 1
"""Failed while running; not ready; an example fails; a message became a dead letter; no such dead letter."""
USAGE = 2
"""Wrong usage: an unknown option, or arguments that don't fit together."""
CHANGES = 2
"""``worker plan`` found something to do."""
UNAVAILABLE = 69
"""Broker, GDN or bridge can't be reached, or refuses (sysexits.h, EX_UNAVAILABLE)."""
CONFIG = 78
"""Settings or files are wrong (sysexits.h, EX_CONFIG)."""
INTERRUPTED = 130
"""Ended by SIGINT (Ctrl-C), as a shell reports it."""


class CommandError(BridgeError):
    """The command fails with this exit code.

    Args:
        code: one of the above.
        problems: one sentence each.
    """

    def __init__(self, code: int, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.code = code
        self.problems = problems


class UsageError(CommandError):
    """The arguments are wrong, or don't fit together."""

    def __init__(self, problem: str) -> None:
        super().__init__(USAGE, problem)
