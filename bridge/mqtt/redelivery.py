"""Which messages a broker hands over again although they are stored, told so that no new one is ever taken for one.

Used with ``delivery.deduplicate``; does no I/O. A packet id proves nothing by itself: the broker may use it again as
soon as it has our PUBACK, and devices send the same reading twice. Two rules of MQTT prove it together: what is
unacknowledged is sent again on the resumed session (MQTT 5, 4.4), in the order in which it was first sent (4.6). So
the last message of each commit, the *fence*, is acknowledged only after the next commit. On a resumed session the
broker must send it again, all before it was received before it and is stored, and all after it is new.

Brokers are held to a second, independent proof: what is skipped before the fence must also be known by packet id and
content. In doubt a message counts as new: a duplicate is better than a loss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from bridge.log import get_logger
from bridge.message import MqttMessage, SeenMessages

KEPT = 10_000
"""Messages, at least, that are kept; a broker that has more of them unacknowledged gets some stored twice."""

ENTRY_BYTES = 10
"""Of a packet id and a digest."""

PATIENCE = 10.0
"""Seconds without a message after which a fence that the broker has not sent again is not waited for any longer."""

MAX_HELD_BYTES = 16 * 1024 * 1024
"""Of messages that wait for the fence: bounds memory."""

log = get_logger(__name__)


class RedeliveryFilter:
    """Tells repetitions, and which messages may be acknowledged.

    Each turn of the data path: ``sift`` what was read, ``to_keep`` with the commit, then ``committed``. ``end`` when a
    link is gone.

    Args:
        session: names broker and client id; what was kept of another session doesn't count.
        batches: what earlier commits kept, as (batch, messages), oldest first.
    """

    def __init__(self, *, session: str, batches: Iterable[tuple[int, bytes]] = ()) -> None:
        self._key = blake2b(session.encode(), digest_size=32).digest()
        self._entries: dict[int, bytes] = {}  # by packet id, the latest
        self._batches: deque[tuple[int, int]] = deque()  # number and size of those on disk
        self._fence: bytes | None = None
        self._next_batch = 1
        for batch, messages in batches:
            self._learn(batch, messages)
        self._kept = self._fence is not None  # whether there is something on disk
        self._must_forget = False
        self.skipped = 0
        """Messages told to be repetitions so far."""
        self.end()

    def end(self) -> None:
        """The link is gone: what it owed an acknowledgement comes again on the next one."""
        self._begun = False
        self._held: list[MqttMessage] | None = None  # while the fence is waited for
        self._held_bytes = 0
        self._held_at = 0.0
        self._pending: MqttMessage | None = None  # the fence, as it came on this link
        self._pins = False
        self._is_nagged = False

    def sift(
        self, messages: Sequence[MqttMessage], *, session_present: bool | None, now: float
    ) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """What is to be dealt with now of what came, in arrival order, and what of that is new and must be stored.

        Args:
            messages: in arrival order.
            session_present: of the link's CONNACK; None before it has come.
            now: monotonic seconds.
        """
        if not self._begun and session_present is not None:
            self._begin(session_present, now)
        if self._held is None:
            arrived = self._without_nagging(messages)
            return arrived, arrived
        for n, message in enumerate(messages):
            self._held.append(message)
            self._held_bytes += len(message.payload)
            self._held_at = now
            if message.qos and not message.dup:
                log.info("mqtt.no_repetition", hint="the broker goes on with new messages: all are stored")
            elif message.qos and self._entry(message) == self._fence:
                return self._pass(messages[n + 1 :])
            elif self._held_bytes <= MAX_HELD_BYTES and len(self._held) <= 2 * KEPT:
                continue
            return self._give_up(messages[n + 1 :])
        if now - self._held_at > PATIENCE:
            log.info("mqtt.no_repetition", hint="the broker has not sent the last stored message again: all are stored")
            return self._give_up(())
        return [], []

    def to_keep(
        self, arrived: Sequence[MqttMessage], fresh: Sequence[MqttMessage], *, due: bool
    ) -> SeenMessages | None:
        """What the commit must write beside the rows; None: nothing, a commit isn't needed for it.

        Args:
            arrived: and
            fresh: as ``sift`` gave them.
            due: whether a commit is made anyhow, or for ``wants_commit``.
        """
        new = [message for message in fresh if message.qos]
        if new:
            last = next(message for message in reversed(arrived) if message.qos)
            entries = [self._entry(message) for message in (new if new[-1] is last else [*new, last])]
            return SeenMessages(self._next_batch, b"".join(entries), self._oldest_kept(len(entries)))
        if self._must_forget or (due and self.wants_commit):
            return SeenMessages(self._next_batch, b"", self._next_batch)
        return None

    def committed(self, kept: SeenMessages | None, arrived: Sequence[MqttMessage]) -> list[MqttMessage]:
        """The messages that may be acknowledged now, in arrival order; ``kept`` is on disk."""
        unacked = [self._pending] if self._pending is not None else []
        unacked += [message for message in arrived if message.qos]
        if len(unacked) > 1 and not self._is_nagged:
            self._pins = True
        self._pending = None
        if kept is not None:
            self._kept = bool(kept.messages)
            self._must_forget = False
            if not kept.messages:
                self._forget()
                return unacked
            while self._batches and self._batches[0][0] < kept.oldest:
                self._batches.popleft()
            self._learn(kept.batch, kept.messages)
        if unacked:
            self._pending = unacked.pop()
        return unacked

    @property
    def wants_commit(self) -> bool:
        """Whether a message stays unacknowledged only until some commit says that nothing needs to be known of it.

        A broker that has shown that it sends a second message before the first is acknowledged can be left with one
        for as long as it takes; another one would wait for ever.
        """
        return self._pending is not None and not self._pins

    @property
    def may_subscribe(self) -> bool:
        """Whether the broker may be asked for messages.

        A new session counts its packet ids anew: what is known of an old one must be forgotten on disk before the
        first message. That a session is new isn't known for certain from its CONNACK: the one that said so may have
        been lost with its link. But a new session has no subscriptions, so that nothing comes before the fence, or
        instead of it, as long as none is made.
        """
        return self._begun and self._held is None and not self._must_forget

    def _begin(self, session_present: bool, now: float) -> None:
        self._begun = True
        if not session_present:
            self._forget()
        elif self._fence is not None:
            self._held, self._held_at = [], now

    def _without_nagging(self, messages: Sequence[MqttMessage]) -> list[MqttMessage]:
        """The messages without the fence, if the broker sends it again on the same link, as some 3.1.1 brokers do."""
        pending = self._pending
        if pending is None:
            return list(messages)
        arrived = [
            message
            for message in messages
            if not (message.dup and message.qos and self._entry(message) == self._entry(pending))
        ]
        if len(arrived) < len(messages):
            self.skipped += len(messages) - len(arrived)
            self._is_nagged, self._pins = True, False
        return arrived

    def _pass(self, rest: Sequence[MqttMessage]) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """The fence has come."""
        held, self._held = self._held or [], None
        fresh = [m for m in held if not m.qos or self._entries.get(m.packet_id) != self._entry(m)]
        self.skipped += len(held) - len(fresh)
        log.info("mqtt.repetitions_skipped", count=len(held) - len(fresh))
        return [*held, *rest], [*fresh, *rest]

    def _give_up(self, rest: Sequence[MqttMessage]) -> tuple[list[MqttMessage], list[MqttMessage]]:
        """Take all that was held, and what follows, for new."""
        arrived = [*(self._held or []), *rest]
        self._held = None
        self._forget()
        return arrived, arrived

    def _forget(self) -> None:
        self._must_forget = self._kept
        self._entries.clear()
        self._batches.clear()
        self._fence = None

    def _learn(self, batch: int, messages: bytes) -> None:
        entries = [messages[at : at + ENTRY_BYTES] for at in range(0, len(messages), ENTRY_BYTES)]
        self._entries.update((int.from_bytes(entry[:2], "big"), entry) for entry in entries)
        self._batches.append((batch, len(entries)))
        self._fence = entries[-1]
        self._next_batch = batch + 1

    def _oldest_kept(self, coming: int) -> int:
        """The first batch that is still needed when one with ``coming`` messages is added."""
        oldest, kept = self._next_batch, coming
        for batch, size in reversed(self._batches):
            if kept >= KEPT:
                break
            oldest, kept = batch, kept + size
        return oldest

    def _entry(self, message: MqttMessage) -> bytes:
        content = message.topic.encode("utf-8", "surrogateescape") + b"\0" + message.payload
        return message.packet_id.to_bytes(2, "big") + blake2b(content, digest_size=8, key=self._key).digest()
