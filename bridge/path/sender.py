"""The outbound side of one stream: its records (``Delivery``), the dialler of its producer, and the current link."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence

from bridge.errors import OutboxUnavailable, RemoteProtocolError
from bridge.gdn.producer import ProducerLink
from bridge.histogram import Histogram
from bridge.links.dialer import Dialer
from bridge.links.link import LinkEnd
from bridge.log import get_logger
from bridge.message import OutboxRecord, total_size
from bridge.outbox import Outbox
from bridge.path.delivery import Delivery
from bridge.path.rate_limit import RateLimit

log = get_logger(__name__)


class Sender:
    """Sends one stream's records. Used by the pipeline thread; the dialling thread reads ``initial_sequence_id``.

    Args:
        delivery: the stream's records.
        connect: dials a producer, in the dialling thread. Its argument is the initial sequence id; None without
            deduplication.
        hand_over: takes the stream and the dialled producer.
        limit: the rate limit; None: none.
        gate: nothing is dialled before it is set.
    """

    def __init__(
        self,
        delivery: Delivery,
        *,
        connect: Callable[[int | None], ProducerLink],
        hand_over: Callable[[str, ProducerLink], None],
        limit: RateLimit | None = None,
        gate: threading.Event | None = None,
    ) -> None:
        self.delivery = delivery
        self.link: ProducerLink | None = None
        self._limit = limit
        self.initial_sequence_id = delivery.initial_sequence_id if delivery.deduplicates else None
        """For the next connection; None without deduplication."""
        self.durations = Histogram()
        """From a record's send to its receipt."""
        self.certificate_ends: Mapping[str, float] = {}
        """Of the latest connection."""
        self.sends = 0
        self.receipts = 0
        self.dialer: Dialer[ProducerLink] = Dialer(
            name=f"producer {delivery.stream}",
            connect=lambda: connect(self.initial_sequence_id),
            hand_over=lambda link: hand_over(delivery.stream, link),
            gate=gate,
        )

    def adopt(self, link: ProducerLink) -> None:
        """Send over this link from now on."""
        stream, delivery = self.delivery.stream, self.delivery
        self.link = link
        self.certificate_ends = link.certificate_ends
        self.dialer.up()
        log.info("producer.connected", stream=stream, deduplicates=link.deduplicates)
        if delivery.deduplicates and not link.deduplicates:
            log.warning(
                "producer.no_deduplication",
                stream=stream,
                hint="the far end refuses producerName and initialSequenceId (400): delivery is at least once now",
            )
            delivery.fall_back()
            self.initial_sequence_id = None

    def read_receipts(self, now: float, received_at: int) -> Sequence[int]:
        """Read receipts; returns the ids of the records that GDN has. Only with a link.

        ``received_at``: the wall clock in nanoseconds, for records that GDN refuses.
        """
        assert self.link is not None
        stream, delivery = self.delivery.stream, self.delivery
        try:
            receipts = self.link.read(now)
        except RemoteProtocolError as exc:
            self.drop(str(exc))
            return ()
        self.receipts += len(receipts.receipted) + len(receipts.refused)
        delivery.take_receipts(receipts.receipted, receipts.payload_bytes)
        if receipts.sent:
            self.durations.add([(now - at, number) for at, number in receipts.sent])
        if receipts.refused:
            delivery.refuse(receipts.refused, now, received_at)
            count, first = len(receipts.refused), receipts.refused[0]
            log.warning("producer.refused", stream=stream, count=count, result=first.result, error=first.error)
            if delivery.deduplicates:
                self.drop(f"GDN refused a send ({first.result}): unreceipted records get new sequence numbers")
        if receipts.unknown:
            log.warning("producer.unknown_receipts", stream=stream, count=receipts.unknown)
        return receipts.receipted

    def may_send_at(self) -> float | None:
        """Monotonic seconds from which a record can be sent; None: there is none, no link, or no room."""
        if self.link is None or not self.link.room or not self.delivery.has_work:
            return None
        limited_until = -math.inf if self._limit is None else self._limit.ready_at
        return max(self.delivery.paused_until, limited_until)

    def is_rate_limited(self, now: float) -> bool:
        """Whether only the rate limit prevents a send now."""
        if self._limit is None or now >= self._limit.ready_at:
            return False
        return self.may_send_at() is not None and self.delivery.paused_until <= now

    def send(self, outbox: Outbox, now: float) -> None:
        """Send what the window has room for, once its sequence numbers are on disk.

        Raises:
            OutboxUnavailable: nothing was sent.
        """
        link = self.link
        if link is None or link.error is not None:
            return
        rows, size = (math.inf, math.inf) if self._limit is None else self._limit.room(now)
        records = self.delivery.take(int(min(link.room, rows)), now, max_bytes=min(link.room_bytes, size))
        if not records:
            return
        if self.delivery.deduplicates:
            # Before the send: after a crash the same record must not get another number (docs/reliability.md, P8).
            self._number(records, outbox)
        if self._limit is not None:
            self._limit.take(len(records), total_size(records), now)
        self.sends += len(records)
        link.send(records, now)

    def _number(self, records: list[OutboxRecord], outbox: Outbox) -> None:
        numbers = self.delivery.number(records)
        if not numbers:
            return
        try:
            outbox.number(self.delivery.stream, numbers)
        except OutboxUnavailable:
            self.delivery.put_back(records, numbers)
            raise

    def tick(self, now: float) -> None:
        """Send pings, check timeouts, drop a link that has failed; to be called each turn."""
        if self.link is not None:
            self.link.tick(now)
        self.drop_failed()

    def drop_failed(self) -> None:
        """Drop the link if it has failed."""
        if self.link is not None and self.link.error is not None:
            self.drop(self.link.error)

    def drop(self, error: str) -> None:
        """Drop the link: records without a receipt are sent again over the next one."""
        link, self.link = self.link, None
        if link is None:
            return
        link.fail(error, LinkEnd.GIVEN_UP)  # no effect if the link has failed by itself
        unreceipted = link.close()
        self.delivery.link_lost(unreceipted)
        if self.delivery.deduplicates:
            # Before ``lost`` wakes the dialling thread, which reads it.
            self.initial_sequence_id = self.delivery.initial_sequence_id
        self.dialer.lost(error)
        log.warning("producer.lost", stream=self.delivery.stream, error=error, unreceipted=len(unreceipted))

    @property
    def has_all_receipts(self) -> bool:
        """Whether every sent record has its receipt."""
        return self.link is None or self.link.has_all_receipts

    def close(self) -> None:
        """Close the link at the end of the process. Records without a receipt stay in the outbox."""
        if self.link is not None:
            self.link.close()
            self.link = None
