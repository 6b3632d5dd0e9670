from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import Settings, load
from bridge.config.tree import dotted, every_setting
from bridge.service.reload import FOLLOWED, need_restart

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
