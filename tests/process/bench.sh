#!/usr/bin/env bash
# caravan bench --pages with sizes that take seconds: every figure is there, and nothing is left behind when it ends, is
# interrupted or is killed.
#   bench.sh CARAVAN CARAVAN_GENERATE WORK_FOLDER
set -euo pipefail
program=$1 generate=$2 work=$3/bench
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"

# A quarter of the demo model is less than the program needs for itself.
model=$work/model.gguf
"$generate" deep f16 "$model" 2>/dev/null

take_calibration "$work/state"
pages="bench $model --pages --repeats 1 --seconds 0.02 --state $work/state"
# With SIGINT as a terminal would leave it, in a shell that started this in the background.
printf '#!/bin/sh\nexec env --default-signal=INT "%s" "$@"\n' "$program" >"$work/interruptible"
chmod +x "$work/interruptible"
servers() { pgrep -f "serve $model --state $work/state/bench-" || true; }
left() { ls "$work/state" | grep -v '^calibration.json$' || true; }

# --- The figures ---
"$program" $pages --prompt-tokens 200 --json >"$work/figures.json" 2>"$work/steps" || give_up "bench --pages: $(cat "$work/steps")"
for step in "into a store" "4 times the RAM, from the store" "2 readers" "200 tokens" "restart 1 of 1" "over the loopback, 1 of 1"; do
  grep -q "$step" "$work/steps" || give_up "no step says '$step': $(cat "$work/steps")"
done
# The program's own reader of JSON lists the figures; a name that is missing leaves nothing behind its colon.
cat >"$work/figures.jinja" <<'END'
{% for row in decode %}{% for name in ["times_ram", "ram", "seconds_per_token", "predicted_seconds_per_token",
"disk_bytes_per_token", "raw_bytes_per_second", "share_of_raw"] %}decode {{ row.from }} {{ name }}: {{ row[name] }}
{% endfor %}{% endfor %}{% for row in store_reads %}{% for name in ["readers", "raw_bytes_per_second",
"raw_processor_seconds_per_gb", "store_bytes_per_second", "processor_seconds_per_gb", "share_of_raw"] %}read {{ name }}: {{ row[name] }}
{% endfor %}{% endfor %}{% for name in ["bytes", "bytes_per_second", "processor_seconds_per_gb"] %}import {{ name }}: {{ store_import[name] }}
{% endfor %}{% for name in ["prompt_tokens", "restarts", "loaded", "cold_seconds", "load_seconds", "warm_seconds", "in_memory_seconds",
"kv_bytes", "raw_bytes_per_second", "raw_read_seconds"] %}restart {{ name }}: {{ restart[name] }}
{% endfor %}{% for name in ["bytes", "bytes_per_second", "processor_seconds_per_gb", "hash_bytes_per_second"] %}fetch {{ name }}: {{ fetch[name] }}
{% endfor %}{% for aim in aims %}aim {{ aim.name }}: {{ (aim.at_least or 0) + (aim.at_most or 0) }}
{% endfor %}
END
"$program" template "$work/figures.jinja" "$work/figures.json" | grep -v '^$' >"$work/figures" || give_up "the figures are no JSON"
[ "$(wc -l <"$work/figures")" = $((4 * 7 + 3 * 6 + 3 + 10 + 4 + 13)) ] || give_up "figures are missing: $(cat "$work/figures")"
awk -F': ' '!($2 > 0) { print; bad = 1 } END { exit bad }' "$work/figures" >"$work/bad" ||
  give_up "figures that are not positive: $(cat "$work/bad")"
[ -z "$(left)" ] || give_up "bench leaves $(left)"
pass "bench --pages --json has every figure, each positive, and leaves nothing behind"

"$program" $pages --prompt-tokens 200 >"$work/table" 2>/dev/null
for word in "^decode" "^readers" "first token, cold" "read raw at" "over the loopback" "aim$"; do
  grep -q "$word" "$work/table" || give_up "the table has no '$word': $(cat "$work/table")"
done
[ "$(grep -c ' at \(least\|most\) ' "$work/table")" = 13 ] || give_up "aims are missing: $(cat "$work/table")"
expect_exit 2 "needs a MODEL" bench --pages
expect_exit 2 "requires --pages" bench "$model" --repeats 1
expect_exit 2 "keeps no archive" $pages --archive 0
[ "$(grep -c . "$work/last.err")" = 1 ] || give_up "an archive of nothing is told late: $(cat "$work/last.err")"
pass "the table has the aims"

# --- What a model is too small for ---
demo=$here/../../configs/demo/demo.gguf
"$program" bench "$demo" --pages --repeats 1 --seconds 0.02 --prompt-tokens 200 --state "$work/state" --json >"$work/small.json" \
  2>"$work/small.err" || give_up "bench of a small model: $(cat "$work/small.err")"
grep -q '"not_possible": ".*' "$work/small.json" || give_up "a quarter of a small model is enough: $(cat "$work/small.json")"
grep -q '"warm_seconds"' "$work/small.json" && grep -q '"hash_bytes_per_second"' "$work/small.json" ||
  give_up "what came after what is not possible is missing: $(cat "$work/small.json")"
pass "a measurement that is not possible is told with its reason, beside the others"

# --- kill -9 and Ctrl-C while the bench's server computes ---
start_long() { # NAME
  program=$work/interruptible launch "$1" $pages --prompt-tokens 8000
  wait_for 60 "a long prompt" grep -q "seen for the first time" "$work/$1.err"
  wait_for 10 "a server" eval 'test -n "$(servers)"'
}
start_long killed
kill -9 "$launched"
wait "$launched" 2>/dev/null || true
wait_for 10 "the end of a killed bench's server" eval 'test -z "$(servers)"'
[ -n "$(left)" ] || give_up "a killed bench removed its folder"
start_long interrupted
kill -INT "$launched"
since=$SECONDS status=0
wait "$launched" || status=$?
[ "$status" = 130 ] && grep -q "interrupted" "$work/interrupted.err" ||
  give_up "an interrupted bench ended with $status: $(cat "$work/interrupted.err")"
[ $((SECONDS - since)) -le 5 ] || give_up "an interrupted bench took $((SECONDS - since)) s to end"
[ -z "$(servers)" ] || give_up "an interrupted bench leaves a server"
[ -z "$(left)" ] || give_up "after an interrupted bench and a killed one there is $(left)"
pass "no server outlives the bench, and its folders go at Ctrl-C, after kill -9 with the next bench"
echo "$passed checks of the bench passed"
