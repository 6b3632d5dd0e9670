"""``python -m bridge.config`` prints the reference of all settings."""

from __future__ import annotations

import sys

from bridge.config.reference import reference

sys.stdout.write(reference())
