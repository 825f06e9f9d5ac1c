#!/usr/bin/env bash
# Unpacks the Redis or the Valkey of a suite of Debian, leaves the system as it is, and says where the program is:
#   REDIS_SERVER=$(tests/server.sh bookworm-backports valkey) tests/run.sh
#   REDIS_SERVER=$(tests/server.sh trixie redis) tests/run.sh
set -euo pipefail
suite=${1:?the name of a suite of Debian, as trixie}
name=${2:?redis or valkey}
cd "$(dirname "$0")/.."
place=${CARGO_TARGET_DIR:-$PWD/target}/servers/$suite/$name
program=$place/$name-server
if [ ! -x "$program" ]; then
  rm -rf "$place"
  mkdir -p "$place"/{root,apt/{lists,cache/archives}/partial}
  # From where the system has its packages.
  from=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)
  : "${from:?this is no Debian with sources of its own}"
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  signed=/usr/share/keyrings/debian-archive-keyring.gpg
  printf "deb [signed-by=$signed] $from %s main\n" "$release" "$suite" >"$place/apt/sources"
  touch "$place/apt/status"
  cat >"$place/apt/conf" <<END
Dir::Etc::SourceList "$place/apt/sources";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$place/apt/lists";
Dir::State::status "$place/apt/status";
Dir::Cache "$place/apt/cache";
APT::Default-Release "$suite";
APT::Sandbox::User "root";
END
  export APT_CONFIG=$place/apt/conf
  apt-get -qq update >&2
  # With the libraries that it needs, and their own loader: they may be newer than the system's.
  needed=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "$name-tools" | grep -E '^z?lib')
  (cd "$place/apt" && apt-get -qq download "$name-server" "$name-tools" $needed) >&2
  for package in "$place"/apt/*.deb; do dpkg-deb -x "$package" "$place/root"; done
  rm -r "$place/apt"
  loader=$(find "$place/root" -name 'ld-linux-*' -print -quit)
  libraries=$(find "$place/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd :)
  printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$loader" "$libraries" "$place/root/usr/bin/$name-server" \
    >"$place/starts"
  chmod +x "$place/starts"
  mv "$place/starts" "$program"
fi
echo "$program"
