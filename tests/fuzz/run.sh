#!/usr/bin/env bash
# Runs every fuzz target for some seconds, two at once, from the seeds in tests/fuzz/seeds/NAME where there are some.
#   run.sh BIN_FOLDER WORK_FOLDER [SECONDS]
set -euo pipefail
bin=$1 work=$2 seconds=${3:-2}
seeds=$(cd "$(dirname "$0")" && pwd)/seeds
mkdir -p "$work"
one() {
  local target=$1 name corpus
  name=$(basename "$target")
  corpus=$work/$name
  mkdir -p "$corpus"
  [ -d "$seeds/${name#fuzz_}" ] && cp -n "$seeds/${name#fuzz_}"/* "$corpus"/
  if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/$name-" "$corpus" >"$work/$name.log" 2>&1; then
    tail -n 40 "$work/$name.log"
    echo "$name failed; the input stands in $work"
    return 1
  fi
  echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log") inputs in $seconds s"
}
export -f one
export work seeds seconds
targets=$(find "$bin" -name 'fuzz_*' -type f | sort)
[ -n "$targets" ] || { echo "no fuzz target was built"; exit 1; }
echo "$targets" | xargs -P 2 -I {} bash -c 'one {}'
