#!/bin/sh
# Starts a Sentinel in the present directory, where it keeps what it knows, with the settings and users in sentinel/:
#
#     start-sentinel.sh PRIMARY_ADDRESS PRIMARY_PORT [more settings, as --port 26380]
#
# The shop's password is $REDIS_PASSWORD, and $REDIS_SERVERS_PASSWORD the one by which servers and Sentinels know each
# other. $REDIS_SERVER is the program, if it is another one than redis-server.
set -eu
umask 077
: "${REDIS_PASSWORD:?is not set}" "${REDIS_SERVERS_PASSWORD:?is not set}"
here=$(cd "$(dirname "$0")/sentinel" && pwd)
primary="$1 $2"
shift 2
# A Sentinel writes the password into its file without quotes, and could not read others again.
case $REDIS_SERVERS_PASSWORD in
  *[!0-9A-Za-z]*) echo 'REDIS_SERVERS_PASSWORD may have letters and digits only' >&2 && exit 1 ;;
esac

sha256() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
sed -e '/^#/d' -e "s/SHA256_OF_REDIS_PASSWORD/$(sha256 "$REDIS_PASSWORD")/" \
  -e "s/SHA256_OF_REDIS_SERVERS_PASSWORD/$(sha256 "$REDIS_SERVERS_PASSWORD")/" "$here/sentinel.acl" >running.acl

# A Sentinel writes into its file whom it knows and which failovers there were, so it gets one only once.
if ! [ -f running.conf ]; then
  sed -e "s/PRIMARY/$primary/" -e "s/SERVERS_PASSWORD/$REDIS_SERVERS_PASSWORD/" "$here/sentinel.conf" >running.conf.new
  echo "aclfile $PWD/running.acl" >>running.conf.new
  mv running.conf.new running.conf
fi
exec "${REDIS_SERVER:-redis-server}" "$PWD/running.conf" --sentinel "$@"
