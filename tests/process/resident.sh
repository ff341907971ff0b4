#!/usr/bin/env bash
# What a process takes of memory beside its budget where layers, rows, KV blocks and the vocabulary are large: whatever grows
# with the model is to be counted in --ram. budgets.sh reads the same of many small layers.
#   resident.sh CARAVAN GENERATE WORK_FOLDER
set -euo pipefail
program=$1 generate=$2 work=$3/resident
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"
# docs/ARCHITECTURE.md, law 5.
beside=48 beside_in_a_ring=64
"$generate" wide q4_0 "$work/model.gguf" >/dev/null 2>&1

ask() { # FIRST_ID COUNT: a prompt of its own
  http "$(api_of "$work/head")" POST /v1/completions \
    "{\"prompt\":[$(seq -s, "$1" $(($1 + $2 - 1)))],\"max_tokens\":3,\"temperature\":0}" | grep -q '"text"' ||
    give_up "a request of $2 ids from $1 on has no answer"
}
stays_within() { # WHAT MIB PROCESS
  local peak
  peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$3/status")
  echo "  $1: $((peak >> 10)) MiB of $2"
  [ "$peak" -le $(($2 << 10)) ] || give_up "$1: $peak KiB were resident, allowed are $2 MiB"
}
streams() { # STATE_FOLDER
  local bytes
  bytes=$("$program" status --json --state "$1" | sed 's/.*"weights_bytes_read": *\([0-9]*\).*/\1/')
  [ "$bytes" -gt $((100 << 20)) ] || give_up "only $bytes bytes of weights were read in $1: nothing streams"
}

# A layer of 28 MiB is measured, and mapped for it, before the head hosts its own. KV goes to disk and to an archive.
serve_generated wide --no-calibrate --codec f32 --context 1k --ram 128MiB --kv-ram 20MiB
for first in 1 2 3; do ask "$first" 60; done
ask 4 500 & asked=$!
ask 5 450
wait "$asked" || exit 1
streams "$work/head"
stays_within "a server" $((128 + beside)) "$head"
kill -9 "$head"
wait "$head" 2>/dev/null || true # which lets go of the state folder
pass "a server of few large layers stays within --ram and $beside MiB"

# A peer fetches a layer into its store, and reads it from there, a chunk at a time.
serve_generated wide --no-calibrate --codec f32 --context 1k --ram 128MiB --kv-ram 20MiB --archive 0
ticket=$("$program" invite --state "$work/head" 2>/dev/null)
launch peer join "$ticket" --no-calibrate --listen 127.0.0.1:0 --state "$work/peer" --ram 120MiB --threads 1
peer=$launched
two_stages() { [ "$(number_of_stages "$work/head")" = 2 ] && is_ready "$work/head"; }
wait_for 30 "a ring of two" two_stages
ask 1 400
stays_within "a head of a ring" $((128 + beside_in_a_ring)) "$head"
stays_within "a peer" $((120 + beside_in_a_ring)) "$peer"
kill -9 "$head" "$peer"
wait "$head" "$peer" 2>/dev/null || true
pass "a head and a peer that fetches stay within --ram and $beside_in_a_ring MiB"

# Several peers fetch at once: what is on its way to them is bounded over all of them, and taken from the head's budget.
rm -rf "$work/head" "$work/model.gguf"
"$generate" 0.2b q8_0 "$work/model.gguf" >/dev/null 2>&1
serve_generated several --no-calibrate --codec f32 --context 512 --ram 120MiB --archive 0
fetching=()
for name in 1 2 3 4 5 6; do
  ticket=$("$program" invite --state "$work/head" 2>/dev/null)
  launch "many$name" join "$ticket" --no-calibrate --listen 127.0.0.1:0 --state "$work/many$name" --name "many$name" \
    --ram 85MiB --threads 1
  fetching+=("$launched")
done
several_stages() { [ "$(number_of_stages "$work/head")" -ge 3 ] && is_ready "$work/head"; }
wait_for 40 "a ring of several peers that fetch" several_stages
# What it gives is within --ram, so that it needs no more beside it than a head alone.
stays_within "a head that gives to several peers" $((120 + beside)) "$head"
wire=$("$program" status --json --state "$work/head" | sed 's/.*"memory_wire_bytes": *\([0-9]*\).*/\1/')
[ "$wire" -gt 0 ] || give_up "nothing is reserved for what is on its way to peers"
kill -9 "${fetching[@]}"
wire_is_free() { "$program" status --json --state "$work/head" | grep -q '"memory_wire_bytes": *0[^0-9]'; }
wait_for 20 "the return of that memory" wire_is_free
kill -9 "$head"
wait "$head" "${fetching[@]}" 2>/dev/null || true
rm -rf "$work"/many*
pass "a head that gives to several peers at once stays within --ram and $beside MiB, and counts what it gives"

# --- A large vocabulary ---
# 72 MiB of embedding table, of which every row may be asked for; as much of output matrix; and 2 MiB of logits a row.
rm -rf "$work/head" "$work/model.gguf"
vocabulary=524288
"$generate" tiny q4_0 "$work/model.gguf" $vocabulary >/dev/null 2>&1
refused=$("$program" run "$work/model.gguf" --state "$work/run" --context 512 --ram 20MiB --ids 1 -n 1 2>&1) &&
  give_up "a model of $vocabulary tokens ran within 20 MiB"
least=$(sed -n 's/.* the least for this model and context is .*(\([0-9]*\) bytes).*/\1/p' <<<"$refused")
[ -n "$least" ] || give_up "no least --ram was told: $refused"
least=$(((least >> 20) + 1))
# Logits of a prompt are written as they come.
"$program" run "$work/model.gguf" --state "$work/run" --context 512 --ram ${least}MiB --archive 0 --threads 1 \
  --ids "$(seq -s, 1 100)" -n 0 --json --logits "$work/logits" >"$work/run.json" 2>/dev/null || give_up "run --logits failed"
[ "$(wc -c <"$work/logits")" = $((100 * vocabulary * 4)) ] || give_up "--logits writes another shape"
peak=$(sed -n 's/.*"peak_memory_bytes":\([0-9]*\).*/\1/p' "$work/run.json")
echo "  logits of a prompt: $((peak >> 20)) MiB of $((least + beside))"
[ "$peak" -le $(((least + beside) << 20)) ] || give_up "run --logits: $peak bytes were resident beside --ram ${least}MiB"
rm "$work/logits"
# Tokens from all over the table, and the sampler's sorting.
serve_generated words --no-calibrate --context 512 --ram ${least}MiB --archive 0
ask_all_over() { # FIRST_ID
  http "$(api_of "$work/head")" POST /v1/completions \
    "{\"prompt\":[$(seq -s, "$1" 1050 $((vocabulary - 1)))],\"max_tokens\":4,\"temperature\":1,\"logprobs\":5}" |
    grep -q '"text"' || give_up "a request of ids from $1 on has no answer"
}
ask_all_over 10 & asked=$!
ask_all_over 360
wait "$asked" || exit 1
ask_all_over 710
stays_within "a server of $vocabulary tokens" $((least + beside)) "$head"
kill -9 "$head"
wait "$head" 2>/dev/null || true
rm "$work/model.gguf"
pass "a vocabulary of $vocabulary tokens: logits of a prompt, its embeddings and sampling stay within --ram and $beside MiB"

echo "$passed checks of resident memory passed"
