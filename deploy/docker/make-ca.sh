#!/bin/sh
# Creates a temporary certificate authority (CA), and certificates for broker, bridge and devices, to try TLS.
# Needs openssl.
#
#   deploy/docker/make-ca.sh certificates [NAME ...]    NAMEs: host names of the broker for devices, besides localhost
#
# They are valid for 30 days, and the CA's key is deleted: in production, use a CA that is maintained.
# Containers run as other users, so all users may read the keys; but only you may open the directory.
set -eu
directory=${1:?the directory to create}
shift
if [ -e "$directory" ]; then
  echo "$directory exists already; remove it or use another name" >&2
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

quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=gdn-bridge temporary CA" \
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
echo "$directory: created"
