#!/usr/bin/env bash
# Runs every test of the workspace, and says last how many passed. REDIS_SERVER names another server program to run them
# on than redis-server: REDIS_SERVER=/usr/bin/valkey-server tests/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."
tests/install.sh
server=${REDIS_SERVER:-redis-server}
echo "on $("$server" --version)"
# The tests wait more than they compute: for elections, deadlines and pages.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}

# The tests that need a feature, as lines of package, feature and test.
gated() {
  cargo metadata --locked --no-deps --format-version 1 |
    jq -r '.packages[] | .name as $package | .targets[] | select(.kind == ["test"]) | .name as $test
      | ."required-features"[]? | "\($package) \(.) \($test)"'
}

all() {
  local profile
  for profile in single replicas sentinel cluster tls; do
    COMPOSE_PROFILES=$profile REDIS_PASSWORD=x SESSION_KEY=x docker-compose config --quiet || return
  done
  python3 tests/kubernetes.py kubernetes/*.yaml || return
  local features
  features=$(gated | awk '$2 != "mutants" { print $1 "/" $2 }' | sort -u | paste -sd ,) || return
  # Always the whole workspace and these features, so that nothing that it depends on is built twice.
  cargo test --workspace --no-fail-fast --features "$features" || return
  # Whether the benchmarks work; what they find is for `cargo bench`.
  cargo test --workspace --features "$features" --bench http --bench timing || return
  # Apart, so that the tests before run what users get: with this feature, tests can take rules of the protocol out.
  gated | awk '$2 == "mutants"' | while read -r package feature test; do
    cargo test --workspace --features "$features,$package/$feature" --test "$test" </dev/null || exit
  done || return
  # What a build without TLS refuses.
  cargo test --package redis-session-store --test it -- by_a_build_without_it
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
all 2>&1 | tee "$log" || status=$?
awk '/^test result: / { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
