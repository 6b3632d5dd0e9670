"""The verb ``init``: a first ``bridge.toml`` and ``worker.sql``, made from messages that devices send.

What it writes was tried before: it loads, and every sample becomes the rows that stand beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.cli import exits
from bridge.cli.configuration import read_worker, route_of
from bridge.cli.drafts import CONFIG_FILE, WORKER_FILE, configuration, definition
from bridge.cli.findings import Findings, Sample
from bridge.cli.inference import MAX_BYTES, MAX_SAMPLES, infer
from bridge.config import load
from bridge.errors import BridgeError, ConfigError, MqttUnavailable
from bridge.mapping import Mapper
from bridge.mapping.payload import MAX_PAYLOAD
from bridge.mapping.topics import TopicTemplate
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql import input_streams
from bridge.streamql.syntax import AttributeType
from bridge.text import printable
from bridge.timing import Deadline

if TYPE_CHECKING:
    from bridge.config.mqtt import MqttSettings


BROKER = "mqtt://127.0.0.1:1883"
"""What the configuration names where nothing else is said."""

MAX_SECONDS = 3600.0
SHOWN_LEFT_OUT = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``init`` takes."""
    parser.add_argument("directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="default: this one")
    parser.add_argument(
        "--sample",
        action="append",
        nargs=2,
        default=[],
        metavar=("TOPIC", "PAYLOAD"),
        help="a message: text, @FILE, or - for standard input; may be given again",
    )
    parser.add_argument("--from-topic", metavar="FILTER", help="listen to the broker for samples, as in devices/#")
    parser.add_argument("--broker", metavar="URL", help="mqtt://host[:port] (default: $BRIDGE_MQTT__URL)")
    parser.add_argument("--seconds", type=_seconds, default=10.0, help="how long to listen at most (default 10)")
    parser.add_argument("--protocol", choices=["5", "3.1.1"], help="of MQTT (default: $BRIDGE_MQTT__PROTOCOL, else 5)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def init(arguments: argparse.Namespace) -> int:
    """Write the two files.

    Raises:
        ConfigError: a file is there already or can't be written, or there is nothing to write it from.
    """
    if not arguments.sample and arguments.from_topic is None:
        raise ConfigError("init needs messages to begin with: give --sample TOPIC PAYLOAD, or --from-topic FILTER")
    directory: Path = arguments.directory
    paths = [directory / CONFIG_FILE, directory / WORKER_FILE]
    if not arguments.force and (there := [path for path in paths if path.exists()]):
        raise ConfigError(*(f"{path}: is there already; --force replaces it" for path in there))
    samples = [Sample(topic, _payload(payload)) for topic, payload in arguments.sample]
    broker, protocol = arguments.broker or os.environ.get("BRIDGE_MQTT__URL") or BROKER, arguments.protocol
    if arguments.from_topic is not None:
        filter_ = _filter(arguments.from_topic)
        mqtt = _mqtt(arguments)
        broker, protocol = mqtt.url, mqtt.protocol
        print(f"listening to {arguments.from_topic} at {mqtt.url}, {arguments.seconds:g} s at most …", file=sys.stderr)
        try:
            samples += listen(mqtt, filter_, arguments.seconds)
        except MqttUnavailable as exc:
            print(f"gdn-bridge: {exc}", file=sys.stderr)
            return exits.UNAVAILABLE
        if not samples:
            raise BridgeError(
                f"nothing came on {arguments.from_topic} within {arguments.seconds:g} s; "
                "listen longer with --seconds, or give a message with --sample"
            )
    findings = infer(samples)
    if not findings.found:
        raise ConfigError(*(f"{printable(topic)}: {reason}" for topic, reason in findings.left_out[:SHOWN_LEFT_OUT]))
    files = files_of(findings, broker=broker, protocol=protocol or "5")
    _write(directory, files, replace=arguments.force)
    _tell(findings, paths)
    return 0


def listen(mqtt: MqttSettings, filter_: str, seconds: float) -> list[Sample]:
    """Messages as they come, retained ones first; for so long at most, and no more than ``infer`` takes.

    Raises:
        MqttUnavailable: the broker can't be reached, or refuses.
    """
    from bridge.cli.broker import turn, visit  # noqa: PLC0415 - the other verbs start faster without paho

    samples: list[Sample] = []
    room = MAX_BYTES
    with visit(mqtt, [filter_]) as link:
        deadline = Deadline(mqtt.connect_timeout + seconds)
        while not link.subscribed and deadline.left():
            samples += _samples(turn(link, deadline))
        if filter_ in link.refused and filter_ not in link.downgraded:
            raise MqttUnavailable(f"the broker refused the subscription {filter_}: {link.refused[filter_]}")
        deadline = Deadline(seconds)
        while deadline.left() and len(samples) < MAX_SAMPLES and room > 0:
            came = _samples(turn(link, deadline))
            samples += came
            room -= sum(len(sample.topic) + len(sample.payload) for sample in came)
    return samples[:MAX_SAMPLES]


def files_of(findings: Findings, *, broker: str, protocol: str) -> dict[str, str]:
    """The files' texts by name, tried out.

    Raises:
        ConfigError: what was inferred doesn't hold.
    """
    files = {
        CONFIG_FILE: configuration(findings.found, broker=broker, protocol=protocol),
        WORKER_FILE: definition(findings.found),
    }
    if problems := _tried(files, findings.taken):
        raise ConfigError(*(f"what was inferred from the samples doesn't hold: {problem}" for problem in problems))
    return files


def _tried(files: Mapping[str, str], samples: Sequence[Sample]) -> Sequence[str]:
    """What is wrong with the files: whether they load, and whether the samples become rows."""
    with tempfile.TemporaryDirectory() as name:
        for file, text in files.items():
            (Path(name) / file).write_text(text, encoding="utf-8")
        try:
            settings = load(
                config_file=Path(name) / CONFIG_FILE,
                environ={},
                overrides={"gdn.api_key": "not-needed-here"},
                secret_directories=(),
            )
            streams = input_streams(read_worker(settings.worker.definition))
        except ConfigError as exc:
            return exc.problems
    try:
        mapping = Mapper(routes=[route_of(route) for route in settings.routes], streams=streams)
    except ValueError as exc:
        return [str(exc)]
    for sample in samples:
        mapped = mapping.map(sample.message)
        if isinstance(mapped, DeadLetter):
            return [f"{printable(sample.topic)}: {mapped.reason}: {mapped.detail}"]
    return []


# --- what comes in ----------------------------------------------------------------------------------------


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"must be more than 0 and at most {MAX_SECONDS:g}")
    return seconds


def _payload(text: str) -> bytes:
    """A sample's payload; of what is too long, enough to say so.

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
    """The broker's settings from the sources there are before a configuration: command line, environment, secrets.

    Raises:
        ConfigError: they are wrong.
    """
    if not (arguments.broker or os.environ.get("BRIDGE_MQTT__URL")):
        raise ConfigError("--from-topic needs a broker: give --broker mqtt://host, or set BRIDGE_MQTT__URL")
    names = ("BRIDGE_MQTT__", "CREDENTIALS_DIRECTORY")
    overrides = {"mqtt.url": arguments.broker, "mqtt.protocol": arguments.protocol}
    # What isn't known yet, and isn't looked at.
    others = {"gdn.url": "localhost", "gdn.tenant": "-", "gdn.api_key": "-", "worker.definition": os.devnull}
    routes = {"routes": '[{"topic": "-", "stream": "-"}]'}
    return load(
        config_file=None,
        environ={name: value for name, value in os.environ.items() if name.startswith(names)},
        overrides={**{key: value for key, value in overrides.items() if value is not None}, **others, **routes},
    ).mqtt


def _filter(text: str) -> str:
    """What to subscribe.

    Raises:
        ConfigError: it is no filter, or one that would take messages from others.
    """
    try:
        parsed = TopicTemplate.parse(text)
    except ValueError as exc:
        raise ConfigError(f"--from-topic {text!r}: {exc}") from exc
    if parsed.filter.startswith("$share/"):
        raise ConfigError(f"--from-topic {text!r}: a shared subscription would take messages from those who share it")
    return parsed.filter


def _samples(messages: Sequence[MqttMessage]) -> list[Sample]:
    # An empty one clears a retained message (MQTT 5, 3.3.1.3): no device's data.
    return [Sample(message.topic, message.payload) for message in messages if message.payload]


# --- what goes out ----------------------------------------------------------------------------------------


def _write(directory: Path, files: Mapping[str, str], *, replace: bool) -> None:
    for name, text in files.items():
        path = directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with path.open("w" if replace else "x", encoding="utf-8") as file:
                file.write(text)
        except OSError as exc:
            raise ConfigError(f"{path}: can't be written: {exc.strerror}") from exc


def _tell(findings: Findings, paths: Sequence[Path]) -> None:
    for found in findings.found:
        columns = ", ".join(f"{column.name} {column.type.value}" for column in found.columns)
        route = found.route
        count = f"{found.samples} sample{'s' if found.samples != 1 else ''}"
        compression = "" if route.format.compression == "none" else f", {route.format.compression}"
        print(f"route {route.topic} -> {route.stream} ({columns}), {route.format.name}{compression}, from {count}")
        for note in found.notes:
            print(f"  {note}")
        if found.samples == 1 and any(column.type is AttributeType.LONG for column in found.columns):
            print("  one sample says little: numbers that are whole in it make a column of whole numbers")
    reasons = Counter(one.reason for one in findings.left_out)
    for reason, number in reasons.most_common(SHOWN_LEFT_OUT):
        first = next(one.topic for one in findings.left_out if one.reason == reason)
        more = f" and {number - 1} more" if number > 1 else ""
        print(f"left out: {printable(first)}{more}: {reason}")
    config, worker = paths
    print(f"written: {config}, {worker}")
    print(f"next: set gdn.url and gdn.tenant in {config}, and BRIDGE_GDN__API_KEY to your API key; then")
    print(f"  gdn-bridge test --config {config}    # the samples against the rows that they give")
    print(f"  gdn-bridge check --online --config {config}    # broker, GDN, credentials")
    print(f"  gdn-bridge run --config {config}")
