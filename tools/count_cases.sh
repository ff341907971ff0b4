#!/usr/bin/env bash
# Counts the test cases in the XML reports and refuses a run in which a program did not report, nothing ran, a case is
# disabled, or a case was skipped that the list of allowed skips does not name. A skip for want of ../shared is allowed only
# where that folder is absent.
#   count_cases.sh RESULTS ALLOWED_SKIPS
# RESULTS/PRESET/*.xml are the reports; RESULTS/PRESET.programs, where there is one, says how many there must be.
# On a developer's machine (CI is not "true") a skip without leave is only told.
set -euo pipefail
results=$1 allowed=$2
shared=$(cd "$(dirname "$0")/../.." && pwd)/shared
cases=0 programs=0 bad=
complain() { echo "$*"; bad=1; }

allowed_reason() { # NAME: its reason, from the list; fails when the list does not name it
  awk -v name="$1" '/^#/ { next } index($0, name " ") == 1 { print substr($0, length(name) + 2); found = 1; exit }
                    END { exit !found }' "$allowed"
}

judge_skip() { # NAME
  local reason
  if ! reason=$(allowed_reason "$1"); then
    echo "skipped without leave: $1"
    [ "${CI:-}" != true ] || bad=1
  elif [[ $reason == *../shared* && -d $shared ]]; then
    complain "skipped for want of ../shared, which is here: $1"
  else
    echo "skipped: $1 ($reason)"
  fi
}

for preset in "$results"/*/; do
  name=$(basename "$preset")
  mapfile -t files < <(find "$preset" -name '*.xml')
  expected=$(cat "$results/$name.programs" 2>/dev/null || echo 0)
  [ "${#files[@]}" -ge "$expected" ] || complain "$name: $expected programs should report, ${#files[@]} did"
  [ "${#files[@]}" -gt 0 ] || continue
  ran=$(cat "${files[@]}" | grep '<testcase .*status="run"' | grep -vc 'result="skipped"' || true)
  printf '%s: %s test programs, %s cases ran\n' "$name" "${#files[@]}" "$ran"
  [ "$ran" -gt 0 ] || complain "no case ran in $name"
  while read -r case; do
    judge_skip "$case"
  done < <(cat "${files[@]}" | sed -nE '/result="skipped"/s/.*<testcase name="([^"]*)".*classname="([^"]*)".*/\2.\1/p')
  while read -r case; do
    complain "disabled: $case"
  done < <(cat "${files[@]}" | sed -nE '/status="notrun"/s/.*<testcase name="([^"]*)".*classname="([^"]*)".*/\2.\1/p')
  cases=$((cases + ran)) programs=$((programs + ${#files[@]}))
done
[ "$cases" -gt 0 ] || complain "no test ran"
echo "$programs test programs, $cases cases ran"
[ -z "$bad" ]
