from __future__ import annotations

import re
import tomllib
from pathlib import Path

from bridge.mapping import Mapping, Reason, Route
from bridge.message import MqttMessage
from bridge.streamql import input_streams, parse

MAPPING = Path("docs/mapping.md").read_text()


def test_the_mapping_guides_first_example_is_true() -> None:
    config = re.search(r"```toml\n(.*?)```", MAPPING, re.DOTALL)
    example = re.search(r"message `(.*?)` on `(.*?)` becomes the row\n`(.*?)`", MAPPING)
    assert config is not None
    assert example is not None
    (route,) = tomllib.loads(config[1])["routes"]
    streams = input_streams(parse(Path("config/worker.sql").read_text()))
    mapping = Mapping(routes=[Route(route["topic"], route["stream"])], streams=streams)

    mapped = mapping.map(MqttMessage(example[2], example[1].encode(), 1, False, 1, 0))

    assert isinstance(mapped, list)
    assert [row.payload.decode() for row in mapped] == [example[3]]


def test_the_mapping_guide_explains_every_reason_code() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", MAPPING, re.MULTILINE))

    assert {reason.value for reason in Reason} <= explained


def test_the_documents_that_the_readme_names_are_there() -> None:
    for target in re.findall(r"\]\(([\w/.]+\.md)\)", Path("README.md").read_text()):
        assert Path(target).is_file(), target
