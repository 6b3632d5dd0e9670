"""What the command's exit code says."""

from __future__ import annotations

FAILED = 1
"""Failed while running; not ready; an example differs; a message became a dead letter."""
USAGE = 2
CHANGES = 2
"""``worker plan`` found something to do."""
UNAVAILABLE = 69
"""Broker, GDN or bridge could not be reached, or refused (sysexits.h, EX_UNAVAILABLE)."""
CONFIG = 78
"""Settings or files are wrong (sysexits.h, EX_CONFIG)."""
