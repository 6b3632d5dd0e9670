#!/bin/sh
# Creates a directory of secrets for compose.yaml: new random passwords, and GDN's API key from standard input.
#
#   deploy/docker/make-secrets.sh secrets <key.txt      then SECRETS=./secrets in .env
#
# Containers run as other users, so all users may read the files; but only you may open the directory.
set -eu
directory=${1:?the directory to create}
if [ -e "$directory" ]; then
  echo "$directory exists already; remove it or use another name" >&2
  exit 1
fi
key=$(head -c 4096 | tr -d ' \r\n')
if [ -z "$key" ]; then
  echo "there is no API key on standard input" >&2
  exit 1
fi
mkdir -m 0700 "$directory"
umask 022
printf '%s\n' "$key" >"$directory/gdn__api_key"
for name in mqtt__password devices_password; do
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$directory/$name"
done
echo "$directory: created; devices log in as 'devices' with the password in $directory/devices_password"
