#!/usr/bin/env bash
# The official OpenAI client against the real program: a ring of one with the demo model on an ephemeral port.
#   check.sh CARAVAN WORK_FOLDER
# Exit status 77: skipped, for the reason that is printed.
set -euo pipefail
program=$1 work=$2/openai
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
: >"$work/serve.log"
"$program" serve "$here/../../configs/demo/demo.gguf" --no-calibrate --api 127.0.0.1:0 --listen 127.0.0.1:0 --state "$work/state" \
  >>"$work/serve.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  address=$(sed -n 's/^ready: .* on http:\/\///p' "$work/serve.log")
  [ -n "$address" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/serve.log"; exit 1; }
  sleep 0.1
done
[ -n "$address" ] || { echo "the ring was not ready within 10 s"; cat "$work/serve.log"; exit 1; }
status=0
"$here/run.sh" "http://$address/v1" "$work/client" || status=$?
exit "$status"
