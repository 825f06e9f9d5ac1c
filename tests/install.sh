#!/usr/bin/env bash
# Installs the programs that the tests need where they are missing (Debian, Ubuntu).
set -euo pipefail

missing=()
want() { command -v "$1" >/dev/null || missing+=("$2"); }
want redis-server redis-server
want chromium chromium
want chromedriver chromium-driver
want docker-compose docker-compose
want jq jq
want openssl openssl
python3 -c 'import yaml' 2>/dev/null || missing+=(python3 python3-yaml)
[ ${#missing[@]} -gt 0 ] || exit 0

apt() {
  local as_root=(env DEBIAN_FRONTEND=noninteractive apt-get -y -qq)
  [ "$(id -u)" = 0 ] || as_root=(sudo "${as_root[@]}")
  "${as_root[@]}" "$@" </dev/null >/dev/null
}
echo "installing ${missing[*]}"
if ! apt update || ! apt install --no-install-recommends "${missing[@]}"; then
  echo "tests/install.sh: apt-get cannot install ${missing[*]}; install them by hand, and start again" >&2
  exit 1
fi
