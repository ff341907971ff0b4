#!/usr/bin/env bash
# A prompt seen before, after kill -9 of the server and a restart: time to its first token, beside the same prompt cold and beside
# the raw speed of the disk. Prints a table and one JSON object.
#   bench/archive.sh CARAVAN MODEL WORK_FOLDER [PROMPT_TOKENS] [FLAGS...]
# WORK_FOLDER should lie on the disk that is meant. ROUNDS (default 5) restarts; the medians count.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6s/^# *//p' "$0"; exit 2; }
program=$1 model_file=$2 work=$3/archive-bench tokens=${4-2049}
shift $(($# < 4 ? 3 : 4))
rounds=${ROUNDS:-5}
rm -rf "$work"
mkdir -p "$work"
. "$(dirname "$0")/../tests/process/lib.sh"
state=$work/state

now_ns() { date +%s%N; }
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
is_ready() { http "$(api_of "$state")" GET /health | grep -q "^HTTP/1.1 200"; }
metric() { http "$(api_of "$state")" GET /metrics | sed -n "s/^$1 \([0-9]*\).*/\1/p"; }
serve() { # leaves the time until it was ready in $ready_ms
  rm -f "$state/running.json"
  local begun
  begun=$(now_ns)
  launch serve serve "$model_file" --no-calibrate --state "$state" --api 127.0.0.1:0 --listen 127.0.0.1:0 --context $((tokens + 64)) "$@"
  until [ -s "$state/running.json" ] && is_ready 2>/dev/null; do sleep 0.02; done
  ready_ms=$((($(now_ns) - begun) / 1000000))
}
end_server() {
  kill -9 "$launched"
  wait "$launched" 2>/dev/null || true
}
# FIRST_ID: the time of a request for one token of a prompt that begins so, in $first_token_ms; its token in $token
ask() {
  local begun body
  body="{\"prompt\":[$(seq -s, "$1" $(($1 + tokens - 1)))],\"max_tokens\":1,\"temperature\":0}"
  begun=$(now_ns)
  token=$(http "$(api_of "$state")" POST /v1/completions "$body" | grep -o '"text":"[^"]*"')
  first_token_ms=$((($(now_ns) - begun) / 1000000))
}
archive_is_whole() { [ "$(metric caravan_kv_archive_blocks)" -ge $((tokens / 32)) ]; }

serve "$@"
ask 5
cold_ms=$first_token_ms cold_token=$token
for _ in $(seq 20); do archive_is_whole && break; ask 3 >/dev/null; sleep 0.5; done
kv_bytes=$(($(metric caravan_kv_archive_bytes) / $(metric caravan_kv_archive_blocks) * (tokens / 32)))
end_server

warm=() ready=() raw=()
for ((round = 1; round <= rounds; ++round)); do
  # The same files, read past the page cache by four readers at once.
  tables=$(find "$state/archive/store" -name '*.sst' -size +100k)
  bytes=$(stat -c %s $tables | awk '{sum += $1} END {print sum}')
  begun=$(now_ns)
  printf '%s\n' $tables | xargs -P 4 -I{} dd if={} of=/dev/null bs=1M iflag=direct status=none
  raw+=($((bytes * 1000 / (($(now_ns) - begun) / 1000)))) # KB a second
  serve "$@"
  ready+=("$ready_ms")
  ask 5
  warm+=("$first_token_ms")
  [ "$token" = "$cold_token" ] || give_up "another token after the restart: $token instead of $cold_token"
  [ "$(metric caravan_archive_loads_total)" = 1 ] || give_up "the prompt was not loaded"
  end_server
done
warm_ms=$(median "${warm[@]}") load_ms=$(median "${ready[@]}") raw_kb_s=$(median "${raw[@]}")
read_ms=$((kv_bytes / raw_kb_s))
printf '%-42s %8s ms\n' "cold, $tokens tokens" "$cold_ms" "after kill -9 and a restart" "$warm_ms" "start of the server" "$load_ms" \
  "KV at the disk's raw speed" "$read_ms"
printf '%s\n' "raw disk: $((raw_kb_s / 1000)) MB/s"
printf '{"prompt_tokens":%s,"cold_ms":%s,"warm_ms":%s,"start_ms":%s,"kv_bytes":%s,"raw_bytes_per_second":%s,"raw_read_ms":%s}\n' \
  "$tokens" "$cold_ms" "$warm_ms" "$load_ms" "$kv_bytes" "$((raw_kb_s * 1000))" "$read_ms"
