#!/usr/bin/env bash
# kill -9 at random moments of a server that archives KV and begins prompts from it: the archive opens, no block that it had
# told of is lost, and every answer is the one without an archive. CARAVAN_ARCHIVE_KILLS: how many (default 8).
#   archive_kills.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/archive-kills
kills=${CARAVAN_ARCHIVE_KILLS:-8}
rm -rf "$work"
mkdir -p "$work"
. "$(dirname "$0")/../process/lib.sh"
state=$work/state
seed=${CARAVAN_ARCHIVE_SEED:-$$}
RANDOM=$seed

prompt() { # NUMBER: its ids; the first three blocks of all are the same
  echo "$(seq -s, 1 96),$((200 + $1)),$(seq -s, 200 499)"
}
serve() { # NAME STATE ARGUMENTS...
  local name=$1 state=$2
  shift 2
  rm -f "$state/running.json"
  launch "$name" serve "$model" --no-calibrate --state "$state" --api 127.0.0.1:0 --listen 127.0.0.1:0 --context 1024 --kv-type f16 "$@"
  wait_for 30 "$name" is_ready "$state"
}
answer() { # STATE NUMBER: the text
  http "$(api_of "$1")" POST /v1/completions \
    "{\"prompt\":[$(prompt "$2")],\"max_tokens\":12,\"temperature\":0}" | grep -o '"text":"[^"]*"'
}
metric() { # NAME: of the server in $state; 0 when it does not say
  local value
  value=$(http "$(api_of "$state")" GET /metrics 2>/dev/null | sed -n "s/^$1 \([0-9]*\).*/\1/p") || true
  echo "${value:-0}"
}
say_why() { give_up "(CARAVAN_ARCHIVE_SEED=$seed) $1"; }

same_text() { # NUMBER WHEN: both servers say the same; the text of the plain one is kept
  [ -s "$work/text-$1" ] || answer "$work/plain" "$1" >"$work/text-$1" || say_why "no answer without an archive"
  answer "$state" "$1" >"$work/text" || say_why "no answer $2"
  cmp -s "$work/text" "$work/text-$1" || say_why "another text $2: $(cat "$work/text")"
}

serve plain "$work/plain" --archive 0
begun=$(date +%s%N)
answer "$work/plain" 0 >"$work/text-0" || say_why "no answer without an archive"
# Kills come within what a prompt that is computed and written takes here.
longest_ms=$((($(date +%s%N) - begun) / 1000000 + 50))

told=0 loads=0 inside=0
for ((i = 1; i <= kills; ++i)); do
  serve "life-$i" "$state" --archive 1GiB
  found=$(metric caravan_kv_archive_blocks)
  [ "$found" -ge "$told" ] || say_why "$found blocks are found after kill $((i - 1)), $told had been told of"
  # The one that was cut short, and any older one.
  same_text $((i - 1)) "in life $i"
  same_text $((RANDOM % i)) "in life $i"
  loads=$((loads + $(metric caravan_archive_loads_total)))
  before=$(metric caravan_kv_archive_blocks)
  (answer "$state" "$i" >/dev/null 2>&1 || true) &
  sleep "$(printf '%d.%03d' 0 $((RANDOM % longest_ms % 1000)))"
  told=$(metric caravan_kv_archive_blocks)
  [ "$told" -gt "$before" ] && [ "$told" -lt $((before + 9)) ] && inside=$((inside + 1))
  kill -9 "$launched"
  wait "$launched" 2>/dev/null || true
done
serve last "$state" --archive 1GiB
[ "$(metric caravan_kv_archive_blocks)" -ge "$told" ] || say_why "blocks are lost after the last kill"
for ((i = 0; i <= kills && i < 5; ++i)); do same_text $((RANDOM % (kills + 1))) "at the end"; done
[ "$(metric caravan_kv_archive_quarantined_blocks_total)" = 0 ] || say_why "blocks are damaged"
loads=$((loads + $(metric caravan_archive_loads_total)))
[ "$loads" -gt 0 ] || say_why "nothing was ever loaded"
[ "$kills" -lt 50 ] || [ "$inside" -gt 0 ] || say_why "no kill came while blocks were written"
pass "$kills kills of a server that archives, $inside of them while a prompt was being written; $loads prompts began from the archive"
