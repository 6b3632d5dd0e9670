"""Which region's host a producer dials. A local stream lives in one region, and so does the worker that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.errors import GdnRejected
from bridge.gdn.rest import Datacenter, WorkerState
from bridge.log import get_logger

log = get_logger(__name__)


class RegionSource(Protocol):
    """What is asked of GDN (``GdnRest`` has it)."""

    def local_datacenter(self) -> Datacenter:
        """The region that answers now."""

    def datacenter(self, name: str) -> Datacenter:
        """The region of that name."""

    def get_worker(self, name: str) -> WorkerState | None:
        """The worker's state, or None."""


class Region:
    """The region to dial, found anew each time: "local" is the one that answers, and that can change (gdn-api.md D).

    Args:
        rest: asked. Any thread.
        wanted: the regions that the worker shall run in; ``*``: all; none: those that GDN has it in. It was made in the
            one that answered then.
        worker_name: the worker's.
    """

    def __init__(self, *, rest: RegionSource, wanted: Sequence[str], worker_name: str) -> None:
        self._rest = rest
        self._wanted = wanted
        self._worker_name = worker_name
        self._last: Datacenter | None = None

    def host(self) -> str:
        """The API host of a region that the worker runs in.

        Raises:
            GdnError: GDN can't be asked.
        """
        found = self._rest.local_datacenter()
        regions = self._wanted or self._runs_in()
        if regions and "*" not in regions and found.name not in regions:
            found = self._elsewhere(found, regions[0])
        last, self._last = self._last, found
        if last is not None and last != found:
            log.warning("gdn.region_changed", before=last.name, now=found.name, host=found.api_host)
        return found.api_host

    def _runs_in(self) -> Sequence[str]:
        state = self._rest.get_worker(self._worker_name)
        return () if state is None else state.regions

    def _elsewhere(self, here: Datacenter, name: str) -> Datacenter:
        try:
            return self._rest.datacenter(name)
        except GdnRejected as exc:
            log.warning(
                "gdn.region_unknown",
                region=name,
                dialled=here.name,
                error=str(exc),
                hint="the worker may not see what is sent to another region: check worker.regions",
            )
            return here
