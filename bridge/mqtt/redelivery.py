"""Recognises redelivered messages without mistaking a new one for a repeat.

Used with ``delivery.deduplicate``; does no I/O. A packet id alone proves nothing: the broker may reuse it as soon as it
has our PUBACK, and devices send the same reading twice. Two rules of MQTT together prove it: unacknowledged messages
are sent again when the session resumes (MQTT 5, 4.4), in their original order (4.6). So the last message of each
commit, the *fence*, is acknowledged only after the next commit. On a resumed session the broker must send the fence
again. All that it received before the fence arrives before it and is stored; all that arrives after it is new.

Some brokers send nothing more until every message is acknowledged, so there the fence can't wait for the next commit.
It is *lifted*: a commit clears the entries on disk, then the fence is acknowledged. In this order, because the broker
may reuse its packet id, and an entry with that id could hide a new message. Without entries nothing is recognised, so
the broker must have all earlier PUBACKs before. A *barrier* shows that it has them: a PINGREQ that follows them on the
link. Once its PINGRESP has come, the fence alone is unacknowledged, and if the link breaks, at most the fence is stored
twice. A broker that sends a new message in this state doesn't wait for the fence: on this link no further fence is
lifted.

A second, independent check guards against brokers that break these rules: a message that arrives before the fence is
skipped only if its packet id and content are known. In doubt a message counts as new: a duplicate is better than a
loss.

All this is about QoS 1. Messages with QoS 0 and 2 pass through, in their place (``qos2.py``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from bridge.log import get_logger
from bridge.message import MqttMessage, SeenMessages

MIN_REMEMBERED = 10_000
"""Minimum number of messages to remember. If a broker has more unacknowledged, some may be stored twice."""

DIGEST_BYTES = 8
ENTRY_BYTES = 2 + DIGEST_BYTES
"""An entry is a message's packet id and a digest of topic and payload."""

FENCE_TIMEOUT = 10.0
"""Seconds without a message after which the bridge stops waiting for the fence."""

PATIENCE = 1.0
"""Seconds without a QoS 1 message after which a fence that alone is unacknowledged is lifted."""

PROMPT = 0.25
"""Seconds. A broker that sends the next message within this time of the fence's PUBACK was waiting for it."""

MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Maximum bytes of messages that wait for the fence: bounds memory."""

log = get_logger(__name__)


def session_key(session: str) -> bytes:
    """The key for ``content_digest``: digests of different sessions don't match."""
    return blake2b(session.encode(), digest_size=32).digest()


def content_digest(message: MqttMessage, key: bytes) -> bytes:
    """A digest of topic and payload."""
    content = message.topic.encode("utf-8", "surrogateescape") + b"\0" + message.payload
    return blake2b(content, digest_size=DIGEST_BYTES, key=key).digest()


class RedeliveryFilter:
    """Separates new messages from redelivered ones, and says which messages may be acknowledged.

    Each turn of the pipeline calls ``split`` for what was read, then ``pings_answered``, ``to_store`` for the commit,
    and ``committed`` after it. Once the messages are acknowledged, it sends a PINGREQ if ``wants_barrier``, and calls
    ``barrier_sent``. ``link_ended`` is called once a link is gone.

    Args:
        session: names broker and client id; entries of another session don't match.
        batches: what earlier commits stored, as (batch, entries), oldest first.
    """

    def __init__(self, *, session: str, batches: Iterable[tuple[int, bytes]] = ()) -> None:
        self._key = session_key(session)
        self._entries: dict[int, bytes] = {}  # the latest for each packet id
        self._batches: deque[tuple[int, int]] = deque()  # (number, entries) of those on disk
        self._fence: bytes | None = None  # its entry
        self._next_batch = 1
        for batch, entries in batches:
            self._remember(batch, entries)
        self._has_stored = self._fence is not None  # entries on disk
        self._must_clear = False  # the entries on disk are no longer valid
        self.skipped = 0
        """Redelivered messages so far."""
        self.link_ended()

    def link_ended(self) -> None:
        """Note that the link is gone: its unacknowledged messages come again on the next one."""
        self._has_begun = False  # the CONNACK was seen
        self._waiting: list[MqttMessage] | None = None  # what arrived before the fence; None: not waiting for it
        self._waiting_bytes = 0
        self._last_arrival = 0.0
        self._unacked_fence: MqttMessage | None = None  # as it arrived on this link
        self._barrier: tuple[int, MqttMessage] | None = None  # an unanswered PINGREQ, and the fence it was sent for
        self._lone_fence: MqttMessage | None = None  # the fence of the latest answered barrier
        self._lone_since = 0.0
        self._lifted_at: float | None = None  # the latest fence, until the next message
        self._patience = PATIENCE  # 0: the broker waits for the fence's PUBACK; inf: it sends new messages without it

    def split(
        self, messages: Sequence[MqttMessage], *, session_present: bool | None, now: float
    ) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """The messages to process now, in arrival order, and those of them that are new and must be stored.

        Args:
            messages: in arrival order.
            session_present: of the link's CONNACK; None before it has come.
            now: monotonic seconds.
        """
        if not self._has_begun and session_present is not None:
            self._begin(session_present, now)
        if self._waiting is None:
            arrived = self._without_repeated_fence(messages)
            self._observe(arrived, now)
            return arrived, arrived
        for n, message in enumerate(messages):
            self._waiting.append(message)
            self._waiting_bytes += len(message.payload)
            self._last_arrival = now
            # DUP is set on every message that is sent again (MQTT 5, 3.3.1.1).
            if message.qos == 1 and not message.dup:
                log.info("mqtt.fence_missing", hint="the broker sent a new message instead: all are stored")
                return self._stop_waiting(messages[n + 1 :])
            if message.qos == 1 and self._entry(message) == self._fence:
                return self._fence_arrived(messages[n + 1 :])
            if self._waits_for_too_much:
                return self._stop_waiting(messages[n + 1 :])
        if now - self._last_arrival > FENCE_TIMEOUT:
            log.info("mqtt.fence_missing", hint="the broker did not send the last stored message again: all are stored")
            return self._stop_waiting(())
        return [], []

    def pings_answered(self, count: int, now: float) -> None:
        """Note how many PINGREQs of this link are answered.

        ``split`` comes first: messages that were read together with a PINGRESP may have been sent before it.

        Args:
            count: since the link began.
            now: monotonic seconds.
        """
        if self._barrier is None or count < self._barrier[0]:
            return
        (_, fence), self._barrier = self._barrier, None
        if fence is self._unacked_fence:
            self._lone_fence, self._lone_since = fence, now

    def to_store(
        self, arrived: Sequence[MqttMessage], new: Sequence[MqttMessage], *, may_lift: bool
    ) -> SeenMessages | None:
        """What the commit must store besides the rows; None: nothing, and it needs no commit.

        Args:
            arrived: from ``split``.
            new: from ``split``.
            may_lift: whether ``lift_at`` has come.
        """
        to_acknowledge = [message for message in new if message.qos == 1]
        if to_acknowledge:
            # The fence is the last message that needs a PUBACK, even a redelivered one.
            fence = next(message for message in reversed(arrived) if message.qos == 1)
            if to_acknowledge[-1] is not fence:
                to_acknowledge.append(fence)
            entries = b"".join([self._entry(message) for message in to_acknowledge])
            return SeenMessages(self._next_batch, entries, self._oldest_needed(len(to_acknowledge)))
        # A redelivered message that arrives now is the next fence.
        lifts = may_lift and self._is_fence_alone and all(message.qos != 1 for message in arrived)
        if self._must_clear or lifts:
            return SeenMessages(self._next_batch, b"", self._next_batch)
        return None

    def committed(self, stored: SeenMessages | None, arrived: Sequence[MqttMessage], now: float) -> list[MqttMessage]:
        """The QoS 1 messages that may be acknowledged now, in arrival order; ``stored`` is on disk."""
        unacked = [self._unacked_fence] if self._unacked_fence is not None else []
        unacked += [message for message in arrived if message.qos == 1]
        self._unacked_fence = None
        if stored is not None:
            self._has_stored = bool(stored.messages)
            self._must_clear = False
            if not stored.messages:
                self._forget()
                if unacked:
                    self._lifted_at = now
                return unacked
            while self._batches and self._batches[0][0] < stored.oldest:
                self._batches.popleft()
            self._remember(stored.batch, stored.messages)
        if unacked:
            self._unacked_fence = unacked.pop()
        return unacked

    @property
    def wants_barrier(self) -> bool:
        """Whether to send a PINGREQ now, after the PUBACKs; at most one at a time."""
        may_lift = self._unacked_fence is not None and self._patience < math.inf
        return may_lift and self._barrier is None and not self._is_fence_alone

    def barrier_sent(self, number: int) -> None:
        """Note that the PINGREQ was sent; ``number`` is its number on the link."""
        assert self._unacked_fence is not None
        self._barrier = number, self._unacked_fence

    @property
    def lift_at(self) -> float:
        """Monotonic seconds at which the fence is to be lifted; inf: not now."""
        return self._lone_since + self._patience if self._is_fence_alone else math.inf

    @property
    def _is_fence_alone(self) -> bool:
        """Whether the broker has the PUBACKs of all earlier messages."""
        return self._unacked_fence is not None and self._unacked_fence is self._lone_fence

    @property
    def may_subscribe(self) -> bool:
        """Whether subscriptions may be requested.

        A new session assigns packet ids from the start: the entries of the old one must be gone from disk before its
        first message arrives. The CONNACK alone doesn't show whether a session is new: an earlier CONNACK that said so
        may have been lost with its link. But a new session has no subscriptions, so nothing arrives before this is
        True.
        """
        return self._has_begun and self._waiting is None and not self._must_clear

    @property
    def _waits_for_too_much(self) -> bool:
        assert self._waiting is not None
        return self._waiting_bytes > MAX_WAITING_BYTES or len(self._waiting) > 2 * MIN_REMEMBERED

    def _begin(self, session_present: bool, now: float) -> None:
        self._has_begun = True
        if not session_present:
            self._forget()
        elif self._fence is not None:
            self._waiting, self._last_arrival = [], now

    def _observe(self, messages: Sequence[MqttMessage], now: float) -> None:
        """Note what the arrival of QoS 1 messages shows about the broker. Other messages may come at any time."""
        if self._is_fence_alone:
            # A message with DUP is no sign: it was first sent before this state.
            if self._patience and any(message.qos == 1 and not message.dup for message in messages):
                self._patience = math.inf
        elif self._lifted_at is not None and any(message.qos == 1 for message in messages):
            if now - self._lifted_at <= PROMPT:
                self._patience = 0.0
            self._lifted_at = None

    def _without_repeated_fence(self, messages: Sequence[MqttMessage]) -> list[MqttMessage]:
        """The messages without the fence, which some 3.1.1 brokers send again on the same link."""
        fence = self._unacked_fence
        if fence is None:
            return list(messages)
        arrived = [m for m in messages if not (m.dup and m.qos == 1 and self._entry(m) == self._entry(fence))]
        if len(arrived) < len(messages):
            self.skipped += len(messages) - len(arrived)
            self._patience = 0.0
        return arrived

    def _fence_arrived(self, rest: Sequence[MqttMessage]) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """Skip what was stored before the fence; what follows it is new."""
        waited, self._waiting = self._waiting or [], None
        new = [m for m in waited if m.qos != 1 or self._entries.get(m.packet_id) != self._entry(m)]
        self.skipped += len(waited) - len(new)
        log.info("mqtt.redelivered_skipped", count=len(waited) - len(new))
        return [*waited, *rest], [*new, *rest]

    def _stop_waiting(self, rest: Sequence[MqttMessage]) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """Take all that waits for the fence, and what follows, as new."""
        arrived = [*(self._waiting or []), *rest]
        self._waiting = None
        self._forget()
        return arrived, arrived

    def _forget(self) -> None:
        self._must_clear = self._has_stored
        self._entries.clear()
        self._batches.clear()
        self._fence = None

    def _remember(self, batch: int, joined: bytes) -> None:
        entries = [joined[at : at + ENTRY_BYTES] for at in range(0, len(joined), ENTRY_BYTES)]
        self._entries.update((int.from_bytes(entry[:2], "big"), entry) for entry in entries)
        self._batches.append((batch, len(entries)))
        self._fence = entries[-1]
        self._next_batch = batch + 1

    def _oldest_needed(self, added: int) -> int:
        """The oldest batch that is still needed once one with ``added`` entries follows."""
        oldest, remembered = self._next_batch, added
        for batch, size in reversed(self._batches):
            if remembered >= MIN_REMEMBERED:
                break
            oldest, remembered = batch, remembered + size
        return oldest

    def _entry(self, message: MqttMessage) -> bytes:
        return message.packet_id.to_bytes(2, "big") + content_digest(message, self._key)
