"""Which region's host a producer dials. A local stream lives in one region, and so does the worker that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.errors import GdnRejected
from bridge.gdn.rest import Datacenter
from bridge.log import get_logger

log = get_logger(__name__)


class Far(Protocol):
    """What is asked of GDN (``GdnRest`` has it)."""

    def local_datacenter(self) -> Datacenter:
        """The region that answers now."""

    def datacenter(self, name: str) -> Datacenter:
        """The region of that name."""


class Region:
    """The region to dial, found anew each time: "local" is the one that answers, and that can change (gdn-api.md D).

    Args:
        rest: asked. Any thread.
        wanted: the regions that the worker runs in; none or ``*``: the one that answers will do.
    """

    def __init__(self, *, rest: Far, wanted: Sequence[str]) -> None:
        self._rest = rest
        self._wanted = wanted
        self._last: Datacenter | None = None

    def host(self) -> str:
        """The API host of a region that the worker runs in.

        Raises:
            GdnError: GDN can't be asked.
        """
        found = self._rest.local_datacenter()
        if self._wanted and "*" not in self._wanted and found.name not in self._wanted:
            found = self._elsewhere(found)
        last, self._last = self._last, found
        if last is not None and last != found:
            log.warning("gdn.region_changed", before=last.name, now=found.name, host=found.api_host)
        return found.api_host

    def _elsewhere(self, here: Datacenter) -> Datacenter:
        try:
            return self._rest.datacenter(self._wanted[0])
        except GdnRejected as exc:
            log.warning(
                "gdn.region_unknown",
                region=self._wanted[0],
                dialled=here.name,
                error=str(exc),
                hint="the worker may not see what is sent to another region: check worker.regions",
            )
            return here
