"""The command's exit codes."""

from __future__ import annotations

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
