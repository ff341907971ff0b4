#!/usr/bin/env bash
# kill -9 at random moments of a peer that fetches its weights: what it had is never fetched again, and in the end everything is
# whole and the text the same. CARAVAN_FETCH_KILLS: how many (default 6).
#   fetch_kills.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/fetch-kills
kills=${CARAVAN_FETCH_KILLS:-6}
rm -rf "$work"
mkdir -p "$work"
. "$(dirname "$0")/../process/lib.sh"
seed=${CARAVAN_FETCH_SEED:-$$}
RANDOM=$seed
say_why() { give_up "(CARAVAN_FETCH_SEED=$seed) $1"; }

# Not the ring of a life before that the head still believes in.
is_in() { grep -q "hosts layers" "$work/$1.err" && [ "$(number_of_stages "$work/head")" = 2 ] && is_ready "$work/head"; }
is_one() { [ "$(number_of_stages "$work/head")" = 1 ] && is_ready "$work/head"; }
answer() {
  http "$(api_of "$work/head")" POST /v1/completions '{"prompt":"Once upon a time","max_tokens":16,"temperature":0}' |
    sed -n 's/.*"text":"\([^"]*\)".*/\1/p'
}
alone=$("$program" run "$model" -p "Once upon a time" -n 16 --temp 0 2>/dev/null)

launch head serve "$model" --no-calibrate --api 127.0.0.1:0 --listen 127.0.0.1:0 --codec f32 --peer-timeout 2 --state "$work/head"
wait_for 20 "the head's answer" is_ready "$work/head"
begin() { # a peer that has nothing yet
  rm -rf "$work/peer"
  "$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null
  left=
}
join() { # NAME ARGUMENTS...
  launch "$1" join "$(cat "$work/ticket")" --no-calibrate --listen 127.0.0.1:0 --log info --state "$work/peer" "${@:2}"
  peer=$launched
}
# Bytes that a life had still to fetch of its layers; nothing when it died before it knew.
still_to_fetch() { sed -n 's/.*to_fetch bytes=\([0-9]*\) of=[0-9]\{7,\}$/\1/p' "$work/$1.err" | head -1; }
finish() { # the peer comes to the end, and all is well
  join "$1"
  wait_for 30 "a ring with the peer" is_in "$1"
  [ "$(answer)" = "$alone" ] || say_why "another text: $(answer)"
  end_peer
  "$program" verify --state "$work/peer" >"$work/verify" 2>&1 || say_why "what was fetched is not whole: $(cat "$work/verify")"
  whole=$((whole + 1))
}
end_peer() {
  kill -9 "$peer"
  wait "$peer" 2>/dev/null || true
}

begin
inside=0 whole=0
for ((i = 1; i <= kills; ++i)); do
  join "life-$i" --fetch-limit 3MiB/s
  sleep "$(printf '0.%03d' $((150 + RANDOM % 500)))"
  end_peer
  now=$(still_to_fetch "life-$i")
  [ -z "$now" ] || [ -z "$left" ] || [ "$now" -le "$left" ] || say_why "life $i had $now bytes to fetch, the one before $left"
  if [ -n "$now" ]; then
    left=$now
    [ "$now" = 0 ] || inside=$((inside + 1))
  fi
  if [ "$now" = 0 ] || [ $((RANDOM % 20)) = 0 ]; then
    finish "whole-$i"
    begin
    wait_for 20 "the ring without the peer" is_one
  fi
done
finish last
[ "$inside" -gt 0 ] || say_why "no kill came while something was fetched"
pass "$kills kills of a fetching peer, $inside of them before it had everything; $whole times it came to the end"
