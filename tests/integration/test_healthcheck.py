from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.books import Requests, Snapshot
from bridge.cli import main
from bridge.cli.healthcheck import ask
from bridge.errors import SettingError
from bridge.parts import PartStatus, State
from bridge.watch.health import HealthStatus
from bridge.watch.status_server import StatusServer

pytestmark = pytest.mark.integration


@pytest.fixture
def serve() -> Iterator[Callable[..., StatusServer]]:
    """Starts status servers on free ports, with the given state."""
    servers: list[StatusServer] = []

    def start(
        *, live: bool = True, state: State = "connected", error: str | None = None, host: str = "127.0.0.1"
    ) -> StatusServer:
        part = PartStatus("mqtt", state, time.time(), error, None)
        server = StatusServer(
            host=host,
            port=0,
            live=lambda: live,
            parts=lambda: [part],
            snapshot=Snapshot,
            health=HealthStatus,
            requests=Requests,
        )
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def test_a_live_bridge_has_no_problems(serve: Callable[..., StatusServer]) -> None:
    server = serve(state="waiting", error="no broker")

    assert ask("127.0.0.1", server.port, ready=False) == ()


def test_a_stuck_bridge_is_not_live(serve: Callable[..., StatusServer]) -> None:
    server = serve(live=False)

    assert ask("127.0.0.1", server.port, ready=False) == ("/livez answered 503",)


def test_a_part_that_is_not_connected_is_named_with_its_error(serve: Callable[..., StatusServer]) -> None:
    server = serve(state="waiting", error="no broker")

    assert ask("127.0.0.1", server.port, ready=True) == ("mqtt: waiting: no broker",)


def test_a_part_that_is_not_connected_is_named_without_an_error(serve: Callable[..., StatusServer]) -> None:
    server = serve(state="waiting")

    assert ask("127.0.0.1", server.port, ready=True) == ("mqtt: waiting",)


def test_a_bridge_that_listens_on_all_addresses_is_queried_on_loopback(
    serve: Callable[..., StatusServer],
) -> None:
    server = serve(host="0.0.0.0")

    assert ask("0.0.0.0", server.port, ready=True) == ()


def test_a_missing_bridge_is_a_problem(unused_port: int) -> None:
    (problem,) = ask("127.0.0.1", unused_port, ready=False)

    assert problem.startswith(f"127.0.0.1:{unused_port} doesn't answer /livez: ")


@pytest.mark.parametrize("answer", [b"\x00" * 100, b"220 mail ESMTP\r\n", b"", b'HTTP/1.1 503 x\r\n\r\n{"parts": [7]}'])
def test_another_program_on_the_port_is_a_problem_not_a_crash(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        problems = ask("127.0.0.1", listener.getsockname()[1], ready=True)
        thread.join()

    assert len(problems) == 1


def test_port_0_is_reported() -> None:
    with pytest.raises(SettingError, match=r"status\.listen: with port 0"):
        ask("127.0.0.1", 0, ready=False)


def test_healthcheck_finds_file_and_address_as_run_does(
    serve: Callable[..., StatusServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve()
    (tmp_path / "worker.sql").write_text("")
    file = tmp_path / "bridge.toml"
    file.write_text(
        f"""
        mqtt.url = "mqtt://broker"
        gdn = {{ url = "https://gdn.example", tenant = "t" }}
        worker.definition = "worker.sql"
        routes = [{{ topic = "t", stream = "s" }}]
        status.listen = "127.0.0.1:{server.port}"
        """
    )
    monkeypatch.setenv("GDN_BRIDGE_CONFIG", str(file))
    monkeypatch.setenv("BRIDGE_GDN__API_KEY", "key")

    assert main(["healthcheck"]) == 0
    assert main(["healthcheck", "--set", "status.listen=127.0.0.1:0"]) == 1
    assert capsys.readouterr().err.startswith("gdn-bridge: status.listen, on the command line: with port 0")


def test_wrong_settings_exit_with_1_as_container_engines_require(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.toml"

    assert main(["healthcheck", "--config", str(missing)]) == 1
    assert str(missing) in capsys.readouterr().err


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
