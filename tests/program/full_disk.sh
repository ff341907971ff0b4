#!/usr/bin/env bash
# A disk that is full in earnest: each command says so and what helps, keeps what was there, and goes on when there is room. The
# disk is a small one in memory, in a namespace of this script's own; ends with 77 where the system allows none.
#   full_disk.sh CARAVAN WORK_FOLDER
set -euo pipefail
if [ -z "${CARAVAN_FULL_DISK_INSIDE-}" ]; then
  unshare --map-root-user --mount true 2>/dev/null || unshare --mount true 2>/dev/null ||
    { echo "skipped: no namespace can be made here"; exit 77; }
  export CARAVAN_FULL_DISK_INSIDE=1
  [ "$(id -u)" = 0 ] && exec unshare --mount "$0" "$@"
  exec unshare --map-root-user --mount "$0" "$@"
fi
program=$1 work=$2/full-disk
rm -rf "$work"
mkdir -p "$work/disk"
. "$(dirname "$0")/../process/lib.sh"
disk=$work/disk
mount -t tmpfs -o size=8m none "$disk" || { echo "skipped: no disk in memory can be mounted here"; exit 77; }
trap 'end_all; umount "$disk"' EXIT
resize() { mount -o "remount,size=$1" "$disk"; }
fill() { # KIB that stay free
  local free
  free=$(df --output=avail "$disk" | tail -1)
  head -c $(((free - $1) * 1024)) /dev/zero >"$disk/fill"
}

expect_exit 1 "would be copied, and the disk of .* has .* left for it" import "$model" --copy --state "$disk/store"
resize 96m
"$program" import "$model" --copy --state "$disk/store" >/dev/null 2>&1 || give_up "with room the import does not go on"
"$program" verify demo --state "$disk/store" >/dev/null 2>&1 || give_up "what was imported is not whole"
pass "an import that does not fit says so, and goes on when there is room"

prompt=$(seq -s, 1 700)
run() { # NAME ARGUMENTS...: the ids
  local name=$1
  shift
  "$program" run "$model" --ids "$prompt" -n 8 --temp 0 --ignore-end --context 1024 --json "$@" 2>"$work/$name.err" |
    grep -o '"ids":[^]]*]' >"$work/$name" || give_up "$name: no text: $(cat "$work/$name.err")"
}
run plain --archive 0 --state "$disk/plain"
fill 600
before=$(ls -R "$disk/store" | wc -l)
for life in 1 2; do
  run "archive-$life" --archive 20MiB --state "$disk/archive"
  cmp -s "$work/plain" "$work/archive-$life" || give_up "a full disk changed the text: $(cat "$work/archive-$life")"
done
expect_exit 1 "is full" run "$model" --ids "$prompt" -n 8 --context 1024 --archive 0 --kv-ram 2MiB --disk 30MiB --state "$disk/spill"
expect_exit 1 "No space left" quantize "$model" "$disk/small.gguf" --type q4_0
[ ! -e "$disk/small.gguf" ] || give_up "quantize leaves half a file"
run archive-off --archive 0 --state "$disk/plain"
cmp -s "$work/plain" "$work/archive-off" || give_up "another text beside a full disk"
"$program" ls --state "$disk/store" | grep -q demo || give_up "the store lost its model"
[ "$(ls -R "$disk/store" | wc -l)" = "$before" ] || give_up "the store has changed: $(ls -R "$disk/store")"
pass "on a full disk texts stay the same, and what needs room says so"

# Requests that fit in the memory of KV, one after the other: each finds there what the one before left.
rm "$disk/fill"
ask() { # FIRST_ID: 200 OK and 160 positions in 5 of the frames
  http "$(api_of "$disk/serve")" POST /v1/completions \
    "{\"prompt\": [$(seq -s, "$1" $(($1 + 149)))], \"max_tokens\": 8, \"ignore_eos\": true}" >"$work/answer"
  grep -q "^HTTP/1.1 200" "$work/answer" || give_up "$2: $(cat "$work/answer")"
}
launch serve serve "$model" --no-calibrate --state "$disk/serve" --api 127.0.0.1:0 --listen 127.0.0.1:0 --context 1024 \
  --archive 0 --kv-ram 3MiB --disk 30MiB
wait_for 30 "a server" test -s "$disk/serve/running.json"
wait_for 30 "a ready server" is_ready "$disk/serve"
for i in 1 2 3; do ask "$i" "with room"; done
fill 300
for i in 4 5 6 7; do ask "$i" "a request that needs no page, with a full disk"; done
kill "$launched"
wait "$launched" || true
pass "with a full disk, requests that fit in memory are answered, though others were kept there"

rm "$disk/fill"
run spill --archive 0 --kv-ram 2MiB --disk 30MiB --state "$disk/spill"
cmp -s "$work/plain" "$work/spill" || give_up "KV on disk gives another text"
"$program" quantize "$model" "$disk/small.gguf" --type q4_0 >/dev/null 2>&1 || give_up "with room quantize does not work"
"$program" verify demo --state "$disk/store" >/dev/null 2>&1 || give_up "the store is not whole any more"
pass "with room again everything works"
# RocksDB opens to write only where it can write, also to give room back.
fill 0
expect_exit 1 "is full.*with 2 MiB caravan rm works" rm demo --state "$disk/store"
"$program" ls --state "$disk/store" | grep -q demo || give_up "what was not removed is not there"
truncate -s -2M "$disk/fill"
"$program" rm demo --state "$disk/store" >/dev/null 2>&1 || give_up "with 2 MiB rm does not work"
pass "rm on a full disk names the room that it needs, and works with that"
echo "$passed checks of a full disk passed"
