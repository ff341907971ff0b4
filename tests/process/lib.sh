# What the process tests share; sourced. Expects $program and $work; keeps $passed.
model=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/configs/demo/demo.gguf
# Where no --state is given.
export XDG_STATE_HOME=$work/default-state
passed=0
children=()

pass() { passed=$((passed + 1)); echo "passed: $1"; }
give_up() { echo "FAILED: $1"; exit 1; }

# Every program that a test leaves running ends with it.
end_all() {
  for child in ${children[@]+"${children[@]}"}; do kill -9 "$child" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap end_all EXIT

launch() { # NAME ARGUMENTS...: in the background; output in $work/NAME.out and .err, its process in $launched
  local name=$1
  shift
  "$program" "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
  launched=$!
  children+=("$launched")
}

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
  local tenths=$(($1 * 10)) what=$2
  shift 2
  for _ in $(seq "$tenths"); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  give_up "$what did not happen in time"
}

# What plan.sh measured of this machine serves the scripts after it, so that each need not measure again.
take_calibration() { # STATE_FOLDER
  mkdir -p "$1"
  cp "$work/../plan/state/calibration.json" "$1/" 2>/dev/null || "$program" calibrate --state "$1" >/dev/null 2>&1
}

api_of() { # STATE_FOLDER: HOST:PORT of the head that runs there
  sed -n 's/.*"api": "\([^"]*\)".*/\1/p' "$1/running.json"
}

http() { # ADDRESS METHOD TARGET [BODY] [HEADER]: the status line and the whole answer
  local host=${1%:*} port=${1##*:} body=${4-} header=${5-}
  (
    exec 3<>"/dev/tcp/$host/$port"
    printf '%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %s\r\n%s\r\n%s' \
      "$2" "$3" "$1" "${#body}" "${header:+$header$'\r\n'}" "$body" >&3
    cat <&3
  )
}

is_ready() { # STATE_FOLDER: the head that runs there, or is to run
  http "$(api_of "$1")" GET /health | grep -q "^HTTP/1.1 200"
}

# A head of the generated model in $work/model.gguf, on one thread, with its state in $work/head; its process in $head.
serve_generated() { # NAME ARGUMENTS...
  launch "$1" serve "$work/model.gguf" --api 127.0.0.1:0 --listen 127.0.0.1:0 --threads 1 --state "$work/head" "${@:2}"
  head=$launched
  wait_for 60 "the head's answer" is_ready "$work/head"
}
ask_generated() {
  local some
  some=$(seq -s, 1 40)
  http "$(api_of "$work/head")" POST /v1/completions "{\"prompt\":[$some,$some],\"max_tokens\":12,\"temperature\":0}"
}

expect_exit() { # STATUS PATTERN ARGUMENTS...: the program ends so, and its standard error says the pattern
  local wanted=$1 pattern=$2 status=0
  shift 2
  timeout 20 "$program" "$@" >"$work/last.out" 2>"$work/last.err" </dev/null || status=$?
  [ "$status" = "$wanted" ] || give_up "caravan $*: ended with $status, not $wanted: $(cat "$work/last.err")"
  grep -q -- "$pattern" "$work/last.err" || give_up "caravan $*: says nothing of '$pattern': $(cat "$work/last.err")"
}

number_of_stages() { # STATE_FOLDER
  "$program" status --json --state "$1" 2>/dev/null | grep -o '"first_layer"\|"first_unit"' | wc -l
}
