"""All intakes: one for all streams, or with ``mqtt.session_per_stream`` one for each stream (docs/decisions/0038).

A session that is no longer used has an intake, too, until it has delivered what it held. Used by the pipeline thread;
other threads read ``dialers`` and ``statuses``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from bridge.links.dialer import Dialer
from bridge.mapping import Mapper
from bridge.mqtt.link import MqttLink
from bridge.parts import PartStatus
from bridge.path.intake import Intake, intake_name
from bridge.path.retirement import PATIENCE, Retirement

FETCHED_FIRST = "what the session that was used before still holds is fetched first (mqtt.session_per_stream)"
"""Why sessions that replace others aren't connected yet."""


class IntakeFigures(NamedTuple):
    """Sums over several intakes; what the broker says of itself, once. See ``Intake``."""

    messages: int
    skipped: int
    acked: int
    broker: str | None
    broker_dropped: int | None
    notes: tuple[str, ...]


class Intakes:
    """The intakes, and the mapper of each.

    Args:
        intakes: those that are subscribed to the filters of ``mapper``.
        mapper: of the current routes.
        retiring: of sessions that are no longer used.
        make: makes the intake of a stream that a reload adds; raises OutboxUnavailable. None: one intake takes the
            messages of all streams.
    """

    def __init__(
        self,
        intakes: Sequence[Intake],
        mapper: Mapper,
        *,
        retiring: Sequence[Intake] = (),
        make: Callable[[str], Intake] | None = None,
    ) -> None:
        self._make = make
        self.is_per_stream = make is not None
        """Whether each stream has a session of its own."""
        self._all: Mapping[str, Intake] = {intake.name: intake for intake in (*intakes, *retiring)}
        self._used = tuple(intakes)
        self.active: tuple[Intake, ...] = (*intakes, *retiring)
        """All but those that are retired."""
        self._mappers = self._mappers_of(mapper)
        for intake in retiring:
            intake.retire(self._retirement())
        self._await_until: float | None = None  # monotonic seconds; None: not known yet
        self._awaits_retiring = bool(retiring)
        for intake in intakes if retiring else ():
            intake.dialer.hold(FETCHED_FIRST)

    def _retirement(self) -> Retirement:
        return Retirement(is_replaced=lambda: all(intake.is_subscribed for intake in self._used))

    def _mappers_of(self, mapper: Mapper) -> Mapping[str | None, Mapper]:
        streams = [intake.stream for intake in self._all.values()]
        return {None: mapper, **{stream: mapper.of_stream(stream) for stream in streams if stream is not None}}

    # --- other threads ------------------------------------------------------------------------------------

    @property
    def dialers(self) -> list[Dialer[MqttLink]]:
        """Of all intakes; those of retired ones are on hold."""
        return [intake.dialer for intake in self._all.values()]

    @property
    def statuses(self) -> list[PartStatus]:
        """Of the links."""
        return [intake.dialer.status for intake in self.active]

    # --- mappers ------------------------------------------------------------------------------------------

    def mapper_of(self, intake: Intake) -> Mapper:
        """The mapper for the messages of this intake."""
        return self._mappers[intake.stream]

    def rows_made(self) -> Counter[tuple[str, str]]:
        """How many rows the routes have made by the current mappers, by label and stream."""
        return self._total(Mapper.rows_made)

    def unanswerable(self) -> Counter[tuple[str, str]]:
        """For how many elements a route's condition couldn't be evaluated, likewise."""
        return self._total(Mapper.unanswerable)

    def _total(self, counts_of: Callable[[Mapper], Mapping[tuple[str, str], int]]) -> Counter[tuple[str, str]]:
        total: Counter[tuple[str, str]] = Counter()
        for mapper in self._mappers.values():
            total.update(counts_of(mapper))  # unlike a sum of counters it keeps routes that made no row
        return total

    def route_notes(self) -> tuple[str, ...]:
        """Probable mistakes in routes that the messages have shown, as sentences."""
        return tuple(note for mapper in self._mappers.values() for note in mapper.notes())

    def committed(self, rejected: Collection[str]) -> None:
        """Note that all rows made so far are stored, except those for the streams ``rejected``."""
        for mapper in self._mappers.values():
            mapper.committed(rejected)

    def rolled_back(self) -> None:
        """Note that the rows made since the last ``committed`` are not stored."""
        for mapper in self._mappers.values():
            mapper.rolled_back()

    def prepare(self, streams: Sequence[str]) -> list[Intake]:
        """The intakes that are missing for these streams.

        Raises:
            OutboxUnavailable: try again later.
        """
        if self._make is None:
            return []
        return [self._make(stream) for stream in streams if intake_name(stream) not in self._all]

    def use(self, mapper: Mapper, streams: Sequence[str], added: Sequence[Intake]) -> None:
        """Map by this mapper, and subscribe to its filters, from now on.

        Args:
            mapper: of the new routes.
            streams: of the new routes.
            added: what ``prepare`` gave for them.
        """
        self._all = {**self._all, **{intake.name: intake for intake in added}}
        self._mappers = self._mappers_of(mapper)  # before the subscriptions: messages of a new filter need new routes
        if self._make is None:
            for intake in self._used:
                intake.want(mapper.filters)
            return
        used = [self._all[intake_name(stream)] for stream in streams]
        for intake in self._used:
            if intake not in used:
                intake.retire(Retirement(patience=0.0))
        for intake in used:
            filters = self.mapper_of(intake).filters
            if intake in self._used or intake in added:
                intake.want(filters)
            else:
                intake.revive(filters)
        self._used = tuple(used)
        self._find_active()

    def _find_active(self) -> None:
        self.active = tuple(intake for intake in self._all.values() if not intake.is_retired)

    # --- all of them --------------------------------------------------------------------------------------

    def adopt(self, name: str, link: MqttLink) -> None:
        """Receive over this link from now on, by the intake of this name."""
        self._all[name].adopt(link)

    def tick(self, now: float) -> None:
        """See ``Intake.tick``.

        Raises:
            OutboxUnavailable: as ``Intake.tick``.
        """
        for intake in self.active:
            intake.tick(now)
            if intake.is_retired:
                self._find_active()
        if self._awaits_retiring:
            self._dial_when_fetched(now)

    def _dial_when_fetched(self, now: float) -> None:
        """Let the sessions in use be dialled once the others may be replaced, or can't be reached."""
        if self._await_until is None:
            self._await_until = now + PATIENCE
        retiring = [intake for intake in self.active if intake not in self._used]
        if now < self._await_until and not all(intake.may_be_replaced for intake in retiring):
            return
        self._awaits_retiring = False
        for intake in self._used:
            if intake.holding is None:
                intake.dialer.resume()

    def hold(self, reason: str) -> None:
        """Take no messages."""
        for intake in self.active:
            intake.hold(reason)

    def close(self) -> None:
        """Disconnect from the broker at the end of the process."""
        for intake in self.active:
            intake.close()

    @property
    def is_waiting(self) -> bool:
        """Whether messages that were read wait for a later turn."""
        for intake in self.active:  # noqa: SIM110 - part of every turn, and ``any`` takes three times as long
            if intake.is_waiting:
                return True
        return False

    @property
    def commit_at(self) -> float:
        """Monotonic seconds at which a commit is needed even without messages; inf: none is."""
        return min([intake.commit_at for intake in self.active])

    @property
    def holding(self) -> str | None:
        """Why an intake takes no messages; None if all do."""
        for intake in self.active:
            if intake.holding is not None:
                return intake.holding
        return None

    @property
    def publish(self) -> Callable[[str, bytes], None] | None:
        """Publishes over a link; None unless one is subscribed."""
        for intake in self.active:
            if (publish := intake.publish) is not None:
                return publish
        return None

    # --- figures ------------------------------------------------------------------------------------------

    @property
    def figures(self) -> Intake | IntakeFigures:
        """Those of the only intake, or of all together."""
        if len(self._all) == 1:  # the usual case: this is part of every turn
            return self.active[0]
        every, active = self._all.values(), self.active
        return IntakeFigures(
            messages=sum(intake.messages for intake in every),
            skipped=sum(intake.skipped for intake in every),
            acked=sum(intake.acked for intake in every),
            broker=next((intake.broker for intake in active if intake.broker is not None), None),
            broker_dropped=next((i.broker_dropped for i in active if i.broker_dropped is not None), None),
            notes=tuple(dict.fromkeys(note for intake in active for note in intake.notes)),
        )
