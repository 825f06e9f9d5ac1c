#!/bin/sh
# Starts Redis in the present directory, which keeps its data, with the settings and the users that are beside this file:
#
#     start-redis.sh [replicas|sentinel|cluster|tls] [more settings, as --port 6380]
#
# The shop's password is $REDIS_PASSWORD, and $REDIS_SERVERS_PASSWORD the one by which servers know each other.
# $REPLICA_OF names the primary as "host port", for a first start as its replica. $REDIS_SERVER is the program, if it is
# another one than redis-server.
set -eu
umask 077
: "${REDIS_PASSWORD:?is not set}"
here=$(cd "$(dirname "$0")" && pwd)
of=$here
case ${1-} in
  replicas | sentinel | cluster | tls) of=$here/$1 && shift ;;
esac

sha256() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
users=$of/users.acl
[ -f "$users" ] || users=$here/users.acl
if grep -q SERVERS_PASSWORD "$users"; then
  case ${REDIS_SERVERS_PASSWORD:?is not set} in
    *[!0-9A-Za-z]*) echo 'REDIS_SERVERS_PASSWORD may have letters and digits only' >&2 && exit 1 ;;
  esac
fi
sed -e '/^#/d' -e "s/SHA256_OF_REDIS_PASSWORD/$(sha256 "$REDIS_PASSWORD")/" \
  -e "s/SHA256_OF_REDIS_SERVERS_PASSWORD/$(sha256 "${REDIS_SERVERS_PASSWORD-}")/" "$users" >running.acl

# Redis writes into running.conf whom it follows: after a restart it is what it was before.
follows=$(grep '^replicaof ' running.conf 2>/dev/null) || [ -f running.conf ] ||
  follows=${REPLICA_OF:+replicaof $REPLICA_OF}
{
  echo "include $here/redis.conf"
  [ "$of" = "$here" ] || [ ! -f "$of/redis.conf" ] || echo "include $of/redis.conf"
  echo "aclfile $PWD/running.acl"
  if grep -q '^user servers ' running.acl; then
    echo "masteruser servers"
    echo "masterauth $REDIS_SERVERS_PASSWORD"
  fi
  echo "$follows"
} >running.conf.new
mv running.conf.new running.conf
exec "${REDIS_SERVER:-redis-server}" "$PWD/running.conf" "$@"
