#!/bin/sh
# Builds dist/gdn-bridge_VERSION_ARCH.deb from this tree: a virtual environment of the distribution's Python with all that
# the bridge needs, the unit, the settings. Installing it needs no network and asks nothing.
#
# build.sh PIP [DIRECTORY]: a pip of 22.3 or later (python -m pip of a virtual environment), and where the package goes.
# Built for the Python at /usr/bin/python3, so build it on the release of Debian that it is for.
set -eu
cd "$(dirname "$0")/../.."
pip=$1
dist=$(realpath -m "${2:-dist}")
python=/usr/bin/python3
home=/usr/lib/gdn-bridge
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
# mktemp's is for its owner alone.
install -d -m 0755 "$root"
umask 022
: "${SOURCE_DATE_EPOCH:=$(date -r CHANGELOG.md +%s)}"
export SOURCE_DATE_EPOCH

# 0.2.0rc1 and 0.2.0.dev3 come before 0.2.0 only with a tilde.
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' bridge/__init__.py | sed -E 's/\.?(a|b|rc|dev)([0-9])/~\1\2/')
arch=$(dpkg --print-architecture)
minor=$($python -c 'import sys; print(sys.version_info.minor)')

# The wheel first: an installation from the directory would leave files in it.
"$pip" wheel --quiet --no-deps --wheel-dir "$work" .
$python -m venv --without-pip "$root$home"
"$pip" --python "$root$home/bin/python" install --quiet --only-binary :all: --no-compile \
  "$(echo "$work"/*.whl)[formats]"
find "$root$home/bin" ! -type d ! -name 'python*' ! -name gdn-bridge -delete
find "$root$home" -name direct_url.json -delete
# Where it was built must not be in it: the first line of commands, the environment's own notes.
grep -rlIF "$root" "$root$home" | xargs sed -i "s|$root||g"
$python -m compileall -q -j 0 -s "$root" -p / --invalidation-mode unchecked-hash "$root$home/lib"

install -D -m 0644 -t "$root/usr/lib/systemd/system" deploy/systemd/gdn-bridge.service
install -D -m 0644 -t "$root/etc/gdn-bridge" config/bridge.toml config/worker.sql
install -D -m 0644 deploy/debian/default "$root/etc/default/gdn-bridge"
install -d -m 0700 "$root/etc/gdn-bridge/credentials"
install -D -m 0644 -t "$root/usr/share/doc/gdn-bridge" README.md CHANGELOG.md docs/*.md
install -d "$root/usr/bin"
ln -s ../lib/gdn-bridge/bin/gdn-bridge "$root/usr/bin/gdn-bridge"

install -d "$root/DEBIAN"
install -m 0755 -t "$root/DEBIAN" deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm
(cd "$root" && find etc -type f | sed 's|^|/|' | sort) > "$root/DEBIAN/conffiles"
cat > "$root/DEBIAN/control" <<END
Package: gdn-bridge
Version: $version
Architecture: $arch
Maintainer: gdn-bridge maintainers <gdn-bridge@localhost>
Section: net
Priority: optional
Installed-Size: $(du -ks --exclude DEBIAN "$root" | cut -f1)
Depends: python3 (>= 3.$minor~), python3 (<< 3.$((minor + 1))~), libc6, ca-certificates, init-system-helpers
Recommends: systemd
Suggests: mosquitto
Description: feeds Macrometa GDN stream workers from MQTT devices
 Takes what devices publish to an MQTT broker, stores it durably, and delivers it to the
 streams of a Macrometa GDN (or to a plain Apache Pulsar). What it acknowledged is not lost.
END
install -d "$dist"
dpkg-deb --root-owner-group --build "$root" "$dist/gdn-bridge_${version}_$arch.deb"
