"""The engine's own source mappers in one JVM: what they make of a payload.

GDN's stream workers are built on Siddhi. `pom.xml` pins the jars, `jars.sha256` their checksums.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bridge.streamql.streams import InputStream, SourceMapping
from tests import java

HERE = Path(__file__).parent
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy"


def jars() -> Path:
    """The directory of the jars. Without them, skips the test."""
    return java.from_maven(HERE / "pom.xml", COPY_GOAL, output="outputDirectory", is_whole=_is_pinned)


def _is_pinned(directory: Path) -> bool:
    pins = dict(line.split()[::-1] for line in (HERE / "jars.sha256").read_text().splitlines())
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in directory.iterdir()} == pins


class Engine:
    """A context manager: the JVM runs inside it."""

    def __enter__(self) -> Self:
        directory = jars()
        assert _is_pinned(directory), f"{directory} holds other jars than jars.sha256"
        command = [
            # For a short life: no second compiler, no collector threads.
            *(java.program("java"), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-cp", f"{directory}{os.sep}*", str(HERE / "Engine.java")),
        ]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, kind: str, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind} {base64.b64encode(text.encode()).decode()}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the JVM has ended"
        return answer.rstrip("\n")

    def start(self, mapping: SourceMapping) -> str:
        """Run an app with this source; returns "ok", or why the engine refuses it."""
        return self._ask("app", _app(mapping))

    def take(self, payload: bytes) -> list[list[Any]]:
        """The events that the source makes of a payload: the values of its columns, text of objects as objects."""
        return [[_value(*value) for value in event] for event in json.loads(self._ask("row", payload.decode()))]


def _value(kind: str, value: Any) -> Any:
    if kind in ("Double", "Float"):
        return float.fromhex(value)
    return None if kind == "null" else value


def mapping_of(stream: InputStream) -> SourceMapping:
    """The mapping of a stream that one source reads."""
    return stream.mappings[0] if stream.mappings else SourceMapping("S", "json", (), stream.attributes or ())


def _app(mapping: SourceMapping) -> str:
    """The source in the engine's own language: GDN's properties are its annotations (gdn-api.md F.4)."""
    options = [f"type={_quoted(mapping.type or 'json')}"]
    attributes = []
    for key, value in mapping.options:
        if key.lower() == "attributes":
            attributes.append(value)
        elif key.lower().startswith("attributes."):
            attributes.append(f"{key.partition('.')[2]}={_quoted(value)}")
        else:
            options.append(f"{key}={_quoted(value)}")
    if attributes:
        options.append(f"@attributes({', '.join(attributes)})")
    columns = ", ".join(f"`{column.name}` {column.type.value}" for column in mapping.columns)
    return (
        f"@app:name('tested') @source(type='inMemory', topic='t', @map({', '.join(options)})) "
        f"define stream S ({columns});"
    )


def _quoted(text: str) -> str:
    return f'"""{text}"""'
