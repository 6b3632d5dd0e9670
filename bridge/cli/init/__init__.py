"""The verb ``init``: writes a first ``bridge.toml`` and ``worker.sql``, inferred from messages that devices send."""

from __future__ import annotations

from bridge.cli.init.command import add_arguments, init

__all__ = ["add_arguments", "init"]
