#!/usr/bin/env bash
# A server whose budgets are tight, under requests of all lengths at once: weights, KV and the archive take memory from each other
# all the time. Every answer is that of a server with room for everything; memory stays within the budget; nothing is left over.
#   soak.sh CARAVAN WORK_FOLDER
# CARAVAN_SOAK_SECONDS: how long (default 5). CARAVAN_SOAK_SEED: which requests.
set -euo pipefail
program=$1 work=$2/soak
seconds=${CARAVAN_SOAK_SECONDS:-5}
rm -rf "$work"
mkdir -p "$work"
. "$(dirname "$0")/../process/lib.sh"
seed=${CARAVAN_SOAK_SEED:-$$}
RANDOM=$seed
say_why() { give_up "(CARAVAN_SOAK_SEED=$seed) $1"; }

serve() { # NAME ARGUMENTS...
  local name=$1
  shift
  launch "$name" serve "$model" --no-calibrate --state "$work/$name" --api 127.0.0.1:0 --listen 127.0.0.1:0 --context 1024 "$@"
  wait_for 30 "$name" is_ready "$work/$name"
}
# The beginning of a prompt is one of three, so that some of it comes from the archive.
body() { # KIND LENGTH TOKENS
  echo "{\"prompt\":[$(seq -s, $((100 * $1 + 1)) $((100 * $1 + $2)))],\"max_tokens\":$3,\"temperature\":0}"
}
answer() { # NAME FILE BODY
  http "$(api_of "$work/$1")" POST /v1/completions "$3" | grep -o '"text":"[^"]*"' >"$2"
}
metric() { # NAME: of the tight server
  http "$(api_of "$work/tight")" GET /metrics | grep -F "$1 " | sed 's/.* \([0-9.e+]*\).*/\1/' | head -1
}
memory() { printf '%.0f' "$(metric "caravan_memory_bytes{use=\"$1\"}")"; }
# Of one moment: the border moves between two questions.
memories() { http "$(api_of "$work/tight")" GET /metrics | sed -n 's/^caravan_memory_bytes{use="[a-z]*"} //p' | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

serve roomy --archive 0
# All weights fit beside the KV of one short request, and not beside that of the longest.
budget=$((20 << 20))
serve tight --ram $budget --archive 24MiB
tight=$launched
least_state=$(memory state) most_state=$least_state least_weights=$(memory weights) most_weights=$least_weights
look() {
  local state=$(memory state) weights=$(memory weights)
  [ "$state" -lt "$least_state" ] && least_state=$state
  [ "$state" -gt "$most_state" ] && most_state=$state
  [ "$weights" -lt "$least_weights" ] && least_weights=$weights
  [ "$weights" -gt "$most_weights" ] && most_weights=$weights
  local all=$(memories)
  [ "$all" -le "$budget" ] || say_why "$all bytes are reserved of $budget"
  local peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$tight/status")
  [ "$peak" -le $(((budget + (48 << 20)) / 1024)) ] || say_why "$peak KiB were resident with a budget of $budget bytes"
}

ends=$((SECONDS + seconds)) requests=0
while [ $SECONDS -lt $ends ]; do
  together=$((1 + RANDOM % 4)) bodies=() asked=()
  # Now and then one that only decodes, long enough for KV to shrink.
  for ((i = 0; i < together; ++i)); do
    length=$((8 + RANDOM % (RANDOM % 2 ? 40 : 900))) tokens=$((4 + RANDOM % 20))
    if [ $((RANDOM % 5)) = 0 ]; then length=8 tokens=90; fi
    bodies[i]=$(body $((RANDOM % 3)) $length $tokens)
  done
  for ((i = 0; i < together; ++i)); do
    answer tight "$work/text-$i" "${bodies[i]}" &
    asked+=($!)
  done
  look
  for process in "${asked[@]}"; do wait "$process" || say_why "a request had no answer"; done
  for ((i = 0; i < together; ++i)); do
    answer roomy "$work/wanted" "${bodies[i]}" || say_why "no answer with room for everything"
    cmp -s "$work/wanted" "$work/text-$i" ||
      say_why "another text for ${bodies[i]}: $(cat "$work/text-$i") instead of $(cat "$work/wanted")"
  done
  look
  requests=$((requests + together))
done
[ "$most_state" -gt "$least_state" ] || say_why "KV never took more memory than $least_state"
[ "$most_weights" -gt "$least_weights" ] || say_why "weights never gave way: $least_weights"
kill -INT "$tight"
wait "$tight" || say_why "the server did not end well: $(tail -3 "$work/tight.err")"
pass "$requests requests under tight budgets: KV took $((least_state >> 20)) to $((most_state >> 20)) MiB, weights $((least_weights >> 20)) to $((most_weights >> 20)) MiB"
