#!/bin/sh
# Writes dist/gdn-bridge-VERSION.cdx.json, a CycloneDX SBOM of the packages that the image contains and this release was
# tested with (deploy/docker/requirements.lock), and docs/licences.md.
#
# sbom.sh BIN [DIRECTORY]: the bin directory of the development environment, and the output directory.
. "$(dirname "$0")/begin.sh"
bin=$1

# The tool has dozens of dependencies, so it gets an environment separate from the one that it examines.
"$bin/python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8'
"$bin/python" -m venv --without-pip "$work/locked"
"$bin/pip" --python "$work/locked/bin/python" install --quiet --require-hashes --only-binary :all: \
  --requirement deploy/docker/requirements.lock
"$bin/pip" wheel --quiet --no-deps --wheel-dir "$work" .
"$bin/pip" --python "$work/locked/bin/python" install --quiet --no-deps --no-index "$work"/*.whl
find "$work/locked" -name direct_url.json -delete # it holds a path of this machine
"$work/tools/bin/cyclonedx-py" environment --output-reproducible --output-format JSON \
  --output-file "$dist/gdn-bridge-$version.cdx.json" "$work/locked/bin/python"
"$bin/python" deploy/release/licences.py "$work"/locked/lib/python3*/site-packages >"$work/licences.md"
mv "$work/licences.md" docs/licences.md
