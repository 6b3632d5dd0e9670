# Read first by the scripts that build something, with their arguments: a TOOL and the DIRECTORY to build in, or dist.
set -eu
cd "$(dirname "$0")/../.."
dist=$(realpath -m "${2:-dist}")
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' bridge/__init__.py)
# One time for all that is made, the commit's: any clone of it gives the same bytes. An sdist has it as its files' time.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date -r CHANGELOG.md +%s)}"
export SOURCE_DATE_EPOCH
