"""``python -m bridge.config`` prints docs/settings.md."""

from __future__ import annotations

import sys

from bridge.config.reference import reference

sys.stdout.write(reference())
