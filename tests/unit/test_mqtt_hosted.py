"""Hosted brokers are recognised by their host names only, and settings beyond their limits are named."""

from __future__ import annotations

import pytest

from bridge.mqtt.hosted import HOSTED, HostedBroker, hosted_broker


def named(name: str) -> HostedBroker:
    return next(broker for broker in HOSTED if broker.name == name)


AWS, AZURE, EMQX = named("AWS IoT Core"), named("Azure Event Grid"), named("EMQX Serverless")


@pytest.mark.parametrize(
    ("host", "broker"),
    [
        ("a1b2c3-ats.iot.eu-central-1.amazonaws.com", AWS),
        ("A1B2C3.iot.us-gov-west-1.amazonaws.com.", AWS),
        ("a1b2c3.ats.iot.cn-north-1.amazonaws.com.cn", AWS),
        ("data.iot-fips.us-east-1.amazonaws.com", AWS),
        ("space.westeurope-1.ts.eventgrid.azure.net", AZURE),
        ("abc123.ala.eu-central-1.emqxsl.com", EMQX),
        ("ec2-1-2-3-4.eu-central-1.compute.amazonaws.com", None),
        ("iot.eu-central-1.amazonaws.com.example.org", None),
        ("broker.example.com", None),
        ("127.0.0.1", None),
    ],
)
def test_a_hosted_broker_is_recognised_by_its_host_name(host: str, broker: HostedBroker | None) -> None:
    assert hosted_broker(host) is broker


def remarks(
    broker: HostedBroker,
    *,
    port: int = 8883,
    subscriptions: int = 1,
    qos: int = 1,
    is_websocket: bool = False,
    alpn: str | None = None,
) -> str:
    found = broker.remarks(port=port, subscriptions=subscriptions, qos=qos, is_websocket=is_websocket, alpn=alpn)
    return " / ".join(found)


@pytest.mark.parametrize("broker", HOSTED, ids=lambda broker: broker.name)
def test_settings_within_the_limits_have_no_remark(broker: HostedBroker) -> None:
    assert remarks(broker, subscriptions=broker.max_subscriptions or 1000) == ""


def test_each_limit_is_named_with_what_to_do() -> None:
    assert "50 subscriptions a connection, and the routes need 51. Use wildcards" in remarks(AWS, subscriptions=51)
    assert "10 subscriptions" in remarks(EMQX, subscriptions=11)
    assert remarks(AZURE, qos=2) == "Azure Event Grid doesn't support QoS 2. Set mqtt.qos = 1"
    assert 'Set mqtt.alpn = "x-amzn-mqtt-ca"' in remarks(AWS, port=443)


def test_alpn_is_asked_for_only_where_it_is_needed() -> None:
    assert remarks(AWS, port=443, alpn="mqtt") == ""
    assert remarks(AWS, port=443, is_websocket=True) == ""
    assert remarks(AZURE, port=443) == ""


@pytest.mark.parametrize("is_connected", [True, False])
def test_the_advice_names_the_client_id_as_it_is(is_connected: bool) -> None:
    advice = AWS.closing_advice(client_id="{x}", is_connected=is_connected)

    assert "'{x}'" in advice
    assert not advice.endswith(".")
