"""Which levels of topics vary from device to device, and the names of the captures for them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bridge.cli.init.names import safe_name, singular

Levels = tuple[str, ...]
Template = tuple[str | None, ...]
"""The levels of a route's topic, with None for captures."""

# Topics of widespread software, and what a stream of their messages is called. A name in braces is a level that differs
# from device to device, + may be anything.
_CONVENTIONS = {
    tuple(template.split("/")): stream
    for template, stream in {
        "tele/{device}/+": "tasmota",
        "stat/{device}/+": "tasmota",
        "{device}/tele/+": "tasmota",
        "{device}/stat/+": "tasmota",
        "tasmota/discovery/{device}/+": "tasmota_discovery",
        "zigbee2mqtt/{device}": "zigbee",
        "zigbee2mqtt/{device}/availability": "zigbee_availability",
        "shellies/{device}/+": "shelly",
        "shellies/{device}/+/+": "shelly",
        "shellies/{device}/+/+/+": "shelly",
        "{device}/events/rpc": "shelly_events",
        "homeassistant/+/{entity}/state": "homeassistant",
        "{device}/sensor/{sensor}/state": "sensor",
        "{device}/binary_sensor/{sensor}/state": "binary_sensor",
        "{device}/text_sensor/{sensor}/state": "text_sensor",
        "{device}/switch/{switch}/state": "switch",
        "application/{application}/device/{device}/event/+": "chirpstack",
        "v3/{application}/devices/{device}/+": "ttn",
        "owntracks/{user}/{device}": "owntracks",
        "rtl_433/{host}/events": "rtl_433",
        "rtl_433/{host}/devices/{model}/{id}/{quantity}": "rtl_433",
        "rtl_433/{host}/devices/{model}/{channel}/{id}/{quantity}": "rtl_433",
        "telegraf/{host}/+": "telegraf",
        "N/{portal}/+/{instance}/+": "victron",
        "N/{portal}/+/{instance}/+/+": "victron",
        "N/{portal}/+/{instance}/+/+/+": "victron",
        "dsmr/reading/{quantity}": "dsmr",
        "modbus/{device}": "modbus",
        "modbus/{device}/+": "modbus",
        "wled/{device}/+": "wled",
        "go-eCharger/{charger}/{quantity}": "goe",
        "teslamate/cars/{car}/{quantity}": "teslamate",
        "msh/{region}/2/json/{channel}/{node}": "meshtastic",
        "home/{gateway}/BTtoMQTT/{device}": "bluetooth",
        "espresense/devices/{device}/{room}": "espresense",
        "solar/{inverter}/{channel}/{quantity}": "solar",
    }.items()
}

_NOUNS = frozenset(
    [
        *("antenna", "apartment", "application", "area", "asset", "battery", "broker", "building", "car", "cell"),
        *("channel", "charger", "client", "controller", "device", "edge", "floor", "gateway", "host", "house"),
        *("inverter", "lamp", "lane", "light", "line", "location", "logger", "machine", "meter", "module", "node"),
        *("object", "output", "phase", "phone", "plant", "plug", "port", "portal", "probe", "pump", "rack", "relay"),
        *("robot", "room", "sensor", "site", "station", "switch", "tag", "tank", "tenant", "thing", "tracker"),
        *("unit", "user", "valve", "vehicle", "well", "zone"),
    ]
)
"""What a level that is followed by the name of one of its kind is called, in the singular."""

_QUANTITIES = frozenset(
    [
        *("battery", "brightness", "co2", "co", "consumption", "contact", "current", "distance", "energy", "flow"),
        *("frequency", "gas", "hum", "humidity", "illuminance", "level", "lux", "moisture", "no2", "noise", "o3"),
        *("ph", "pm1", "pm10", "pm25", "pm2_5", "power", "pressure", "rssi", "so2", "soc", "speed", "temp"),
        *("temperature", "total", "uptime", "value", "voc", "voltage", "volume", "weight"),
    ]
)
_UNITS = frozenset(["A", "Hz", "V", "VA", "W", "Wh", "kW", "kWh", "var"])
"""As names of quantities, in this case."""

_MESSAGE_KINDS = frozenset(
    [
        *("attributes", "availability", "config", "data", "event", "events", "get", "info", "log", "lwt", "me"),
        *("messages", "online", "payload", "reading", "readings", "report", "result", "sensor", "set", "state"),
        *("status", "tele", "telemetry", "up", "update", "uplink", "value", "values"),
    ]
)
"""Levels that say what a message is about, not which device sent it."""

_VERSION = re.compile(r"[vV][0-9]+(?:\.[0-9]+)*")
_PRODUCT = re.compile(r".*2mqtt.*|rtl_?433|esp(?:32|8266)", re.IGNORECASE)
# A serial number, MAC address, EUI or UUID, also after a device type, as in shellyplus1pm-a8032ab.
_SERIAL = re.compile(
    r"[0-9]{5,}|(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|(?:.*[-_!.])?(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{6,}"
)
_SHORT = 4
"""Characters. A shorter level that ends with s is rather an abbreviation than a plural."""

_UNNAMED = (("device",), ("site", "device"), ("site", "area", "device"))
"""Names for captures that the topic gives no name for, by their number."""


def template_of(topics: Sequence[Levels], *, is_value: bool) -> Template:
    """The template for these topics, which have the same number of levels.

    A level that differs between the topics is a capture. So is one that is known to differ between devices: by a
    convention, because it is a serial number, or, of a single topic, because it looks like an identifier.
    ``is_value``: the payloads are single values, so that the last level may name the quantity.
    """
    first = topics[0]
    convention = _convention(topics)
    is_single = len(topics) == 1

    def level(number: int) -> str | None:
        text = first[number]
        if not is_single and any(topic[number] != text for topic in topics):
            return None
        if not is_writable(text) or convention.get(number, "+").startswith("{"):
            return None
        if convention.get(number, "+") != "+":
            return text
        if number == 0:
            return None if _SERIAL.fullmatch(text) and len(first) > 1 and not text.startswith("$") else text
        before = "" if is_value and number == len(first) - 1 else first[number - 1]
        if _SERIAL.fullmatch(text) or (is_single and _names_one(before, text)):
            return None
        return text

    template = tuple(map(level, range(len(first))))
    if any(one not in (None, "") for one in template):
        return template
    # A filter of wildcards alone would subscribe to all topics of this depth.
    same = [all(topic[number] == text for topic in topics) for number, text in enumerate(first)]
    return tuple(text if is_same and is_writable(text) else None for text, is_same in zip(first, same, strict=True))


def pinned(topic: Levels) -> Template:
    """The template for one topic without captures, except for levels that can't be written."""
    return tuple(text if is_writable(text) else None for text in topic)


def merged(one: Template, other: Template) -> Template:
    """The levels that both have in common, with None for the others."""
    return tuple(mine if mine == its else None for mine, its in zip(one, other, strict=True))


def is_writable(level: str) -> bool:
    """Whether the level can be written in a route's topic."""
    return level.isprintable() and "{" not in level and "}" not in level


def is_identifier(level: str) -> bool:
    """Whether the level looks like the name of one device, such as ``AD11`` or ``200``: it contains a digit."""
    return (
        any(character.isdigit() for character in level)
        and not _VERSION.fullmatch(level)
        and not _PRODUCT.fullmatch(level)
        and level.lower() not in _QUANTITIES
    )


def matches(template: Template, topic: Levels) -> bool:
    """Whether a topic of the same number of levels matches the template."""
    if template[0] is None and topic[0].startswith("$"):
        return False
    return all(level in (None, given) for level, given in zip(template, topic, strict=True))


def named(template: Template, topics: Sequence[Levels], *, is_value: bool, taken: set[str]) -> list[str]:
    """The template's levels as written in a route; the names of captures are added to ``taken``.

    ``is_value``: the payloads are single values, so that a level may name the quantity.
    """
    convention = _convention(topics)
    names: dict[int, str] = {}
    for number, level in enumerate(template):
        if level is not None:
            continue
        noun = _noun(template[number - 1]) if number else None
        if convention.get(number, "+").startswith("{"):
            names[number] = convention[number][1:-1]
        elif is_value and _is_quantity(number, topics):
            names[number] = "quantity"
        elif noun is not None:
            names[number] = noun
    unnamed = [number for number, level in enumerate(template) if level is None and number not in names]
    if unnamed:
        usual = _UNNAMED[min(len(unnamed), len(_UNNAMED)) - 1]
        names |= dict(zip(unnamed, _padded(usual), strict=False))
    return [
        f"{{{safe_name(names[number], taken)}}}" if level is None else level for number, level in enumerate(template)
    ]


def _padded(names: Sequence[str]) -> Iterator[str]:
    yield from names
    while True:
        yield names[-1]


def _is_quantity(number: int, topics: Sequence[Levels]) -> bool:
    levels = {topic[number] for topic in topics}
    is_last = number == len(topics[0]) - 1
    return is_last and any(level in _UNITS or level.lower() in _QUANTITIES for level in levels)


def stream_words(template: Template, topics: Sequence[Levels]) -> list[str]:
    """The parts of a name for the stream of these topics' messages: the constant levels, or a convention's name."""
    convention = _convention(topics)
    if not convention:
        return [level for level in template if level is not None]
    constant = [level for number, level in enumerate(template) if level and convention[number] == "+"]
    return [_CONVENTIONS[tuple(convention.values())], *map(str.lower, constant)]


def _noun(level: str | None) -> str | None:
    """The singular of a level that names a kind of thing: ``device`` for ``devices``."""
    if level is None:
        return None
    one = singular(level)
    if one.lower() in _NOUNS:
        return one.lower()
    return one if one != level and len(one) > _SHORT else None


def _names_one(before: str, level: str) -> bool:
    """Whether a level names one device or place: it looks like an identifier, or the level before it says so."""
    if is_identifier(level):
        return True
    word = level.lower()
    is_word = word and word not in _QUANTITIES and word not in _MESSAGE_KINDS
    return bool(is_word) and singular(before).lower() in _NOUNS


def _convention(topics: Sequence[Levels]) -> dict[int, str]:
    """The levels of the first convention that all topics follow, by their number; empty if there is none."""
    found = next((one for one in _CONVENTIONS if all(_follows(one, topic) for topic in topics)), ())
    return dict(enumerate(found))


def _follows(convention: Levels, topic: Levels) -> bool:
    return len(convention) == len(topic) and all(
        level == "+" or level.startswith("{") or level == given for level, given in zip(convention, topic, strict=True)
    )
