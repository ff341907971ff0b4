#!/usr/bin/env bash
# What peers archived of a prompt outlives every process: a demo whose processes are all killed and that is asked the same again.
# Loopback only, free ports only.
#   archive.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/archive
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"

prompt="Once upon a time there was a little girl who had a red ball. She liked to play with it in the garden every day. \
One day the ball rolled away and she ran after it. It rolled down the hill and into the water. The girl was sad. Then a \
big dog came and said that he could swim. He jumped into the water and brought the ball back. The girl was very happy."
body="{\"prompt\":\"$prompt\",\"max_tokens\":24,\"temperature\":0,\"seed\":1}"

start_demo() { # ARGUMENTS...
  rm -f "$work/state/running.json"
  launch demo demo "$model" ${peers:---peers 2} --codec f32 --state "$work/state" --api 127.0.0.1:0 "$@"
  demo=$launched
  wait_for 60 "a demo" test -s "$work/state/running.json"
  api=$(api_of "$work/state")
  wait_for 60 "a ring" grep_in health " 200 "
}
grep_in() { http "$api" GET "/$1" | grep -q "$2"; }
answer_to() { http "$api" POST /v1/completions "$1" | grep -o '"text":"[^"]*"\|"message":"[^"]*"' | head -1; } # or the error
text_of() { answer_to "$body"; }
metric() { http "$api" GET /metrics | sed -n "s/^caravan_archive_$1_total //p" | tr -d '\r'; }
kill_all() { # the demo and its peers, at once
  local all
  all=$(ps -o pid= --ppid "$demo" | tr -d ' ')
  kill -9 "$demo" $all 2>/dev/null || true
  wait "$demo" 2>/dev/null || true
}

start_demo
first=$(text_of)
[[ "$first" == '"text"'* ]] || give_up "no text but $first"
[ "$(metric loads)" = 0 ] || give_up "something was loaded before anything was archived"
[ "$(metric misses)" = 1 ] || give_up "the archives were not asked"
[ "$(stat -c %a "$work/state/keys/archive.key")" = 600 ] || give_up "others may read the archive's key"
sleep 3 # archiving goes on in the background
kill_all
start_demo
second=$(text_of)
[ "$second" = "$first" ] || give_up "another text: $second instead of $first"
[ "$(metric loads)" = 1 ] || give_up "nothing was loaded: $(http "$api" GET /metrics | grep archive)"
[ "$(metric failed)" = 0 ] || give_up "what was loaded could not be read"
pass "a prompt seen before all processes were killed is loaded, $(metric loaded_tokens) tokens of it, and gives the same text"
kill_all

# At an orderly end nothing that waits is lost, however soon it comes.
start_demo
ids=$(seq -s, 100 399)
body_of_ids="{\"prompt\":[$ids],\"max_tokens\":1,\"temperature\":0}"
http "$api" POST /v1/completions "$body_of_ids" | grep -q '"text"' || give_up "no answer to token ids"
kill -INT "$demo"
wait "$demo" || give_up "demo ended with $? on Ctrl-C"
start_demo
before=$(metric loaded_tokens)
http "$api" POST /v1/completions "$body_of_ids" | grep -q '"text"' || give_up "no answer after the restart"
loaded=$(($(metric loaded_tokens) - before))
[ "$loaded" = 288 ] || give_up "of a prompt of 300 tokens $loaded were archived before Ctrl-C"
pass "at Ctrl-C what waits is archived: $loaded tokens of 300"
kill_all

# Bytes of most blocks in both peers' tables (53 KiB for each layer of the peer; the demo's own tale shares them); what is around them
# stays readable.
# Few blocks have frames, so that what is computed again is read from disk at once; and no peer knows of the other's damage.
start_demo
answer_to_ids() { answer_to "$body_of_ids"; }
of_ids=$(answer_to_ids)
kill_all
for peer in 1 2; do
  damaged=0
  for table in $(find "$work/state/archive/peer-$peer" -name '*.sst' -size +64k); do
    for ((at = 4; (at + 8) * 4096 < $(stat -c %s "$table"); at += 12)); do
      dd if=/dev/zero of="$table" bs=4096 seek=$at count=1 conv=notrunc 2>/dev/null && damaged=$((damaged + 1))
    done
  done
  [ "$damaged" -gt 4 ] || give_up "in the archive of peer $peer there are $damaged blocks to be found"
done
# Where asking takes longer than computing, as on a machine that is busy, nothing is loaded and nothing can fail.
noticed_once() {
  [ "$(metric failed)" = "$(metric loads)" ] || give_up "the damage was not noticed, or twice: $(http "$api" GET /metrics | grep archive)"
}
start_demo --kv-ram 1536KiB
for try in 1 2; do
  again=$(text_of)
  [ "$again" = "$first" ] || give_up "from a damaged archive another text: $again instead of $first"
  noticed_once
done
for try in 1 2; do
  again=$(answer_to_ids)
  [ "$again" = "$of_ids" ] || give_up "from many damaged blocks another text: $again instead of $of_ids"
  noticed_once
done
[ "$(metric loads)" -gt 0 ] || give_up "nothing was loaded from a damaged archive: $(http "$api" GET /metrics | grep archive)"
pass "damaged blocks are noticed, and their prompts are computed to the same text, once"
kill_all

# The bound is for the whole folder: of peers that are not there any more nothing stays.
peers="--peers 1" start_demo
[ -d "$work/state/archive/peer-1/store" ] || give_up "the archive of the peer that is left went, too"
[ ! -e "$work/state/archive/peer-2" ] || give_up "the archive of a peer that is not there stays"
pass "with fewer peers the archives of the others go"
# A process that idles has written all, so that a kill then loses nothing.
ids=$(seq -s, 1000 1899)
body_of_ids="{\"prompt\":[$ids],\"max_tokens\":1,\"temperature\":0}"
http "$api" POST /v1/completions "$body_of_ids" | grep -q '"text"' || give_up "no answer to 900 token ids"
sleep 2
kill_all
peers="--peers 1" start_demo
before=$(metric loaded_tokens)
http "$api" POST /v1/completions "$body_of_ids" | grep -q '"text"' || give_up "no answer after the kill"
loaded=$(($(metric loaded_tokens) - before))
[ "$loaded" = 896 ] || give_up "of a prompt of 900 tokens $loaded were archived while nothing else was asked"
pass "between requests archiving goes on: $loaded tokens of 900"
# Another process in the same folder leaves what is in use.
"$program" run "$model" --ids 1,2,3 -n 1 --archive 0 --state "$work/state" >/dev/null 2>"$work/run.err" ||
  give_up "a run beside a demo: $(cat "$work/run.err")"
[ -d "$work/state/archive/peer-1/store" ] || give_up "the archive of a running peer was removed"
pass "an archive that is in use stays"
kill_all

start_demo --archive 0
third=$(text_of)
[ "$third" = "$first" ] || give_up "without archives another text: $third instead of $first"
[ "$(metric misses)$(metric loads)" = 00 ] || give_up "archives that are off were asked"
[ -z "$(ls -A "$work/state/archive" 2>/dev/null)" ] || give_up "with --archive 0 archives stay: $(ls -A "$work/state/archive")"
pass "with --archive 0 nobody is asked, and what was kept goes"
kill_all

# A file that was damaged and is then replaced by a good one is another one, though no sample of it shows the damage.
mended="$work/mended.gguf" ids=$(seq -s, 100 399)
answer_of() { # ARGUMENTS...
  "$program" run "$mended" --ids "$ids" --ignore-end -n 8 --temp 0 --json --state "$work/mended" "$@" | grep -o '"ids":\[[^]]*\]'
}
cp "$model" "$mended"
good=$(answer_of --archive 0)
dd if=/dev/zero of="$mended" bs=4096 seek=421 count=32 conv=notrunc 2>/dev/null
bad=$(answer_of)
[ "$bad" != "$good" ] || give_up "the damage changes nothing, so that this test proves nothing"
cp "$model" "$mended"
[ "$(answer_of)" = "$good" ] || give_up "the mended file is answered with what was computed from the damaged one"
[ "$(answer_of)" = "$good" ] || give_up "the second time, from the archive, another answer"
pass "a model file that was damaged and mended finds nothing in the archive of what was computed meanwhile"

# A ring of three processes comes again as it was, though its peers swap their names, by which a new ring would be ordered. Where
# a busy machine slows one of them by so much that another cut is clearly better, the next life tells.
names=(a b) others=()
start_ring() { # LIFE
  rm -f "$work/ring/running.json"
  launch ring serve "$model" --no-calibrate --api 127.0.0.1:0 --listen 127.0.0.1:0 --codec f32 --state "$work/ring"
  ring=$launched others=()
  wait_for 60 "a head's answer" is_ready "$work/ring"
  for peer in 0 1; do
    "$program" invite --state "$work/ring" >"$work/ticket" 2>/dev/null
    launch "ring-$peer" join "$(cat "$work/ticket")" --no-calibrate --model "$model" --listen 127.0.0.1:0 \
      --name "${names[($1 + peer) % 2]}" --state "$work/ring-$peer"
    others+=("$launched")
  done
  wait_for 60 "a ring of three" is_of_three
  wait_for 60 "a ring of three" is_ready "$work/ring"
  api=$(api_of "$work/ring")
}
is_of_three() { [ "$(number_of_stages "$work/ring")" = 3 ]; }
order_of() { "$program" status --json --state "$work/ring" | grep -o '"key": *"[^"]*"' | head -3 | tr -d '\n'; }
before= came_again=
for life in 1 2 3 4 5 6; do
  start_ring "$life"
  order=$(order_of)
  text=$(text_of)
  if [ "$order" = "$before" ] && [ "$(metric loads)" = 1 ]; then
    [ "$text" = "$first" ] || give_up "the ring that came again gives another text: $text instead of $first"
    came_again=$life
  fi
  before=$order
  [ -n "$came_again" ] || sleep 2 # archiving goes on in the background
  kill -9 "$ring" "${others[@]}"
  wait "$ring" "${others[@]}" 2>/dev/null || true
  [ -z "$came_again" ] || break
done
[ -n "$came_again" ] || give_up "of six lives of a ring none was as the one before: $before"
pass "a ring whose processes were all killed comes again as it was, and loads what it had computed (life $came_again)"

# Stages of unequal bounds archive to the same depth: what one has no room for, none keeps.
launch unequal serve "$model" --no-calibrate --api 127.0.0.1:0 --listen 127.0.0.1:0 --codec f32 --context 1024 \
  --archive 1GiB --state "$work/unequal"
ring=$launched
wait_for 60 "a head's answer" is_ready "$work/unequal"
"$program" invite --state "$work/unequal" >"$work/ticket" 2>/dev/null
launch unequal-peer join "$(cat "$work/ticket")" --no-calibrate --model "$model" --listen 127.0.0.1:0 --archive 2MiB \
  --state "$work/unequal-peer"
is_of_two() { [ "$(number_of_stages "$work/unequal")" = 2 ]; }
wait_for 60 "a ring of two" is_of_two
wait_for 60 "a ring of two" is_ready "$work/unequal"
api=$(api_of "$work/unequal")
gauge() { http "$api" GET /metrics | sed -n "s/^caravan_$1 //p" | tr -d '\r' | cut -d. -f1; }
room=$(($(gauge archive_tokens) / 32))
[ "$room" -ge 2 ] && [ "$room" -le 100 ] || give_up "the peer's 2 MiB have room for $room blocks"
for first in 10 11 12 13 14 15 16 17; do
  ids=$(seq -s, "$first" 3 $((first + 900)))
  http "$api" POST /v1/completions "{\"prompt\":[$ids],\"max_tokens\":1,\"temperature\":0}" | grep -q '"text"' \
    || give_up "no answer of a ring of unequal archives"
done
sleep 2 # archiving goes on in the background
kept=$(gauge kv_archive_blocks)
[ "$kept" -ge 1 ] && [ "$kept" -le "$room" ] || give_up "the head keeps $kept blocks where its peer has room for $room"
[ "$(gauge kv_archive_evicted_blocks_total)" -ge 1 ] || give_up "nothing made room: the prompts were too short to tell"
kill -9 "$ring" "$launched"
wait "$ring" "$launched" 2>/dev/null || true
pass "stages of unequal bounds archive to the same depth: $kept blocks of $room, of 8 prompts of 301 tokens"

# An archive that cannot be opened is not said to be there.
mkdir -p "$work/alone/archive"
: >"$work/alone/archive/store"
launch alone serve "$model" --no-calibrate --state "$work/alone" --api 127.0.0.1:0 --listen 127.0.0.1:0
wait_for 60 "a head's answer" is_ready "$work/alone"
api=$(api_of "$work/alone")
http "$api" POST /v1/completions "$body_of_ids" | grep -q '"text"' || give_up "no answer without an archive"
grep_in v1/caravan/status '"archive": *false' || give_up "status names an archive: $(http "$api" GET /v1/caravan/status | grep archive)"
grep -q kv_archive_none "$work/alone.err" || give_up "nothing says why there is no archive: $(cat "$work/alone.err")"
pass "an archive that cannot be opened is not said to be there"
