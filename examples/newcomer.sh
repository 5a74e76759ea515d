#!/usr/bin/env bash
# make newcomer: a fresh clone and a fresh environment, then the README and the tutorial of each kind of user, each page by
# itself in an empty folder. Says how long each took; the first that fails ends it.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
start=$SECONDS
git clone --quiet "$(git rev-parse --show-toplevel)" "$folder/residua"
cd "$folder/residua"
make --no-print-directory .venv/.experiments PYTHON="${PYTHON:-python3}" TORCH="${TORCH:-torch}"
echo "cloned and installed: $((SECONDS - start)) s"
.venv/bin/python examples/pages.py README.md docs/tutorials/*.md
echo "all of it: $((SECONDS - start)) s"
