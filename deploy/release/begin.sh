# Sourced first by the build scripts, with their arguments: TOOL and DIRECTORY, the output directory (default: dist).
set -eu
cd "$(dirname "$0")/../.."
dist=$(realpath -m "${2:-dist}")
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' bridge/__init__.py)
# The time of the commit for all build products, so that any clone gives the same bytes. In an sdist, the files have it.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date -r CHANGELOG.md +%s)}"
export SOURCE_DATE_EPOCH
