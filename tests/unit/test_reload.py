from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from bridge.config import Settings, load
from bridge.config.tree import dotted, every_setting
from bridge.mapping import Mapper, Route
from bridge.path.inbox import Change
from bridge.service.reload import FOLLOWED, Configuration, Reloader, need_restart
from bridge.streamql import input_streams, parse

ENVIRON = {
    "BRIDGE_MQTT__URL": "mqtt://broker",
    "BRIDGE_MQTT__USERNAME": "bridge",
    "BRIDGE_GDN__URL": "https://gdn.example",
    "BRIDGE_GDN__API_KEY": "key",
    "BRIDGE_GDN__TENANT": "acme",
    "BRIDGE_WORKER__DEFINITION": "config/worker.sql",
    "BRIDGE_ROUTES": '[{"topic": "a", "stream": "s"}]',
}


def settings(**changed: str) -> Settings:
    environ = ENVIRON | {f"BRIDGE_{name}": value for name, value in changed.items()}
    return load(config_file=None, environ=environ, secret_directories=())


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"ROUTES": '[{"topic": "b", "stream": "t"}]'}, []),
        ({"GDN__API_KEY": "other", "MQTT__PASSWORD": "p", "MQTT__USERNAME": "other"}, []),
        ({"LOG__LEVEL": "debug", "LOG__FORMAT": "console"}, []),
        ({"OUTBOX__PATH": "elsewhere.db"}, ["outbox.path"]),
        ({"STOP_TIMEOUT": "20", "MQTT__URL": "mqtt://other"}, ["mqtt.url", "stop_timeout"]),
        ({"MQTT__CLIENT_ID": "other", "GDN__URL": "https://other"}, ["mqtt.client_id", "gdn.url"]),
    ],
)
def test_what_differs_and_can_not_be_followed_is_named(changed: dict[str, str], expected: list[str]) -> None:
    assert need_restart(settings(), settings(**changed)) == expected


def test_every_setting_that_is_followed_exists() -> None:
    assert {dotted(location) for location, _ in every_setting()} >= FOLLOWED


def test_the_guide_names_every_setting_that_is_followed() -> None:
    guide = Path("docs/systemd.md").read_text()

    assert all(f"`{name}`" in guide for name in FOLLOWED)


class Stub(SimpleNamespace):
    """Stands for a part that a reload which fails must not touch: it has no methods."""


@pytest.mark.parametrize("fails", ["read", "refresh"])
def test_a_reload_that_meets_a_fault_is_refused_and_the_settings_stay(fails: str) -> None:
    def read() -> Configuration:
        if fails == "read":
            raise StopIteration("a secret")
        return configuration

    def refresh() -> None:
        raise RuntimeError("a secret")

    definition = parse(Path("config/worker.sql").read_text())
    running = settings()
    configuration = Configuration(running, definition, input_streams(definition), [], dotted)
    mapper = Mapper(routes=[], streams=configuration.streams)
    reloader = Reloader(
        running=configuration,
        read_configuration=read,
        outbox=cast("Any", Stub(name="o")),
        pipeline=cast("Any", Stub(mapper=mapper)),
        inbox=cast("Any", Stub()),
        refresh=refresh,
    )

    with capture_logs() as logs:
        assert not reloader.reload(done=lambda: None)

    assert [entry["event"] for entry in logs] == ["daemon.reload_refused"]
    assert (reloader.refused or "").startswith("a fault of gdn-bridge, please report it: ")
    assert "a secret" not in str(logs)


def test_with_a_session_for_each_stream_a_reload_that_moves_a_topic_to_another_stream_is_refused() -> None:
    definition = parse(Path("config/worker.sql").read_text())
    stream = next(iter(input_streams(definition)))
    routes = {"a": [Route("t/{x}", "removed")], "b": [Route("t/{x}", stream)]}
    running = Configuration(
        settings(MQTT__SESSION_PER_STREAM="true"), definition, input_streams(definition), routes["a"], dotted
    )
    reloader = Reloader(
        running=running,
        read_configuration=lambda: running._replace(routes=routes["b"]),
        outbox=cast("Any", Stub()),
        pipeline=cast("Any", Stub(mapper=Mapper(routes=[], streams=running.streams))),
        inbox=cast("Any", Stub()),
        refresh=lambda: None,
    )

    assert not reloader.reload(done=lambda: None)
    assert "the route t/{x} feeds another stream" in (reloader.refused or "")


def test_a_reload_hands_the_pipeline_the_shares_of_the_outbox() -> None:
    definition = parse(Path("config/worker.sql").read_text())
    running = Configuration(settings(), definition, input_streams(definition), [], dotted)
    changes: list[Change] = []
    reloader = Reloader(
        running=running,
        read_configuration=lambda: running._replace(settings=settings(OUTBOX__SHARES__s="0.5")),
        outbox=cast("Any", Stub(name="o")),
        pipeline=cast("Any", Stub(mapper=Mapper(routes=[], streams=running.streams))),
        inbox=cast("Any", Stub(change=changes.append)),
        refresh=lambda: None,
    )

    with capture_logs() as logs:
        assert reloader.reload(done=lambda: None)

    assert [change.shares for change in changes] == [{"s": 0.5}]
    assert logs == [], "nothing needs a restart"
