#!/usr/bin/env bash
# What serve expects of the machine, which it measures at its first start, beside what it does.
#   forecasts.sh CARAVAN GENERATE WORK_FOLDER
set -euo pipefail
program=$1 generate=$2 work=$3/forecasts
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"
"$generate" 0.2b q8_0 "$work/model.gguf" >/dev/null 2>&1
status() { "$program" status --json --state "$work/head"; }

serve_generated unmeasured --no-calibrate
[ ! -e "$work/head/calibration.json" ] || give_up "--no-calibrate measured"
kill -9 "$head"
wait "$head" 2>/dev/null || true # its lock goes with it
serve_generated first
grep -q "measuring this machine: disk" "$work/first.err" || give_up "the first start measures nothing: $(cat "$work/first.err")"
[ -s "$work/head/calibration.json" ] || give_up "the first start keeps no measurements"
ask_generated >/dev/null
json=$(status)
for key in token_ms expected_token_ms prompt_token_ms expected_prompt_token_ms; do
  [[ $json =~ \"$key\":([0-9.e-]+) ]] || give_up "status has no $key: $json"
  [[ ${BASH_REMATCH[1]} =~ [1-9] ]] || give_up "status does not know $key: $json"
done
"$program" status --state "$work/head" | grep -q "one request alone: a token [0-9.]* m\?s measured, [0-9.]* m\?s expected" ||
  give_up "the table does not set one beside the other: $("$program" status --state "$work/head")"
kill -9 "$head"
wait "$head" 2>/dev/null || true # its lock goes with it
serve_generated second
! grep -q measuring "$work/second.err" || give_up "the second start measures again"
kill -9 "$head"
wait "$head" 2>/dev/null || true # its lock goes with it
pass "serve measures the machine at its first start, and status sets the expected beside the measured"
echo "$passed checks of forecasts passed"
