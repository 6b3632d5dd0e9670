"""The producer's side of a Pulsar-like WebSocket producer (gdn-api.md C.5), as a state machine without I/O.

One object per connection: records become send requests, answers become receipts, and what is unreceipted when the
connection ends is handed back in the order in which it was sent. The pipeline's thread owns it.
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


class Refusal(NamedTuple):
    """GDN answered a send with an error. The connection stays open (C.5)."""

    record: OutboxRecord
    result: str
    """``send-error:N``; 7 means that the request was at fault, 8 that the broker could not take it now."""
    error: str

    @property
    def is_permanent(self) -> bool:
        """Whether sending the same again can't help: 7, payload missing or not readable."""
        return self.result == "send-error:7"


class Receipts(NamedTuple):
    """What a block of answers settles."""

    receipted: list[int]
    """Record ids, in the order of their receipts."""
    payload_bytes: int
    """Of the receipted records together, extras included."""
    refused: list[Refusal]
    unknown: int
    """Answers that match nothing in the window: receipts that came twice, or a context that isn't ours."""
    sent: Sequence[tuple[float, int]] = ()
    """When the receipted records were sent, as (moment, how many of them), in the order of their receipts."""
    broken: str | None = None
    """How the last of the answers broke the protocol: what came before it counts, the connection is over."""


class _Answer(msgspec.Struct):
    result: str
    context: str | None = None
    errorMsg: str | None = None  # noqa: N815 - the wire's name


_decode_answer = msgspec.json.Decoder(_Answer).decode


def _cut(answer: _Answer) -> str:
    """Its result, fit for a sentence: the far end may write there what it likes."""
    return printable(answer.result[:50])


def reusable_from(numbers: Sequence[int], last: int) -> int:
    """The sequence number from which on numbers may be used again; ``last + 1`` if none may.

    A deduplicating broker remembers the highest number that it stored and drops what isn't above it. So a record may
    keep its number only if no record behind it is known to be stored: the unbroken run of unreceipted numbers at the
    end. Anything else gets a new number; a duplicate is better than a loss.

    Args:
        numbers: of the unreceipted records, ascending.
        last: the highest number that was given out.
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
        window: records that may be unreceipted at a time. Pulsar answers with errors beyond its own
            ``maxPendingMessages``, so it stays at or below what the connection asked for.
    """

    def __init__(self, *, window: int) -> None:
        self._window = window
        self._unreceipted: dict[int, tuple[OutboxRecord, float]] = {}  # in send order: dicts keep it

    @property
    def room(self) -> int:
        """How many records the window can take now."""
        return self._window - len(self._unreceipted)

    @property
    def oldest_sent_at(self) -> float | None:
        """When the oldest unreceipted record was sent; None when there is none."""
        for _, sent_at in self._unreceipted.values():
            return sent_at
        return None

    def send(self, records: Sequence[OutboxRecord], now: float) -> list[bytes]:
        """The request for each record, as JSON text.

        Raises:
            LocalProtocolError: more records than the window has room for, or one that is in it already.
        """
        if len(records) > self.room:
            raise LocalProtocolError(f"{len(records)} records for a window with room for {self.room}")
        requests = []
        for record in records:
            if record.id in self._unreceipted:
                raise LocalProtocolError(f"record {record.id} is in the window already")
            self._unreceipted[record.id] = (record, now)
            payload = b2a_base64(record.payload, newline=False)
            requests.append(b'{"payload":"%b","context":"%d"%b}' % (payload, record.id, record.extras))
        return requests

    def receive(self, answers: Iterable[bytes]) -> Receipts:
        """What the answers settle. Matched by context, never by order: the broker publishes asynchronously.

        An answer that isn't one, or that refuses a request without saying which, ends it (``broken``): what is
        unreceipted then can only be sent again, on another connection. Not an exception, which would take the
        receipts before it along: records that were neither released nor sent again.
        """
        broken = None
        receipted: list[int] = []
        refused: list[Refusal] = []
        unknown = payload_bytes = 0
        # What is sent together is receipted together: noted where the moment changes, not for each record.
        moment: float | None = None
        moments: list[tuple[float, int]] = []
        for text in answers:
            try:
                answer = _decode_answer(text)
            except (msgspec.DecodeError, RecursionError) as exc:
                broken = f"an answer on the producer socket can't be read: {exc}"
                break
            context = answer.context
            if context is None and answer.result != "ok":
                broken = f"GDN refused a send without saying which: {_cut(answer)} {(answer.errorMsg or '')[:200]!r}"
                break
            # isdecimal and isascii: int() would also take "+1", " 1 " and digits of other scripts.
            sent = (
                self._unreceipted.pop(int(context), None)
                if context and len(context) < 20 and context.isascii() and context.isdecimal()
                else None
            )
            if sent is None:
                unknown += 1
            elif answer.result == "ok":
                if sent[1] != moment:
                    moment = sent[1]
                    moments.append((moment, len(receipted)))
                receipted.append(sent[0].id)
                payload_bytes += sent[0].size
            else:
                refused.append(Refusal(sent[0], _cut(answer), (answer.errorMsg or "")[:500]))
        runs = [(at, end - start) for (at, start), (_, end) in pairwise([*moments, (0.0, len(receipted))])]
        return Receipts(receipted, payload_bytes, refused, unknown, runs, broken)

    def unreceipted(self) -> list[OutboxRecord]:
        """Every record that was sent and has no receipt, in send order. Empties the window."""
        records = [record for record, _ in self._unreceipted.values()]
        self._unreceipted.clear()
        return records
