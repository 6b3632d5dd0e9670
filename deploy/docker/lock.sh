#!/bin/sh
# Updates the lock files of the image to the newest versions that pyproject.toml allows.
# Needs uv (pipx run uv, or UV=/path/to/uv). Run it in the project's directory and review the diff.
#
# The locks hold hashes for every platform that has wheels, but not the address of the package index.
set -eu
cd "$(dirname "$0")/../.."
: "${UV:=uv}"
locks=deploy/docker
compile() {
  "$UV" pip compile --quiet --universal --python-version 3.13 --upgrade --generate-hashes --no-annotate --no-header "$@"
}
compile pyproject.toml --extra formats --output-file $locks/requirements.lock
# The second image has all packages of the first in the same versions.
compile pyproject.toml --extra formats --extra local --constraints $locks/requirements.lock \
  --output-file $locks/requirements-local.lock
sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | compile - --output-file $locks/requirements-build.lock
