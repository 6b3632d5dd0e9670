"""The daemon feeding a real Apache Pulsar: plain Pulsar as far end, and effectively once (docs/reliability.md, P8)
under kills and cut links, read back from the topic.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from bridge.errors import GdnUnavailable
from bridge.gdn.pulsar import PulsarRest
from bridge.local.broker import free_port
from tests.conftest import Bridge, Mosquitto, wait_for
from tests.faults.proxy import Proxy
from tests.publisher import publish_all
from tests.pulsar import Pulsar, token

pytestmark = [
    pytest.mark.integration,
    pytest.mark.pulsar,
    pytest.mark.timeout(600),
]

STREAM = "tutorialAppInputStream"
TOKEN_KEY = b"a key of at least thirty-two bytes"

MakeBridge = Callable[..., Bridge]


@pytest.fixture(scope="module")
def pulsar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulsar]:
    server = Pulsar(tmp_path_factory.mktemp("pulsar"), token_key=TOKEN_KEY)
    yield server
    server.end()


class ThreadedProxy:
    """The fault proxy on its own event loop."""

    def __init__(self, upstream: int) -> None:
        self.proxy = Proxy(port=free_port(), upstream=upstream)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.do(self.proxy.start)

    def do(self, what: Callable[..., Any], *arguments: object) -> None:
        asyncio.run_coroutine_threadsafe(what(*arguments), self._loop).result(10)

    def end(self) -> None:
        self.do(self.proxy.stop)
        self.do(self._finished)  # asyncio warns of tasks that are pending when their loop is closed
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _finished(self) -> None:
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=5)


@pytest.fixture
def proxy(pulsar: Pulsar) -> Iterator[ThreadedProxy]:
    proxy = ThreadedProxy(pulsar.port)
    yield proxy
    proxy.end()


@pytest.fixture
def mqtt_proxy(mosquitto: Mosquitto) -> Iterator[ThreadedProxy]:
    proxy = ThreadedProxy(mosquitto.port)
    yield proxy
    proxy.end()


@pytest.fixture
def make_pulsar_bridge(make_bridge: MakeBridge, mosquitto: Mosquitto, pulsar: Pulsar) -> MakeBridge:
    def make(namespace: str, *, port: int | None = None, **settings: str) -> Bridge:
        return make_bridge(
            mqtt_port=mosquitto.port,
            gdn_url=f"http://127.0.0.1:{port or pulsar.port}",
            **{
                "BRIDGE_GDN__KIND": "pulsar",
                "BRIDGE_GDN__API_KEY": token(TOKEN_KEY, "admin"),
                "BRIDGE_GDN__TENANT": "public",
                "BRIDGE_GDN__FABRIC": namespace,
                "BRIDGE_DELIVERY__RECEIPT_TIMEOUT": "5",
                **settings,
            },
        )

    return make


def readings(first: int, count: int) -> list[tuple[str, bytes]]:
    return [(f"devices/AD11/rooms/{n}/telemetry", b'{"temperature": 1}') for n in range(first, first + count)]


def rooms(pulsar: Pulsar, namespace: str) -> list[int]:
    return [msgspec.json.decode(payload)["roomNo"] for payload in pulsar.read(f"{namespace}/{STREAM}")]


def test_rows_arrive_in_a_plain_pulsar_without_worker_and_queries(
    pulsar: Pulsar, mosquitto: Mosquitto, make_pulsar_bridge: MakeBridge
) -> None:
    namespace = pulsar.create_namespace("plain")
    bridge = make_pulsar_bridge("plain")
    bridge.start()
    bridge.wait_ready()

    publish_all(mosquitto.port, readings(0, 1000))
    wait_for(lambda: bridge.books().get("delivered") == 1000, what="the deliveries")

    assert rooms(pulsar, namespace) == list(range(1000))
    assert {part["name"] for part in bridge.readiness()["parts"]} == {"outbox", "mqtt", f"producer {STREAM}"}
    assert bridge.cli("query", "RETURN 1").returncode == 78


def test_with_a_token_that_pulsar_refuses_the_bridge_is_not_ready_and_reports_why(
    pulsar: Pulsar, mosquitto: Mosquitto, make_pulsar_bridge: MakeBridge
) -> None:
    pulsar.create_namespace("closed")
    bridge = make_pulsar_bridge("closed", BRIDGE_GDN__API_KEY=token(b"another key of thirty-two bytes..", "admin"))
    process = bridge.start()

    wait_for(lambda: "HTTP 401" in (bridge.part(f"producer {STREAM}")["error"] or ""), what="the refusal")

    assert not bridge.readiness()["ready"]
    assert bridge.settings["BRIDGE_GDN__API_KEY"] not in process.text()


def test_deduplication_refuses_a_partitioned_topic_and_the_error_names_it(
    pulsar: Pulsar, mosquitto: Mosquitto, make_pulsar_bridge: MakeBridge
) -> None:
    """Pulsar compares sequence numbers within a partition, so it would store rows twice that are sent again."""
    namespace = pulsar.create_namespace("parts", deduplicates=True)
    pulsar.create_topic(f"{namespace}/{STREAM}", partitions=3)
    bridge = make_pulsar_bridge("parts", BRIDGE_DELIVERY__DEDUPLICATE="true")
    checked = bridge.cli("check", "--online")
    bridge.start()
    sentence = f"the topic {STREAM} has 3 partitions: with delivery.deduplicate"

    wait_for(lambda: sentence in (bridge.part(f"producer {STREAM}")["error"] or ""), what="the refusal")
    publish_all(mosquitto.port, readings(0, 10))
    wait_for(lambda: bridge.books().get("outbox") == 10, what="the rows in the outbox")

    assert not bridge.readiness()["ready"]
    assert checked.returncode == 69
    assert f"failed  partitions of {STREAM}: {sentence}" in checked.stdout


def test_the_partitions_of_a_topic_are_known_without_creating_it(pulsar: Pulsar) -> None:
    namespace = pulsar.create_namespace("counted")
    pulsar.create_topic(f"{namespace}/many", partitions=3)
    rest = PulsarRest(base_url=f"http://127.0.0.1:{pulsar.port}", fabric="", api_key="")

    def partitions(topic: str, token: str | None = pulsar.admin_token) -> int:
        return rest.partitions(tenant="public", namespace="counted", topic=topic, token=token)

    assert (partitions("many"), partitions("many-partition-0")) == (3, 0)
    with pytest.raises(GdnUnavailable, match=r"404, .*not found"):
        partitions("absent")
    assert pulsar.topics(namespace) == [f"persistent://{namespace}/many-partition-{n}" for n in range(3)]
    with pytest.raises(GdnUnavailable, match="/partitions: 401, "):
        partitions("many", None)
    rest.close()


@pytest.mark.parametrize("deduplicate", [True, False])
def test_kills_and_cut_links_under_load_lose_nothing_and_with_deduplication_duplicate_nothing(
    pulsar: Pulsar,
    mosquitto: Mosquitto,
    make_pulsar_bridge: MakeBridge,
    proxy: ThreadedProxy,
    mqtt_proxy: ThreadedProxy,
    deduplicate: bool,
) -> None:
    rng = random.Random(7)
    name = f"dedup-{deduplicate}".lower()
    namespace = pulsar.create_namespace(name, deduplicates=True)
    bridge = make_pulsar_bridge(
        name,
        port=proxy.proxy.port,
        BRIDGE_MQTT__URL=f"mqtt://127.0.0.1:{mqtt_proxy.proxy.port}",
        BRIDGE_DELIVERY__DEDUPLICATE=str(deduplicate).lower(),
    )
    count, least, most, block = 0, 30_000, 120_000, 1500
    kills = cuts = mqtt_cuts = 0
    published = threading.Event()

    def struck() -> int:
        """Cuts that hit a connection to Pulsar."""
        return proxy.proxy.counts["cut"] + proxy.proxy.counts["cut_after"]

    def publish() -> None:
        nonlocal count
        # On a slow machine the load lasts longer, until enough faults have happened.
        while count < least or (count < most and not (min(kills, cuts, struck()) >= 5 and mqtt_cuts >= 3)):
            publish_all(mosquitto.port, readings(count, block))
            count += block
            time.sleep(0.5)
        published.set()

    process = bridge.start()
    bridge.wait_ready()
    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    while not published.is_set():
        # During a burst, with records on the wire.
        time.sleep(rng.uniform(0.05, 0.6))
        if rng.random() < 0.4:
            process.kill()
            kills += 1
            process = bridge.start()
            wait_for(lambda: bridge.part(f"producer {STREAM}")["state"] == "connected", what="the producer")
        elif rng.random() < 0.5:
            proxy.do(proxy.proxy.cut)
            cuts += 1
        else:
            proxy.do(proxy.proxy.cut_after, rng.randrange(1, 60_000), rng.choice(("to_client", "to_server")))
            cuts += 1
        if rng.random() < 0.3:
            mqtt_proxy.do(mqtt_proxy.proxy.cut_after, rng.randrange(1, 60_000), rng.choice(("to_client", "to_server")))
            mqtt_cuts += 1
    publisher.join()
    wait_for(lambda: bridge.books().get("outbox") == 0, seconds=120, what="an empty outbox")
    wait_for(lambda: len(set(rooms(pulsar, namespace))) == count, seconds=60, what="every row")

    arrived = Counter(rooms(pulsar, namespace))
    doubled = arrived.total() - len(arrived)
    skipped = process.text().count("mqtt.redelivered_skipped")
    print(
        f"deduplicate={deduplicate}: {kills} kills, {cuts} cuts to Pulsar, {mqtt_cuts} to the broker, "
        f"{len(arrived)} rows, {doubled} stored twice; {skipped} times the broker handed over again what was stored"
    )
    assert kills >= 5
    assert cuts >= 5
    assert mqtt_cuts >= 3
    assert struck() >= 5
    assert set(arrived) == set(range(count))
    if deduplicate:
        assert doubled == 0, "every message is stored exactly once"
        assert skipped > 0, "else this test proves nothing about redelivered messages"
    else:
        assert doubled > 0, "without deduplication the faults must cause duplicates, else this test proves nothing"
