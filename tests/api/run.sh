#!/usr/bin/env bash
# Runs the official client's test against an API that is up. The client is installed into WORK_FOLDER, pinned by
# the lock file, and kept there.
#   run.sh BASE_URL WORK_FOLDER       BASE_URL such as http://127.0.0.1:8080/v1; the key, if any, in CARAVAN_API_KEY
# Exit status 77 with a printed reason: skipped, because there is no Node or the package cannot be fetched.
set -euo pipefail
base=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
skip() { echo "skipped: $1"; exit 77; }
command -v node >/dev/null || skip "node is not installed"
command -v npm >/dev/null || skip "npm is not installed"
[ "$(node -p 'Number(process.versions.node.split(".")[0])')" -ge 20 ] || skip "node $(node --version) is older than 20"
mkdir -p "$work"
cp "$here/openai_test.mjs" "$here/package.json" "$work/"
# Installed already from the same lock file: no network.
if [ ! -d "$work/node_modules/openai" ] || ! cmp -s "$here/package-lock.json" "$work/package-lock.json"; then
  cp "$here/package-lock.json" "$work/"
  (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >npm.log 2>&1) || {
    tail -n 3 "$work/npm.log"
    rm -rf "$work/node_modules"
    skip "the openai package cannot be installed (no network?)"
  }
fi
cd "$work"
CARAVAN_API_BASE=$base exec node --test --test-reporter=spec openai_test.mjs
