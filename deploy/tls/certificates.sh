#!/bin/sh
# Makes an authority of your own and a certificate for Redis, both for a year: certificates.sh [DIRECTORY] [NAME]
# The directory (default: this one) gets ca.crt, for who connects, and private/. The name is Redis's host in its URL.
set -eu
dir=${1:-$(dirname "$0")}
name=${2:-redis-tls}
# Redis runs as a user of its own in its container, which must be able to read the key: nobody else gets into the folder.
mkdir -p "$dir/private"
chmod 700 "$dir/private"
cd "$dir"
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"

# shellcheck disable=SC2086
openssl req -x509 $new -days 365 -subj '/CN=Authority for sessions' -addext 'keyUsage=critical,keyCertSign' \
  -keyout private/ca.key -out ca.crt
# shellcheck disable=SC2086
openssl req $new -subj "/CN=$name" -keyout private/redis.key -out private/redis.csr
printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$name" >private/redis.ext
openssl x509 -req -in private/redis.csr -CA ca.crt -CAkey private/ca.key -CAserial private/ca.srl -CAcreateserial -days 365 \
  -extfile private/redis.ext -out private/redis.crt
rm -f private/redis.csr private/redis.ext
chmod 600 private/ca.key
chmod 644 ca.crt private/redis.key private/redis.crt
