#!/usr/bin/env bash
# Laws 1 and 4 on the built program, over real sockets and processes.
#   run.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/rings
model=$(cd "$(dirname "$0")/../.." && pwd)/configs/demo/demo.gguf
ids=0,2404,632,262,536,441,311,262,585,413,346,768,2548,15,273
rm -rf "$work"
mkdir -p "$work"
passed=0
pass() { passed=$((passed + 1)); echo "passed: $1"; }
give_up() { echo "FAILED: $1"; exit 1; }

generate() { # FLAGS...: ids on standard output, logits in the file named by $logits
  "$program" run "$model" --ids "$ids" -n 24 --temp 0 --json --logits "$logits" --state "$work/state" "$@" |
    sed -n 's/.*"ids":\(\[[^]]*\]\).*/\1/p'
}

# Split: any number of processes, with the exact codec, gives the same bits and the same text.
logits=$work/alone alone=$(generate)
[ -s "$work/alone" ] && [ -n "$alone" ] || give_up "run gave nothing"
for peers in 1 2 3 9; do
  logits=$work/ring-$peers ring=$(generate --peers "$peers" --codec f32)
  cmp -s "$work/alone" "$work/ring-$peers" || give_up "logits differ over $peers peers"
  [ "$alone" = "$ring" ] || give_up "ids differ over $peers peers"
  pass "the same bits over $peers peer processes"
done
# What the processor names it has must run; what it lacks is said by name.
flags=" $(sed -n '/^flags/{s/^[^:]*://p;q}' /proc/cpuinfo 2>/dev/null) "
has() { local flag; for flag in "$@"; do [[ $flags == *" $flag "* ]] || return 1; done; }
for isa in scalar avx2 avx512; do
  case $isa in
    avx2) has avx2 fma f16c || { echo "not here: this machine has no $isa"; continue; } ;;
    avx512) has avx2 fma f16c avx512f avx512bw avx512dq avx512vl avx512_vnni ||
      { echo "not here: this machine has no $isa"; continue; } ;;
  esac
  logits=$work/$isa other=$(generate --isa "$isa" --threads 2) || give_up "nothing came with --isa $isa"
  [ -n "$other" ] || give_up "nothing came with --isa $isa"
  cmp -s "$work/alone" "$work/$isa" || give_up "logits differ with $isa"
  pass "the same bits with $isa and 2 threads"
done
for codec in bf16 int8; do
  logits=$work/$codec lossy=$(generate --peers 3 --codec "$codec")
  [ -n "$lossy" ] || give_up "nothing came through $codec"
  pass "text comes through a ring with $codec"
done
# The archive and its key are meant to stay.
ls "$work/state" | grep -q -v '^archive$\|^keys$' && give_up "a ring left its folders behind"
pass "a ring that has ended leaves no folder behind"

# A model in which a tensor is missing is refused before any ring forms.
LC_ALL=C sed 's/blk\.4\.ffn_up/blk.4.ffn_qq/' "$model" >"$work/damaged.gguf"
status=0
timeout 20 "$program" run "$work/damaged.gguf" --ids 1 -n 1 --state "$work/state" >"$work/text" 2>"$work/error" || status=$?
[ "$status" = 1 ] || give_up "a damaged model ended with $status"
grep -q 'damaged.gguf.*layer.4.ffn.*up' "$work/error" || give_up "the error does not name the tensor: $(cat "$work/error")"
pass "a model without one of its tensors is refused at once"

# Loss: a peer killed in the middle of a text ends the run with an error that names it, soon.
"$program" run "$model" -p "Once upon a time" -n 900 --temp 1 --ignore-end --peers 3 --peer-timeout 5 --context 1024 \
  --state "$work/state" >"$work/text" 2>"$work/error" &
run=$!
for _ in $(seq 100); do
  [ -s "$work/text" ] && break
  sleep 0.05
done
victim=$(pgrep -P "$run" | tail -n 1)
kill -9 "$victim"
killed=$SECONDS
status=0
wait "$run" || status=$?
[ "$status" = 1 ] || give_up "a run that lost a peer ended with $status"
[ $((SECONDS - killed)) -le 6 ] || give_up "a lost peer was noticed after $((SECONDS - killed)) s"
grep -q peer "$work/error" || give_up "the error does not name the peer: $(cat "$work/error")"
pass "a killed peer ends the run with an error: $(tail -n 1 "$work/error")"
[ -z "$(pgrep -P "$run" || true)" ] || give_up "children are left"
echo "$passed checks of the program passed"
