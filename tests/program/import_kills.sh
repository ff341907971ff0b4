#!/usr/bin/env bash
# kill -9 at random moments of the real `caravan import --copy`: the store opens, what was acknowledged is there and
# right, and the next import goes on. CARAVAN_IMPORT_KILLS: how many (default 20).
#   import_kills.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/import-kills
kills=${CARAVAN_IMPORT_KILLS:-20}
model=$(cd "$(dirname "$0")/../.." && pwd)/configs/demo/demo.gguf
rm -rf "$work"
mkdir -p "$work"
state=$work/state
seed=${CARAVAN_IMPORT_SEED:-$$}
RANDOM=$seed
give_up() { echo "FAILED (CARAVAN_IMPORT_SEED=$seed): $1"; cat "$work/log"; exit 1; }
caravan() { "$program" "$@" --state "$state" >"$work/log" 2>&1; }
room() { du -sk "$state" | cut -f 1; }

"$(dirname "$program")/caravan-generate" tiny q4_0 "$work/kept.gguf" >"$work/log" 2>&1 || give_up "no model"
caravan import "$work/kept.gguf" --copy || give_up "the first import failed"
empty=$(room)
begun=$(date +%s%N)
caravan import "$model" --copy || give_up "the second import failed"
took_us=$((($(date +%s%N) - begun) / 1000))
caravan rm demo || give_up "rm failed"
inside=0
for ((i = 1; i <= kills; ++i)); do
  "$program" import "$model" --copy --state "$state" >"$work/killed" 2>&1 &
  victim=$!
  sleep "$(printf '0.%06d' $(((RANDOM * 32768 + RANDOM) % (took_us * 5 / 4 + 1))))"
  kill -9 "$victim" 2>"$work/log" || true
  status=0
  wait "$victim" 2>"$work/log" || status=$?
  [ "$status" = 137 ] && inside=$((inside + 1))
  caravan ls || give_up "ls failed after kill $i"
  grep -q '^kept ' "$work/log" || give_up "kill $i lost a model"
  [ "$status" != 0 ] || grep -q '^demo ' "$work/log" || give_up "kill $i lost an acknowledged model"
  caravan verify || give_up "a group is bad after kill $i"
  [ $((i % 4)) = 0 ] || continue
  caravan import "$model" --copy || give_up "the import after kill $i failed"
  caravan verify demo || give_up "a group is bad after the import that followed kill $i"
  caravan rm demo || give_up "rm failed after kill $i"
  # The model's record is 170 KiB, twice, in up to three tables that are not compacted yet; its weights are 8 MiB.
  [ "$(room)" -le $((empty + 1536)) ] || give_up "$(room) KiB instead of $empty KiB are left after kill $i"
done
[ "$inside" -gt 0 ] || give_up "every import ended before it was killed"
echo "passed: $kills kills of an import, $inside of them inside it"
