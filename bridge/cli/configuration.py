"""Reads and checks the settings, the worker definition and the routes, for every verb that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from bridge.config import FieldTable, RouteSettings, Settings, load, load_placed, places
from bridge.config.tree import Location
from bridge.errors import ConfigError, SettingError
from bridge.gdn.address import GdnAddress
from bridge.gdn.budget import Budget
from bridge.gdn.rest import GdnRest
from bridge.log import configure, keep_secret
from bridge.mapping import Example, FieldSpec, FormatOptions, Route, check
from bridge.mapping.checks import MAX_NAMES, suggestion
from bridge.mapping.fields import Scalar
from bridge.outbox.bounds import exact_sum
from bridge.service.credentials import Credentials
from bridge.service.reload import Configuration
from bridge.service.session_per_stream import session_problems
from bridge.streamql import StreamQLError, Worker, parse, require_metadata
from bridge.streamql.streams import input_streams


def load_settings(arguments: argparse.Namespace, *, offline: bool = False) -> Settings:
    """The settings that the arguments and the environment give. ``offline``: see ``bridge.config.load``.

    Raises:
        ConfigError: lists every problem.
    """
    return load(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set), offline=offline)


def read_configuration(arguments: argparse.Namespace, *, offline: bool = False) -> Configuration:
    """The settings, worker, streams and routes, checked without a connection to broker or GDN.

    Args:
        arguments: of the command line.
        offline: see ``bridge.config.load``.

    Raises:
        ConfigError: lists every problem.
    """
    settings, place, unset = load_placed(
        config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set), offline=offline
    )
    problems: list[str] = []
    worker = streams = None
    try:
        worker = read_worker(settings.worker.definition)
    except ConfigError as exc:
        problems += _placed(exc, place)
    routes = [route_of(route) for route in settings.routes]
    if worker is not None:
        streams = input_streams(worker)
        where = f"; the definition is {settings.worker.definition}"
        problems += [
            f"{place(problem.location)}: {problem.text}{where if problem.in_definition else ''}"
            for problem in check(routes, streams)
        ]
        problems += [f"{place(location)}: {text}" for location, text in _share_problems(settings, streams)]
    problems += [f"{place(location)}: {text}" for location, text in session_problems(settings, routes)]
    if problems or worker is None or streams is None:
        raise ConfigError(*problems)
    return Configuration(settings, worker, streams, routes, place, unset)


def _share_problems(settings: Settings, streams: Collection[str]) -> Iterator[tuple[Location, str]]:
    """The settings of ``outbox.shares`` that don't fit the worker or the routes, each with what is wrong."""
    shares = settings.outbox.shares
    for name in shares:
        if name not in streams:
            hint = suggestion(name, streams)
            yield ("outbox", "shares", name), f"{name!r}: the worker reads no such stream{hint}"
    others = sorted({route.stream for route in settings.routes} - shares.keys())
    if others and exact_sum(shares.values()) == 1:
        named = ", ".join(others[:MAX_NAMES]) + ", …" * (len(others) > MAX_NAMES)
        text = f"divides all of outbox.max_bytes, which leaves nothing for the other streams of the routes: {named}"
        yield ("outbox", "shares"), text


def problems_of(exc: ConfigError, arguments: argparse.Namespace) -> Sequence[str]:
    """The problems; one with a setting begins with the place of its value."""
    if not isinstance(exc, SettingError):
        return exc.problems
    try:
        place = places(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set))
    except ConfigError as later:  # the file has just changed
        return later.problems
    return _placed(exc, place)


def _placed(exc: ConfigError, place: Callable[[Location], str]) -> Sequence[str]:
    if isinstance(exc, SettingError):
        return (f"{place(tuple(exc.setting.split('.')))}: {exc.problem}",)
    return exc.problems


def route_of(settings: RouteSettings) -> Route:
    """The route that the settings describe."""
    return Route(
        topic=settings.topic,
        stream=settings.stream,
        fields={name: _field(value) for name, value in settings.fields.items()},
        id=settings.id,
        format=FormatOptions(
            name=settings.format,
            compression=settings.compression,
            pattern=settings.pattern,
            delimiter=settings.delimiter,
            columns=tuple(settings.columns),
            encoding=settings.encoding,
            nan=settings.nan,
            decimal=settings.decimal,
            null_values=tuple(settings.null_values),
            embedded_json=tuple(settings.embedded_json),
        ),
        each=settings.each,
        on_empty=settings.on_empty,
        on_absent=settings.on_absent,
        on_unreadable=settings.on_unreadable,
        when=settings.when,
        match=settings.match,
        types=settings.types,
        every=settings.every,
        change=settings.change,
        device=settings.device,
        key=settings.key,
        properties=settings.properties,
        event_time=None if settings.event_time is None else _spec(settings.event_time),
        name=settings.name,
        examples=tuple(
            Example(example.topic, example.payload, example.encoding, example.expect) for example in settings.test
        ),
    )


def _field(value: FieldTable | Scalar) -> FieldSpec | Scalar:
    return _spec(value) if isinstance(value, FieldTable) else value


def _spec(table: FieldTable) -> FieldSpec:
    values = {name: getattr(table, name) for name in FieldTable.model_fields}
    return FieldSpec(**{**values, "default": None if table.default is None else _field(table.default)})


def read_worker(path: Path) -> Worker:
    """The worker in a definition file.

    Raises:
        ConfigError: the file can't be read, or has no worker that the bridge can run.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        raise SettingError("worker.definition", f"{path} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingError("worker.definition", f"{path} is not UTF-8 (byte {exc.start})") from exc
    try:
        worker = parse(text)
        require_metadata(worker)
    except StreamQLError as exc:
        raise ConfigError(f"{path}:{exc.line}:{exc.column}: {exc.message}") from exc
    return worker


def configure_log(settings: Settings, *, for_people: bool = True) -> None:
    """Configure the log from the settings, and redact their secrets in it.

    Args:
        settings: with the level and the secrets.
        for_people: whether the log is mixed with a command's output: then it is text, and only warnings unless
            ``log.level`` is ``debug``. If False, the settings apply unchanged.
    """
    secrets = [
        secret.get_secret_value()
        for secret in (settings.gdn.api_key, settings.gdn.password, settings.mqtt.password)
        if secret
    ]
    level: str = settings.log.level
    if for_people and level == "info":
        level = "warning"
    configure(level=level, format="console" if for_people else settings.log.format, stream=sys.stderr, secrets=secrets)


def configuration_for_gdn(arguments: argparse.Namespace) -> tuple[Configuration, GdnRest]:
    """The configuration and a REST client, for the verbs that send requests to GDN.

    Raises:
        ConfigError: as ``read_configuration``, or the far end is a plain Pulsar.
    """
    configuration = read_configuration(arguments)
    if configuration.settings.gdn.kind == "pulsar":
        raise SettingError("gdn.kind", "this command needs a GDN; a plain Pulsar has no workers and no queries")
    configure_log(configuration.settings)
    return configuration, gdn_rest(configuration)


def gdn_rest(configuration: Configuration) -> GdnRest:
    """A client for GDN's REST API, from the settings.

    Raises:
        ConfigError: a variable of the environment names an unusable proxy.
    """
    gdn, address = configuration.settings.gdn, GdnAddress.parse(configuration.settings.gdn.url)
    proxy = gdn.proxies.find(address.host, secure=address.secure)
    if proxy is not None and proxy.password:
        keep_secret(proxy.password)
    rest = GdnRest(
        base_url=address.base_url,
        fabric=gdn.fabric,
        api_key="" if gdn.api_key is None else gdn.api_key.get_secret_value(),
        timeout=gdn.request_timeout,
        ca_file=None if gdn.ca_file is None else str(gdn.ca_file),
        proxy=proxy,
        budget=Budget(per_minute=gdn.requests_per_minute, per_day=gdn.requests_per_day),
        register_secret=keep_secret,
    )
    account = Credentials.of(configuration.settings).account
    if account is not None:
        rest.use_account(account)
    return rest
