#!/usr/bin/env bash
# A peer without the model's file: it fetches the weights that it hosts from the head, goes on after kill -9 and after
# the head's end, and gives the same text. Loopback only, free ports only.
#   fetch.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/fetch
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"
started=$SECONDS

stages_are() { [ "$(number_of_stages "$1")" = "$2" ] && is_ready "$1"; }
ask='{"prompt":"Once upon a time","max_tokens":16,"temperature":0}'
answer() { http "$(api_of "$work/head")" POST /v1/completions "$ask" | sed -n 's/.*"text":"\([^"]*\)".*/\1/p'; }
alone=$("$program" run "$model" -p "Once upon a time" -n 16 --temp 0 2>/dev/null)

serve() { # NAME: a head on the same address each time
  launch "$1" serve "$model" --no-calibrate --api 127.0.0.1:0 --listen "${listen-127.0.0.1:0}" --codec f32 --peer-timeout 2 \
    --log info --state "$work/head"
  head=$launched
  wait_for 20 "the head's answer" is_ready "$work/head"
  listen=$(sed -n 's|.*peers join at tcp://\([^ ;]*\).*|\1|p' "$work/$1.out")
}
join() { # NAME [ARGUMENTS...]: a peer of that name, without a model
  local name=$1
  shift
  launch "$name" join "$(cat "$work/ticket")" --no-calibrate --listen 127.0.0.1:0 --name "$name" --log info \
    --state "$work/${state-$name}" "$@"
  peer=$launched
}

serve head
"$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null

# --- It works ---
join plain
wait_for 30 "the ring with the peer that fetches" stages_are "$work/head" 2
[ "$(answer)" = "$alone" ] || give_up "the text changed"
grep -q "hosts layers" "$work/plain.err" || give_up "join does not say what it hosts: $(cat "$work/plain.err")"
[ -z "$(ls "$work/plain/fetch")" ] || give_up "whole groups are left in files: $(ls "$work/plain/fetch")"
pass "join without --model fetches what it hosts, and the text stays the same"

kill -9 "$peer"
wait_for 20 "the ring without the peer" stages_are "$work/head" 1
state=plain join again --fetch-limit 1KiB/s
wait_for 20 "the peer's return" stages_are "$work/head" 2
[ "$(answer)" = "$alone" ] || give_up "the text changed after a return"
kill -9 "$peer"
wait_for 20 "the ring without the peer" stages_are "$work/head" 1
pass "what was fetched once is not fetched again: a peer with 1 KiB/s is back at once"

# --- A small disk ---
"$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null
expect_exit 1 "the least layer of this model takes .*; --disk is to be more than" join "$(cat "$work/ticket")" --no-calibrate \
  --listen 127.0.0.1:0 --state "$work/tiny" --disk 600KiB
expect_exit 1 "--ram is 1 MiB, the least for a layer of this model, however short the context, is" join \
  "$(cat "$work/ticket")" --no-calibrate --listen 127.0.0.1:0 --state "$work/tiny" --ram 1MiB
pass "a peer that cannot hold any layer says so and ends"

"$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null
join small --disk 3MiB
wait_for 30 "the ring with the peer whose disk is small" stages_are "$work/head" 2
[ "$(answer)" = "$alone" ] || give_up "the text changed with a small disk"
[ "$(du -sk "$work/small/store" | cut -f1)" -le 3072 ] || give_up "the store is larger than --disk: $(du -sh "$work/small/store")"
kill -9 "$peer"
wait_for 20 "the ring without the peer" stages_are "$work/head" 1
pass "a peer hosts the layers that its --disk holds"

# --- A flipped byte on its disk ---
flip_at() { # FILE OFFSET
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
  printf "\\$(printf %03o $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
wait "$peer" 2>/dev/null || true
table=$(ls -S "$work"/plain/store/*.sst | head -1)
at=$(($(stat -c %s "$table") / 2))
flip_at "$table" "$at"
"$program" verify --state "$work/plain" >"$work/verify" 2>&1 && give_up "verify finds nothing in a damaged store: $(cat "$work/verify")"
grep -q "is damaged" "$work/verify" || give_up "verify does not say what is damaged: $(cat "$work/verify")"
state=plain join mended
wait_for 30 "the ring with the peer whose store was damaged" stages_are "$work/head" 2
[ "$(answer)" = "$alone" ] || give_up "the text changed after a byte was flipped"
[ "$(sed -n 's/.*to_fetch bytes=\([0-9]*\) .*/\1/p' "$work/mended.err" | sort -n | tail -1)" -gt 0 ] ||
  give_up "the damaged group was not fetched again"
kill -9 "$peer"
wait "$peer" 2>/dev/null || true
wait_for 20 "the ring without the peer" stages_are "$work/head" 1
# Without anybody who has verified it.
table=$(ls -S "$work"/plain/store/*.sst | head -1)
flip_at "$table" $(($(stat -c %s "$table") / 2))
state=plain join mended-unseen
wait_for 30 "the ring with the peer whose store was damaged again" stages_are "$work/head" 2
[ "$(answer)" = "$alone" ] || give_up "the text changed after a byte was flipped that nobody had seen"
grep -q "is damaged" "$work/mended-unseen.err" || give_up "nobody found the flipped byte: $(cat "$work/mended-unseen.err")"
kill -9 "$peer"
wait "$peer" 2>/dev/null || true
wait_for 20 "the ring without the peer" stages_are "$work/head" 1
# Where the table's index is.
table=$(ls -S "$work"/plain/store/*.sst | head -1)
flip_at "$table" $(($(stat -c %s "$table") - 200))
state=plain join mended-index
wait_for 30 "the ring with the peer whose table has no index" stages_are "$work/head" 2
[ "$(answer)" = "$alone" ] || give_up "the text changed after a table lost its index"
kill -9 "$peer"
wait "$peer" 2>/dev/null || true
wait_for 20 "the ring without the peer" stages_are "$work/head" 1
# Of the model's record, which all else depends on.
record=$(find "$work/plain/store" -name '*.sst' -size +64k -printf '%s %p\n' | sort -n | head -1 | cut -d' ' -f2)
printf damage | dd of="$record" bs=1 seek=$(($(stat -c %s "$record") / 2)) conv=notrunc status=none
state=plain join mended-record
wait_for 30 "the ring with the peer whose record was damaged" stages_are "$work/head" 2
kill -9 "$peer"
wait "$peer" 2>/dev/null || true
wait_for 20 "the ring without the peer" stages_are "$work/head" 1
"$program" verify --state "$work/plain" >"$work/verify" 2>&1 || give_up "what was fetched again is not good: $(cat "$work/verify")"
grep -q "^demo: good, [0-9]* of 20 groups are here" "$work/verify" || give_up "verify does not say how much is here: $(cat "$work/verify")"
pass "a flipped byte in the store is found, by verify, too, and its group fetched again"

# --- kill -9 in the middle ---
"$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null
# In tables that are on their way into the store, and in files of groups that were salvaged.
here_bytes() {
  find "$work/slow" \( -name '*.kept' -o -name '*.left' -o -name '*.part' \) -printf '%s\n' 2>/dev/null |
    awk '{ sum += $1 } END { print sum + 0 }'
}
has_some() { [ "$(here_bytes)" -gt "$1" ]; }
state=slow join first --fetch-limit 600KiB/s
wait_for 20 "the first bytes" has_some 600000
kill -9 "$peer"
wait "$peer" 2>/dev/null || true
kept=$(here_bytes)
state=slow join second --fetch-limit 600KiB/s
wait_for 20 "more bytes" has_some $((kept + 400000))
kill -9 "$head"
wait "$head" 2>/dev/null || true
sleep 1
kill -0 "$peer" || give_up "the peer ended with its head: $(cat "$work/second.err")"
serve head-again
wait_for 60 "the ring after all this" stages_are "$work/head" 2
[ "$(answer)" = "$alone" ] || give_up "the text changed after kill -9"
# The second process has what the first one had left on the disk, and receives hardly more than the rest.
total=$(sed -n 's/.*to_fetch bytes=[0-9]* of=\([0-9]*\)$/\1/p' "$work/second.err" | sort -n | tail -1)
first_left=$(sed -n "s/.*to_fetch bytes=\([0-9]*\) of=$total\$/\1/p" "$work/second.err" | head -1)
[ $((total - first_left)) -ge $((kept * 9 / 10)) ] || give_up "$kept bytes were on the disk, and $((total - first_left)) of $total were used"
kept=$((total - first_left))
received=$(sed -n 's/.*fetched received=\([0-9]*\)$/\1/p' "$work/second.err" | tail -1)
[ $((10 * (kept + received))) -lt $((12 * total)) ] || give_up "$kept and $received bytes were fetched for $total"
pass "a fetch goes on where it was after kill -9 of the peer, and of the head"

# --- What is kept, and let go ---
kill -INT "$peer"
wait "$peer" || give_up "join ended with $? on Ctrl-C"
listed=$("$program" ls --state "$work/slow")
grep -q "^demo .* fetched " <<<"$listed" || give_up "ls does not list what was fetched: $listed"
! grep -q "belong to no model" <<<"$listed" || give_up "fetched groups count as left over: $listed"
grep -q "freed" <<<"$("$program" rm --unused --state "$work/slow")" || give_up "rm --unused says nothing"
[ "$("$program" ls --state "$work/slow")" = "$listed" ] || give_up "rm --unused took fetched groups away"
"$program" rm demo --state "$work/slow" >/dev/null
grep -q "no models" <<<"$("$program" ls --state "$work/slow")" || give_up "rm leaves the fetched model"
pass "ls lists what was fetched, rm frees it"

# --- The flag ---
"$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null
expect_exit 2 "nothing would come" join "$(cat "$work/ticket")" --listen 127.0.0.1:0 --state "$work/none" --fetch-limit 0
expect_exit 2 "is no size" join "$(cat "$work/ticket")" --listen 127.0.0.1:0 --state "$work/none" --fetch-limit fast
pass "--fetch-limit is checked"
echo "$passed checks of fetching passed in $((SECONDS - started)) s"
