"""Conversion of decoded values to values that JSON can represent."""

from __future__ import annotations

import base64
from typing import Any


def whole(number: int) -> int | str:
    """The number, as text if it doesn't fit in 64 bits: neither columns nor the JSON encoder take a larger one."""
    return number if -(2**63) <= number < 2**64 else str(number)


def as_base64(data: bytes) -> str:
    """Bytes as base64 text (RFC 4648, 4)."""
    return base64.b64encode(data).decode()


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether arrays and objects nest more than ``levels`` deep. Not recursive itself."""
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        containers = [
            child
            for container in containers
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
    return bool(containers)
