"""The topic filters of one connection: which are wanted, requested, held by the broker's session, and refused.

Pure: it returns the packets to send (``SubscriptionRequest``) and takes the broker's answers; the link sends and reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from itertools import zip_longest
from typing import NamedTuple

from bridge.errors import RemoteProtocolError
from bridge.mqtt.refusals import BrokerReason, Code, subscription_advice

DROPPED_TOPIC = "$SYS/broker/publish/messages/dropped"
"""Where Mosquitto counts the messages that it has dropped since its start because a queue was full."""

NO_ANSWER = "not answered in the broker's SUBACK"
DOWNGRADED = "granted at QoS 0: messages may be lost"

MAX_FILTERS = 8
"""Filters in one SUBSCRIBE or UNSUBSCRIBE. AWS IoT Core closes the connection at 9. Smaller packets cost little
(docs/decisions/0014-subscriptions.md)."""

MAX_REPEATED = 8
"""How often a request is repeated because its packet id was in use."""

_SYS_FILTER = re.compile(r"(\$share/[^/]+/)?\$SYS/")


class RequestKind(Enum):
    """What a packet asks for."""

    SUBSCRIBE = auto()
    """The filters of routes."""
    SUBSCRIBE_COUNTER = auto()
    """The broker's counter of dropped messages."""
    UNSUBSCRIBE = auto()


class SubscriptionRequest(NamedTuple):
    """One SUBSCRIBE or UNSUBSCRIBE packet."""

    kind: RequestKind
    filters: list[str]
    repeats: int = 0
    """How many requests for these filters were refused because the packet id was in use."""


class Results(NamedTuple):
    """What the answers so far mean."""

    held: tuple[str, ...]
    """Filters that the session holds now, sorted, for ``known`` of the next connection: those granted, and those
    no longer wanted until the broker has confirmed that they are gone. With 3.1.1 not those granted at QoS 0: the
    next connection must request them again, so that they are granted at QoS 1 or named in ``refused``."""
    refused: Mapping[str, str]
    """Wanted filters that the broker refused or granted at QoS 0, each with the reason."""
    advice: Mapping[str, str]
    """What to do about each of ``refused``."""
    downgraded: frozenset[str]
    """Those of ``refused`` that the broker granted at QoS 0."""
    granted: Mapping[str, int]
    """Wanted filters that the broker granted on this connection, each with its QoS."""


class Subscriptions:
    """The subscriptions of one link. At most ``MAX_FILTERS`` go into one packet; the packets don't wait for each other.

    Args:
        wanted: filters of the routes.
        known: filters that the broker's session held at the end of the last connection; empty if nothing is known.
        version: of the protocol, 5 or 4 (3.1.1).
        watch_drops: whether to subscribe to the broker's counter of dropped messages as well.
        same_qos: whether ``known`` were requested at the same QoS as ``wanted``.
    """

    def __init__(
        self, wanted: Sequence[str], *, known: Sequence[str], version: int, watch_drops: bool, same_qos: bool = True
    ) -> None:
        self.is_requested = False
        """Whether the first SUBSCRIBE is due or sent."""
        self.is_answered = False
        """Whether every wanted filter was answered, granted or refused."""
        self.includes_sys = _includes_sys(wanted)
        """Whether a wanted filter is one for the broker's own topics."""
        self._wanted = dict.fromkeys(wanted)  # a set in order
        self._known = list(dict.fromkeys(known))
        self._is_v5 = version == 5
        self._requests_all = self._is_v5 or not same_qos
        # A route for the broker's own topics would also get the counter's messages.
        self._watches_drops = watch_drops and not self.includes_sys
        self._is_connected = False
        self._held: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._advice: dict[str, str] = {}  # for each of _reasons
        self._granted: dict[str, int] = {}
        self._downgraded: set[str] = set()
        self._results: Results | None = None  # None: something has changed since they were last asked for
        self._subscribes: dict[int, SubscriptionRequest] = {}  # by packet id, until the SUBACK
        self._unsubscribes: dict[int, SubscriptionRequest] = {}  # by packet id, until the UNSUBACK

    @property
    def results(self) -> Results:
        """What the answers so far mean; the same object until that changes."""
        if self._results is None:
            refused = {f: self._reasons[f] for f in self._wanted if f in self._reasons}
            self._results = Results(
                held=tuple(sorted(self._held)),
                refused=refused,
                advice={f: self._advice[f] for f in refused},
                downgraded=frozenset(self._downgraded.intersection(refused)),
                granted={f: self._granted[f] for f in self._wanted if f in self._granted},
            )
        return self._results

    @property
    def pending(self) -> int:
        """How many requests have no answer yet."""
        return len(self._subscribes) + len(self._unsubscribes)

    @property
    def has_unanswered(self) -> bool:
        """Whether a SUBSCRIBE of wanted filters has no SUBACK yet."""
        return any(request.kind is RequestKind.SUBSCRIBE for request in self._subscribes.values())

    @property
    def counter_unanswered(self) -> bool:
        """Whether the SUBSCRIBE of the counter has no SUBACK yet."""
        return any(request.kind is RequestKind.SUBSCRIBE_COUNTER for request in self._subscribes.values())

    @property
    def _leaving(self) -> set[str]:
        """Filters of unanswered UNSUBSCRIBE packets: the session still holds them."""
        return {filter_ for request in self._unsubscribes.values() for filter_ in request.filters}

    # --- requests -----------------------------------------------------------------------------------------

    def connected(self, *, session_present: bool) -> list[SubscriptionRequest]:
        """Note the CONNACK. Returns the requests that remove filters of earlier connections from a kept session."""
        self._is_connected = True
        if not session_present:
            return []
        self._held.update(self._known)
        self._results = None
        return self._unsubscribe(self._known)

    def request(self) -> list[SubscriptionRequest]:
        """Request the wanted filters for the first time; only after the CONNACK.

        With MQTT 5 all of them are requested at each connect: that costs little and repairs a session that lost
        some. 3.1.1 has no Retain Handling: each SUBSCRIBE brings all retained messages again, so only filters that the
        session doesn't hold, or holds at another QoS, are requested.
        """
        self.is_requested = True
        kept = frozenset() if self._requests_all else self._held - self._leaving
        missing = [f for f in self._wanted if f not in kept]
        return _requests(RequestKind.SUBSCRIBE, missing) or self._answered()

    def repeat(self) -> list[SubscriptionRequest]:
        """Request all wanted filters again. With 3.1.1 this brings retained messages again."""
        return _requests(RequestKind.SUBSCRIBE, self._wanted)

    def change(self, wanted: Sequence[str]) -> list[SubscriptionRequest]:
        """Replace the wanted filters.

        New ones are subscribed before old ones are unsubscribed: a message that matches both is not missed in between.
        """
        if list(wanted) == list(self._wanted):
            return []
        new = [f for f in wanted if f not in self._wanted]
        # Filters whose SUBACK is still to come are not held yet, but may be granted.
        # Before the first request those of the last connection count, too: some brokers deny having a session that they
        # have.
        candidates = [*self._held, *(self._wanted if self.is_requested else self._known)]
        self._wanted = dict.fromkeys(wanted)
        self.includes_sys = _includes_sys(wanted)
        self._results = None
        requests = _requests(RequestKind.SUBSCRIBE, new) if self.is_requested else []
        if self._is_connected:
            requests += self._unsubscribe(candidates)
        return requests

    def sent(self, packet_id: int, request: SubscriptionRequest) -> None:
        """Note that the request was sent with this packet id."""
        pending = self._unsubscribes if request.kind is RequestKind.UNSUBSCRIBE else self._subscribes
        pending[packet_id] = request

    # --- answers ------------------------------------------------------------------------------------------

    def take_suback(self, packet_id: int, reasons: Sequence[BrokerReason]) -> list[SubscriptionRequest]:
        """Note a SUBACK. Returns the requests that follow.

        Raises:
            RemoteProtocolError: no SUBSCRIBE has this packet id.
        """
        request = self._subscribes.pop(packet_id, None)
        if request is None:
            raise RemoteProtocolError(
                f"the broker sent a SUBACK for packet id {packet_id}, which no SUBSCRIBE is waiting for"
            )
        is_counter = request.kind is RequestKind.SUBSCRIBE_COUNTER
        again = [f for f in self._in_use(request, reasons) if is_counter or f in self._wanted]
        for filter_, reason in zip_longest(request.filters, reasons[: len(request.filters)]):
            if filter_ not in again:
                self._take_answer(filter_, reason)
        self._results = None
        if again:
            return [SubscriptionRequest(request.kind, again, request.repeats + 1)]
        return [] if is_counter or self.has_unanswered else self._answered()

    def take_unsuback(self, packet_id: int, reasons: Sequence[BrokerReason]) -> list[SubscriptionRequest]:
        """Note an UNSUBACK; with 3.1.1 it has no reasons. Returns the requests that follow.

        Raises:
            RemoteProtocolError: no UNSUBSCRIBE has this packet id.
        """
        request = self._unsubscribes.pop(packet_id, None)
        if request is None:
            raise RemoteProtocolError(
                f"the broker sent an UNSUBACK for packet id {packet_id}, which no UNSUBSCRIBE is waiting for"
            )
        gone = request.filters
        if self._is_v5:
            gone = [f for f, reason in zip(gone, reasons, strict=False) if not reason.is_failure]
        self._held.difference_update(gone)
        self._results = None
        again = [f for f in self._in_use(request, reasons) if f not in self._wanted]
        return [SubscriptionRequest(request.kind, again, request.repeats + 1)] if again else []

    def _in_use(self, request: SubscriptionRequest, reasons: Sequence[BrokerReason]) -> list[str]:
        """The filters to request once more with another packet id.

        Some brokers have one space of packet ids for both directions, and refuse one that a message in flight has.
        """
        if request.repeats == MAX_REPEATED:
            return []
        pairs = zip(request.filters, reasons, strict=False)
        return [filter_ for filter_, reason in pairs if reason.code == Code.PACKET_IDENTIFIER_IN_USE]

    def _take_answer(self, filter_: str, reason: BrokerReason | None) -> None:
        self._held.discard(filter_)
        self._downgraded.discard(filter_)
        self._reasons.pop(filter_, None)
        self._granted.pop(filter_, None)
        self._advice[filter_] = subscription_advice(None if reason is None else reason.code)
        if reason is None or reason.is_failure:
            self._reasons[filter_] = NO_ANSWER if reason is None else str(reason)
            return
        self._granted[filter_] = reason.code
        is_downgraded = reason.code == 0 and filter_ in self._wanted  # the counter is requested at QoS 0
        if is_downgraded:
            self._downgraded.add(filter_)
            self._reasons[filter_] = DOWNGRADED
        if self._is_v5 or not is_downgraded:
            self._held.add(filter_)

    def _answered(self) -> list[SubscriptionRequest]:
        """The wanted filters are answered. The first time, returns the request for the broker's counter."""
        is_first, self.is_answered = not self.is_answered, True
        if is_first and self._watches_drops:
            # After the filters and in its own packet: some brokers close the connection when asked for it.
            return [SubscriptionRequest(RequestKind.SUBSCRIBE_COUNTER, [DROPPED_TOPIC])]
        return []

    def _unsubscribe(self, candidates: Iterable[str]) -> list[SubscriptionRequest]:
        # A session that gets no messages needs no counter of dropped ones.
        kept = {*self._wanted, *([DROPPED_TOPIC] if self._watches_drops and self._wanted else [])}
        return _requests(RequestKind.UNSUBSCRIBE, [f for f in dict.fromkeys(candidates) if f not in kept])


def _requests(kind: RequestKind, filters: Iterable[str]) -> list[SubscriptionRequest]:
    rest = list(filters)
    return [SubscriptionRequest(kind, rest[at : at + MAX_FILTERS]) for at in range(0, len(rest), MAX_FILTERS)]


def _includes_sys(filters: Iterable[str]) -> bool:
    return any(_SYS_FILTER.match(filter_) for filter_ in filters)
