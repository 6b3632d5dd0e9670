"""The metadata that a worker must have before the bridge runs or uploads it."""

from __future__ import annotations

from bridge.streamql.source import error_at
from bridge.streamql.syntax import Annotation, Place, Worker

VERSION_ADVICE = 'the bridge reads version 2 of the language: add @App:qlVersion("2") at the top'


def require_metadata(worker: Worker) -> None:
    """Check that a worker has a name and is written in version 2 of the language.

    ``parse`` also accepts others: GDN's documentation shows many, and workers in GDN may lack them.

    Raises:
        StreamQLError: name or version is missing, given twice or wrong; at the annotation, else at the start.
    """
    name = _only(worker, "name")
    if name is None:
        raise error_at(Place(1, 1), "expected @App:name('…'), found none: without it GDN names the worker at random")
    if not worker.name:
        raise error_at(name.place, "expected a name in @App:name('…'), found none")
    version = _only(worker, "qlVersion")
    if version is None:
        raise error_at(Place(1, 1), f"expected @App:qlVersion, found none; {VERSION_ADVICE}")
    if worker.language_version != "2":
        raise error_at(version.place, f"expected version 2 in @{version.name}, found another; {VERSION_ADVICE}")


def _only(worker: Worker, name: str) -> Annotation | None:
    """The worker's only ``@App:NAME``; None if there is none."""
    first, *others = worker.metadata(name) or (None,)
    if first is not None and others:
        raise error_at(
            others[0].place, f"expected one @App:{name}, found another; the first is on line {first.place.line}"
        )
    return first
