#!/bin/sh
# Makes a throw-away authority and certificates of it for broker, bridge and devices, to try TLS with. Wants openssl.
#
#   deploy/docker/make-ca.sh certificates [NAME ...]    NAMEs: what devices call the broker, besides localhost
#
# They last 30 days, and the authority's key is thrown away: for more, use an authority that somebody looks after.
# A container's user is not this machine's, so the keys are readable by all; the directory is by you alone.
set -eu
directory=${1:?the directory to make}
shift
if [ -e "$directory" ]; then
  echo "$directory is there already; remove it first, or take another name" >&2
  exit 1
fi
mkdir -m 0700 "$directory"
cd "$directory"
umask 022
names=DNS:broker,DNS:localhost,IP:127.0.0.1
for name in "$@"; do
  names=$names,DNS:$name
done
quietly() { "$@" 2>openssl.log || { cat openssl.log >&2; exit 1; }; }

quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=gdn-bridge throw-away CA" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem
for name in broker bridge devices; do
  {
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n'
    printf 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'
    if [ $name = broker ]; then
      printf 'extendedKeyUsage=serverAuth\nsubjectAltName=%s\n' "$names"
    else
      printf 'extendedKeyUsage=clientAuth\n'
    fi
  } >extensions
  quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout $name.key -out request
  quietly openssl x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out $name.pem
  chmod 0644 $name.key
done
rm -f ca.key ca.srl request extensions openssl.log
echo "$directory: made"
