#!/usr/bin/env bash
# Installs the programs that the tests need where they are missing: on Debian, by sudo where the user is not root.
set -euo pipefail
cd "$(dirname "$0")/.."

# Not from Debian, whose own may be older.
needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
rust=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
if [ "$(printf '%s\n' "$needed" "${rust:-0}" | sort -V | head -1)" != "$needed" ]; then
  echo "tests/install.sh: Rust $needed or newer is needed, and cargo is ${rust:-missing}; see https://rustup.rs" >&2
  exit 1
fi

missing=()
# Programs, not what bash has of the same name.
want() { type -P "$1" >/dev/null || missing+=("$2"); }
want cc build-essential
want kill procps
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
