#!/usr/bin/env bash
# What serve and join expect of the machine, which they measure at their first start, beside what they do: alone and in a
# ring.
#   forecasts.sh CARAVAN GENERATE WORK_FOLDER
set -euo pipefail
program=$1 generate=$2 work=$3/forecasts
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"
"$generate" 0.2b q8_0 "$work/model.gguf" >/dev/null 2>&1
status() { "$program" status --json --state "$work/head"; }

serve_generated unmeasured --archive 0 --no-calibrate
[ ! -e "$work/head/calibration.json" ] || give_up "--no-calibrate measured"
kill -9 "$head"
wait "$head" 2>/dev/null || true # its lock goes with it
serve_generated first --archive 0 # so that every ring computes the prompt itself
grep -q "measuring this machine: disk" "$work/first.err" || give_up "the first start measures nothing: $(cat "$work/first.err")"
[ -s "$work/head/calibration.json" ] || give_up "the first start keeps no measurements"
ask_generated >/dev/null
knows() { # KEY...: status has a number other than 0 of each
  local json key
  json=$(status)
  for key in "$@"; do
    [[ $json =~ \"$key\":([0-9.e-]+) ]] || give_up "status has no $key: $json"
    [[ ${BASH_REMATCH[1]} =~ [1-9] ]] || give_up "status does not know $key: $json"
  done
}
sets_beside() { # STATE_FOLDER
  "$program" status --state "$1" | grep -q "one request alone: a token [0-9.]* m\?s measured, [0-9.]* m\?s expected" ||
    give_up "the table does not set one beside the other: $("$program" status --state "$1")"
}
knows token_ms expected_token_ms prompt_token_ms expected_prompt_token_ms
sets_beside "$work/head"
kill -9 "$head"
wait "$head" 2>/dev/null || true # its lock goes with it
serve_generated second --archive 0
! grep -q measuring "$work/second.err" || give_up "the second start measures again"
pass "serve measures the machine at its first start, and status sets the expected beside the measured"

# --- A ring of two ---
ticket=$("$program" invite --state "$work/head" 2>/dev/null)
join() { # NAME ARGUMENTS...: with its state in $work/peer; its process in $peer
  launch "$1" join "$ticket" --listen 127.0.0.1:0 --threads 1 --name "$1" --state "$work/peer" "${@:2}"
  peer=$launched
}
stages_are() { [ "$(number_of_stages "$work/head")" = "$1" ] && is_ready "$work/head"; }
lose_peer() {
  kill -9 "$peer"
  wait "$peer" 2>/dev/null || true
  wait_for 30 "the ring without the peer" stages_are 1
}
join unmeasured --model "$work/model.gguf" --no-calibrate
wait_for 30 "a ring of two" stages_are 2
[ ! -e "$work/peer/calibration.json" ] || give_up "join --no-calibrate measured"
ask_generated >/dev/null
json=$(status)
for fact in '"expected_token_ms":0.0,' '"expected_prompt_token_ms":0.0,' '"no_forecast_of":"unmeasured",'; do
  [[ $json == *$fact* ]] || give_up "a peer that measured nothing is not named, $fact: $json"
done
"$program" status --state "$work/head" | grep -q "for want of a forecast by unmeasured: " || give_up "the table does not name the peer"
knows token_ms prompt_token_ms
lose_peer
ask_generated >/dev/null
[[ $(status) == *'"no_forecast_of":"",'* ]] || give_up "a peer that is gone is still named: $(status)"
knows token_ms expected_token_ms
pass "status names the peer of a ring that measured nothing, and shows no number of the ring"

# What is refused is told before anything is measured.
expect_exit 2 "no ticket" join "${ticket:0:60}" --listen 127.0.0.1:0 --state "$work/thief"
expect_exit 1 "used, expired or not its own" join "$ticket" --model "$work/model.gguf" --listen 127.0.0.1:0 --state "$work/thief"
expect_exit 1 "the least for a layer" join "$("$program" invite --state "$work/head" 2>/dev/null)" --listen 127.0.0.1:0 \
  --state "$work/thief" --ram 1MiB
[ ! -e "$work/thief/calibration.json" ] && ! grep -q measuring "$work/last.err" || give_up "a refusal comes after measuring"
# Ctrl-C while it measures ends it, and leaves nothing half done.
join interrupted --model "$work/model.gguf"
wait_for 20 "the measuring" grep -q "measuring this machine" "$work/interrupted.err"
family=$(pgrep -P "$peer")
kill -INT "$peer"
since=$SECONDS
wait "$peer" || give_up "join ended with $? on Ctrl-C"
[ $((SECONDS - since)) -le 3 ] || give_up "join took $((SECONDS - since)) s to end"
gone() { ! kill -0 "$family" 2>/dev/null; }
wait_for 10 "the end of the measuring" gone
[ -z "$(ls "$work/peer" | grep -v '^archive$\|^keys$\|^store$')" ] || give_up "measuring left $(ls "$work/peer")"
pass "join is refused before it measures, and Ctrl-C ends the measuring"

# One that fetches its weights measures before it greets, too.
join measured
wait_for 60 "a ring of two" stages_are 2
grep -q "measuring this machine: disk" "$work/measured.err" || give_up "the first start measures nothing: $(cat "$work/measured.err")"
[ -s "$work/peer/calibration.json" ] || give_up "the first start keeps no measurements"
[[ $(status) == *'"token_ms":0.0,'* ]] || give_up "what another ring did is set beside this one: $(status)"
ask_generated >/dev/null
knows token_ms expected_token_ms prompt_token_ms expected_prompt_token_ms links_ms
sets_beside "$work/head"
lose_peer
join again --model "$work/model.gguf"
wait_for 30 "a ring of two" stages_are 2
! grep -q measuring "$work/again.err" || give_up "the second start measures again"
kill -9 "$peer" "$head"
wait "$peer" "$head" 2>/dev/null || true
pass "join measures at its first start, and status sets beside each other what a ring of two expects and does"

# --- A ring on this machine ---
take_calibration "$work/demo"
launch demo demo "$work/model.gguf" --peers 2 --api 127.0.0.1:0 --state "$work/demo"
demo=$launched
wait_for 60 "the demo" grep -q "^API at" "$work/demo.out"
http "$(api_of "$work/demo")" POST /v1/completions "{\"prompt\":[$(seq -s, 1 80)],\"max_tokens\":12,\"temperature\":0}" >/dev/null
sets_beside "$work/demo"
! grep -q measuring "$work/demo.err" || give_up "demo measures"
kill -INT "$demo"
wait "$demo" || give_up "demo ended with $?"
pass "the peers of a demo go by what was measured of this machine before"
echo "$passed checks of forecasts passed"
