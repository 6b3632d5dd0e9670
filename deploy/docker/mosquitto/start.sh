#!/bin/sh
# Makes Mosquitto's password file from the secrets and starts it. One place for each password: no hash that is kept
# by hand and no longer fits. /tmp is in memory. After a secret has changed: docker compose restart broker.
set -eu
umask 077
health=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
{
  printf 'bridge:%s\n' "$(cat /run/secrets/mqtt__password)"
  printf 'devices:%s\n' "$(cat /run/secrets/devices_password)"
  printf 'health:%s\n' "$health"
} >/tmp/passwords
mosquitto_passwd -U /tmp/passwords
# Options of mosquitto_sub, so that the health check's password isn't in the list of processes.
mkdir -p /tmp/health
printf -- '-u health\n-P %s\n' "$health" >/tmp/health/mosquitto_sub
exec mosquitto -c "${1:-/etc/mosquitto/mosquitto.conf}"
