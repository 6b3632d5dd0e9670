#!/bin/sh
# Builds stand-ins for python:3.13-slim-bookworm and eclipse-mosquitto:2 under the same names, for tests on a machine
# without access to an image registry. Use it only with a temporary Docker engine.
#
#   DOCKER_HOST=... build.sh PYTHON3.13     needs mmdebstrap, root, and a CPython 3.13 in a directory of its own
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${1:?path of a python3.13}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# As in the official image, usr-is-merged replaces usrmerge, so that Perl isn't needed.
mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --include=ca-certificates,libbz2-1.0,libffi8,liblzma5,libncursesw6 \
  --include=libreadline8,libsqlite3-0,libssl3,libuuid1,netbase,tzdata,zlib1g \
  --customize-hook='chroot "$1" apt-get install -qq -y usr-is-merged usrmerge- >/dev/null' \
  --customize-hook='chroot "$1" apt-get purge -qq -y perl-modules-5.36 >/dev/null' \
  bookworm "$work/debian.tar"
docker import "$work/debian.tar" gdn-bridge-stand-in/debian >/dev/null
rm "$work/debian.tar"

# As in the official image: stripped, without tests and the like. pip comes from the copy in ensurepip.
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
mkdir -p "$work/python/bin" "$work/python/lib"
cp -a "$prefix/bin/$version" "$work/python/bin/"
ln -s "$version" "$work/python/bin/python3"
ln -s python3 "$work/python/bin/python"
cp -a "$prefix"/lib/libpython3*.so* "$work/python/lib/" 2>/dev/null || true # a static build has none
tar -C "$prefix/lib" --exclude=test --exclude=tests --exclude=idlelib --exclude=tkinter --exclude=turtledemo \
  --exclude='_tkinter*' --exclude='config-*' --exclude=__pycache__ --exclude='site-packages/*' -cf - "$version" |
  tar -C "$work/python/lib" -xf -
find "$work/python" -type f \( -name '*.so*' -o -path '*/bin/*' \) -exec strip --strip-unneeded {} + 2>/dev/null || true
tar -C "$work/python" --owner=0 --group=0 -cf "$work/python.tar" .
rm -r "$work/python"
cp /etc/ssl/certs/ca-certificates.crt "$work/"

docker build --quiet --file "$here/Dockerfile.python" --tag python:3.13-slim-bookworm "$work"
docker build --quiet --file "$here/Dockerfile.mosquitto" --tag eclipse-mosquitto:2 "$work"
