"""Report by exception: holds back rows whose values haven't changed since the device's last row.

What was last sent is remembered by device in memory, bounded in bytes, and changes only with the commit: rows are
*pending* from mapping until the commit that stores them. After a restart, a reload or an eviction the next row is sent.
Used by the pipeline thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

from bridge.mapping.coercion import PLAIN, Reading
from bridge.mapping.fields import KEY, CompiledField, FieldSpec, compile_field, metadata_in
from bridge.mapping.route import Route
from bridge.message import MqttMessage
from bridge.streamql.syntax import Attribute, AttributeType

MAX_BYTES = 32 * 1024 * 1024
"""Memory for what was last sent; beyond it the longest unsent devices are forgotten, whose next row is sent."""

OWN_BYTES = 500
"""Memory overhead in bytes of a device, beyond its name and values."""

VALUE_BYTES = 64
"""Memory in bytes of a value."""

MESSAGE = "$message"
"""The message in the context; no source can name it."""

REPORTS = "$reports"
"""What was last sent (``Reports``) in the context; no source can name it."""

_MOVING = {"$id", "$received_at"}
_NUMBERS = (AttributeType.INT, AttributeType.LONG, AttributeType.FLOAT, AttributeType.DOUBLE)

Device = tuple[int, str, tuple[str, ...]]
"""The route's index, the device's name or the topic, and the names of the element."""

Report = Callable[[Mapping[str, Any], Any, Mapping[str, Any]], None]
"""(context, element, columns) notes a row that is sent; raises Unchanged if it is held back."""


class Unchanged(Exception):
    """The row is held back."""


class _Sent(NamedTuple):
    at: int
    """Nanoseconds since the epoch."""
    stream: str
    values: tuple[Any, ...]


class Reports:
    """What was last sent, by device."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0
        """Memory in use, as ``max_bytes`` counts it."""
        self._sent: dict[Device, _Sent] = {}  # the longest unsent first
        self._pending: dict[Device, _Sent] = {}
        self._message: MqttMessage | None = None  # the latest
        self._undo: list[tuple[Device, _Sent | None]] = []  # what its rows replaced in _pending

    def last(self, device: Device) -> _Sent | None:
        """The device's last row, stored or pending."""
        return self._pending.get(device) or self._sent.get(device)

    def add(self, message: MqttMessage, device: Device, sent: _Sent) -> None:
        """Note a row of the message, which becomes the last one with the commit."""
        if message is not self._message:
            self._message = message
            self._undo.clear()
        self._undo.append((device, self._pending.get(device)))
        self._pending[device] = sent

    def discard(self, message: MqttMessage) -> None:
        """Forget the rows of the message, which became a dead letter."""
        if message is not self._message:
            return
        for device, before in reversed(self._undo):
            if before is None:
                del self._pending[device]
            else:
                self._pending[device] = before
        self._undo.clear()

    def committed(self, rejected: Collection[str]) -> None:
        """Note that the pending rows are stored, except those for the streams ``rejected``."""
        for device, sent in self._pending.items():
            if sent.stream not in rejected:
                self._remove(device)
                self._sent[device] = sent
                self.bytes += _size(device, sent)
        while self.bytes > self._max_bytes:
            self._remove(next(iter(self._sent)))
        self.rolled_back()

    def rolled_back(self) -> None:
        """Forget the pending rows: they aren't stored."""
        self._pending.clear()
        self._undo.clear()
        self._message = None

    def _remove(self, device: Device) -> None:
        sent = self._sent.pop(device, None)
        if sent is not None:
            self.bytes -= _size(device, sent)


def _size(device: Device, sent: _Sent) -> int:
    _, name, names = device
    return OWN_BYTES + 4 * (len(name) + sum(map(len, names))) + VALUE_BYTES * (len(names) + len(sent.values))


def compared_columns(
    route: Route, columns: Iterable[Attribute], captures: Collection[str]
) -> dict[str, Decimal | None]:
    """The columns whose change makes a row be sent, with the change that is too small; None: any change counts."""
    changes = route.change
    if isinstance(changes, Mapping):
        return {c.name: _smallest(c, changes[c.name]) for c in columns if c.name in changes}
    return {c.name: _smallest(c, changes) for c in columns if not _is_fixed(route, c.name, captures)}


def _smallest(column: Attribute, change: float) -> Decimal | None:
    return Decimal(repr(change)) if column.type in _NUMBERS else None


def _is_fixed(route: Route, name: str, captures: Collection[str]) -> bool:
    """Whether the column is the same in all rows of a device, or another in each."""
    source = route.fields.get(name, f"{{{name}}}" if name in captures else None)
    if isinstance(source, FieldSpec):
        return source.time is not None or bool(_MOVING & metadata_in(source.source))
    return source is not None and bool(_MOVING & metadata_in(source))


def compile_report(
    number: int, route: Route, columns: Sequence[Attribute], captures: frozenset[str], reading: Reading = PLAIN
) -> Report | None:
    """Compile a route's ``every``, ``change`` and ``device``; None: the route has none.

    Raises:
        ValueError: they are invalid; the message says why.
    """
    if route.every is None:
        return None
    every = int(route.every * 10**9)
    compared = compared_columns(route, columns, captures)
    device_of = _compile_device(route.device, captures, reading)

    def report(context: Mapping[str, Any], element: Any, values: Mapping[str, Any]) -> None:
        message: MqttMessage = context[MESSAGE]
        name = device_of(context, element)
        if message.is_replay or name is None:
            return
        # A route with a device of its own doesn't distinguish topics and names.
        names = context[KEY][id(element)] if route.device is None and KEY in context else ()
        device = (number, name, names)
        sent = _Sent(message.received_at, route.stream, tuple(_kept(values[column]) for column in compared))
        reports: Reports = context[REPORTS]
        last = reports.last(device)
        # A clock that was set back counts as expired.
        if last is not None and 0 <= sent.at - last.at < every and not _differ(last, sent, compared):
            raise Unchanged
        reports.add(message, device, sent)

    return report


def _compile_device(source: str | None, captures: frozenset[str], reading: Reading) -> CompiledField:
    if source is None:
        return lambda context, _element: context[MESSAGE].topic
    field = compile_field(source, captures=captures, column_type=AttributeType.STRING, reading=reading)
    as_text = reading.text
    return lambda context, element: None if (found := field(context, element)) is None else as_text(found)


def _kept(value: Any) -> Any:
    """A value of bounded size to compare with the next one."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return blake2b(repr(value).encode("utf-8", "backslashreplace"), digest_size=16).digest()


def _differ(last: _Sent, now: _Sent, compared: Mapping[str, Decimal | None]) -> bool:
    return any(
        _differs(old, new, change) for old, new, change in zip(last.values, now.values, compared.values(), strict=True)
    )


def _differs(old: Any, new: Any, change: Decimal | None) -> bool:
    if change is None or old is None or new is None:
        return bool(old != new)
    # In decimals: 21.6 differs from 21.5 by 0.1, not by 0.10000000000000142.
    return abs(Decimal(repr(new)) - Decimal(repr(old))) > change
