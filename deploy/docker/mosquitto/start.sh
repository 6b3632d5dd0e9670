#!/bin/sh
# Creates Mosquitto's password file from the secrets and starts Mosquitto. Each password is kept in one place only, so
# no hash can be out of date. /tmp is in memory. After changing a secret: docker compose restart broker.
set -eu
umask 077
health=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
{
  printf 'bridge:%s\n' "$(cat /run/secrets/mqtt__password)"
  printf 'devices:%s\n' "$(cat /run/secrets/devices_password)"
  printf 'health:%s\n' "$health"
} >/tmp/passwords
mosquitto_passwd -U /tmp/passwords
# Options of mosquitto_sub, so that the health check's password isn't in the process list.
mkdir -p /tmp/health
printf -- '-u health\n-P %s\n' "$health" >/tmp/health/mosquitto_sub
exec mosquitto -c "${1:-/etc/mosquitto/mosquitto.conf}"
