#!/usr/bin/env bash
# What a process takes of memory beside its budget where layers, rows and KV blocks are large: whatever grows with the model
# is to be counted in --ram. budgets.sh reads the same of many small layers.
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

echo "$passed checks of resident memory passed"
