"""Prints docs/licences.md from an environment: ``licences.py SITE-PACKAGES``."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions

CLASSIFIER = "License :: OSI Approved :: "

HEAD = """\
# Licences

The packages that `deploy/docker/requirements.lock` pins, which are installed with the bridge, and the licence that each
of them states. `make sbom` generates this list and a CycloneDX SBOM in `dist/`. The extra `local`, for demonstrations,
has more packages; they are not part of the bridge's image or Debian package.

| package | version | licence |
|---|---|---|
"""


def licence(package: Distribution) -> str:
    """The licence that the package states: an SPDX expression, else a name, else a classifier."""
    metadata = package.metadata
    name = str(metadata.get("License-Expression") or metadata.get("License") or "").strip()
    if name and "\n" not in name:  # some packages put the whole text there
        return name
    classifiers = [
        text.removeprefix(CLASSIFIER) for text in metadata.get_all("Classifier", []) if text.startswith("License")
    ]
    return "; ".join(classifiers) or "not stated"


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
