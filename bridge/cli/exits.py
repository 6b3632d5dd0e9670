"""The command's exit codes."""

from __future__ import annotations

FAILED = 1
"""Failed while running; not ready; an example fails; a message became a dead letter."""
USAGE = 2
"""Wrong usage, as argparse reports it."""
CHANGES = 2
"""``worker plan`` found something to do."""
UNAVAILABLE = 69
"""Broker, GDN or bridge can't be reached, or refuses (sysexits.h, EX_UNAVAILABLE)."""
CONFIG = 78
"""Settings or files are wrong (sysexits.h, EX_CONFIG)."""
