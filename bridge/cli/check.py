"""The verb ``check``: checks the configuration offline, and with ``--online`` also broker and GDN. Changes nothing.

A failed check skips only those that depend on it. Exit code 69 if anything could not be reached or was refused.
"""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from bridge.cli import exits
from bridge.cli.configuration import configure_log, gdn_rest, read_configuration
from bridge.cli.printing import unwatched_sentence
from bridge.config.gdn import GdnSettings
from bridge.config.tree import Location
from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable, MqttUnavailable
from bridge.gdn.address import GdnAddress
from bridge.gdn.proxy import open_socket_to
from bridge.gdn.pulsar import PulsarRest, partitions_sentence
from bridge.gdn.rest import GdnRest
from bridge.gdn.worker import is_other
from bridge.links.tls import Tls
from bridge.log import redacted, register_secret
from bridge.mapping import Route, find_warnings
from bridge.mapping.topics import TopicTemplate, minimal_filters
from bridge.mqtt.hosted import hosted_broker
from bridge.outbox import check_path
from bridge.service.reload import Configuration
from bridge.timing import Deadline
from bridge.watch.configured_checks import unwatched_streams

if TYPE_CHECKING:
    from bridge.config.values import BrokerAddress
    from bridge.mqtt.link import MqttLink


SUBSCRIBE_TIMEOUT = 30.0
"""Seconds from the connection to the broker's last answer. Each answer also has a timeout of its own."""

_TEMPORARY_ID = (
    ". This check connects with a temporary client id, gdn-bridge-visit- and eight hex digits: if the broker's policy "
    "allows only the bridge's client id, only the bridge itself can connect"
)

Outcome = Literal["ok", "note", "failed", "skipped"]


class Finding(NamedTuple):
    """One check and its outcome. The names are keys of the JSON output."""

    asked: str
    outcome: Outcome
    """``note``: not a failure, but worth knowing; ``skipped``: a check that it depends on failed."""
    said: str
    """The result, with advice if it isn't ``ok``."""


def check(arguments: argparse.Namespace) -> int:
    """Check settings, worker and routes; with ``--online`` also broker and GDN."""
    configuration = read_configuration(arguments, offline=not arguments.online)
    configure_log(configuration.settings)
    check_path(configuration.settings.outbox.path)
    if not arguments.json:
        for line in _offline(configuration):
            print(line)
    findings: list[Finding] = []
    if arguments.online:
        for finding in online(configuration):
            findings.append(finding)
            if not arguments.json:
                print(f"{finding.outcome:<7} {finding.asked}: {finding.said}", flush=True)
    if arguments.json:
        print(json.dumps(_as_json(configuration, findings if arguments.online else None)))
    return exits.UNAVAILABLE if any(finding.outcome == "failed" for finding in findings) else 0


def _offline(configuration: Configuration) -> Iterator[str]:
    yield f"worker {configuration.worker.name} ({configuration.settings.worker.definition}): read"
    for route in configuration.routes:
        columns = ", ".join(f"{a.name} {a.type.value}" for a in configuration.streams[route.stream].attributes or ())
        extras = "".join(f"; {extra}" for extra in _non_defaults(route))
        yield f"route {route.topic} -> {route.stream} ({columns}){extras}"
    found = find_warnings(configuration.routes, configuration.streams)
    warnings = [(warning.location, warning.text) for warning in found] + list(_share_warnings(configuration))
    yield from (f"{configuration.place(location)}: {text}" for location, text in warnings)
    remarks = list(_hosted_remarks(configuration))
    yield from remarks
    unwatched = unwatched_streams(configuration.settings, configuration.worker, configuration.routes)
    if unwatched:
        yield unwatched_sentence(unwatched)
    if configuration.unset:
        yield f"not set: {', '.join(configuration.unset)}; `run` and `check --online` need them"
    yield "no errors found in the settings" if warnings or remarks or unwatched else "no problems found in the settings"


def _hosted_remarks(configuration: Configuration) -> Iterator[str]:
    """In what the settings don't fit a hosted broker."""
    mqtt = configuration.settings.mqtt
    for broker in mqtt.brokers:
        hosted = hosted_broker(broker.host)
        if hosted is not None:
            remarks = hosted.remarks(
                port=broker.port,
                subscriptions=max(len(_filters(routes)) for routes in _routes_of_sessions(configuration)),
                qos=mqtt.qos,
                is_websocket=broker.path is not None,
                alpn=mqtt.alpn,
            )
            yield from (f"broker {broker}: {remark}" for remark in remarks)


def _routes_of_sessions(configuration: Configuration) -> list[list[Route]]:
    """The routes of each MQTT session."""
    routes = list(configuration.routes)
    if not configuration.settings.mqtt.session_per_stream:
        return [routes]
    return [[route for route in routes if route.stream == stream] for stream in {route.stream for route in routes}]


def _filters(routes: Iterable[Route]) -> tuple[str, ...]:
    """The topic filters that a session with these routes subscribes to."""
    return minimal_filters([TopicTemplate.parse(route.topic).filter for route in routes])


def _share_warnings(configuration: Configuration) -> Iterator[tuple[Location, str]]:
    """Settings of ``outbox.shares`` that have no effect, each with the reason."""
    outbox, is_isolated = configuration.settings.outbox, configuration.settings.mqtt.session_per_stream
    if outbox.shares and outbox.full == "hold" and not is_isolated:
        why = "all streams wait together, because one MQTT session has the messages of all (mqtt.session_per_stream)"
        yield ("outbox", "shares"), f'has no effect with outbox.full = "hold": {why}'
    fed = {route.stream for route in configuration.routes}
    for name in sorted(outbox.shares.keys() - fed):
        yield ("outbox", "shares", name), "no route feeds this stream"


def _non_defaults(route: Route) -> Iterator[str]:
    """The settings of a route that differ from their defaults, apart from its fields."""
    if route.format.name != "json":
        yield route.format.name
    if route.format.compression != "none":
        yield f"compression {route.format.compression}"
    for name, value in (("each", route.each), ("when", route.when), ("id", route.id), ("key", route.key)):
        if value is not None:
            yield f"{name} {value}"
    if route.match != "first":
        yield f"match {route.match}"
    if route.types != "lenient":
        yield f"types {route.types}"
    if route.properties:
        yield f"properties {', '.join(route.properties)}"
    if route.event_time is not None:
        yield f"event_time {route.event_time.source}"
    if route.examples:
        yield f"{len(route.examples)} example{'s' if len(route.examples) > 1 else ''}"


def _as_json(configuration: Configuration, findings: list[Finding] | None) -> dict[str, object]:
    found: dict[str, object] = {
        "worker": configuration.worker.name,
        "definition": str(configuration.settings.worker.definition),
        "routes": [
            {
                "topic": route.topic,
                "stream": route.stream,
                "columns": {a.name: a.type.value for a in configuration.streams[route.stream].attributes or ()},
                "format": route.format.name,
            }
            for route in configuration.routes
        ],
        "unwatched_streams": unwatched_streams(configuration.settings, configuration.worker, configuration.routes),
    }
    if configuration.unset:
        found["unset"] = list(configuration.unset)
    if findings is not None:
        found["online"] = [finding._asdict() for finding in findings]
        found["ok"] = all(finding.outcome != "failed" for finding in findings)
    return found


# --- online -----------------------------------------------------------------------------------------------


def online(configuration: Configuration) -> Iterator[Finding]:
    """The checks of broker and GDN, each as soon as it is answered."""
    yield from _check_brokers(configuration)
    if configuration.settings.gdn.kind == "pulsar":
        yield from _check_pulsar(configuration)
        return
    rest = gdn_rest(configuration)
    try:
        yield from _check_gdn(configuration, rest)
    finally:
        rest.close()


def _check_brokers(configuration: Configuration) -> Iterator[Finding]:
    """Each broker; one that can't be reached is no failure if another one can."""
    brokers = configuration.settings.mqtt.brokers
    found = [list(_check_broker(configuration, broker)) for broker in brokers]
    is_any_reached = any(first.outcome == "ok" for first, *_ in found)
    for first, *others in found:
        if is_any_reached and first.outcome == "failed":
            yield first._replace(outcome="note", said=f"{first.said}. The bridge uses the other brokers meanwhile")
        else:
            yield first
        yield from others


def _check_broker(configuration: Configuration, broker: BrokerAddress) -> Iterator[Finding]:
    """Whether the broker can be reached, accepts the credentials and grants the subscriptions."""
    from bridge.cli.broker import temporary_link  # noqa: PLC0415 - other verbs start faster without paho

    mqtt = configuration.settings.mqtt
    place = f"broker {broker}"
    at = f" at {broker}" if len(mqtt.brokers) > 1 else ""
    user = "without user" if mqtt.username is None else f"as {mqtt.username}"
    login = f"login {user}, with a temporary client id{at}"
    wanted = _filters(configuration.routes)
    subscriptions = {f"subscription {filter_}{at}": _in_another_group(filter_) for filter_ in wanted}
    try:
        with temporary_link(mqtt, list(subscriptions.values()), [broker]) as link:
            error = _wait_until_subscribed(link)
    except MqttUnavailable as exc:
        yield Finding(place, "failed", redacted(str(exc)))
        yield from _skipped([login, *subscriptions], "the broker was not reached")
        return
    yield Finding(place, "ok", "connected with TLS" if mqtt.tls else "connected")
    if link.session_present is None:
        yield Finding(login, "failed", f"{error}{_TEMPORARY_ID}" if hosted_broker(broker.host) else error)
        yield from _skipped(subscriptions, "the login failed")
        return
    yield Finding(login, "ok", "accepted")
    for note in link.notes:
        yield Finding(f"{place}, what it grants", "note", note)
    for asked, filter_ in subscriptions.items():
        reason = link.refused.get(filter_)
        if not link.subscribed:
            yield Finding(asked, "failed", error)
        elif reason is None:
            yield Finding(asked, "ok", f"granted at QoS {link.granted[filter_]}")
        else:
            yield Finding(asked, "failed", f"{reason}. {link.advice[filter_]}")


def _wait_until_subscribed(link: MqttLink) -> str:
    """Wait for the broker's answers; returns the error, empty if there was none."""
    from bridge.cli.broker import receive  # noqa: PLC0415 - as above

    deadline = Deadline(SUBSCRIBE_TIMEOUT)
    try:
        while not link.subscribed:
            if not deadline.left():
                return f"the broker did not answer within {SUBSCRIBE_TIMEOUT:g} s"
            receive(link, deadline)
    except MqttUnavailable as exc:
        return redacted(str(exc))
    return ""


def _skipped(asked: Iterable[str], why: str) -> Iterator[Finding]:
    return (Finding(one, "skipped", why) for one in asked)


def _in_another_group(filter_: str) -> str:
    """The filter to subscribe to; a shared one gets another group.

    In the real group the broker would send this client messages that the bridges never get: no other member receives
    them when its session ends (MQTT 5, 4.8.2).
    """
    if not filter_.startswith("$share/"):
        return filter_
    return f"$share/check-{secrets.token_hex(4)}/{filter_.split('/', 2)[2]}"


def _check_gdn(configuration: Configuration, rest: GdnRest) -> Iterator[Finding]:
    """Whether GDN can be reached and accepts the key; tenant, fabric, worker and one-time password."""
    gdn = configuration.settings.gdn
    place = f"GDN {GdnAddress.parse(gdn.url).base_url}"
    key, fabric = "API key" if gdn.password is None else "login", f"fabric {gdn.fabric}"
    tenant = "tenant" if gdn.tenant is None else f"tenant {gdn.tenant}"
    worker, otp = f"worker {configuration.worker.name}", "one-time password"
    later = [tenant, fabric, worker, *([otp] if gdn.authentication == "otp" else [])]
    try:
        region = rest.local_datacenter()
    except GdnAuthError as exc:
        yield Finding(place, "ok", "answers")
        yield Finding(key, "failed", str(exc))
        yield from _skipped(later, f"the {key} was refused")
        return
    except GdnError as exc:
        yield Finding(place, "failed", f"{exc}. Check gdn.url")
        yield from _skipped([key, *later], "GDN was not reached")
        return
    yield Finding(place, "ok", f"answers, region {region.name}")
    yield Finding(key, "ok", "accepted")
    yield _run(tenant, lambda: _check_tenant(tenant, gdn.tenant, rest, of=key))
    yield from _check_fabric_and_worker(configuration, rest, fabric, worker)
    if gdn.authentication == "otp":
        yield _run(otp, lambda: _check_otp(otp, rest))


def _run(what: str, ask: Callable[[], Finding]) -> Finding:
    """The finding, or a failed one with GDN's error."""
    try:
        return ask()
    except GdnError as exc:
        return Finding(what, "failed", str(exc))


def _check_tenant(asked: str, wanted: str | None, rest: GdnRest, *, of: str) -> Finding:
    found = rest.tenant()
    shown = redacted(ascii(found)[:80])
    if wanted is None:
        return Finding(asked, "ok", shown)
    if found == wanted:
        return Finding(asked, "ok", f"the {of} belongs to it")
    return Finding(asked, "failed", f"the {of} belongs to {shown}. Set gdn.tenant to that")


def _check_fabric_and_worker(
    configuration: Configuration, rest: GdnRest, fabric: str, worker: str
) -> Iterator[Finding]:
    try:
        state = rest.get_worker(configuration.worker.name)
    except GdnRejected as exc:
        yield Finding(fabric, "failed", f"{exc}. Check gdn.fabric")
        yield Finding(worker, "skipped", "the fabric was refused")
        return
    except GdnError as exc:
        yield Finding(fabric, "failed", str(exc))
        yield Finding(worker, "skipped", "the fabric's workers could not be listed")
        return
    yield Finding(fabric, "ok", "exists")
    if state is None or is_other(state, configuration.worker):
        read = f"definition {configuration.settings.worker.definition}"
        yield _run(read, lambda: _check_definition(read, configuration, rest))
    if state is None:
        yield Finding(worker, "note", "doesn't exist; the bridge creates it when it runs")
        return
    if is_other(state, configuration.worker):
        text = (
            f"exists with another definition than {configuration.settings.worker.definition}; `gdn-bridge worker plan` "
            "shows the differences, `worker apply` replaces it"
        )
        yield Finding(worker, "note", text)
    if state.is_active:
        yield Finding(worker, "ok", f"active in {', '.join(state.regions)}")
    else:
        yield Finding(worker, "note", "not active; the bridge activates it when it runs")


def _check_definition(asked: str, configuration: Configuration, rest: GdnRest) -> Finding:
    rest.validate(configuration.worker.text)
    return Finding(asked, "ok", "GDN can read it")


def _check_otp(asked: str, rest: GdnRest) -> Finding:
    register_secret(rest.otp())
    return Finding(asked, "ok", "issued")


def _check_pulsar(configuration: Configuration) -> Iterator[Finding]:
    """Whether Pulsar's web service can be reached, and with deduplication whether topics have partitions.

    A producer isn't connected: it would create the topic.
    """
    gdn = configuration.settings.gdn
    topics = sorted({route.stream for route in configuration.routes})
    partitions = {f"partitions of {topic}": topic for topic in topics}
    address = GdnAddress.parse(gdn.url, prefixed=False)
    asked = f"Pulsar {address.base_url}"
    try:
        open_socket_to(
            address.host,
            secure=address.secure,
            tls=Tls(gdn.ca_file),
            proxies=gdn.proxies,
            timeout=gdn.request_timeout,
        ).close()
    except (OSError, GdnUnavailable) as exc:
        yield Finding(asked, "failed", f"can't be reached: {exc}. Check gdn.url")
        if configuration.settings.delivery.deduplicate:
            yield from _skipped(partitions, "Pulsar was not reached")
        return
    yield Finding(asked, "ok", "connected; token and topics are checked only when the bridge runs")
    if configuration.settings.delivery.deduplicate:
        from bridge.service.connections import pulsar_rest  # noqa: PLC0415 - other verbs start faster without paho

        rest = pulsar_rest(gdn)
        yield from (_check_partitions(name, topic, gdn, rest) for name, topic in partitions.items())
        rest.close()


def _check_partitions(asked: str, topic: str, gdn: GdnSettings, rest: PulsarRest) -> Finding:
    token = None if gdn.api_key is None else gdn.api_key.get_secret_value()
    try:
        partitions = rest.partitions(tenant=gdn.tenant or "", namespace=gdn.fabric, topic=topic, token=token)
    except GdnUnavailable as exc:
        unknown = "not known: the topic may not exist yet, or the WebSocket service runs without Pulsar's REST API"
        return Finding(asked, "note", f"{unknown} ({exc}). With partitions rows could be stored twice")
    return (
        Finding(asked, "failed", partitions_sentence(topic, partitions)) if partitions else Finding(asked, "ok", "none")
    )
