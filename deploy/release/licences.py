"""Prints docs/licences.md from an environment: ``licences.py SITE-PACKAGES``."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions

CLASSIFIER = "License :: OSI Approved :: "

HEAD = """\
# Licences

What the bridge is installed with: the packages that `deploy/docker/requirements.lock` pins, and the licence that each
states of itself. `make sbom` writes this list anew, beside a CycloneDX list in `dist/`. The extra `local`, for
demonstrations, has more packages; they are in no image and no Debian package of the bridge.

| package | version | licence |
|---|---|---|
"""


def licence(package: Distribution) -> str:
    """What the package states: an SPDX expression, else a name, else a classifier."""
    said = package.metadata
    name = str(said.get("License-Expression") or said.get("License") or "").strip()
    if name and "\n" not in name:  # some put the whole text there
        return name
    classified = [
        text.removeprefix(CLASSIFIER) for text in said.get_all("Classifier", []) if text.startswith("License")
    ]
    return "; ".join(classified) or "not stated"


def main() -> None:
    """Print the document."""
    rows = {
        re.sub("[-_.]+", "-", package.name).lower(): f"| {package.name} | {package.version} | {licence(package)} |\n"
        for package in distributions(path=[sys.argv[1]])
        if package.name != "gdn-bridge"
    }
    sys.stdout.write(HEAD + "".join(row for _, row in sorted(rows.items())))


if __name__ == "__main__":
    main()
