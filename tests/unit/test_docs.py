from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

from bridge.config.health import HealthCheck
from bridge.config.routes import RouteSettings
from bridge.config.tree import dotted, every_setting
from bridge.mapping import FieldSpec, FormatOptions, Mapper, Route
from bridge.mapping.formats import FORMATS, compile_decoder
from bridge.mapping.formats.options import TEXT_FORMATS
from bridge.message import MqttMessage
from bridge.reasons import Reason
from bridge.streamql import input_streams, parse
from bridge.watch.checks import Expectation

MAPPING = Path("docs/mapping.md").read_text()


def test_the_mapping_guides_first_example_is_correct() -> None:
    config = re.search(r"```toml\n(.*?)```", MAPPING, re.DOTALL)
    example = re.search(r"message `(.*?)` on `(.*?)` becomes the row\n`(.*?)`", MAPPING)
    assert config is not None
    assert example is not None
    (route,) = tomllib.loads(config[1])["routes"]
    streams = input_streams(parse(Path("config/worker.sql").read_text()))
    mapper = Mapper(routes=[Route(route["topic"], route["stream"])], streams=streams)

    mapped = mapper.map(MqttMessage(example[2], example[1].encode(), 1, False, 1, 0))

    assert isinstance(mapped, list)
    assert [row.payload.decode() for row in mapped] == [example[3]]


def table(first_head: str) -> list[list[str]]:
    """The cells below the head of the mapping guide's table that starts with this cell."""
    lines = MAPPING.split(f"\n| {first_head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(cell: str) -> str:
    """The content of a cell that is only code."""
    assert (cell[0], cell[-1], cell.count("`")) == ("`", "`", 2), cell
    return cell[1:-1]


def field_of(source: Any) -> Any:
    if not isinstance(source, dict):
        return source
    return FieldSpec(**{key: field_of(value) if key == "default" else value for key, value in source.items()})


def given(source: Any, topic: str, payload: bytes, expected: Any) -> Any:
    """The value of a column of the expected value's type."""
    column = {str: "string", int: "long", float: "double", bool: "bool", dict: "object"}[type(expected)]
    definition = f"@App:name('w') @App:qlVersion('2') CREATE STREAM s (c {column});"
    field = field_of(source)
    mapper = Mapper(routes=[Route("rooms/{roomNo}", "s", {"c": field})], streams=input_streams(parse(definition)))
    mapped = mapper.map(MqttMessage(topic, payload, 1, False, 1, 0))
    assert isinstance(mapped, list), mapped
    return json.loads(mapped[0].payload)["c"]


def test_sources_are_as_in_the_mapping_guide() -> None:
    example = re.search(r"the message\n`(.*?)` on `(.*?)` give:", MAPPING)
    assert example is not None

    for source, _, gives in table("in `fields`"):
        value = tomllib.loads(f"source = {code(source)}")["source"]
        assert given(value, example[2], example[1].encode(), json.loads(code(gives))) == json.loads(code(gives)), source


def test_conversions_are_as_in_the_mapping_guide() -> None:
    for beside, _, of, makes in table("beside `source`"):
        spec = tomllib.loads(f'spec = {{ source = "v", {code(beside)} }}')["spec"]
        payload = b'{"v": %b}' % code(of).encode()
        assert given(spec, "rooms/1", payload, json.loads(code(makes))) == json.loads(code(makes)), beside


def test_formats_are_as_in_the_mapping_guide() -> None:
    documented, only_text = set(), set(FORMATS)
    for format_, payload, value in table("format | payload"):
        name, *options = re.findall(r"`(.*?)`", format_)
        documented.add(name)
        if not all(isinstance(leaf, str) for leaf in leaves(json.loads(code(value)))):
            only_text.discard(name)
        arguments: dict[str, Any] = {"pattern": None, "delimiter": ",", "columns": ()}
        if "pattern" in format_:
            arguments["pattern"] = options[0]
        elif options:
            arguments |= {"delimiter": options[0], "columns": tuple(options[1:])}
        sent = code(payload.removeprefix("hex ")).replace("⏎", "\n")
        sent_bytes = bytes.fromhex(sent) if payload.startswith("hex ") else sent.encode()
        assert compile_decoder(FormatOptions(name, **arguments))(sent_bytes) == json.loads(code(value)), format_
    assert documented == set(FORMATS)
    assert set(TEXT_FORMATS) == only_text - {"raw"}, "values that are all text are parsed; base64 is no such text"


def test_options_of_formats_are_as_in_the_mapping_guide() -> None:
    examples = table("with | format | payload")
    for with_, format_, payload, value in examples:
        options: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in tomllib.loads(code(with_)).items()
        }
        sent = code(payload.removeprefix("hex "))
        sent_bytes = bytes.fromhex(sent) if payload.startswith("hex ") else sent.encode()

        decoded = compile_decoder(FormatOptions(code(format_), **options))(sent_bytes)

        assert decoded == json.loads(code(value)), with_
    assert len(examples) == 6
    assert 'double column gets 35.4 of `"35,4"` and 1234.5 of `"1.234,5"`' in MAPPING


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for member in value.values() for leaf in leaves(member)]
    if isinstance(value, list):
        return [leaf for element in value for leaf in leaves(element)]
    return [value]


def test_the_mapping_guides_example_beside_a_route_holds() -> None:
    routes, example = (tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", MAPPING, re.DOTALL)[::2])
    (route,), (test,) = routes["routes"], example["routes"]["test"]
    mapper = Mapper(
        routes=[Route(route["topic"], route["stream"])],
        streams=input_streams(parse(Path("config/worker.sql").read_text())),
    )

    mapped = mapper.map(MqttMessage(test["topic"], json.dumps(test["payload"]).encode(), 1, False, 1, 0))

    assert isinstance(mapped, list)
    assert [json.loads(row.payload) for row in mapped] == [test["expect"]]


def test_the_mapping_guide_explains_every_reason_code() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", MAPPING, re.MULTILINE))

    assert {reason.value for reason in Reason} <= explained


def test_the_readmes_links_to_documents_are_valid() -> None:
    for target in re.findall(r"\]\(([\w/.]+\.md)\)", Path("README.md").read_text()):
        assert Path(target).is_file(), target


def test_every_format_of_the_mapping_is_one_of_the_settings_and_the_other_way_round() -> None:
    allowed = get_args(RouteSettings.model_fields["format"].annotation)

    assert set(allowed) == {*FORMATS, "sparkplug"}


def test_what_a_check_may_expect_is_what_the_operating_guide_says_and_is_looked_at() -> None:
    section = Path("docs/operating.md").read_text().split("\n### Checks\n")[1].split("\n### ")[0]
    keys = set(HealthCheck.model_fields) - {"name", "query", "period"}

    assert keys <= set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert keys == {field.name for field in dataclasses.fields(Expectation)}


def test_every_setting_and_log_event_that_a_page_names_exists() -> None:
    settings = {dotted(location) for location, _ in every_setting()}
    sources = "".join(path.read_text() for path in Path("bridge").rglob("*.py"))
    pages = [*Path("docs").glob("*.md"), *Path("docs/decisions").glob("*.md"), Path("README.md")]
    # These name a GDN's files and members, and paths into payloads.
    others = {Path("docs/gdn-api.md"), Path("docs/devices.md"), Path("docs/mapping.md")}

    for page in sorted({*pages} - others):
        for name in re.findall(r"`([a-z]+\.[a-z_]+)`", page.read_text()):
            if not re.search(r"\.(py|toml|yaml|sql|conf|sh|db|pem|key)$", name):
                assert name in settings or f'"{name}"' in sources, f"{page}: {name}"
