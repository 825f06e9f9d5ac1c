#!/bin/sh
# Starts Redis with the settings and the users that are beside this file; the shop's password is $REDIS_PASSWORD.
# Arguments are more settings: --port 6380. $REDIS_SERVER is the program, if it is another one than redis-server.
set -eu
: "${REDIS_PASSWORD:?is not set}"
here=$(dirname "$0")
hash=$(printf %s "$REDIS_PASSWORD" | sha256sum | cut -d ' ' -f 1)
users=$(mktemp)
sed -e '/^#/d' -e "s/SHA256_OF_REDIS_PASSWORD/$hash/" "$here/users.acl" >"$users"
exec "${REDIS_SERVER:-redis-server}" "$here/redis.conf" --aclfile "$users" "$@"
