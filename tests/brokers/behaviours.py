"""What a broker does, measured through the bridge's own link; each function returns the cell of a table.

A behaviour has client ids and topics of its own, so that all of them run against one broker. Messages are numbered: the
payload is the number in decimal digits.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.errors import RemoteProtocolError
from bridge.message import MqttMessage
from bridge.mqtt.link import MAX_PACKET, MqttLink, MqttOptions, dial
from tests.brokers.brokers import Broker
from tests.conftest import wait_for
from tests.publisher import publish_all

AWAY = 12_000
"""Messages published while the client is away: above the highest default limit."""

IN_FLIGHT = 3_000
"""Messages published to a client that acknowledges none."""

RECEIVE_MAXIMUM = 1_000
QUIET = 2.0
"""Seconds without a message after which a broker counts as having sent all that it will."""

SAME_LINK = 35.0
"""Seconds that a broker has to send an unacknowledged message again on the same link: above NATS's 30."""

SECONDS = 120.0
END = b"end"
ENDS = 10


class Client:
    """The bridge's link as a client of a broker.

    Args:
        broker: to connect to.
        client_id: names the session.
        filters: to subscribe at QoS 1.
        version: of the protocol.
        known: filters that the session holds.
        acks: whether to acknowledge what comes.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *filters: str,
        version: int,
        known: Sequence[str] = (),
        acks: bool = True,
    ) -> None:
        self._acks = acks
        self.port = broker.port
        options = MqttOptions(
            client_id=client_id,
            version=version,
            keepalive=600,
            session_expiry=3600,
            receive_maximum=RECEIVE_MAXIMUM,
        )
        self.link: MqttLink = dial(
            host="127.0.0.1",
            port=broker.port,
            tls=None,
            connect_timeout=10,
            options=options,
            filters=filters,
            known=known,
        )
        self.messages: list[MqttMessage] = []
        try:
            wait_for(self._is_subscribed, seconds=SECONDS, what=f"{broker.name}: the SUBACK")
        except BaseException:
            self.cut()
            raise

    def _is_subscribed(self) -> bool:
        self.read(0.0)
        return self.link.subscribed

    def read(self, seconds: float = 0.1) -> list[MqttMessage]:
        """What comes within ``seconds``, kept in ``messages``."""
        link = self.link
        assert link.error is None, link.error
        link.flush()
        select.select([link.sock], [link.sock] if link.wants_write else [], [], seconds)
        came = link.read(time.time_ns())
        if self._acks:
            link.ack(came)
        link.tick(time.monotonic())
        link.flush()
        self.messages += came
        return came

    def read_until(self, condition: Callable[[], Any], *, what: str = "the messages") -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {SECONDS:g} s"
            self.read()

    def read_until_quiet(self) -> None:
        """Read until nothing has come for ``QUIET`` seconds."""
        heard = time.monotonic()
        while time.monotonic() - heard < QUIET:
            if self.read():
                heard = time.monotonic()

    def cut(self) -> None:
        """The end of the connection without DISCONNECT, as by a kill."""
        self.link.sock.close()

    def leave(self) -> None:
        self.link.close()

    @property
    def numbers(self) -> list[int]:
        """Of the messages that came, in order."""
        return [int(message.payload) for message in self.messages if message.payload.isdigit()]


def numbered(topic: str, count: int, *, first: int = 0) -> list[tuple[str, bytes]]:
    return [(topic, str(n).encode()) for n in range(first, first + count)]


def read_to_the_end(client: Client, topic: str) -> None:
    """Read all that the broker has for the client, and one more message, published when it seems to have sent all.

    A queue that is still full refuses that one, too: it is published up to ``ENDS`` times.
    """
    for _ in range(ENDS):
        client.read_until_quiet()
        if any(message.payload == END for message in client.messages):
            return
        publish_all(client.port, [(topic, END)])


def session_present(broker: Broker, version: int) -> str:
    """Session Present of the second connection."""
    Client(broker, "present", "present/t", version=version).cut()
    second = Client(broker, "present", "present/t", version=version)
    second.leave()
    return "yes" if second.link.session_present else "no"


def kept_while_away(broker: Broker, version: int) -> str:
    """Which of the messages that are published while the client is away come afterwards."""
    Client(broker, "away", "away/t", version=version).leave()
    publish_all(broker.port, numbered("away/t", AWAY), seconds=SECONDS)
    client = Client(broker, "away", "away/t", version=version, known=["away/t"])

    read_to_the_end(client, "away/t")
    client.leave()
    numbers = list(dict.fromkeys(client.numbers))
    kept = len(numbers)
    if kept == AWAY:
        return "all"
    if kept == 0:
        return "none"
    side = "oldest" if max(numbers) < AWAY - 1 else "newest" if min(numbers) > 0 else "some"
    return f"the {side} {kept:,}"


def in_flight(broker: Broker, version: int) -> dict[str, str]:
    """How many messages it sends to a client that acknowledges none, and what becomes of them when the link is cut."""
    first = Client(broker, "flight", "flight/t", version=version, acks=False)
    publish_all(broker.port, numbered("flight/t", IN_FLIGHT), seconds=SECONDS)
    first.read_until(lambda: first.messages)
    first.read_until_quiet()
    first.cut()
    sent = {int(message.payload): message.packet_id for message in first.messages}
    started = time.monotonic()
    second = Client(broker, "flight", "flight/t", version=version, known=["flight/t"])
    arrived: list[float] = []  # seconds until each message that was in flight

    def are_all_back() -> bool:
        back = {n for n in second.numbers if n in sent}
        arrived.extend([time.monotonic() - started] * (len(back) - len(arrived)))
        return len(back) == len(sent)

    while not are_all_back() and (arrived or time.monotonic() - started < SAME_LINK):
        second.read()
    second.leave()
    if not arrived:
        return {"in flight": f"{len(sent):,}", "redelivery": "never", "packet ids": "–", "DUP": "–"}
    repeated = {int(m.payload): m for m in second.messages if int(m.payload) in sent}
    if second.numbers[: len(sent)] == list(sent):
        order = "in order"
    else:
        order = "in order, after newer ones" if list(repeated) == list(sent) else "out of order"
    same_ids = all(sent[n] == message.packet_id for n, message in repeated.items())
    dup = {message.dup for message in repeated.values()}
    return {
        "in flight": f"{len(sent):,}",
        "redelivery": f"{order}, {'at once' if arrived[0] < 4 else f'after {5 * round(arrived[0] / 5)} s'}",
        "packet ids": "the same" if same_ids else "others",
        "DUP": {"{True}": "yes", "{False}": "no"}.get(str(dup), "some"),
    }


def on_the_same_link(broker: Broker, version: int) -> Callable[[], str]:
    """Whether it sends an unacknowledged message again on the same link; the answer is due after ``SAME_LINK``."""
    client = Client(broker, "same", "same/t", version=version, acks=False)
    publish_all(broker.port, numbered("same/t", 3))
    client.read_until(lambda: len(client.messages) >= 3)
    started = time.monotonic()

    def answer() -> str:
        client.read()
        while time.monotonic() - started < SAME_LINK and len(client.messages) == 3:
            client.read(1.0)
        client.leave()
        return "no" if len(client.messages) == 3 else "yes"

    return answer


def retained(broker: Broker, version: int) -> str:
    """When a retained message comes to a client that has the same subscriptions at each connection."""
    for topic in ("retained/one", "retained/each/one"):
        publish_retained(broker.port, topic, b"1")
    filters = ["retained/one", "retained/each/+"]
    first = Client(broker, "retained", *filters, version=version)
    first.read_until_quiet()
    first.cut()
    second = Client(broker, "retained", *filters, version=version, known=filters)
    second.read_until_quiet()
    second.leave()
    topics = {message.topic for message in first.messages}
    if not topics:
        return "never"
    when = "at each connection" if second.messages else "at the first subscription"
    return when if len(topics) == 2 else f"{when}, without wildcards only"


def qos_2(broker: Broker, version: int) -> str:
    """The QoS of a message that was published at 2 and subscribed at 1: to a connected client, and to one away."""
    client = Client(broker, "qos2", "qos2/t", version=version)
    publish_at_2(broker.port, "qos2/t")
    live = qos_of_first(lambda: client)
    publish_at_2(broker.port, "qos2/t")
    queued = qos_of_first(lambda: Client(broker, "qos2", "qos2/t", version=version, known=["qos2/t"]))
    return live if live == queued else f"{live}, {queued} if it was queued"


def publish_at_2(port: int, topic: str) -> None:
    """Publish at QoS 2. A broker that takes QoS 1 at most doesn't end the exchange."""
    publisher = connected_publisher(port)
    sent = publisher.publish(topic, b"1", qos=2)
    deadline = time.monotonic() + QUIET
    while not sent.is_published() and time.monotonic() < deadline:
        time.sleep(0.02)
    leave(publisher)


def qos_of_first(connect: Callable[[], Client]) -> str:
    """The QoS of the client's first message."""
    try:
        client = connect()
        client.read_until(lambda: client.messages)
    except RemoteProtocolError:  # the link takes no QoS 2
        return "2"
    client.leave()
    return str(client.messages[0].qos)


def shared(broker: Broker, version: int) -> str:
    """Whether a shared subscription (MQTT 5, 4.8.2) gets messages."""
    topic = f"shared/{version}"
    member = Client(broker, f"member{version}", f"$share/group/{topic}", version=version)
    if member.link.refused:
        member.leave()
        return "refused"
    other = Client(broker, f"plain{version}", topic, version=version)
    publish_all(broker.port, numbered(topic, 10))
    other.read_until(lambda: len(set(other.numbers)) == 10)
    member.read_until_quiet()
    other.leave()
    member.leave()
    return "shared" if len(set(member.numbers)) == 10 else "literally" if not member.numbers else "in part"


def largest(broker: Broker, version: int) -> dict[str, str]:
    """The largest message of a few sizes that it takes, and whether it sends one above the link's limit."""
    taken = "none"
    for size, text in ((4_000, "4 kB"), (100_000, "100 kB"), (900_000, "900 kB"), (MAX_PACKET + 1_000, "over 16 MiB")):
        if not takes(broker.port, size):
            break
        taken = text
    if taken != "over 16 MiB":
        return {"largest": taken, "too large for us": "not taken"}
    return {"largest": taken, "too large for us": "sent" if sends(broker.port, version) else "kept back"}


def takes(port: int, size: int) -> bool:
    """Whether a publisher of such a message is acknowledged."""
    publisher = connected_publisher(port)
    sent = publisher.publish("large/none", bytes(size), qos=1)
    deadline = time.monotonic() + SECONDS
    while not sent.is_published() and publisher.is_connected() and time.monotonic() < deadline:
        time.sleep(0.02)
    taken = sent.is_published()
    leave(publisher)
    return taken


def sends(port: int, version: int) -> bool:
    """Whether a client whose Maximum Packet Size is the link's gets a message above it."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id="large", protocol=paho.MQTTv5 if version == 5 else paho.MQTTv311
    )
    came: list[int] = []
    client.on_message = lambda _client, _data, message: came.append(len(message.payload))
    properties = None
    if version == 5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = MAX_PACKET
    subscribed: list[int] = []
    client.on_subscribe = lambda _client, _data, mid, *_: subscribed.append(mid)
    client.connect("127.0.0.1", port, properties=properties)
    client.subscribe("large/t", qos=1)
    client.loop_start()
    wait_for(lambda: subscribed, what="the SUBACK")
    publisher = connected_publisher(port)
    for size in (MAX_PACKET + 1_000, 1):
        publisher.publish("large/t", bytes(size), qos=1)
    publisher_has = wait_for(lambda: came, seconds=SECONDS, what="a message")
    leave(publisher)
    leave(client)
    return bool(publisher_has[0] > 1)


def connected_publisher(port: int) -> paho.Client:
    """A 3.1.1 client with its loop running."""
    publisher = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=f"p{time.monotonic_ns()}", reconnect_on_failure=False
    )
    assert publisher.connect("127.0.0.1", port) == MQTTErrorCode.MQTT_ERR_SUCCESS
    publisher.loop_start()
    wait_for(publisher.is_connected, what="the publisher's connection")
    return publisher


def leave(client: paho.Client) -> None:
    client.disconnect()
    client.loop_stop()


def publish_retained(port: int, topic: str, payload: bytes) -> None:
    publisher = connected_publisher(port)
    publisher.publish(topic, payload, qos=1, retain=True).wait_for_publish(SECONDS)
    leave(publisher)


def over_its_restart(broker: Broker, version: int) -> str:
    """Whether session and messages outlast the broker's process, ended by SIGTERM."""
    Client(broker, "restart", "restart/t", version=version).leave()
    publish_all(broker.port, numbered("restart/t", 10))
    broker.end()
    broker.start()
    client = Client(broker, "restart", "restart/t", version=version, known=["restart/t"])
    client.read_until_quiet()
    client.leave()
    return "kept" if len(set(client.numbers)) == 10 else "lost"


def measure(broker: Broker) -> dict[str, str]:
    """All cells of a broker, but what the daemon measures."""
    version = broker.versions[0]
    same_link = on_the_same_link(broker, version)
    columns = list(dict.fromkeys(column for columns in _MEASURES for column in columns))
    cells = measure_some(broker, version, columns)
    cells["same link"] = same_link()
    cells["its restart"] = over_its_restart(broker, version)
    return cells


def measure_some(broker: Broker, version: int, columns: Sequence[str]) -> dict[str, str]:
    """The cells of these columns."""
    cells: dict[str, str] = {}
    for names, function in _MEASURES.items():
        if set(names) & set(columns):
            cells |= function(broker, version)
    return {column: cells[column] for column in columns}


def _both_shared(broker: Broker, _version: int) -> dict[str, str]:
    return {
        "$share, 3.1.1": shared(broker, 4),
        "$share, 5": shared(broker, 5) if 5 in broker.versions else "no MQTT 5",
    }


_MEASURES: dict[tuple[str, ...], Callable[[Broker, int], dict[str, str]]] = {
    ("session present",): lambda broker, version: {"session present": session_present(broker, version)},
    ("kept while away",): lambda broker, version: {"kept while away": kept_while_away(broker, version)},
    ("in flight", "redelivery", "packet ids", "DUP"): in_flight,
    ("retained",): lambda broker, version: {"retained": retained(broker, version)},
    ("QoS 2",): lambda broker, version: {"QoS 2": qos_2(broker, version)},
    ("$share, 3.1.1", "$share, 5"): _both_shared,
    ("largest", "too large for us"): largest,
}
