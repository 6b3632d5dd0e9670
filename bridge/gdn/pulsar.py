"""The one request to Pulsar's REST API: how many partitions a topic has.

Pulsar's WebSocket service may run without this API.
"""

from __future__ import annotations

from http import HTTPStatus

from bridge.errors import GdnUnavailable
from bridge.gdn.address import encoded
from bridge.gdn.answers import safe
from bridge.gdn.client import Client, Request


class PulsarRest(Client):
    """Requests to the broker's web service."""

    def partitions(self, *, tenant: str, namespace: str, topic: str, token: str | None) -> int:
        """The number of partitions; 0: the topic isn't partitioned. Doesn't create the topic, which must exist.

        Args:
            tenant: of the topic.
            namespace: of the topic.
            topic: its name without tenant and namespace.
            token: sent with the request; None: without one.

        Raises:
            GdnUnavailable: the topic or the API doesn't exist, the token isn't authorised, or there is no answer.
        """
        self.use_key(token or "")  # so that errors don't repeat it
        path = "/".join(("/admin/v2/persistent", encoded(tenant), encoded(namespace), encoded(topic), "partitions"))
        answer = self._exchange(Request("GET", path), None if token is None else f"Bearer {token}")
        body = answer.json or {}
        number, reason = body.get("partitions"), body.get("reason")
        if answer.status == HTTPStatus.OK and type(number) is int:
            return number
        described = safe(reason) if isinstance(reason, str) else answer.described
        raise GdnUnavailable(self._redacted(f"{answer.place}: {answer.status}, {described}"))


def partitions_sentence(topic: str, partitions: int) -> str:
    """Why deduplication refuses a partitioned topic, and what to do."""
    return (
        f"the topic {topic} has {partitions} partitions: with delivery.deduplicate rows that are sent again could be "
        "stored twice, because Pulsar compares sequence numbers within a partition. Use a topic without partitions, or "
        f"name one of them as the stream ({topic}-partition-0), or set delivery.deduplicate to false"
    )
