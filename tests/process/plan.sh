#!/usr/bin/env bash
# calibrate and plan as people and scripts meet them.
#   plan.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/plan
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"
state="--state $work/state"

# --- calibrate ---
# With a file whose disk is measured; plan measures with one of its own, below.
"$program" calibrate $state "$model" >"$work/first" 2>"$work/first.err"
grep -q "measuring this machine: disk" "$work/first.err" || give_up "no progress is shown: $(cat "$work/first.err")"
for word in memory Q4_K "attention f32" "readers" "KV comes back" SHA-256 XXH3 together "memory beside"; do
  grep -q "$word" "$work/first" || give_up "the table has no $word: $(cat "$work/first")"
done
[ "$(ls "$work/state")" = calibration.json ] || give_up "calibrate leaves $(ls "$work/state")"
"$program" calibrate $state >"$work/second" 2>"$work/second.err"
[ ! -s "$work/second.err" ] || give_up "the kept figures were measured again: $(cat "$work/second.err")"
grep -q "measured before" "$work/second" || give_up "kept figures look new"
json=$("$program" calibrate $state --json)
for key in processor cores version isa kernels attention disk small_read_seconds sha256 xxh3 read_while_computing kv sha256_while_both memory_while_both; do
  [[ $json == *"\"$key\":"* ]] || give_up "calibrate --json has no $key"
done
expect_exit 1 "absent.gguf" calibrate $state --force "$work/absent.gguf"
! grep -q measuring "$work/last.err" || give_up "a file that is not there is told late: $(cat "$work/last.err")"
pass "calibrate: progress, table, --json, kept"

# An interrupted measurement leaves no file, neither under the name nor half of one, and what was kept as it was.
# Whoever ignores Ctrl-C for what it starts in the background must not do so for this.
printf '#!/bin/sh\nexec env --default-signal=INT "%s" "$@"\n' "$program" >"$work/interruptible"
chmod +x "$work/interruptible"
interrupt_calibrate() { # ARGUMENTS...
  program=$work/interruptible launch interrupted calibrate "$@"
  wait_for 10 "the first measurement" grep -q memory "$work/interrupted.err"
  kill -INT "$launched"
  wait "$launched" || true
}
interrupt_calibrate --state "$work/cut"
[ -z "$(ls "$work/cut")" ] || give_up "an interrupted calibrate left $(ls "$work/cut")"
cp "$work/state/calibration.json" "$work/kept.json"
interrupt_calibrate $state --force
[ "$(ls "$work/state")" = calibration.json ] && cmp -s "$work/kept.json" "$work/state/calibration.json" ||
  give_up "an interrupted --force changes what was kept, or left $(ls "$work/state")"
pass "--force measures again; an interrupted calibrate leaves nothing"

# --- plan ---
"$program" plan "$model" $state --context 1k >"$work/all"
for word in "^RAM " weights kv scratch headroom embed attention feed-forward output mapped decode prompt bound binds least; do
  grep -q -- "$word" "$work/all" || give_up "the picture has no $word: $(cat "$work/all")"
done
json=$("$program" plan "$model" $state --context 1k --json)
for key in ram_bytes shares floors least_ram_bytes window_bytes prefetch_groups kv_blocks decode prompt tokens_per_second \
  read_bytes bound binds more_ram all_fits another_peer classes groups; do
  [[ $json == *"\"$key\":"* ]] || give_up "plan --json has no $key"
done
[[ $json == *'"context":1024,'* ]] || give_up "1k is not 1024 positions"
least=$(sed 's/.*"least_ram_bytes":\([0-9]*\).*/\1/' <<<"$json")
streamed=$("$program" plan "$model" $state --context 1k --ram "$least" --json)
[[ $streamed == *'"placement":"streamed"'* ]] || give_up "nothing is streamed under the least budget"
expect_exit 1 "--ram is .*, the least .*($least bytes)" plan "$model" $state --context 1k --ram $((least - 1))
# What plan names is what run names.
expect_exit 1 "--ram is 1 B, the least .*($least bytes)" run "$model" --ids 1 -n 1 --ram 1 --context 1k $state
expect_exit 1 "--kv-ram" plan "$model" $state --kv-ram 1k
expect_exit 2 "is no size" plan "$model" $state --ram lots
expect_exit 2 "is no share" plan "$model" $state --ram 101%
expect_exit 2 "context" plan "$model" $state --context 8x
expect_exit 2 "sequences" plan "$model" $state --sequences 0
pass "plan: the picture, --json, the least budget runs and a byte less is refused with its reason"

# A plain kill ends it, wherever it is: only measuring holds signals back, and asks for them.
mkfifo "$work/nothing.gguf"
launch waiting plan "$work/nothing.gguf" $state
is_gone() { [ ! -e "/proc/$1" ] || grep -q "^State:.Z" "/proc/$1/status"; }
sleep 0.3
! is_gone "$launched" || give_up "a plan reads a pipe that nobody writes: $(cat "$work/waiting.err")"
kill -TERM "$launched"
wait_for 5 "the end of a plan that is killed" is_gone "$launched"
pass "plan ends on a plain kill"

# What run refuses plan refuses, in the same words, and what plan takes run takes.
same_words() { # PATTERN ARGUMENTS...
  local pattern=$1
  shift
  expect_exit 1 "$pattern" run "$model" --ids 1 -n 1 "$@"
  cp "$work/last.err" "$work/run.err"
  expect_exit 1 "$pattern" plan "$model" "$@"
  cmp -s "$work/run.err" "$work/last.err" || give_up "$*: run and plan say: $(cat "$work/run.err" "$work/last.err")"
}
both_take() {
  "$program" run "$model" --ids 1 -n 1 "$@" >/dev/null 2>"$work/last.err" && "$program" plan "$model" "$@" >/dev/null 2>"$work/last.err" ||
    give_up "$*: $(cat "$work/last.err")"
}
same_words "--ram is 4 MiB, the least" $state --ram 4MiB
same_words "--kv-ram is 1 KiB, the least" $state --kv-ram 1KiB
same_words "^caravan: of disk 0 B .*--kv-ram .* would hold all of it, the least --disk" $state --kv-ram 2MiB --disk 0
same_words "--ram is 1 KiB, .* with KV on disk; of disk 0 B .*: --ram .* would hold all of it" $state --ram 1KiB --disk 0
same_words "beside an archive of 30 MiB (--archive)" $state --kv-ram 2MiB --archive 1GiB --disk 30MiB
number_after() { grep -o -- "$1[^(]*([0-9]* bytes)" "$work/last.err" | sed 's/.*(\([0-9]*\) bytes)/\1/'; }
expect_exit 1 "would hold all of it" plan "$model" $state --kv-ram 2MiB --disk 0
disk=$(number_after '--disk for')
both_take $state --disk 0 --kv-ram "$(number_after ': --kv-ram')"
both_take $state --kv-ram 2MiB --disk "$disk"
# A store and an archive have their part of --disk.
"$program" import "$model" --copy --state "$work/kept" >/dev/null 2>&1 || give_up "the import fails"
disk=18MiB
mkdir -p "$work/bare" && cp "$work/state/calibration.json" "$work/bare/" # so that it need not be measured again
both_take --kv-ram 2MiB --archive 0 --disk $disk --state "$work/bare"
same_words "the least --disk" --kv-ram 2MiB --archive 0 --disk $disk --state "$work/kept"
same_words "the least --disk" --kv-ram 2MiB --archive 16MiB --disk $disk --state "$work/bare"
# Also where --disk is not given: KV of many sequences is more than a quarter of what is free.
expect_exit 1 "the least --disk for 1024 sequences of 16777216 positions is" plan "$model" $state --sequences 1024 --context 16777216
pass "plan and run take and refuse the same budgets"

# Where --kv-ram is a share it is one of the RAM that is named; the floor of KV is the least --kv-ram.
planned() { "$program" plan "$model" $state --context 2k --json "$@"; }
least=$(planned --kv-ram 10% | sed 's/.*"least_ram_bytes":\([0-9]*\).*/\1/')
both_take $state --context 2k --kv-ram 10% --ram "$least"
expect_exit 1 "the least" plan "$model" $state --context 2k --kv-ram 10% --ram $((least - 1))
step=$(planned --kv-ram 10% --ram "$least" | grep -o '"more_ram":{[^}]*}') || give_up "more RAM than $least brings nothing"
speed=${step##*:}
again=$(planned --kv-ram 10% --ram "$(sed 's/.*"ram_bytes":\([0-9]*\).*/\1/' <<<"$step")")
[[ $again == *'"decode":{'*'"tokens_per_second":'"${speed%\}}"','*'"decode_start"'* ]] || give_up "$step does not come true: $again"
floor=$(planned --ram 20MiB | sed 's/.*"floors":{[^}]*"kv":\([0-9]*\).*/\1/')
both_take $state --context 2k --ram 20MiB --kv-ram "$floor"
expect_exit 1 "--kv-ram is .*($floor bytes)" plan "$model" $state --context 2k --ram 20MiB --kv-ram $((floor - 1))
pass "plan: a share of KV grows with the RAM, and its floor is the least that run takes"

# Who only reads needs no state folder, and plan no room to measure in.
echo >"$work/no-folder"
"$program" ls --state "$work/no-folder/state" | grep -q "no models" || give_up "ls needs a folder"
TMPDIR=$work "$program" plan "$model" --context 1k --state "$work/no-folder/state" >"$work/elsewhere" 2>"$work/elsewhere.err" ||
  give_up "plan needs a folder: $(cat "$work/elsewhere.err")"
grep -q "^note: measured on the disk of $work and not kept: " "$work/elsewhere.err" || give_up "plan says nothing of where it measured"
ls "$work" | grep -q "^caravan-" && give_up "plan leaves $(ls "$work")"
[ ! -e "$work/fresh" ] || give_up "a folder of another test"
"$program" ls --state "$work/fresh" >/dev/null
[ ! -e "$work/fresh" ] || give_up "ls makes a state folder"
pass "ls and plan do without a state folder that can be written"

# Of a GGUF file the header does, wherever the file ends after it; nothing but plan takes it so.
"$program" plan "$model" $state --context 1k --ram 64MiB >"$work/whole"
full=$(stat -c %s "$model")
head -c $((full / 4)) "$model" >"$work/demo.gguf"
"$program" plan "$work/demo.gguf" $state --context 1k --ram 64MiB >"$work/header-alone" || give_up "the header is not enough for plan"
cmp -s "$work/whole" "$work/header-alone" || give_up "the header gives another plan: $(diff "$work/whole" "$work/header-alone")"
expect_exit 1 "lie past the file's end" run "$work/demo.gguf" --ids 1 -n 1 $state
head -c 1000 "$model" >"$work/demo.gguf"
expect_exit 1 "cut short or damaged" plan "$work/demo.gguf" $state
pass "plan: the header of a GGUF file is enough"

# A model of 400 thousand million weights: its header is all there is, the rest of the file is a hole.
huge=$work/huge
mkdir "$huge"
cat >"$huge/config.json" <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16384, "intermediate_size": 53248,
 "num_attention_heads": 128, "num_key_value_heads": 8, "num_hidden_layers": 126, "vocab_size": 128256,
 "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "hidden_act": "silu",
 "tie_word_embeddings": false, "torch_dtype": "bfloat16"}
END
awk 'function put(name, rows, columns) {
       bytes = 2 * rows * (columns ? columns : 1)
       printf "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%.0f,%.0f]}", at ? "," : "{", name,
              columns ? rows "," columns : rows, at, at + bytes
       at += bytes
     }
     BEGIN {
       put("model.embed_tokens.weight", 128256, 16384); put("model.norm.weight", 16384, 0)
       put("lm_head.weight", 128256, 16384)
       for (i = 0; i < 126; i++) {
         layer = "model.layers." i "."
         put(layer "input_layernorm.weight", 16384, 0); put(layer "post_attention_layernorm.weight", 16384, 0)
         put(layer "self_attn.q_proj.weight", 16384, 16384); put(layer "self_attn.k_proj.weight", 1024, 16384)
         put(layer "self_attn.v_proj.weight", 1024, 16384); put(layer "self_attn.o_proj.weight", 16384, 16384)
         put(layer "mlp.gate_proj.weight", 53248, 16384); put(layer "mlp.up_proj.weight", 53248, 16384)
         put(layer "mlp.down_proj.weight", 16384, 53248)
       }
       print "}"
       printf "%.0f", at > "/dev/stderr"
     }' >"$work/header" 2>"$work/bytes"
header_bytes=$(wc -c <"$work/header")
{
  for i in 0 8 16 24 32 40 48 56; do printf "\\$(printf %03o $((header_bytes >> i & 255)))"; done
  cat "$work/header"
} >"$huge/model.safetensors"
if truncate -s $((8 + header_bytes + $(cat "$work/bytes"))) "$huge/model.safetensors" 2>/dev/null; then
  since=$SECONDS
  "$program" plan "$huge" $state --ram 24GiB --context 8k >"$work/huge.out" 2>"$work/huge.err" ||
    give_up "the huge model has no plan: $(cat "$work/huge.err")"
  [ $((SECONDS - since)) -le 20 ] || give_up "planning the huge model took $((SECONDS - since)) s"
  grep -q "126.*streamed" "$work/huge.out" || give_up "the huge model's layers are not streamed: $(cat "$work/huge.out")"
  pass "a model of 756 GiB is planned from its header"
else
  echo "not here: a file of $(cat "$work/bytes") bytes, so the huge model is left out"
fi
rm -rf "$huge"

# --- Ctrl-C while the store is measured, which has a scratch folder by then ---
# A shell without job control has its background processes ignore SIGINT: SIGTERM is taken the same way.
"$program" calibrate --state "$work/ended" >/dev/null 2>"$work/ended.err" &
measuring=$!
scratch_is_there() { compgen -G "$work/ended/calibrate-*" >/dev/null; }
wait_for 30 "a scratch folder" scratch_is_there
kill -TERM "$measuring"
status=0
wait "$measuring" || status=$?
[ "$status" = 130 ] || give_up "calibrate ended with $status: $(cat "$work/ended.err")"
grep -q interrupted "$work/ended.err" || give_up "calibrate does not say that it was interrupted: $(cat "$work/ended.err")"
[ -z "$(ls "$work/ended")" ] || give_up "a calibration that was ended leaves $(ls "$work/ended")"
pass "a calibration that is ended leaves nothing"
echo "$passed checks of calibrate and plan passed"
