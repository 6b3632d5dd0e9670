"""Which elements of one message the routes that match its topic take.

Routes with the same format and ``each`` share elements: what one with ``match = "first"`` takes is not offered to later
ones. Routes with another ``each`` are offered their own elements, while something of the message is left. An object
that is a row as a whole contains all other elements: if it is taken, they are.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, Protocol

from bridge.mapping.each import Each, Elements
from bridge.mapping.unmappable import NoReading, Unmappable
from bridge.message import MqttMessage
from bridge.reasons import Reason

UNREADABLE = frozenset((Reason.NOT_JSON, Reason.UNDECODABLE, Reason.NOT_AN_OBJECT))
"""Why a route can't read a message that another may read."""

MessageDecoder = Callable[[MqttMessage], Any]
"""(message) -> its decoded payload; raises Unmappable or NoReading."""


class Reader(Protocol):
    """A compiled route, as far as elements are read and taken by it."""

    @property
    def decode(self) -> MessageDecoder:
        """The same for all routes with the same format."""

    @property
    def each(self) -> Each:
        """Finds the elements."""

    @property
    def each_text(self) -> str:
        """``each`` as configured; empty if it isn't."""

    @property
    def is_last(self) -> bool:
        """Whether what it takes is not offered to later routes."""

    @property
    def passes_on(self) -> Set[Reason]:
        """Why a message that can't be read goes on to the next route."""


class Group:
    """The elements that routes with the same format and ``each`` share."""

    __slots__ = ("decode", "each", "found", "is_whole", "offered", "payload", "untaken")

    def __init__(self, route: Reader, payload: Any) -> None:
        found = route.each(payload)
        self.decode = route.decode
        self.each = route.each_text
        self.payload = payload
        self.found = found
        self.offered = found
        """Those that no route with ``match = "first"`` has taken."""
        self.untaken = found
        """Those that no route has taken."""
        self.is_whole = not route.each_text and isinstance(payload, dict)
        """Whether the one element is the whole payload."""

    def take(self, taken: Elements, *, is_last: bool) -> None:
        """Note the elements that a route has taken of those that it was offered."""
        if not taken:
            return
        takes_all = len(taken) == len(self.offered)
        self.untaken = () if takes_all else _without(self.untaken, taken)
        if is_last:
            self.offered = () if takes_all else _without(self.offered, taken)


def _without(found: Elements, taken: Elements) -> Elements:
    ids = {id(element) for element in taken}
    return [element for element in found if id(element) not in ids]


class Sharing:
    """What routes have taken of one message. Routes must be offered elements in their order."""

    __slots__ = ("_groups", "_has_read", "_unreadable", "decoded")

    def __init__(self, unread: Unmappable | None = None, decoded: dict[MessageDecoder, Any] | None = None) -> None:
        """Begin with a message.

        Args:
            unread: why an earlier route could not read it.
            decoded: its payload, by decoder, as far as it is decoded.
        """
        # One decoding for each format: decoding Sparkplug changes its state.
        self.decoded = {} if decoded is None else decoded
        """Its payload, by decoder."""
        self._groups: list[Group] = []
        self._has_read = False
        self._unreadable: Unmappable | None = None
        if unread is not None:
            self._pass_on(unread)

    def offer(self, route: Reader, message: MqttMessage) -> Group | Unmappable | NoReading:
        """The route's group, whose ``offered`` elements it may take, or why the message goes on to the next route.

        Raises:
            Unmappable: it doesn't go on, but becomes a dead letter.
        """
        for group in self._groups:
            if group.decode is route.decode and group.each == route.each_text:
                return group
        try:
            group = Group(route, self._decoded(route, message))
        except NoReading as exc:
            self._has_read = True
            return exc
        except Unmappable as exc:
            if exc.reason not in route.passes_on:
                raise
            self._pass_on(exc)
            return exc
        self._groups.append(group)
        return group

    def _pass_on(self, exc: Unmappable) -> None:
        if exc.reason in UNREADABLE:
            self._unreadable = exc
        else:
            self._has_read = True

    @property
    def unreadable(self) -> Unmappable | None:
        """Why the last route that could not read the message couldn't, if no route could."""
        return None if self._has_read or self._groups else self._unreadable

    def _decoded(self, route: Reader, message: MqttMessage) -> Any:
        decode = route.decode
        if decode not in self.decoded:
            self.decoded[decode] = decode(message)
        return self.decoded[decode]

    def untaken(self) -> list[tuple[Group, dict[str, Any]]]:
        """The elements that no route has taken, and that count.

        Groups of one ``each`` that found as many elements have the same ones, differently decoded.
        """
        if any(group.is_whole and not group.untaken for group in self._groups):
            return []
        alike: dict[tuple[str, int], list[Group]] = {}
        for group in self._groups:
            if not group.is_whole:
                alike.setdefault((group.each, len(group.found)), []).append(group)
        untaken = []
        for groups in alike.values():
            ids = [{id(element) for element in group.untaken} for group in groups]
            for number, element in enumerate(groups[0].found):
                if all(id(group.found[number]) in own for group, own in zip(groups, ids, strict=True)):
                    untaken.append((groups[0], element))
        return untaken

    def filtered(self) -> int:
        """How many elements no route has taken; 1 if that is the whole message."""
        if len(self._groups) == 1:  # the usual case
            return len(self._groups[0].untaken)
        count = len(self.untaken())
        is_taken = any(len(group.untaken) < len(group.found) for group in self._groups)
        return count or (0 if is_taken else 1)
