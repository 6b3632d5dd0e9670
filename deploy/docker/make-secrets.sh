#!/bin/sh
# Makes a directory of secrets for compose.yaml: new random passwords, and GDN's API key from standard input.
#
#   deploy/docker/make-secrets.sh secrets <key.txt      then SECRETS=./secrets in .env
#
# A container's user is not this machine's, so the files are readable by all; the directory is by you alone.
set -eu
directory=${1:?the directory to make}
if [ -e "$directory" ]; then
  echo "$directory is there already; remove it first, or take another name" >&2
  exit 1
fi
key=$(head -c 4096 | tr -d ' \r\n')
if [ -z "$key" ]; then
  echo "standard input holds no API key" >&2
  exit 1
fi
mkdir -m 0700 "$directory"
umask 022
printf '%s\n' "$key" >"$directory/gdn__api_key"
for name in mqtt__password devices_password; do
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$directory/$name"
done
echo "$directory: made; the devices log in as 'devices' with the password in $directory/devices_password"
