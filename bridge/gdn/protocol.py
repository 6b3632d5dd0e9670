"""The client side of a Pulsar-like WebSocket producer (gdn-api.md C.5), as a state machine without I/O.

One object for each connection: records become send requests, answers become receipts, and when the connection ends,
records without a receipt are returned in the order in which they were sent. The pipeline thread owns it.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from bridge.errors import LocalProtocolError
from bridge.message import OutboxRecord
from bridge.text import printable

BAD_REQUEST = "send-error:7"
"""Pulsar's result for a send whose payload is missing or unreadable (gdn-api.md C.5)."""


class Refusal(NamedTuple):
    """GDN answered a send with an error. The connection stays open (C.5)."""

    record: OutboxRecord
    result: str
    """``send-error:N``; 7: the request was wrong, 8: the broker could not take the record now."""
    error: str

    @property
    def is_permanent(self) -> bool:
        """Whether sending it again can't help."""
        return self.result == BAD_REQUEST


class Receipts(NamedTuple):
    """What a batch of answers says about the records sent."""

    receipted: list[int]
    """Record ids, in the order of their receipts."""
    payload_bytes: int
    """Of all receipted records, extras included."""
    refused: list[Refusal]
    unknown: int
    """Messages that match nothing in the window: a repeated receipt, a context that isn't ours, or no answer at all."""
    sent: Sequence[tuple[float, int]] = ()
    """When the receipted records were sent, as (time, number of records), in the order of their receipts."""
    broken: str | None = None
    """How the last answer broke the protocol: earlier answers count, the connection is over."""
    challenged: bool = False
    """Whether Pulsar asks for a new token (PIP-292)."""


class _Answer(msgspec.Struct):
    result: str | None = None
    """None: the message isn't an answer to a send."""
    context: str | None = None
    errorMsg: str | None = None  # noqa: N815 - the wire's name
    type: object = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def _safe(result: str) -> str:
    """A result, safe for a message: the far end may send anything."""
    return printable(result[:50])


def token_response(token: str) -> bytes:
    """The answer to Pulsar's request for a new token, as JSON (PIP-292)."""
    response = {"authMethodName": "token", "authData": token}
    answer = {"clientVersion": "gdn-bridge", "protocolVersion": 0, "response": response}
    return msgspec.json.encode({"type": "AUTH_RESPONSE", "authResponse": answer})


def reusable_from(numbers: Sequence[int], last: int) -> int:
    """The lowest sequence number that may be used again; ``last + 1`` if none may.

    A deduplicating broker drops every number up to the highest that it stored. So a record may keep its number only if
    no later record is known to be stored: only the unbroken run of unreceipted numbers at the end. All others get new
    numbers: a duplicate is better than a loss.

    Args:
        numbers: of the unreceipted records, ascending.
        last: the highest number given out.
    """
    start = last + 1
    for number in reversed(numbers):
        if number != start - 1:
            break
        start = number
    return start


class ProducerProtocol:
    """The window of one connection.

    Args:
        window: maximum records without a receipt. At most the ``maxPendingMessages`` that the connection asked for,
            above which Pulsar answers with errors.
    """

    def __init__(self, *, window: int) -> None:
        self._window = window
        self._unreceipted: dict[int, tuple[OutboxRecord, float]] = {}  # in send order

    @property
    def room(self) -> int:
        """How many records the window can take now."""
        return self._window - len(self._unreceipted)

    @property
    def oldest_sent_at(self) -> float | None:
        """When the oldest unreceipted record was sent; None: there is none."""
        for _, sent_at in self._unreceipted.values():
            return sent_at
        return None

    def send(self, records: Sequence[OutboxRecord], now: float) -> list[bytes]:
        """Add the records to the window; returns the request for each, as JSON.

        Raises:
            LocalProtocolError: there are more records than room, or one is already in the window.
        """
        if len(records) > self.room:
            raise LocalProtocolError(f"{len(records)} records for a window with room for {self.room}")
        requests = []
        for record in records:
            if record.id in self._unreceipted:
                raise LocalProtocolError(f"record {record.id} is already in the window")
            self._unreceipted[record.id] = (record, now)
            payload = b2a_base64(record.payload, newline=False)
            requests.append(b'{"payload":"%b","context":"%d"%b}' % (payload, record.id, record.extras))
        return requests

    def receive(self, answers: Iterable[bytes]) -> Receipts:
        """Match answers to records by context, not by order: the broker publishes asynchronously.

        An unreadable answer, or a refusal without a context, ends the connection (``broken``). It isn't raised: that
        would lose the receipts before it. A JSON object that isn't an answer to a send is ignored.
        """
        broken = None
        challenged = False
        receipted: list[int] = []
        refused: list[Refusal] = []
        unknown = payload_bytes = 0
        # Records sent together are mostly receipted together: one entry for each change of the time, not each record.
        moment: float | None = None
        moments: list[tuple[float, int]] = []  # the time, and the index in receipted from which it applies
        for text in answers:
            try:
                answer = _decode_answer(text)
            except (msgspec.DecodeError, RecursionError) as exc:
                broken = f"an answer on the producer socket can't be read: {exc}"
                break
            context, result = answer.context, answer.result
            if result is None:
                if answer.type == "AUTH_CHALLENGE":
                    challenged = True
                else:
                    unknown += 1
                continue
            if context is None and result != "ok":
                error = (answer.errorMsg or "")[:200]
                broken = f"GDN refused a send without saying which: {_safe(result)} {error!r}"
                break
            # isdecimal and isascii: int() would also take "+1", " 1 " and digits of other scripts.
            sent = (
                self._unreceipted.pop(int(context), None)
                if context and len(context) < 20 and context.isascii() and context.isdecimal()
                else None
            )
            if sent is None:
                unknown += 1
            elif result == "ok":
                if sent[1] != moment:
                    moment = sent[1]
                    moments.append((moment, len(receipted)))
                receipted.append(sent[0].id)
                payload_bytes += sent[0].size
            else:
                refused.append(Refusal(sent[0], _safe(result), (answer.errorMsg or "")[:500]))
        runs = [(at, end - start) for (at, start), (_, end) in pairwise([*moments, (0.0, len(receipted))])]
        return Receipts(receipted, payload_bytes, refused, unknown, runs, broken, challenged)

    def unreceipted(self) -> list[OutboxRecord]:
        """Empty the window; returns its records in send order."""
        records = [record for record, _ in self._unreceipted.values()]
        self._unreceipted.clear()
        return records
