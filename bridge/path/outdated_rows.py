"""Converts stored records to the form that the current worker takes; what can't be converted becomes a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bridge.log import get_logger
from bridge.mapping.row_formats import RowFormats
from bridge.mapping.unmappable import Unmappable
from bridge.message import DeadLetter, OutboxRecord
from bridge.outbox import RefusedRecord
from bridge.path.delivery import PageInCurrentForm

log = get_logger(__name__)


class OutdatedRows:
    """Converts the records of one stream. Used by the pipeline thread.

    Args:
        stream: its name.
        formats: the forms that the stream's rows have had.
        wall_clock: nanoseconds since the epoch.
    """

    def __init__(self, stream: str, formats: RowFormats, *, wall_clock: Callable[[], int]) -> None:
        self._stream = stream
        self._formats = formats
        self._wall_clock = wall_clock

    def convert(self, page: Sequence[OutboxRecord]) -> PageInCurrentForm:
        """Convert a page, in any order, to the records in the current form and those that can't be converted."""
        current = self._formats.current_from(self._stream)
        if all(record.id >= current for record in page):
            return PageInCurrentForm(page)
        records: list[OutboxRecord] = []
        outdated: list[RefusedRecord] = []
        for record in page:
            version = self._formats.version_of(self._stream, record.id)
            try:
                payload = self._formats.converted(self._stream, record.payload, version)
            except Unmappable as exc:
                outdated.append(RefusedRecord(record.id, self._dead_letter(record, version, exc)))
            else:
                records.append(msgspec.structs.replace(record, payload=payload))
        if outdated:
            first = outdated[0].dead_letter.detail
            log.warning("outbox.outdated_rows", stream=self._stream, count=len(outdated), detail=first)
        return PageInCurrentForm(records, outdated)

    def _dead_letter(self, record: OutboxRecord, version: str, why: Unmappable) -> DeadLetter:
        return DeadLetter(
            topic="",  # records don't keep the topic of their message
            payload=record.payload,
            qos=1,
            received_at=self._wall_clock(),
            route=None,
            reason=why.reason.value,
            detail=str(why),
            mapping=version,
        )
