"""The command ``gdn-bridge``, also ``python -m bridge``."""

from __future__ import annotations

import sys

from bridge import signals


def main() -> int:
    """Run the command; returns its exit code."""
    signals.block()  # before the imports, which take most of the start
    from bridge.cli import main as run  # noqa: PLC0415

    return run()


if __name__ == "__main__":
    sys.exit(main())
