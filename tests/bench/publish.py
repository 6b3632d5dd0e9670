"""Publish COUNT readings at full speed, from a separate process; prints its start time. Arguments: port, COUNT."""

from __future__ import annotations

import sys
import time

from tests.publisher import publish_all

PADDING = "x" * 60


def main(port: int, count: int) -> None:
    readings = [
        (
            f"devices/AD{n % 10}/rooms/{n}/telemetry",
            b'{"temperature": %d.5, "unit": "C", "note": "%s"}' % (n % 40, PADDING.encode()),
        )
        for n in range(count)
    ]
    print(time.monotonic(), flush=True)
    publish_all(port, readings, window=2000)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
