"""What can't be combined with ``mqtt.session_per_stream``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from bridge.cli.configuration import route_of
from bridge.config import Settings, load
from bridge.config.tree import dotted
from bridge.mapping import Mapper, Route
from bridge.service.reload import Configuration, Reloader
from bridge.service.session_per_stream import MAX_SESSIONS, session_problems
from bridge.streamql import input_streams, parse
from tests.unit.test_reload import ENVIRON, Stub


def settings(**changed: str) -> Settings:
    environ = ENVIRON | {"BRIDGE_MQTT__SESSION_PER_STREAM": "true"}
    environ |= {f"BRIDGE_{name}": value for name, value in changed.items()}
    return load(config_file=None, environ=environ, secret_directories=())


def problems(found: Settings) -> list[tuple[str, str]]:
    routes = [route_of(route) for route in found.routes]
    return [(dotted(location), text) for location, text in session_problems(found, routes)]


@pytest.mark.parametrize(
    ("changed", "place", "says"),
    [
        ({"OUTBOX__FULL": "drop_oldest"}, "mqtt.session_per_stream", 'only with outbox.full = "hold"'),
        ({"OUTBOX__MAX_AGE": "60"}, "mqtt.session_per_stream", "outbox.max_age"),
        ({"DELIVERY__DEDUPLICATE": "true"}, "mqtt.session_per_stream", "delivery.deduplicate"),
        ({"MQTT__URL": "mqtt://a,mqtt://b"}, "mqtt.session_per_stream", "several brokers in mqtt.url"),
        (
            {"ROUTES": json.dumps([{"topic": str(n), "stream": f"s{n}"} for n in range(MAX_SESSIONS + 1)])},
            "mqtt.session_per_stream",
            "at most 100 streams",
        ),
        (
            {"ROUTES": '[{"topic": "spBv1.0/#", "stream": "s", "format": "sparkplug"}]'},
            "routes[0].format",
            "mqtt.session_per_stream",
        ),
        ({"ROUTES": '[{"topic": "$share/g/a", "stream": "s"}]'}, "routes[0].topic", "mqtt.session_per_stream"),
    ],
)
def test_what_does_not_work_with_it_is_named(changed: dict[str, str], place: str, says: str) -> None:
    ((found, text),) = problems(settings(**changed))

    assert found == place
    assert says in text
    assert problems(settings(MQTT__SESSION_PER_STREAM="false", **changed)) == []


def test_everything_else_works_with_it() -> None:
    assert problems(settings(MQTT__QOS="2", MQTT__PROTOCOL="3.1.1", OUTBOX__SHARES__s="0.5")) == []


def test_a_reload_to_routes_that_do_not_work_with_it_is_refused_while_it_is_in_use() -> None:
    definition = parse(Path("config/worker.sql").read_text())
    streams = input_streams(definition)
    running = Configuration(settings(), definition, streams, [], dotted)
    found = running._replace(
        settings=settings(MQTT__SESSION_PER_STREAM="false"),
        routes=[Route("$share/g/{deviceID}/{roomNo}", "tutorialAppInputStream")],
    )
    reloader = Reloader(
        running=running,
        read_configuration=lambda: found,
        outbox=cast("Any", Stub(name="o")),
        pipeline=cast("Any", Stub(mapper=Mapper(routes=[], streams=streams))),
        inbox=cast("Any", Stub()),
        refresh=lambda: None,
    )

    with capture_logs():
        assert not reloader.reload(done=lambda: None)

    assert "routes[0].topic: $share can't be combined with mqtt.session_per_stream" in (reloader.refused or "")
