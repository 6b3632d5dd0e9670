"""Chooses the region that a producer dials: a local stream exists only in one region, where its worker runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.errors import GdnRejected
from bridge.gdn.rest import Datacenter, WorkerState
from bridge.log import get_logger

log = get_logger(__name__)


class RegionSource(Protocol):
    """The requests to GDN (``GdnRest``)."""

    def local_datacenter(self) -> Datacenter:
        """The region that answers now."""

    def datacenter(self, name: str) -> Datacenter:
        """The region with this name."""

    def get_worker(self, name: str) -> WorkerState | None:
        """The worker; None: there is none."""


class Region:
    """The region to dial, determined before each connect: which region "local" means can change (gdn-api.md D).

    Args:
        rest: GDN. Any thread.
        wanted: the configured regions of the worker; ``*``: all; empty: those in which it runs.
        worker_name: the worker's name.
    """

    def __init__(self, *, rest: RegionSource, wanted: Sequence[str], worker_name: str) -> None:
        self._rest = rest
        self._wanted = wanted
        self._worker_name = worker_name
        self._last: Datacenter | None = None

    def host(self) -> str:
        """The API host of a region in which the worker runs.

        Raises:
            GdnError: a request failed.
        """
        found = self._rest.local_datacenter()
        regions = self._wanted or self._worker_regions()
        if regions and "*" not in regions and found.name not in regions:
            found = self._named_or(regions[0], found)
        last, self._last = self._last, found
        if last is not None and last != found:
            log.warning("gdn.region_changed", before=last.name, now=found.name, host=found.api_host)
        return found.api_host

    def _worker_regions(self) -> Sequence[str]:
        state = self._rest.get_worker(self._worker_name)
        return () if state is None else state.regions

    def _named_or(self, name: str, fallback: Datacenter) -> Datacenter:
        try:
            return self._rest.datacenter(name)
        except GdnRejected as exc:
            log.warning(
                "gdn.region_unknown",
                region=name,
                dialled=fallback.name,
                error=str(exc),
                hint="the worker may not read what is sent to another region: check worker.regions",
            )
            return fallback
