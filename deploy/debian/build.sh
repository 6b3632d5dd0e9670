#!/bin/sh
# Builds dist/gdn-bridge_VERSION_ARCH.deb from this tree: a virtual environment of the distribution's Python with all
# dependencies, the systemd unit and the settings. Installing it needs no network and asks no questions.
#
# build.sh PIP [DIRECTORY]: a pip of 25.1 or later (python -m pip of a virtual environment), and the output directory.
# The package fits the Python at /usr/bin/python3, so build it on the Debian release that it is for.
. "$(dirname "$0")/../release/begin.sh"
pip=$1
python=/usr/bin/python3
home=/usr/lib/gdn-bridge
root=$work/root
# The directory made by mktemp is accessible to its owner only.
install -d -m 0755 "$root"
umask 022

# Debian sorts 0.2.0rc1 and 0.2.0.dev3 before 0.2.0 only with a tilde.
version=$(echo "$version" | sed -E 's/\.?(a|b|rc|dev)([0-9])/~\1\2/')
arch=$(dpkg --print-architecture)
minor=$($python -c 'import sys; print(sys.version_info.minor)')

# Build a wheel first: pip would leave files in the source directory if it installed from there.
"$pip" wheel --quiet --no-deps --wheel-dir "$work" .
$python -m venv --without-pip "$root$home"
"$pip" --python "$root$home/bin/python" install --quiet --only-binary :all: --no-compile \
  "$(echo "$work"/*.whl)[formats]"
find "$root$home/bin" ! -type d ! -name 'python*' ! -name gdn-bridge -delete
# Remove the build path: from the first line of commands, the environment's own files, and their hashes.
find "$root$home" -name direct_url.json -delete
find "$root$home" -name RECORD -exec sed -i '/direct_url\.json,/d; /\/bin\//d' {} +
grep -rlIF "$root" "$root$home" | xargs sed -i "s|$root||g"
# Run with the installed package; the tools aren't part of the package.
$python -m venv --without-pip "$work/tools"
"$pip" --python "$work/tools/bin/python" install --quiet --group manual
PYTHONPATH=$(echo "$root$home"/lib/python3*/site-packages) "$work/tools/bin/python" -B deploy/release/manual.py "$work/manual"
$python -m compileall -q -j 0 -s "$root" -p / --invalidation-mode unchecked-hash "$root$home/lib"

install -D -m 0644 -t "$root/usr/lib/systemd/system" deploy/systemd/gdn-bridge.service
install -D -m 0644 -t "$root/etc/gdn-bridge" config/bridge.toml config/worker.sql
install -D -m 0644 deploy/debian/default "$root/etc/default/gdn-bridge"
install -d -m 0700 "$root/etc/gdn-bridge/credentials"
install -D -m 0644 -t "$root/usr/share/doc/gdn-bridge" README.md CHANGELOG.md docs/*.md
install -D -m 0644 -t "$root/usr/share/doc/gdn-bridge/decisions" docs/decisions/*.md
install -D -m 0644 "$work/manual/gdn-bridge.1" "$root/usr/share/man/man1/gdn-bridge.1"
gzip -9n "$root/usr/share/man/man1/gdn-bridge.1"
install -D -m 0644 "$work/manual/gdn-bridge.bash" "$root/usr/share/bash-completion/completions/gdn-bridge"
install -D -m 0644 -t "$root/usr/share/zsh/vendor-completions" "$work/manual/_gdn-bridge"
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
Recommends: systemd, tzdata
Suggests: mosquitto
Description: feeds Macrometa GDN stream workers from MQTT devices
 Takes what devices publish to an MQTT broker, stores it durably, and delivers it to the
 streams of a Macrometa GDN (or to a plain Apache Pulsar). What it acknowledged is not lost.
END
dpkg-deb --root-owner-group --build "$root" "$dist/gdn-bridge_${version}_$arch.deb"
