"""What a worker must say of itself before the bridge runs or uploads it."""

from __future__ import annotations

from bridge.streamql.source import error_at
from bridge.streamql.syntax import Annotation, Place, Worker

VERSION_ADVICE = 'the bridge reads version 2 of the language: add @App:qlVersion("2") at the top'


def require_metadata(worker: Worker) -> None:
    """That a worker has a name of its own and is of version 2 of the language.

    ``parse`` reads others too: GDN's documentation shows many, and what GDN holds isn't ours to judge.

    Raises:
        StreamQLError: it says one of the two not at all, twice, or otherwise; at the annotation, else at the beginning.
    """
    name = _only(worker, "name")
    if name is None:
        raise error_at(
            Place(1, 1), "expected @App:name('…'), found none: without it GDN gives the worker a random name"
        )
    if not worker.name:
        raise error_at(name.place, "expected a name in @App:name('…'), found none")
    version = _only(worker, "qlVersion")
    if version is None:
        raise error_at(Place(1, 1), f"expected @App:qlVersion, found none; {VERSION_ADVICE}")
    if worker.language_version != "2":
        raise error_at(version.place, f"expected version 2, found another in @{version.name}; {VERSION_ADVICE}")


def _only(worker: Worker, name: str) -> Annotation | None:
    first, *others = worker.metadata(name) or (None,)
    if first is not None and others:
        raise error_at(
            others[0].place, f"expected one @App:{name}, found another; the first is on line {first.place.line}"
        )
    return first
