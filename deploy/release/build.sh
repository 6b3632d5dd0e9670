#!/bin/sh
# Builds a release into dist/: wheel, sdist, manual page, completions, SBOM, the Debian package, the image, and their
# checksums. Products for which this machine lacks the tools are left out and reported.
#
# build.sh BIN [DIRECTORY]: the bin directory of the development environment, and the output directory.
. "$(dirname "$0")/begin.sh"
bin=$1
left_out=

"$bin/python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check "$(sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml)"
"$work/tools/bin/python" -m hatchling build -d "$dist"
"$bin/python" deploy/release/manual.py "$dist"
deploy/release/sbom.sh "$bin" "$dist"
if command -v dpkg-deb >/dev/null && [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null; then
  deploy/debian/build.sh "$bin/pip" "$dist"
else
  left_out="$left_out the Debian package (it needs dpkg-deb and python3-venv);"
fi
if docker info >/dev/null 2>&1; then
  docker build --quiet --build-arg "VERSION=$version" --tag "gdn-bridge:$version" .
  docker save "gdn-bridge:$version" | gzip -n >"$dist/gdn-bridge-$version-image.tar.gz"
else
  left_out="$left_out the image (no Docker engine answers);"
fi
(cd "$dist" && find . -maxdepth 1 -type f ! -name SHA256SUMS | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS)
echo "gdn-bridge $version is in $dist"
[ -z "$left_out" ] || echo "LEFT OUT:${left_out%;}" >&2
