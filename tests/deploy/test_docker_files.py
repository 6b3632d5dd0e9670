"""Checks of the Docker files that need no Docker."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

LOCKS = ROOT / "deploy" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned(lock: str) -> dict[str, str]:
    lines = re.findall(
        r"^([\w.-]+)==(\S+)(?: ;[^\\\n]*)? \\\n    --hash=sha256:", (LOCKS / lock).read_text(), re.MULTILINE
    )
    return dict(lines)


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ["formats"]), ("requirements-local.lock", ["formats", "local"])]
)
def test_the_locks_satisfy_the_dependencies_of_the_project(lock: str, extras: list[str]) -> None:
    """After a change of a dependency, run deploy/docker/lock.sh."""
    optional = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in optional[extra])]
    versions = pinned(lock)

    unmet = [t for t in texts if not (r := Requirement(t)).specifier.contains(versions.get(r.name, "0"))]

    assert unmet == []


def test_the_build_backend_is_pinned_too() -> None:
    (backend,) = map(Requirement, PROJECT["build-system"]["requires"])

    assert backend.specifier.contains(pinned("requirements-build.lock")[backend.name])


def test_both_images_have_the_same_versions() -> None:
    bridge, local = pinned("requirements.lock"), pinned("requirements-local.lock")

    assert bridge.items() <= local.items()


def test_every_pin_has_a_hash() -> None:
    for lock in LOCKS.glob("*.lock"):
        text = lock.read_text()

        assert len(re.findall("==", re.sub(r" ;.*", "", text))) == len(pinned(lock.name)) > 0


def test_every_variable_of_the_example_is_read_by_the_files() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    files = [ROOT / "compose.yaml", *LOCKS.glob("*.yaml")]
    read = {name for file in files for name in re.findall(r"\$\{([A-Z_]+)", file.read_text())}

    assert named - read == {"BRIDGE_LOG__LEVEL"}  # env_file passes every setting on
    assert read - named == {"COMPOSE_PROJECT_NAME", "CERTIFICATES", "MQTTS_LISTEN"}


def test_the_dockerfile_needs_nothing_from_the_public_registry_but_its_base_images() -> None:
    """A syntax line or a digest is looked up in the public registry, which not every machine can reach."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()

    assert not [line for line in lines if line.replace(" ", "").startswith("#syntax")]
    assert not [line for line in lines if line.startswith("FROM") and "@" in line]
