"""The status server on a real socket."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bridge.books import Books, OutboxStatus, Requests, Snapshot, Traffic
from bridge.cli import main
from bridge.errors import ConfigError
from bridge.log import register_secret
from bridge.parts import PartStatus
from bridge.watch import status_server
from bridge.watch.health import HealthStatus
from bridge.watch.status_server import StatusServer

pytestmark = pytest.mark.integration


class State:
    live = True
    parts: Sequence[PartStatus] = (PartStatus("mqtt", "connected", 0.0, None, None),)
    books = Books(received=10, delivered=5, outbox=3, dead_lettered={"not_json": 2})


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def server(state: State) -> Iterator[StatusServer]:
    server = StatusServer(
        host="127.0.0.1",
        port=0,
        live=lambda: state.live,
        parts=lambda: state.parts,
        snapshot=lambda: Snapshot(
            state.books,
            Traffic(mqtt_messages=11, reconnects={"mqtt": 2}, sessions_lost=1, broker_dropped=7),
            OutboxStatus(bytes=300, oldest_age=2.5, dead_letters=2, holding="the outbox is <full>"),
        ),
        health=lambda: HealthStatus(True, (42,), rows_behind=3),
        requests=lambda: Requests(last_minute=3, last_day=40, checks=30, others=10, one_time_passwords=4),
    )
    server.start()
    yield server
    server.stop()


def get(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_readiness_names_the_parts_and_their_errors(server: StatusServer, state: State) -> None:
    status, body = get(server, "/readyz")
    assert status == 200
    assert json.loads(body)["books"]["balanced"] is True

    state.parts = [PartStatus("mqtt", "waiting", 5.0, "the broker is away", 6.5)]
    status, body = get(server, "/readyz")
    (part,) = json.loads(body)["parts"]
    assert status == 503
    assert part == {
        "name": "mqtt",
        "state": "waiting",
        "since": "1970-01-01T00:00:05.000+00:00",
        "error": "the broker is away",
        "next_attempt": "1970-01-01T00:00:06.500+00:00",
    }


def test_a_secret_repeated_by_the_far_end_is_redacted(server: StatusServer, state: State) -> None:
    register_secret("s3cr3t-otp")
    state.parts = [PartStatus("producer", "waiting", 5.0, "GDN closed: bad s3cr3t-otp", None)]

    for path in ("/", "/readyz", "/metrics"):
        assert "s3cr3t-otp" not in get(server, path)[1]


def test_liveness_follows_the_data_path(server: StatusServer, state: State) -> None:
    assert get(server, "/livez")[0] == 200
    state.live = False
    assert get(server, "/livez")[0] == 503


def test_metrics_include_the_books(server: StatusServer) -> None:
    _, body = get(server, "/metrics")

    for line in (
        "gdn_bridge_received_total 10.0",
        "gdn_bridge_delivered_total 5.0",
        'gdn_bridge_dead_lettered_total{reason="not_json"} 2.0',
        "gdn_bridge_outbox_records 3.0",
        'gdn_bridge_reconnects_total{link="mqtt"} 2.0',
        'gdn_bridge_part_connected{part="mqtt"} 1.0',
        "gdn_bridge_worker_active 1.0",
        "gdn_bridge_query_result 42.0",
    ):
        assert line in body.splitlines()


def test_the_page_escapes_untrusted_text(server: StatusServer, state: State) -> None:
    state.parts = [PartStatus("mqtt", "waiting", 5.0, "<script>alert(1)</script> \x1b[2J \u202e", None)]

    status, body = get(server, "/")
    assert status == 200
    assert "<script>" not in body
    assert "&lt;script&gt;" in body
    assert "\\x1b[2J \\u202e" in body
    assert not {"\x1b", "\u202e"} & set(body)


def test_unknown_paths_and_head_requests_are_answered(server: StatusServer) -> None:
    assert get(server, "/nothing")[0] == 404
    assert get(server, "/livez", "HEAD") == (200, "")


def test_silent_clients_do_not_block_others(server: StatusServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    try:
        assert get(server, "/livez")[0] == 200
    finally:
        for sock in idle:
            sock.close()


def test_a_port_in_use_is_a_configuration_error(server: StatusServer) -> None:
    arguments: dict[str, Any] = dict.fromkeys(("live", "parts", "snapshot", "health", "requests"))
    second = StatusServer(host="127.0.0.1", port=server.port, **arguments)

    with pytest.raises(ConfigError, match=r"status\.listen: can't listen on"):
        second.start()


def test_slow_clients_do_not_block_others(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "CONNECTION_SECONDS", 0.3)
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(status_server.MAX_CLIENTS)]
    try:
        for sock in slow:
            sock.sendall(b"G")
        for sock in slow:
            assert sock.recv(1) == b""
        deadline = time.monotonic() + 5
        answered = 0
        while answered != 200 and time.monotonic() < deadline:
            try:
                answered = get(server, "/livez")[0]
            except OSError:  # the threads of closed connections are still ending
                continue

        assert answered == 200
    finally:
        for sock in slow:
            sock.close()


def test_lone_surrogates_do_not_break_the_page(server: StatusServer, state: State) -> None:
    state.parts = [PartStatus("mqtt", "waiting", 5.0, "topic \udcff", None)]

    assert get(server, "/")[0] == 200
    assert get(server, "/readyz")[0] == 503


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_the_server_listens_on_an_ipv6_address() -> None:
    arguments: dict[str, Any] = dict.fromkeys(("parts", "snapshot", "health", "requests"))
    server = StatusServer(host="::1", port=0, live=lambda: True, **arguments)
    try:
        server.start()
    except ConfigError:
        pytest.skip("no IPv6 loopback here")
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/livez", timeout=5) as answer:
            assert answer.status == 200
    finally:
        server.stop()


# --- gdn-bridge status ----------------------------------------------------------------------------------


def status(server: StatusServer, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["status", "--url", f"http://127.0.0.1:{server.port}", *arguments])
    return code, "".join(capsys.readouterr())


def test_status_prints_the_status_as_text(
    server: StatusServer, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = status(server, capsys)
    assert code == 0
    assert "is ready" in text
    assert "10 received = 5 delivered + 3 in the outbox + 2 dead-lettered + 0 dropped\n" in text
    assert "holding, disconnected from the broker: the outbox is <full>" in text
    assert "the worker is active, the health query returned 42, 3 rows behind" in text

    state.parts = [PartStatus("mqtt", "waiting", 5.0, "the broker is \x1b[31maway", 6.5)]
    state.books = Books(received=10)
    code, text = status(server, capsys)
    assert code == 1
    assert "is not ready" in text
    assert "mqtt: the broker is \ufffd[31maway. Next attempt at 1970-01-01 00:00:06 UTC." in text
    assert "they do not balance" in text


def test_status_prints_the_json_of_readyz(server: StatusServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = status(server, capsys, "--json")

    assert code == 0
    assert json.loads(text) == json.loads(get(server, "/readyz")[1])


def test_status_exits_with_69_without_a_bridge_at_the_address(
    server: StatusServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "readiness", lambda: {"ready": True})
    code, text = status(server, capsys)
    assert code == 69
    assert "isn't that of this version of the bridge. Check that this is the address" in text

    server.stop()
    code, text = status(server, capsys)
    assert code == 69
    assert "refused. Is the bridge running, and listening there?" in text


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://127.0.0.1:99999", "127.0.0.1:8080", "http://["])
def test_an_invalid_url_of_the_status_server_is_wrong_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", url]) == 2

    assert capsys.readouterr().err.startswith(
        "gdn-bridge: --url: must be http://host:port, with a port from 1 to 65535"
    )
