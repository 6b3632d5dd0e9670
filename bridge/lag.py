"""Rows out against rows in: how many that GDN receipted have not come out of the worker."""

from __future__ import annotations

from collections.abc import Callable

from bridge.streamql.streams import input_streams
from bridge.streamql.syntax import Query, Worker


class Lag:
    """Compares two counts that began at different times.

    Nobody knows how many rows came out before the bridge began to count, so the best moment since the start counts as
    without lag: the smallest difference there was. A worker that was behind then shows less than it is, until it has
    caught up once.

    Args:
        rows_in: rows that GDN receipted for the streams behind the table, since the start.
    """

    def __init__(self, rows_in: Callable[[], int]) -> None:
        self.rows_in = rows_in
        self._least: int | None = None

    def behind(self, rows_in: int, rows_out: int) -> int:
        """Rows that have not come out.

        Args:
            rows_in: as ``rows_in`` gave it before the rows were counted.
            rows_out: in the table.
        """
        difference = rows_in - rows_out
        self._least = difference if self._least is None else min(self._least, difference)
        return difference - self._least


def streams_of_single_rows(worker: Worker) -> tuple[str, ...]:
    """The GDN streams whose every row becomes exactly one row of the table that the default query counts.

    Empty where the definition doesn't say that: a filter, a window, a join, a key that lets rows replace each other.
    """
    table = next((t for query in worker.queries if (t := worker.tables.get(query.target or "")) is not None), None)
    if table is None or any(key.lower() == "primarykey" for key in table.properties):
        return ()
    if any(attribute.name == "_key" for attribute in table.attributes or ()):
        return ()
    feeding = [query for query in worker.queries if query.target == table.name]
    plain = [query.source for query in feeding if isinstance(query, Query) and not query.filters]
    filled_inside = {query.target for query in worker.queries}
    if len(plain) != len(feeding) or len(set(plain)) != len(plain) or filled_inside & set(plain):
        return ()
    places = {worker.streams[source].place for source in plain if source in worker.streams}
    if len(places) != len(plain):
        return ()
    return tuple(name for name, stream in input_streams(worker).items() if stream.place in places)
