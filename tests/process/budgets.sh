#!/usr/bin/env bash
# What a process really takes of memory, beside its budget.
#   budgets.sh CARAVAN GENERATE WORK_FOLDER
set -euo pipefail
program=$1 generate=$2 work=$3/budgets
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"

take_calibration "$work/state"

# --- Memory ---
# The program itself, its libraries, and what the kernel rounds up: docs/ARCHITECTURE.md.
beside=$((48 << 20))
"$generate" 0.2b q8_0 "$work/model.gguf" >/dev/null 2>&1
model=$work/model.gguf
size=$(stat -c %s "$model")
number() { sed "s/.*\"$1\":\([0-9]*\).*/\1/" <<<"$json"; }
stays_within() { # MIB WHAT ARGUMENTS...
  local budget=$(($1 << 20)) what=$2
  shift 2
  json=$("$program" run "$model" --state "$work/state" --ram $budget --threads 2 --json "$@" 2>/dev/null)
  [ "$(number peak_memory_bytes)" -le $((budget + beside)) ] ||
    give_up "$what: $(number peak_memory_bytes) bytes were resident, with a budget of $budget and $beside beside it"
}
# Of KV 8 MiB are 270 positions.
some=$(seq -s, 1 40) many=$(seq -s, 1 350)
stays_within 80 "streamed weights" --ids "$some" -n 4 --context 512
[ "$(number disk_bytes)" -gt $((size / 2)) ] || give_up "under 80 MiB nothing was streamed: $json"
stays_within 80 "streamed weights and KV on disk" --archive 0 --ids "$many" -n 4 --context 1024 --kv-ram 8MiB
[ "$(number kv_bytes_written)" -gt 0 ] || give_up "under 8 MiB no KV went to disk: $json"
kv_and_limit() { echo "$(number kv_memory_bytes) $(number limit_bytes)"; }
stays_within 120 "streamed weights beside little KV" --archive 0 --ids "$some" -n 4 --context 4096
read -r kv_little limit_little <<<"$(kv_and_limit)"
stays_within 120 "streamed weights beside much KV" --archive 0 --ids "$(seq -s, 1 1000)" -n 4 --context 4096
read -r kv_much limit_much <<<"$(kv_and_limit)"
[ "$kv_little" -lt "$kv_much" ] && [ "$limit_little" -gt "$limit_much" ] ||
  give_up "the border stays: KV $kv_little and $kv_much, weights $limit_little and $limit_much"
[ $((kv_little + limit_little)) = $((kv_much + limit_much)) ] ||
  give_up "memory is lost at the border: KV $kv_little and $kv_much, weights $limit_little and $limit_much"
stays_within 300 "mapped weights" --archive 0 --ids "$many" -n 4 --context 1024
[ "$(number disk_bytes)" = 0 ] || give_up "under 300 MiB something was streamed: $json"
stays_within 300 "mapped weights and an archive" --ids "$many" -n 4 --context 1024
[ "$(number kv_bytes_archived)" -gt 0 ] || give_up "nothing was archived: $json"
[ "$(number disk_bytes)" -ge "$(number kv_bytes_archived)" ] || give_up "what was archived is in no sum: $json"
pass "resident memory stays within --ram and $((beside >> 20)) MiB: streamed, with KV on disk, and mapped"

# --- Memory of a large vocabulary ---
"$generate" tiny q4_0 "$work/words.gguf" 256000 >/dev/null 2>&1
model=$work/words.gguf
refused=$("$program" run "$model" --state "$work/state" --ram 20MiB -p "w1000 w2000" -n 2 2>&1) &&
  give_up "a model of 256000 tokens ran within 20 MiB"
least=$(sed -n 's/.* the least for this model and context is .*(\([0-9]*\) bytes).*/\1/p' <<<"$refused")
[ -n "$least" ] || give_up "no least --ram was told: $refused"
least_mib=$(((least >> 20) + 1))
stays_within $least_mib "256000 tokens" --archive 0 -p "w1000 w2000" -n 4
planned_scratch() {
  "$program" plan "$1" --state "$work/state" --ram 200MiB --json 2>/dev/null |
    sed 's/.*"shares":{[^}]*"scratch":\([0-9]*\).*/\1/'
}
"$generate" tiny q4_0 "$work/few.gguf" 16000 >/dev/null 2>&1
# 15 MiB of it are logits, 5 what tokens are chosen with.
[ $(($(planned_scratch "$model") - $(planned_scratch "$work/few.gguf"))) -gt $((26 << 20)) ] ||
  give_up "the plan leaves the tokenizer out: $(planned_scratch "$model") and $(planned_scratch "$work/few.gguf")"
rm "$work/words.gguf" "$work/few.gguf"
pass "a tokenizer of 256000 tokens is counted in --ram, in the least that is told, and in the plan"
# --- What the system refuses ---
# Whatever is lacking, and wherever: one line that says so, never a signal.
if (ulimit -v 4000000) 2>/dev/null; then
  for mebibytes in 320 400 500; do
    for arguments in "--archive 0 --context 256 --threads 40" "--archive 0 --context 64 --ram 100MiB" "--archive 0 --context 1024 --ram 80MiB --kv-ram 8MiB"; do
      status=0
      (ulimit -v $((mebibytes << 10)) && exec timeout 60 "$program" run "$work/model.gguf" --state "$work/state" --ids 1,2,3 -n 1 $arguments) \
        >/dev/null 2>"$work/limited.err" || status=$?
      [ "$status" = 0 ] || { [ "$status" = 1 ] && grep -q "^caravan: " "$work/limited.err"; } ||
        give_up "run $arguments in $mebibytes MiB of addresses: ended with $status: $(cat "$work/limited.err")"
      grep -q "std::\|^caravan: Resource\|another process" "$work/limited.err" && give_up "run $arguments: $(cat "$work/limited.err")"
    done
  done
  (ulimit -v $((300 << 10)) && exec "$program" calibrate --force --state "$work/state") >/dev/null 2>"$work/limited.err" || true
  grep -q "^caravan: the system gives this process no more memory; .*ulimit -v" "$work/limited.err" ||
    give_up "calibrate in 300 MiB of addresses: $(cat "$work/limited.err")"
  # Some of these find none left within RocksDB.
  "$generate" 0.2b q4_0 "$work/small.gguf" >/dev/null 2>&1
  for mebibytes in $(seq 320 8 400); do
    rm -rf "$work/limited"
    status=0
    (ulimit -v $((mebibytes << 10)) && exec timeout 60 "$program" import "$work/small.gguf" --copy --state "$work/limited") >/dev/null 2>"$work/limited.err" || status=$?
    [ "$status" = 0 ] || { [ "$status" = 1 ] && grep -q "^caravan: " "$work/limited.err"; } ||
      give_up "an import in $mebibytes MiB of addresses: ended with $status: $(cat "$work/limited.err")"
  done
  "$program" import "$work/small.gguf" --copy --state "$work/limited" >/dev/null 2>&1 && "$program" verify --state "$work/limited" >/dev/null 2>&1 ||
    give_up "what a lack of memory cut short does not go on"
  rm -rf "$work/small.gguf" "$work/limited"
fi
status=0
(ulimit -f 50000 && exec "$program" import "$work/model.gguf" --copy --state "$work/limited") >/dev/null 2>"$work/limited.err" || status=$?
[ "$status" = 1 ] && grep -q "File too large" "$work/limited.err" ||
  give_up "an import over the limit of a file's size: ended with $status: $(cat "$work/limited.err")"
pass "what the system refuses (memory, threads, a file's size) is told in words"

# --- An end by a signal ---
# What a run that spills leaves behind goes at once, also from under who writes there: that is no news.
for round in 1 4 7; do
  launch spilling run "$work/model.gguf" --state "$work/state" --archive 0 --ids "$(seq -s, 1 3900)" -n 4 --context 4096 --kv-ram 8MiB --threads 2
  wait_for 20 "KV on disk" eval 'find "$work/state/kv/$launched/store" -name "*.sst" | grep -q .'
  sleep 0.0$round
  kill -TERM "$launched"
  status=0
  wait "$launched" || status=$?
  [ "$status" = 143 ] || give_up "a run that was ended ends with $status: $(cat "$work/spilling.err")"
  grep -v context_over_training "$work/spilling.err" | grep -q "warning" && give_up "a run that was ended warns: $(cat "$work/spilling.err")"
  [ ! -e "$work/state/kv/$launched" ] || give_up "a run that was ended leaves its KV"
done
pass "a run that spills and is ended leaves nothing and warns of nothing"

# --- Memory of servers ---
resident_of() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"; }
serve_stays_within() { # KIB_BESIDE WHAT PROCESS
  local peak
  peak=$(resident_of "$3")
  [ "$peak" -le $((100 * 1024 + $1)) ] || give_up "$2: $peak KiB were resident, with a budget of 100 MiB and $1 KiB beside it"
}
serve_generated tight --no-calibrate --codec f32 --ram 100MiB
asked=()
for first in 1 2 3; do
  http "$(api_of "$work/head")" POST /v1/completions \
    "{\"prompt\":[$(seq -s, $first $((first + 400)))],\"max_tokens\":12,\"temperature\":0}" >/dev/null &
  asked+=($!)
done
wait "${asked[@]}"
# Long requests that never end, from a dozen clients.
api=$(api_of "$work/head") sockets=()
for _ in $(seq 12); do
  exec {socket}<>"/dev/tcp/${api%:*}/${api##*:}"
  sockets+=("$socket")
  { printf 'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n'
    head -c 900000 /dev/zero | tr '\0' a; } >&"$socket" 2>/dev/null || true # those that are one too many are refused
done
ask_generated | grep -q '"text"' || give_up "long requests of others keep a short one out"
for socket in "${sockets[@]}"; do exec {socket}>&-; done
serve_stays_within $((48 * 1024)) "a server" "$head"
# The ring is formed anew twice, and the head gives half of its weights away.
ticket=$("$program" invite --state "$work/head" 2>/dev/null)
launch peer join "$ticket" --no-calibrate --listen 127.0.0.1:0 --state "$work/peer" --ram 60MiB
peer=$launched
two_stages() { [ "$(number_of_stages "$work/head")" = 2 ] && is_ready "$work/head"; }
wait_for 60 "a ring of two" two_stages
ask_generated >/dev/null
peer_peak=$(resident_of "$peer")
[ "$peer_peak" -le $((124 * 1024)) ] || give_up "a peer: $peer_peak KiB were resident, with a budget of 60 MiB and 64 beside it"
kill -9 "$peer"
wait_for 30 "the ring without the peer" is_ready "$work/head"
ask_generated >/dev/null || true
serve_stays_within $((64 * 1024)) "a head whose ring changed" "$head"
kill -9 "$head"
wait "$head" 2>/dev/null || true # its lock goes with it
pass "a server, a head and a peer stay within --ram and what is stated beside it, while the ring changes"

serve_generated cut --no-calibrate --archive 0
truncate -s 1M "$work/model.gguf"
ask_generated >/dev/null 2>&1 || true
ended=0
wait "$head" || ended=$?
[ "$ended" = 135 ] || give_up "a server whose mapped file was cut ended with $ended"
grep -q "became shorter while it was in use" "$work/cut.err" || give_up "it did not say why: $(cat "$work/cut.err")"
pass "a server whose mapped file becomes shorter says so before it ends"

echo "$passed checks of budgets passed"
