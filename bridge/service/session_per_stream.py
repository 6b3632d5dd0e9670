"""What can't be combined with ``mqtt.session_per_stream``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.config import Settings
from bridge.config.tree import Location
from bridge.mapping import Route

MAX_SESSIONS = 100
"""Each session takes a connection and a thread."""


def moved_topics(before: Sequence[Route], after: Sequence[Route]) -> list[str]:
    """The topics of routes that feed another stream afterwards.

    The session of the other stream begins only after the old one is unsubscribed: what is published in between would
    be lost.
    """
    old, new = {(route.topic, route.stream) for route in before}, {(route.topic, route.stream) for route in after}
    return sorted({topic for topic, _ in old - new} & {topic for topic, _ in new - old})


def session_problems(settings: Settings, routes: Sequence[Route]) -> Iterator[tuple[Location, str]]:
    """What these settings and routes have that doesn't work with a session for each stream, with the reason."""
    if not settings.mqtt.session_per_stream:
        return
    location: Location = ("mqtt", "session_per_stream")
    outbox = settings.outbox
    if outbox.full != "hold":
        why = "with the other values no stream makes others wait. Remove one of the two settings"
        yield location, f'works only with outbox.full = "hold": {why}'
    if outbox.max_age:
        yield location, "can't be combined with outbox.max_age, which applies to all streams together: set it to 0"
    if settings.delivery.deduplicate:
        why = "what is delivered twice while sessions are exchanged is not recognised"
        yield location, f"can't be combined with delivery.deduplicate: {why}"
    if len(settings.mqtt.brokers) > 1:
        why = "each session would choose a broker for itself"
        yield location, f"can't be combined with several brokers in mqtt.url: {why}"
    if len({route.stream for route in routes}) > MAX_SESSIONS:
        yield location, f"works with at most {MAX_SESSIONS} streams: the routes feed more"
    for number, route in enumerate(routes):
        if route.format.name == "sparkplug":
            why = "the births of all edge nodes must come in one session, in order"
            yield ("routes", number, "format"), f"sparkplug can't be combined with mqtt.session_per_stream: {why}"
        if route.topic.startswith("$share/"):
            why = "each message would be delivered to the session of one stream only"
            yield ("routes", number, "topic"), f"$share can't be combined with mqtt.session_per_stream: {why}"
