"""QoS 2: recognises messages that are already stored, by packet id. Does no I/O.

The bridge's half of the exchange (MQTT 5 and 3.1.1, 4.3.3): PUBLISH, commit, PUBREC; PUBREL, commit, PUBCOMP. Until its
PUBREL a message is remembered on disk, in the commit that stores it: a PUBLISH with the same packet id is the same
message. The PUBCOMP allows the broker to use the packet id again, so it is sent only when the id is no longer on disk.

Unlike QoS 1 this needs no fence (``redelivery.py``), and it works without ``delivery.deduplicate``. A broker that
was restored from an older state may reuse an id, so the content must match too. After a link that ended before its
CONNACK, which may have reported a lost session, the message must also be marked as redelivered (DUP, 3.3.1.1).
Otherwise DUP isn't required, because aedes doesn't set it. In doubt a message counts as new: a duplicate is better
than a loss.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.message import MqttMessage, Qos2Changes
from bridge.mqtt.redelivery import content_digest, session_key


class Qos2Exchanges:
    """The QoS 2 messages that are stored and whose PUBREL has not come: at most one for each packet id.

    Each turn of the pipeline calls ``new`` for what was read, ``to_store`` for the commit, and ``committed`` after it.
    ``link_ended`` is called once a link is gone.

    Args:
        session: names broker and client id; the entries of another session match no message.
        stored: packet ids and digests that earlier commits stored.
    """

    def __init__(self, *, session: str, stored: Iterable[tuple[int, bytes]] = ()) -> None:
        self._key = session_key(session)
        self._stored = dict(stored)
        self._must_clear = False  # the entries on disk are of a lost session
        self._doubtful: set[int] = set()  # packet ids in _stored that may be of a session that the broker has lost
        self._is_connected = False  # the CONNACK was seen
        self._uncommitted: dict[int, bytes] = {}  # of new messages
        self._pubrels: set[int] = set()  # not answered yet
        self.skipped = 0
        """Redelivered messages so far."""

    def link_ended(self) -> None:
        """Note that the link is gone: its unfinished exchanges continue on the next one."""
        if not self._is_connected:
            self._doubtful = set(self._stored)  # its CONNACK may have reported a lost session
        self._is_connected = False
        self._uncommitted = {}
        self._pubrels = set()

    def new(self, messages: list[MqttMessage], *, session_present: bool | None) -> list[MqttMessage]:
        """The messages that aren't already stored.

        Args:
            messages: in arrival order.
            session_present: of the link's CONNACK; None before it has come.
        """
        if not self._is_connected and session_present is not None:
            self._is_connected = True
            if not session_present and self._stored:
                self._stored, self._must_clear = {}, True
        if 2 not in [message.qos for message in messages]:  # the usual case
            return messages
        new = [message for message in messages if message.qos != 2 or self._is_new(message)]
        self.skipped += len(messages) - len(new)
        return new

    def _is_new(self, message: MqttMessage) -> bool:
        packet_id, digest = message.packet_id, content_digest(message, self._key)
        known = self._uncommitted.get(packet_id) or self._stored.get(packet_id)
        if digest == known and (message.dup or packet_id not in self._doubtful):
            return False
        self._uncommitted[packet_id] = digest
        return True

    def pubrels_came(self, packet_ids: Iterable[int]) -> None:
        """The broker has sent PUBRELs with these packet ids."""
        self._pubrels.update(packet_ids)

    def to_store(self, new: Iterable[MqttMessage]) -> Qos2Changes | None:
        """What the commit of ``new`` must store beside the rows; None: nothing, and it needs no commit."""
        # A PUBREL that comes before its message is stored answers no PUBREC of ours: the broker skipped a step, or it
        # means an earlier message with this id. The PUBCOMP of this turn lets the broker use the id again, and no
        # further PUBREL has to follow. If the id were remembered, the next message with it and the same content would
        # be lost.
        for packet_id in self._pubrels:
            self._uncommitted.pop(packet_id, None)
        ids = dict.fromkeys([m.packet_id for m in new if m.qos == 2]) if self._uncommitted else {}
        begun = [(n, digest) for n in ids if (digest := self._uncommitted.pop(n, None)) is not None]
        ended = [n for n in self._pubrels if n in self._stored]
        if begun or ended or self._must_clear:
            return Qos2Changes(begun, ended, self._must_clear)
        return None

    def committed(self, stored: Qos2Changes | None) -> list[int]:
        """The packet ids whose exchange may be completed with a PUBCOMP; ``stored`` is on disk."""
        if stored is not None:
            self._must_clear = False
            for packet_id in stored.ended:
                self._stored.pop(packet_id, None)
            self._stored.update(stored.begun)
            self._doubtful.difference_update(stored.ended, [packet_id for packet_id, _ in stored.begun])
        completed, self._pubrels = list(self._pubrels), set()
        return completed

    @property
    def may_subscribe(self) -> bool:
        """Whether subscriptions may be requested: see ``RedeliveryFilter.may_subscribe``."""
        return self._is_connected and not self._must_clear
