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
prompts=5

prompt() { # NUMBER: its ids; the first blocks of all are the same
  echo "$(seq -s, 1 96),$(seq -s, $((100 * $1 + 200)) $((100 * $1 + 900)))"
}
serve() { # NAME STATE ARGUMENTS...
  local name=$1 state=$2
  shift 2
  rm -f "$state/running.json"
  launch "$name" serve "$model" --no-calibrate --state "$state" --api 127.0.0.1:0 --listen 127.0.0.1:0 --context 1024 --kv-type f16 "$@"
  wait_for 30 "$name" is_ready "$state"
}
is_ready() { http "$(api_of "$1")" GET /health | grep -q "^HTTP/1.1 200"; }
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

serve plain "$work/plain" --archive 0
for ((i = 0; i < prompts; ++i)); do answer "$work/plain" "$i" >"$work/text-$i" || say_why "no answer without an archive"; done
kill -9 "$launched"

told=0 loads=0 inside=0
for ((i = 1; i <= kills; ++i)); do
  serve "life-$i" "$state" --archive 512MiB
  found=$(metric caravan_kv_archive_blocks)
  [ "$found" -ge "$told" ] || say_why "$found blocks are found after kill $((i - 1)), $told had been told of"
  number=$((RANDOM % prompts))
  answer "$state" "$number" >"$work/text" || say_why "no answer in life $i"
  cmp -s "$work/text" "$work/text-$number" || say_why "another text in life $i: $(cat "$work/text")"
  loads=$((loads + $(metric caravan_archive_loads_total)))
  before=$(metric caravan_kv_archive_blocks)
  (answer "$state" $((RANDOM % prompts)) >/dev/null 2>&1 || true) &
  sleep "0.$(printf '%03d' $((RANDOM % 400)))"
  told=$(metric caravan_kv_archive_blocks)
  [ "$told" -gt "$before" ] && inside=$((inside + 1))
  kill -9 "$launched"
  wait "$launched" 2>/dev/null || true
done
serve last "$state" --archive 512MiB
[ "$(metric caravan_kv_archive_blocks)" -ge "$told" ] || say_why "blocks are lost after the last kill"
for ((i = 0; i < prompts; ++i)); do
  answer "$state" "$i" >"$work/text" || say_why "no answer at the end"
  cmp -s "$work/text" "$work/text-$i" || say_why "another text at the end: $(cat "$work/text")"
done
[ "$(metric caravan_kv_archive_quarantined_blocks_total)" = 0 ] || say_why "blocks are damaged"
loads=$((loads + $(metric caravan_archive_loads_total)))
[ "$loads" -gt 0 ] || say_why "nothing was ever loaded"
pass "$kills kills of a server that archives, $inside of them while it wrote; $loads prompts began from the archive"
