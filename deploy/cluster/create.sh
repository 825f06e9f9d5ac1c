#!/bin/sh
# Makes a cluster of running nodes, each primary with one replica, unless they are one already:
#
#     create.sh ADDRESS:PORT ADDRESS:PORT …
#
# $REDIS_SERVERS_PASSWORD is the password by which they know each other.
set -eu
: "${REDIS_SERVERS_PASSWORD:?is not set}"
export REDISCLI_AUTH="$REDIS_SERVERS_PASSWORD"
ask() { redis-cli -e --user servers -h "${node%:*}" -p "${node##*:}" "$@"; }

for node; do
  tries=0
  until [ "$(ask ping 2>/dev/null)" = PONG ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo "$node does not answer" >&2 && exit 1; }
    sleep 1
  done
done
for node; do
  ! ask cluster info | grep -q '^cluster_slots_assigned:16384' || { echo 'there is a cluster' && exit 0; }
done
redis-cli --user servers --cluster create "$@" --cluster-replicas 1 --cluster-yes
