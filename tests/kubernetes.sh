#!/usr/bin/env bash
# Checks kubernetes/ against the schemas of Kubernetes, and what in it must fit together. By hand: Debian has no such
# validator, so it needs python3-venv and what pip installs into one.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/kubernetes-validate
if [ ! -x "$tools/bin/kubernetes-validate" ]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
fi
# Without a schema's leave, a name that is spelled wrong would be a setting that is silently not there.
"$tools/bin/kubernetes-validate" --strict --quiet --kubernetes-version 1.37 kubernetes/*.yaml
"$tools/bin/python" tests/kubernetes.py kubernetes/*.yaml
