#!/usr/bin/env bash
# What can go wrong with an archive of KV changes no text: damaged tables, a damaged store, one of another version, one that
# another process has, a folder that cannot be written.
#   archive_faults.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/archive-faults
rm -rf "$work"
mkdir -p "$work"
. "$(dirname "$0")/../process/lib.sh"
state=$work/state
prompt=$(seq -s, 1 700)

# NAME STATE ARGUMENTS...: the text of the prompt, in $work/NAME
run() {
  local name=$1 state=$2
  shift 2
  "$program" run "$model" --ids "$prompt" -n 16 --temp 0 --ignore-end --context 1024 --state "$state" --json "$@" \
    >"$work/$name" 2>"$work/$name.err" || give_up "$name: run failed: $(cat "$work/$name.err")"
  grep -o '"ids":[^]]*]' "$work/$name" >"$work/$name.ids"
  cmp -s "$work/$name.ids" "$work/plain.ids" || give_up "$name: another text: $(cat "$work/$name.ids")"
}
read_back() { grep -o '"kv_bytes_read":[0-9]*' "$work/$1" | tr -dc 0-9; }

"$program" run "$model" --ids "$prompt" -n 16 --temp 0 --ignore-end --context 1024 --archive 0 --state "$work/none" --json 2>/dev/null |
  grep -o '"ids":[^]]*]' >"$work/plain.ids"
run first "$state"
[ "$(read_back first)" = 0 ] || give_up "something was read before anything was archived"
run second "$state"
whole=$(read_back second)
[ "$whole" -gt 0 ] || give_up "a prompt seen before is not loaded"

damaged=0
for table in "$state"/archive/store/*.sst; do
  [ "$(stat -c %s "$table")" -gt 100000 ] || continue
  printf 'damage' | dd of="$table" bs=1 seek=70000 conv=notrunc status=none
  damaged=$((damaged + 1))
done
[ "$damaged" -gt 0 ] || give_up "there is nothing to damage in $(ls -l "$state/archive/store")"
run damaged "$state"
grep -q "kv_archive_block_quarantined" "$work/damaged.err" || give_up "a damaged block passes unnoticed: $(cat "$work/damaged.err")"
run mended "$state"
run again "$state"
[ "$(read_back again)" -gt 0 ] || give_up "what was damaged is not archived anew"
pass "damaged blocks are computed again, with the same text, and archived anew"

launch holder serve "$model" --no-calibrate --state "$state" --api 127.0.0.1:0 --listen 127.0.0.1:0 --context 1024
wait_for 30 "a server" test -s "$state/running.json"
wait_for 30 "a ready server" is_ready "$state"
run beside "$state"
grep -q "held by another process" "$work/beside.err" || give_up "a second process does not say so: $(cat "$work/beside.err")"
kill -9 "$launched"
wait "$launched" 2>/dev/null || true
pass "a second process beside the one that has the archive runs without"

echo "caravan store 99" >"$state/archive/store/CARAVAN"
run other-version "$state"
grep -q "version 99" "$work/other-version.err" || give_up "another version is not told: $(cat "$work/other-version.err")"
echo "caravan store 1" >"$state/archive/store/CARAVAN"
run same-version "$state"
[ "$(read_back same-version)" -gt 0 ] || give_up "a store of another version was not left alone"
: >"$state/archive/store/CURRENT"
run broken "$state"
grep -q "kv_archive_new" "$work/broken.err" || give_up "a damaged store is not told: $(cat "$work/broken.err")"
run renewed "$state"
[ "$(read_back renewed)" -gt 0 ] || give_up "a damaged store was not begun anew"
pass "a store of another version is told of and left alone, a damaged one is begun anew"

run little "$work/little-state" --archive 2MiB
run little "$work/little-state" --archive 2MiB
[ "$(du -sm "$work/little-state/archive" | cut -f 1)" -le 5 ] || give_up "2 MiB of archive take $(du -sm "$work/little-state/archive")"
run day "$work/day-state" --archive-day 1MiB
[ "$(du -sm "$work/day-state/archive" | cut -f 1)" -le 4 ] || give_up "1 MiB a day takes $(du -sm "$work/day-state/archive")"
pass "a small bound and a small budget of a day are kept"
