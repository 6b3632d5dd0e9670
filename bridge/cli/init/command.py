"""The verb ``init``: takes samples from arguments or a broker, and writes and reports the two files.

The files are tested before they are written: they must load, and every sample must become rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.cli import exits
from bridge.cli.arguments import number_between, read_password
from bridge.cli.configuration import read_worker, route_of
from bridge.cli.exits import CommandError, UsageError
from bridge.cli.init.files import CONFIG_FILE, WORKER_FILE, configuration_text, definition_text
from bridge.cli.init.inference import MAX_BYTES, MAX_SAMPLES, infer
from bridge.cli.init.results import Inference, Sample
from bridge.config import load
from bridge.errors import BridgeError, ConfigError, MqttUnavailable
from bridge.mapping import Mapper
from bridge.mapping.payload import MAX_PAYLOAD
from bridge.mapping.topics import TopicTemplate
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql import input_streams
from bridge.text import printable
from bridge.timing import Deadline

if TYPE_CHECKING:
    from bridge.config.mqtt import MqttSettings


BROKER = "mqtt://127.0.0.1:1883"
"""The broker's URL in the configuration if neither option nor variable gives one."""

_OPTIONS = {
    "mqtt.url": "--broker",
    "mqtt.username": "--username",
    "mqtt.client_id": "--client-id",
    "mqtt.protocol": "--protocol",
    "mqtt.ca_file": "--ca-file",
    "mqtt.cert_file": "--cert-file",
    "mqtt.key_file": "--key-file",
}
"""The options that give settings of the broker. They are written to the configuration; the password isn't."""

MAX_SECONDS = 3600.0
SHOWN_LEFT_OUT = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``init``."""
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write the files (default: the working directory)",
    )
    parser.add_argument(
        "--sample",
        action="append",
        nargs=2,
        default=[],
        metavar=("TOPIC", "PAYLOAD"),
        help="a message; PAYLOAD is text, @FILE, or - for standard input; can be repeated",
    )
    parser.add_argument(
        "--from-topic", metavar="FILTER", help="subscribe to this topic filter at the broker for samples: devices/#"
    )
    parser.add_argument(
        "--broker", metavar="URL", help="mqtt://host[:port], or as mqtt.url (default: $BRIDGE_MQTT__URL)"
    )
    parser.add_argument("--username", metavar="NAME", help="user name for the broker (default: $BRIDGE_MQTT__USERNAME)")
    parser.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="file with the password for the broker (default: $BRIDGE_MQTT__PASSWORD or $BRIDGE_MQTT__PASSWORD_FILE)",
    )
    parser.add_argument(
        "--ca-file", metavar="FILE", help="CA certificates for mqtts:// (default: $BRIDGE_MQTT__CA_FILE)"
    )
    parser.add_argument("--cert-file", metavar="FILE", help="client certificate (default: $BRIDGE_MQTT__CERT_FILE)")
    parser.add_argument("--key-file", metavar="FILE", help="its private key (default: $BRIDGE_MQTT__KEY_FILE)")
    parser.add_argument(
        "--client-id",
        metavar="ID",
        help="client id, also of the bridge; another client with it is disconnected (default: a temporary one)",
    )
    parser.add_argument(
        "--seconds",
        type=number_between(0.1, MAX_SECONDS),
        default=10.0,
        help="longest time to wait for samples (default: 10)",
    )
    parser.add_argument(
        "--protocol", choices=["5", "3.1.1"], help="MQTT version (default: $BRIDGE_MQTT__PROTOCOL, else 5)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")


def init(arguments: argparse.Namespace) -> int:
    """Write the two files.

    Raises:
        CommandError: the broker can't be reached, or refuses.
        UsageError: there is no option that gives samples.
        ConfigError: a file exists or can't be written, or the samples give no route.
        BridgeError: no message was received.
    """
    if not arguments.sample and arguments.from_topic is None:
        raise UsageError("init needs sample messages: give --sample TOPIC PAYLOAD or --from-topic FILTER")
    directory: Path = arguments.directory
    paths = [directory / CONFIG_FILE, directory / WORKER_FILE]
    if not arguments.force and (existing := [path for path in paths if path.exists()]):
        raise ConfigError(*(f"{path}: exists already; use --force to overwrite it" for path in existing))
    samples = [Sample(topic, _payload(payload)) for topic, payload in arguments.sample]
    broker = arguments.broker or os.environ.get("BRIDGE_MQTT__URL") or BROKER
    given = _given(arguments)
    if arguments.from_topic is not None:
        filter_ = _filter(arguments.from_topic)
        mqtt = _mqtt(arguments)
        given["mqtt.protocol"] = mqtt.protocol
        print(
            f"subscribing to {arguments.from_topic} at {broker} for at most {arguments.seconds:g} s …",
            file=sys.stderr,
        )
        try:
            samples += listen(mqtt, filter_, arguments.seconds, arguments.client_id)
        except MqttUnavailable as exc:
            raise CommandError(exits.UNAVAILABLE, str(exc)) from exc
        if not samples:
            raise BridgeError(
                f"no message on {arguments.from_topic} within {arguments.seconds:g} s; "
                "wait longer with --seconds, or give a message with --sample"
            )
    inference = infer(samples)
    if not inference.routes:
        raise ConfigError(*(f"{printable(topic)}: {reason}" for topic, reason in inference.left_out[:SHOWN_LEFT_OUT]))
    files = files_of(inference, mqtt={**given, "mqtt.url": broker})
    _write(directory, files, replace=arguments.force)
    if arguments.json:
        print(json.dumps(_as_json(inference, paths)))
    else:
        _report(inference, paths, unset=["mqtt.url"] if broker == BROKER else [])
    return 0


def listen(mqtt: MqttSettings, filter_: str, seconds: float, client_id: str | None = None) -> list[Sample]:
    """The messages received in this time, retained ones first; at most as many as ``infer`` uses.

    ``client_id``: None: a temporary one.

    Raises:
        MqttUnavailable: the broker can't be reached, or refuses.
    """
    from bridge.cli.broker import receive, temporary_link  # noqa: PLC0415 - the other verbs start faster without paho

    samples: list[Sample] = []
    room = MAX_BYTES
    with temporary_link(mqtt, [filter_], client_id=client_id) as link:
        deadline = Deadline(mqtt.connect_timeout + seconds)
        while not link.subscribed and deadline.left():
            samples += _samples(receive(link, deadline))
        if filter_ in link.refused and filter_ not in link.downgraded:
            raise MqttUnavailable(f"the broker refused the subscription {filter_}: {link.refused[filter_]}")
        deadline = Deadline(seconds)
        while deadline.left() and len(samples) < MAX_SAMPLES and room > 0:
            received = _samples(receive(link, deadline))
            samples += received
            room -= sum(len(sample.topic) + len(sample.payload) for sample in received)
    return samples[:MAX_SAMPLES]


def files_of(inference: Inference, *, mqtt: Mapping[str, str]) -> dict[str, str]:
    """The files' contents by name, tested. ``mqtt``: settings of the broker, with ``mqtt.url``.

    Raises:
        ConfigError: the files don't work.
    """
    files = {
        CONFIG_FILE: configuration_text(inference.routes, mqtt=mqtt),
        WORKER_FILE: definition_text(inference.routes),
    }
    if problems := _problems(files, inference.taken):
        raise ConfigError(*(f"the files inferred from the samples don't work: {problem}" for problem in problems))
    return files


def _problems(files: Mapping[str, str], samples: Sequence[Sample]) -> Sequence[str]:
    """Problems found when the files are loaded and the samples mapped."""
    with tempfile.TemporaryDirectory() as name:
        for file, text in files.items():
            (Path(name) / file).write_text(text, encoding="utf-8")
        try:
            settings = load(
                config_file=Path(name) / CONFIG_FILE,
                environ={},
                secret_directories=(),
                offline=True,
            )
            streams = input_streams(read_worker(settings.worker.definition))
        except ConfigError as exc:
            return exc.problems
    try:
        mapper = Mapper(routes=[route_of(route) for route in settings.routes], streams=streams)
    except ValueError as exc:
        return [str(exc)]
    for sample in samples:
        mapped = mapper.map(sample.message)
        if isinstance(mapped, DeadLetter):
            return [f"{printable(sample.topic)}: {mapped.reason}: {mapped.detail}"]
    return []


# --- input ------------------------------------------------------------------------------------------------


def _payload(text: str) -> bytes:
    """A sample's payload. A file is read up to one byte beyond the limit: ``infer`` leaves it out then.

    Raises:
        ConfigError: the file can't be read.
    """
    if text == "-":
        return sys.stdin.buffer.read(MAX_PAYLOAD + 1)
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        with Path(text[1:]).open("rb") as file:
            return file.read(MAX_PAYLOAD + 1)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{text[1:]} can't be read: {getattr(exc, 'strerror', exc)}") from exc


def _mqtt(arguments: argparse.Namespace) -> MqttSettings:
    """The broker's settings, from the sources that exist without a configuration file.

    Raises:
        ConfigError: they are invalid.
    """
    if not (arguments.broker or os.environ.get("BRIDGE_MQTT__URL")):
        raise ConfigError("--from-topic needs a broker: give --broker mqtt://host, or set BRIDGE_MQTT__URL")
    names = ("BRIDGE_MQTT__", "CREDENTIALS_DIRECTORY")
    overrides = _given(arguments)
    if (password := read_password(arguments.password_file)) is not None:
        overrides["mqtt.password"] = password
    # Placeholders for required settings that aren't used here.
    others = {"worker.definition": os.devnull, "routes": '[{"topic": "-", "stream": "-"}]'}
    return load(
        config_file=None,
        environ={name: value for name, value in os.environ.items() if name.startswith(names)},
        overrides={**overrides, **others},
        options={**_OPTIONS, "mqtt.password": "--password-file"},
        offline=True,
    ).mqtt


def _given(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings that options give. Files have absolute paths: the configuration file may be in another directory."""
    given = {}
    for setting, option in _OPTIONS.items():
        value = getattr(arguments, option.removeprefix("--").replace("-", "_"))
        if value is not None:
            given[setting] = str(Path(value).absolute()) if setting.endswith("_file") else value
    return given


def _filter(text: str) -> str:
    """The topic filter to subscribe to.

    Raises:
        ConfigError: it isn't a topic filter, or it is a shared subscription.
    """
    try:
        parsed = TopicTemplate.parse(text)
    except ValueError as exc:
        raise ConfigError(f"--from-topic {text!r}: {exc}") from exc
    if parsed.filter.startswith("$share/"):
        raise ConfigError(f"--from-topic {text!r}: a shared subscription would take messages from its other members")
    return parsed.filter


def _samples(messages: Sequence[MqttMessage]) -> list[Sample]:
    # An empty payload clears a retained message (MQTT 5, 3.3.1.3): it isn't a device's data.
    return [Sample(message.topic, message.payload) for message in messages if message.payload]


# --- output -----------------------------------------------------------------------------------------------


def _write(directory: Path, files: Mapping[str, str], *, replace: bool) -> None:
    for name, text in files.items():
        path = directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with path.open("w" if replace else "x", encoding="utf-8") as file:
                file.write(text)
        except OSError as exc:
            raise ConfigError(f"{path}: can't be written: {exc.strerror}") from exc


def _as_json(inference: Inference, paths: Sequence[Path]) -> dict[str, object]:
    return {
        "files": [str(path) for path in paths],
        "routes": [
            {
                "topic": inferred.route.topic,
                "stream": inferred.route.stream,
                "columns": {column.name: column.type.value for column in inferred.columns},
                "format": inferred.route.format.name,
                "compression": inferred.route.format.compression,
                "when": inferred.route.when,
                "samples": inferred.samples,
                "notes": list(inferred.notes),
            }
            for inferred in inference.routes
        ],
        "left_out": [{"topic": topic, "reason": reason} for topic, reason in inference.left_out],
    }


def _report(inference: Inference, paths: Sequence[Path], *, unset: Sequence[str]) -> None:
    """Print what was written and what to do next; ``unset`` are the settings that the command has guessed."""
    for inferred in inference.routes:
        columns = ", ".join(f"{column.name} {column.type.value}" for column in inferred.columns)
        route = inferred.route
        count = f"{inferred.samples} sample{'s' if inferred.samples != 1 else ''}"
        compression = "" if route.format.compression == "none" else f", {route.format.compression}"
        print(f"route {route.topic} -> {route.stream} ({columns}), {route.format.name}{compression}, from {count}")
        if route.when is not None:
            print(f"  when {route.when}")
        for note in inferred.notes:
            print(f"  {note}")
    reasons = Counter(one.reason for one in inference.left_out)
    for reason, number in reasons.most_common(SHOWN_LEFT_OUT):
        first = next(one.topic for one in inference.left_out if one.reason == reason)
        more = f" and {number - 1} more" if number > 1 else ""
        print(f"left out: {printable(first)}{more}: {reason}")
    config, worker = paths
    print(f"wrote {config} and {worker}")
    settings = ", ".join([*unset, "gdn.url"])
    print(f"next: set {settings} and gdn.tenant in {config}, set BRIDGE_GDN__API_KEY to your API key, then run:")
    print(f"  gdn-bridge test --config {config}    # the rows that the samples become")
    print(f"  gdn-bridge check --online --config {config}    # broker, GDN, credentials")
    print(f"  gdn-bridge run --config {config}")
