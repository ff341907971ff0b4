#!/usr/bin/env bash
# The program as people and scripts meet it: commands and their mistakes, a ring that grows by a ticket, a demo whose
# processes die. Loopback only, free ports only.
#   run.sh CARAVAN WORK_FOLDER
set -euo pipefail
program=$1 work=$2/process
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
rm -rf "$work"
mkdir -p "$work"
started=$SECONDS
loopback="--api 127.0.0.1:0 --listen 127.0.0.1:0"

# --- Words that nobody knows ---
expect_exit 2 "did you mean 'serve'" serv
expect_exit 2 "did you mean '--prompt'" run "$model" --promt x
# What is close to nothing is likened to nothing.
expect_exit 2 "unknown command 'frobnicate'$" frobnicate
expect_exit 2 "unknown flag '--zzz'$" run "$model" --zzz 1
expect_exit 2 "did you mean '--temp'" run "$model" --temperature 1
expect_exit 2 "MODEL is required" run
# Numbers are taken as they are typed or not at all, and the error names the flag and its range.
expect_exit 2 "--tokens: '-4' is no integer from 0 to 4294967295" run "$model" --ids 1 -n -4
expect_exit 2 "--seed: '18446744073709551616' is no integer from 0 to 18446744073709551615" run "$model" --ids 1 \
  --seed 18446744073709551616
expect_exit 2 "--top-p: '1.5' is no number from 0 to 1" run "$model" --ids 1 --top-p 1.5
expect_exit 2 "--temp: 'nan' is no number from 0 to 100" run "$model" --ids 1 --temp nan
expect_exit 2 "--context: '0' is no integer from 1 to" run "$model" --ids 1 --context 0
expect_exit 2 "--temp: '3' is no number from 0 to 2" chat --temp 3
expect_exit 2 "--logits: standard output is for the text" run "$model" --ids 1 --logits -
expect_exit 1 "it is a folder" run "$model" --ids 1 --config "$work"
expect_exit 2 "name a command"
expect_exit 2 "nothing to tokenize" tokenize "$model"
expect_exit 2 "10 peers cannot share 9 layers" run "$model" --ids 1 --peers 10 --state "$work/run"
expect_exit 2 "is not among" run "$model" --ids 999999
echo 'thread = 2' >"$work/wrong.toml"
[[ $("$program" run --version) == caravan* ]] || give_up "a command tells no version"
expect_exit 2 "did you mean 'threads'" run "$model" --config "$work/wrong.toml" -p x
for command in run serve join invite demo status chat quantize tokenize inspect template calibrate plan bench; do
  "$program" "$command" --help >"$work/help" || give_up "$command --help fails"
  grep -q "^Examples:" "$work/help" || give_up "$command --help gives no example"
done
"$program" run --help >"$work/help"
pass "mistakes on the command line end with 2 and name what was meant; each command's help has examples"

# --- run ---
alone=$("$program" run "$model" -p "Once upon a time" -n 16 --temp 0 2>/dev/null)
[ -n "$alone" ] || give_up "run prints nothing"
[ "$alone" = "$("$program" run "$model" -p "Once upon a time" -n 16 --top-p 0 --seed 18446744073709551615 --stop "" 2>/dev/null)" ] ||
  give_up "--top-p 0 is not the likeliest token, or an empty --stop stops"
[ -z "$("$program" run "$model" -p "Once upon a time" -n 0 2>/dev/null)" ] || give_up "-n 0 prints a text"
json=$("$program" run "$model" --ids 1 -n 5 --temp 0 --json --kv-type f16 --context 64 --threads 100 2>/dev/null)
# Its help names every key, and no other one.
keys=$(sed 's/"plan":{[^}]*}/"plan":0/; s/"text":"[^"]*"/"text":0/' <<<"$json" | grep -o '"[a-z_]*":' | tr -d '":')
[ "$(wc -l <<<"$keys")" -ge 17 ] || give_up "run --json has but: $keys"
described=$(tr -s '\n ' ' ' <"$work/help" | sed 's/.*print one object: //; s/ --logits.*//; s/([^)]*)//g; s/ and /, /; s/ //g' | tr , '\n')
[ "$(sort <<<"$keys")" = "$(sort <<<"$described")" ] || give_up "run --help describes $described, run --json has $keys"
[ "$(grep -o '"token_ms":\[[^]]*\]' <<<"$json" | tr -cd , | wc -c)" = 4 ] || give_up "not one token_ms a token: $json"
"$program" run "$model" --ids 1,2,3 -n 0 --logits "$work/logits" >/dev/null 2>&1
[ "$(wc -c <"$work/logits")" = $((3 * 4096 * 4)) ] || give_up "--logits writes another shape"
expect_exit 2 "the context holds 8" run "$model" -p "Once upon a time there was a little girl" --context 8 -n 1
expect_exit 1 "the least --disk for this model and context is [0-9.]* GiB" run "$model" --ids 1 -n 1 --context 16000000 --disk 1GiB
expect_exit 1 "the least --disk for a ring of 2 peers and this context is [0-9.]* GiB" run "$model" --ids 1 -n 1 \
  --context 16000000 --disk 1GiB --peers 2 --state "$work/run"
"$program" run "$model" --ids "$(seq -s, 1 300)" -n 0 --isa scalar --threads 1 >/dev/null 2>"$work/prefill.err"
grep -q "^prefill: 256 tokens of 300 tokens" "$work/prefill.err" || give_up "a long prompt shows no progress"
"$program" run "$model" --ids 1,2,3 -n 4 --temp 0 --ram 64MiB --json >"$work/fits" 2>/dev/null
grep -q '"weights":"mapped"' "$work/fits" || give_up "weights that fit are not mapped"
"$program" run "$model" --ids 1,2,3 -n 4 --temp 0 --threads 2 --ram 14MiB --context 64 --json >"$work/streamed" 2>/dev/null
grep -q '"weights":"streamed"' "$work/streamed" || give_up "weights over --ram are not streamed: $(cat "$work/streamed")"
grep -q '"weights_streamed":{"prompt":{"read_bytes":[0-9]*,"read_seconds":[0-9.e-]*,"hidden":[0-9n].*"tokens":{"read_bytes":[1-9]' "$work/streamed" ||
  give_up "--json does not tell prompt and tokens apart: $(cat "$work/streamed")"
grep -q '"weights_streamed":null' "$work/fits" || give_up "mapped weights are streamed: $(cat "$work/fits")"
for tokens in 1 4; do
  "$program" run "$model" --ids 1,2,3 -n $tokens --temp 0 --ignore-end --threads 2 --ram 14MiB --context 64 >/dev/null 2>"$work/streamed.err"
  grep -q "^weights streamed (.*): prompt: .* read in" "$work/streamed.err" || give_up "no share of the prompt: $(cat "$work/streamed.err")"
  [ $tokens = "$(grep -q "; tokens: .* read in .* % of it beside computing$" "$work/streamed.err" && echo 4 || echo 1)" ] ||
    give_up "$tokens tokens: $(cat "$work/streamed.err")"
done
# The memory of whoever starts it does not count.
(held=$(head -c $((200 << 20)) /dev/zero | tr '\0' x) && exec "$program" run "$model" --ids 1,2,3 -n 4 --ram 14MiB --context 64 --json) >"$work/started" 2>/dev/null
[ "$(grep -o '"peak_memory_bytes":[0-9]*' "$work/started" | cut -d: -f2)" -lt $((100 << 20)) ] ||
  give_up "the memory of the program that started it is counted: $(cat "$work/started")"
ids_of() { grep -o '"ids":[^]]*]' "$1"; }
[ "$(ids_of "$work/fits")" = "$(ids_of "$work/streamed")" ] || give_up "another budget gives other ids"
# What cannot run is told in one line that names the flag or the file and the way out.
one_line() { [ "$(grep -c . "$work/last.err")" = 1 ] || give_up "not one line: $(cat "$work/last.err")"; }
expect_exit 1 "--ram is 4 MiB, the least for this model and context is" run "$model" --ids 1 -n 1 --ram 4MiB
expect_exit 1 "--ram is 1 KiB, the least" run "$model" --ids 1 -n 1 --ram 1KiB
one_line
named() { sed 's/.*(\([0-9]*\) bytes).*/\1/' "$work/last.err"; }
named_runs() { # WHAT ARGUMENTS...: what the error named
  local what=$1
  shift
  "$program" run "$model" --ids 1,2,3 -n 2 --temp 0 "$@" >/dev/null 2>"$work/least.err" ||
    give_up "the least $what does not run: $(cat "$work/least.err")"
}
least=$(named)
named_runs --ram --ram "$least"
expect_exit 1 "--ram is .*, the least for this model and context is .*($least bytes)" run "$model" --ids 1 -n 1 --ram $((least - 1))
one_line
# A ring tells it of all its processes, before any peer starts.
for peers in 1 3; do
  expect_exit 1 "^caravan: --ram is 1 MiB, the least for a ring of $peers peers\? and this context is .* bytes)$" run "$model" --ids 1 \
    -n 1 --ram 1MiB --peers "$peers" --state "$work/run"
  one_line
  least=$(named)
  named_runs --ram --ram "$least" --peers "$peers" --state "$work/run"
  expect_exit 1 "--ram is .*, the least .*($least bytes)" run "$model" --ids 1 -n 1 --ram $((least - 1)) --peers "$peers" --state "$work/run"
done
expect_exit 1 "^caravan: --ram is 8 MiB, the least for a ring of 3 peers and this context is .*($least bytes)$" demo --ram 8MiB \
  --api 127.0.0.1:0 --state "$work/run"
one_line
for ring in "" "--peers 2"; do
  for budget in 1KiB 1000KiB; do
    expect_exit 1 "^caravan: --kv-ram is $(sed 's/\(.*\)KiB/\1 KiB/; s/1000 KiB/0.977 MiB/' <<<$budget), the least for .* bytes)$" run "$model" --ids 1 -n 1 \
      --kv-ram $budget --state "$work/run" $ring
    one_line
  done
  least=$(named)
  named_runs --kv-ram --kv-ram "$least" --state "$work/run" $ring
  expect_exit 1 "--kv-ram is .*($least bytes)" run "$model" --ids 1 -n 1 --kv-ram $((least - 1)) --state "$work/run" $ring
  # What KV takes of the disk, with an archive beside it.
  expect_exit 1 "^caravan: of disk .* are left for KV .*, the least --disk for .* bytes)$" run "$model" --ids 1 -n 1 --kv-ram 2MiB \
    --disk 1MiB --state "$work/run" $ring
  one_line
  least=$(named)
  named_runs --disk --disk "$least" --kv-ram 2MiB --state "$work/run" $ring
  expect_exit 1 "the least --disk .*($least bytes)" run "$model" --ids 1 -n 1 --kv-ram 2MiB --disk $((least - (3 << 20))) \
    --state "$work/run" $ring
done
# Ones in place of the last tensor's numbers are NaN in every format.
size=$(stat -c %s "$model")
{ head -c $((size - 2048)) "$model"; head -c 2048 /dev/zero | tr '\0' '\377'; } >"$work/nan.gguf"
for ring in "" "--peers 2"; do
  expect_exit 1 "^caravan: .*nan.gguf: tensor [a-z0-9_.]* ([a-z0-9.]*) holds values that are not finite" run "$work/nan.gguf" \
    --ids 1 -n 1 --archive 0 --state "$work/run" $ring
  one_line
done
if [ -c /dev/full ]; then
  "$program" run "$model" --ids 1 -n 8 >/dev/full 2>"$work/full.err" && give_up "a full disk under standard output passes unnoticed"
  grep -q "standard output cannot be written" "$work/full.err" || give_up "a full disk is not told: $(cat "$work/full.err")"
  for words in --help --version "run --help"; do
    "$program" $words >/dev/full 2>"$work/full.err" && give_up "$words on a full disk passes unnoticed"
    grep -q "standard output cannot be written" "$work/full.err" || give_up "a full disk is not told to $words"
  done
fi
expect_exit 2 "add --peers" run "$model" --ids 1 --codec int8
cp "$model" "$work/own.gguf"
expect_exit 2 "is the source itself" quantize "$work/own.gguf" "$work/own.gguf" --force
echo kept >"$work/there.gguf"
expect_exit 1 "--force writes over it" quantize "$model" "$work/there.gguf"
[ "$(cat "$work/there.gguf")" = kept ] || give_up "quantize wrote over what was there"
"$program" quantize "$model" "$work/there.gguf" --type q4_0 --force 2>/dev/null || give_up "quantize --force fails"
"$program" quantize "$model" "$work/there.gguf" --type q4_0 2>/dev/null || give_up "quantize does not replace what it wrote itself"
head -c 200 "$model" >"$work/cut.gguf"
expect_exit 1 "cut.gguf: the header: cut short or damaged: the file ends at byte 200" run "$work/cut.gguf" --ids 1
# Bytes as they are for scripts; 2 is for the command line, 1 for what the files hold.
[ "$("$program" tokenize "$model" --decode 2404,632 | od -c | tail -n 2)" = \
  "$(printf %s "$("$program" tokenize "$model" --decode 2404,632)" | od -c | tail -n 2)" ] || give_up "--decode adds to the text"
echo "{{ raise_exception('no') }}" >"$work/raises.jinja"
echo "{% if %}" >"$work/broken.jinja"
echo "{}" >"$work/empty.json"
echo "{ nothing" >"$work/broken.json"
expect_exit 1 "no" template "$work/raises.jinja" "$work/empty.json"
expect_exit 1 "broken.jinja" template "$work/broken.jinja" "$work/empty.json"
expect_exit 1 "not a regular file" template "$work" "$work/empty.json"
expect_exit 1 "template input, byte .*: line 1, column 4: syntax error" template "$work/raises.jinja" "$work/broken.json"
! grep -q "json.exception" "$work/last.err" || give_up "the JSON library speaks: $(cat "$work/last.err")"
expect_exit 2 "INPUT is required" template "$work/raises.jinja"
# KV for 32 blocks in 3 frames and in 5 of them, alone and in a ring.
many=$(seq -s, 1 900)
"$program" run "$model" --ids "$many" -n 8 --temp 0 --ignore-end --context 1024 --archive 0 --json >"$work/kv-all" 2>/dev/null
grep -q '"kv_bytes_written":0,"kv_bytes_read":0,' "$work/kv-all" || give_up "KV that fits goes to disk"
for budget in 2MiB 2560KiB; do
  "$program" run "$model" --ids "$many" -n 8 --temp 0 --ignore-end --context 1024 --kv-ram $budget --state "$work/kv" --json \
    >"$work/kv-few" 2>/dev/null
  [ "$(ids_of "$work/kv-all")" = "$(ids_of "$work/kv-few")" ] || give_up "--kv-ram $budget gives other ids"
  grep -q '"kv_bytes_read":[1-9]' "$work/kv-few" || give_up "--kv-ram $budget reads nothing back: $(cat "$work/kv-few")"
  grep -q '"kv_blocks":32,"kv_frames":[35],' "$work/kv-few" || give_up "the plan is $(cat "$work/kv-few")"
done
# Beside the archive and its key, which are meant to stay.
left_in() { { ls -A "$1"; ls -A "$1/keys" 2>/dev/null; } | grep -v '^archive\|^keys$' || true; }
[ -z "$(left_in "$work/kv")" ] || give_up "run leaves $(left_in "$work/kv") in its state folder"
"$program" run "$model" --ids "$many" -n 8 --temp 0 --ignore-end --context 1024 --kv-ram 1536KiB --peers 2 --codec f32 \
  --state "$work/kv" --json >"$work/kv-ring" 2>/dev/null
[ "$(ids_of "$work/kv-all")" = "$(ids_of "$work/kv-ring")" ] || give_up "a ring with --kv-ram gives other ids"
pass "run --kv-ram: KV on disk and back, the same ids, and nothing is left behind"
# What is archived is counted to the end, and so is what peers did: 11 blocks of 32 positions, 9216 bytes each.
counted=$work/counted.json
first_of() { grep -o "\"$1\":[0-9]*" "$counted" | head -1 | cut -d: -f2; }
of_peers() { grep -o '"peers":.*' "$counted" | grep -o "\"$1\":[0-9]*" | cut -d: -f2 | awk '{ sum += $1 } END { print sum + 0 }'; }
for ring in "" "--peers 2"; do
  "$program" run "$model" --ids "$(seq -s, 1 350)" -n 4 --temp 0 --ignore-end $ring --state "$work/counted" --json >"$counted" 2>/dev/null
  archived=$(first_of kv_bytes_archived)
  [ "$archived" -ge $((11 * 32 * 9216)) ] || give_up "run $ring archived $archived bytes: $(cat "$counted")"
  [ "$(first_of disk_bytes)" -ge "$archived" ] || give_up "what run $ring archived is in no sum: $(cat "$counted")"
done
[ "$(of_peers kv_bytes_archived)" = "$archived" ] || give_up "of what the peers archived something is left out: $(cat "$counted")"
[ "$(of_peers peak_memory_bytes)" -gt 0 ] && [ "$(first_of peak_memory_bytes)" -gt "$(of_peers peak_memory_bytes)" ] ||
  give_up "memory of the head or of its peers is left out: $(cat "$counted")"
pass "run --json counts what is archived until it ends, and what its peers did"
pass "run: text, -n 0, --json, --logits, --kv-type, --context, progress, --ram"

# --- A store that is damaged names the file and the way out ---
"$program" import "$model" --state "$work/store" >/dev/null 2>&1 || give_up "import fails"
echo rubbish >"$work/store/store/CARAVAN"
for command in ls verify "run demo --ids 1 -n 1" "import $model"; do
  expect_exit 1 "$work/store/store/CARAVAN says \"rubbish\", where \"caravan store 1\" was expected.*move the folder $work/store/store away and import again" \
    $command --state "$work/store"
done
echo "caravan store 1" >"$work/store/store/CARAVAN"
"$program" ls --state "$work/store" | grep -q demo || give_up "a store that is mended is not read"
for list in "$work"/store/store/MANIFEST-*; do echo nonsense >"$list"; done
for command in ls verify "run demo --ids 1 -n 1" "import $model" "serve demo $loopback"; do
  expect_exit 1 "the store $work/store/store is damaged.*move the folder $work/store/store away and import again" $command \
    --state "$work/store"
done
# What needs nothing of it goes on without it.
launch beside serve "$model" --no-calibrate $loopback --state "$work/store"
wait_for 20 "an answer beside a damaged store" is_ready "$work/store"
grep -q "store_left_out.*move the folder $work/store/store away" "$work/beside.err" || give_up "serve says nothing of a damaged store: $(cat "$work/beside.err")"
kill -INT "$launched"
wait "$launched" || give_up "serve beside a damaged store ended with $?: $(cat "$work/beside.err")"
mv "$work/store/store" "$work/store-damaged"
"$program" import "$model" --state "$work/store" >/dev/null 2>&1 && "$program" run demo --ids 1 -n 1 --state "$work/store" >/dev/null 2>&1 ||
  give_up "the way out of a damaged store does not lead out"
pass "a damaged store names file and way out, and the way out works"

# --- A table that is damaged outside its values, cut short or gone costs what is in it, and verify mends that ---
rm -rf "$work/store"
flip() { # FILE OFFSET
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
  printf "\\$(printf %03o $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
"$program" import "$model" --copy --state "$work/store" >"$work/import" 2>&1 || give_up "import fails: $(cat "$work/import")"
copied=$(sed -n 's/.* groups, \([^,]*\), copied (.* to hash, \(.*\) copied).*/\1=\2/p' "$work/import")
[ -n "$copied" ] && [ "${copied%=*}" = "${copied#*=}" ] || give_up "import counts what is stored once twice: $(cat "$work/import")"
for damage in footer cut gone; do
  table=$(ls -S "$work"/store/store/*.sst | head -1)
  case $damage in
    footer) flip "$table" $(($(stat -c %s "$table") - 200)) ;;
    cut) truncate -s -100000 "$table" ;;
    gone) rm "$table" ;;
  esac
  for command in ls "run demo -p Once -n 3 --temp 0" "import $model --copy" verify; do
    "$program" $command --state "$work/store" >"$work/damaged.out" 2>"$work/damaged.err" || give_up "$command with a table that is damaged ($damage): $(cat "$work/damaged.err")"
  done
  grep -q "mended: written again from $model" "$work/damaged.out" || give_up "verify mends no table ($damage): $(cat "$work/damaged.out")"
  [ "$("$program" verify --state "$work/store" 2>&1)" = "demo: good" ] || give_up "verify does not mend all ($damage): $("$program" verify --state "$work/store" 2>&1)"
  [ ! -e "$table" ] || give_up "the damaged table is still there ($damage)"
done
pass "a damaged table is read from the file meanwhile, and mended by verify"
# Where the model's own file is gone, another model's that has the same content does as well.
away=$work/away
mkdir -p "$away"
cp "$model" "$away/x.gguf"
"$program" import "$away/x.gguf" --copy --state "$away" >/dev/null 2>&1 || give_up "import fails"
same=$("$program" run x -p Once -n 3 --temp 0 --state "$away" 2>/dev/null)
rm "$away/x.gguf"
flip_table() {
  local table
  table=$(ls -S "$away"/store/*.sst | head -1)
  flip "$table" $(($(stat -c %s "$table") / 2))
}
flip_table
expect_exit 1 "import the model again from a good file, under any name, and caravan verify mends it" run x -p Once -n 3 --state "$away"
cp "$model" "$away/y.gguf"
"$program" import "$away/y.gguf" --state "$away" >/dev/null 2>&1 || give_up "import fails"
[ "$("$program" run x -p Once -n 3 --temp 0 --state "$away" 2>"$work/damaged.err")" = "$same" ] || give_up "another model's file is not read: $(cat "$work/damaged.err")"
"$program" verify x --state "$away" >"$work/damaged.out" 2>&1 || give_up "another model's file mends nothing: $(cat "$work/damaged.out")"
grep -q "mended: written again from $away/y.gguf" "$work/damaged.out" || give_up "verify says: $(cat "$work/damaged.out")"
rm "$away/y.gguf"
flip_table
"$program" verify x --state "$away" >/dev/null 2>&1 && give_up "what is damaged and nowhere else passes for good"
cp "$model" "$away/z.gguf"
"$program" import "$away/z.gguf" --copy --state "$away" >/dev/null 2>&1 || give_up "import fails"
rm "$away/z.gguf"
[ "$("$program" verify x --state "$away" 2>&1)" = "x: good" ] || give_up "a copy does not write anew what verify called damaged"
[ "$("$program" run x -p Once -n 3 --temp 0 --state "$away" 2>"$work/damaged.err")" = "$same" ] || give_up "mended, x runs to another text: $(cat "$work/damaged.err")"
rm -rf "$away"
pass "a damaged group is read and mended from another model's file, and written anew by an import that copies"
# Records are there twice: either of their tables may be damaged.
text=$("$program" run demo -p Once -n 8 --temp 0 --state "$work/store" 2>/dev/null)
told=0
for record in $(find "$work/store/store" -name '*.sst' -size +64k -size -170k); do # those of weights are larger
  [ -e "$record" ] || continue
  flip "$record" $(($(stat -c %s "$record") / 2))
  [ "$("$program" run demo -p Once -n 8 --temp 0 --state "$work/store" 2>"$work/record.err")" = "$text" ] ||
    give_up "a damaged record costs the text: $(cat "$work/record.err")"
  grep -q "store_damaged.*their copy is read" "$work/record.err" && told=$((told + 1))
  "$program" verify --state "$work/store" >"$work/record.out" 2>"$work/record.err" || give_up "verify does not do with a damaged record: $(cat "$work/record.err")"
  grep -q "store_mended.*written anew" "$work/record.err" || give_up "records are mended without a word: $(cat "$work/record.err")"
  [ ! -e "$record" ] || give_up "the damaged table of records is still there"
  [ "$("$program" verify --state "$work/store" 2>&1)" = "demo: good" ] || give_up "records are not mended"
done
[ "$told" = 1 ] || give_up "of the tables of records $told were read around, not the one that is read first"
pass "a damaged table of records is read around, and written anew by who writes next"

# --- Interrupted work leaves nothing ---
interrupt() { # NAME: signals the program, expects 130 within 3 s
  sleep 0.7
  kill -INT "$launched"
  local status=0 since=$SECONDS
  wait "$launched" || status=$?
  [ "$status" = 130 ] || give_up "$1 ended with $status on Ctrl-C, not 130: $(cat "$work/$1.err")"
  [ $((SECONDS - since)) -le 3 ] || give_up "$1 took $((SECONDS - since)) s to end"
}
interruptible() { # NAME ARGUMENTS...: like launch, but with SIGINT as a terminal would leave it
  local name=$1
  shift
  # A shell without job control starts what runs in the background with SIGINT ignored.
  set -m
  launch "$name" "$@"
  set +m
}
interruptible run-alone run "$model" -p Once -n 1000000 --ignore-end --context 16384 --isa scalar
interrupt run-alone
interruptible run-spill run "$model" -p Once -n 1000000 --ignore-end --context 16384 --kv-ram 2MiB --state "$work/spill"
interrupt run-spill
[ -z "$(left_in "$work/spill")" ] || give_up "an interrupted run leaves $(left_in "$work/spill")"
interruptible run-ring run "$model" -p Once -n 1000000 --ignore-end --context 16384 --peers 2 --state "$work/run"
interrupt run-ring
[ -z "$(left_in "$work/run")" ] || give_up "an interrupted ring leaves $(left_in "$work/run")"
pass "Ctrl-C ends run at once with 130, and the folders of its ring go"

# --- serve, invite, join ---
stages_are() { [ "$(number_of_stages "$1")" = "$2" ]; }
ask='{"prompt":"Once upon a time","max_tokens":16,"temperature":0}'
answer() { http "$(api_of "$1")" POST /v1/completions "$ask" | sed -n 's/.*"text":"\([^"]*\)".*/\1/p'; }

expect_exit 1 "caravan serve MODEL" status --state "$work/head"
expect_exit 1 "caravan serve MODEL" invite --state "$work/head"
expect_exit 1 "api-key" serve "$model" --api 0.0.0.0:0 --listen 127.0.0.1:0 --state "$work/head"
! grep -q measuring "$work/last.err" || give_up "a key that is missing is told late: $(cat "$work/last.err")"
launch head serve "$model" --no-calibrate $loopback --codec f32 --name tale --kv-type f16 --peer-timeout 2 --state "$work/head"
head=$launched
wait_for 10 "the head's answer" is_ready "$work/head"
grep -q "^API at http://$(api_of "$work/head") " "$work/head.out" || give_up "serve does not print its address"
[[ $(http "$(api_of "$work/head")" GET /v1/models) == *'"id":"tale"'* ]] || give_up "--name is not the model's id"
before=$(answer "$work/head")
[ "$before" = "$alone" ] || give_up "the API continues with '$before', run with '$alone'"
# Another one of that folder ends before it measures anything.
since=$SECONDS
expect_exit 1 "$work/head/store is held by another process; use another folder with --state DIR" serve "$model" $loopback \
  --state "$work/head"
[ $((SECONDS - since)) -le 3 ] && ! grep -q measuring "$work/last.err" || give_up "a folder in use is told late: $(cat "$work/last.err")"
is_ready "$work/head" || give_up "a second serve disturbs the first"
pass "serve: /health, --name, the text of run, and a folder in use is told at once"

"$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null
[[ $(cat "$work/ticket") == caravan1:* ]] || give_up "invite prints no ticket"
"$program" quantize "$model" "$work/other.gguf" --type q4_0 2>/dev/null
expect_exit 1 "the head runs model" join "$(cat "$work/ticket")" --no-calibrate --model "$work/other.gguf" --listen 127.0.0.1:0 \
  --state "$work/other"
pass "join with another model ends with an error about the fingerprint"
"$program" invite --state "$work/head" >"$work/ticket" 2>/dev/null
launch peer join "$(cat "$work/ticket")" --no-calibrate --model "$model" --listen 127.0.0.1:0 --name second --state "$work/peer"
peer=$launched
wait_for 10 "the ring's growth" stages_are "$work/head" 2
wait_for 10 "the grown ring" is_ready "$work/head"
[ "$(answer "$work/head")" = "$alone" ] || give_up "two machines continue with another text"
"$program" status --state "$work/head" | grep -q "^second" || give_up "status does not name the second peer"
grep -q "hosts layers" "$work/peer.err" || give_up "join does not say what it hosts"
pass "a peer that joins by ticket takes layers, and the text stays the same"
# Before it knows what it is to host, it is told the least for any of it; the ring's context takes more.
for given in "--model $model" ""; do
  "$program" invite --state "$work/head" >"$work/small.ticket" 2>/dev/null
  expect_exit 1 "^caravan: --ram is 1 MiB, the least for a layer of this model, however short the context, is .* bytes)$" \
    join "$(cat "$work/small.ticket")" $given --listen 127.0.0.1:0 --state "$work/small" --ram 1MiB
done
least=$(($(named) + (4 << 20)))
launch small join "$(cat "$work/small.ticket")" --no-calibrate --listen 127.0.0.1:0 --state "$work/small" --ram "$least" --name small
small=$launched
wait_for 10 "a third stage" stages_are "$work/head" 3
wait_for 10 "the ring with the small peer" is_ready "$work/head"
[ "$(answer "$work/head")" = "$alone" ] || give_up "the peer with the least --ram gives another text"
kill -9 "$small"
wait_for 10 "the ring without the small peer" stages_are "$work/head" 2
wait_for 10 "the ring without the small peer" is_ready "$work/head"
pass "a peer with too little --ram is told the least, and with more for the context it hosts layers"
expect_exit 1 "used, expired or not its own" join "$(cat "$work/ticket")" --model "$model" --listen 127.0.0.1:0 \
  --state "$work/thief"
forged=$(sed 's/^\(caravan1:.\{60\}\)\(.\)/\1_/' "$work/ticket")
expect_exit 2 "no ticket" join "$forged" --model "$model" --listen 127.0.0.1:0 --state "$work/thief"
grep -q stranger_refused "$work/head.err" || give_up "the stranger's key was not logged"
[ "$(answer "$work/head")" = "$alone" ] || give_up "a stranger disturbed the ring"
pass "a used ticket and a forged one are refused, and the head logs the key"
kill -9 "$peer"
wait_for 10 "the ring without the lost peer" stages_are "$work/head" 1
wait_for 10 "the ring without the lost peer" is_ready "$work/head"
launch peer-again join "$(cat "$work/ticket")" --no-calibrate --model "$model" --listen 127.0.0.1:0 --state "$work/peer"
wait_for 10 "the return of the peer" stages_are "$work/head" 2
pass "a killed peer is taken out, and may come back with its old ticket"
[ -n "$(echo Hello | timeout 20 "$program" chat --state "$work/head" --temp 0)" ] || give_up "chat says nothing"
pass "chat finds the daemon through the state folder"
kill -INT "$head"
wait "$head" || give_up "serve ended with $?"
[ ! -e "$work/head/running.json" ] || give_up "serve leaves running.json"
pass "serve ends on Ctrl-C and takes its file away"

# --- A disk that breaks, and a prompt that comes again ---
# KV of a request lies on disk when its tables are overwritten: the request is filled again from its tokens.
long="{\"prompt\":[$(seq -s, 1 900)],\"max_tokens\":100,\"temperature\":0,\"stream\":true,\"logit_bias\":{\"2\":-100}}"
texts() { sed -n 's/^data: .*"text":"\(.*\)","logprobs".*/\1/p' "$1" | tr -d '\n'; }
metric() { http "$(api_of "$1")" GET /metrics | sed -n "s/^$2 //p" | tr -d '\r'; }
launch broken serve "$model" --no-calibrate $loopback --context 1024 --kv-ram 2560KiB --archive 0 --threads 2 --state "$work/broken"
broken=$launched
wait_for 10 "the head's answer" is_ready "$work/broken"
http "$(api_of "$work/broken")" POST /v1/completions "$long" >"$work/long" &
asking=$!
wait_for 20 "the first tokens" grep -q '"text"' "$work/long"
damaged=0
for table in "$work"/broken/kv/"$broken"/store/*.sst; do
  blocks=$((($(stat -c %s "$table" 2>/dev/null || echo 0) + 65535) / 65536))
  # Tables that are given back meanwhile are left alone.
  [ "$blocks" -gt 0 ] || continue
  dd if=/dev/zero of="$table" bs=64k count="$blocks" conv=notrunc,nocreat 2>/dev/null && damaged=$((damaged + 1))
done
[ "$damaged" -gt 0 ] || give_up "no KV lies on disk"
wait "$asking" || true
grep -q "sequence_lost.*KV store" "$work/broken.err" || give_up "the damage was not felt: $(cat "$work/broken.err")"
grep -q "^data: \[DONE\]" "$work/long" || give_up "damaged KV ends the request: $(tail -c 400 "$work/long")"
[ "$(answer "$work/broken")" = "$alone" ] || give_up "another request suffers from damaged KV"
http "$(api_of "$work/broken")" POST /v1/completions "$long" >"$work/again"
[ "$(texts "$work/long")" = "$(texts "$work/again")" ] || give_up "the text after damage is another"
[ "$(metric "$work/broken" caravan_reused_tokens_total)" = 896 ] ||
  give_up "of 900 tokens seen before $(metric "$work/broken" caravan_reused_tokens_total) were not computed again"
[ "$(metric "$work/broken" caravan_kv_disk_read_bytes_total)" != 0 ] || give_up "/metrics counts no KV from disk"
kill -INT "$broken"
wait "$broken" || give_up "serve ended with $?"
[ ! -e "$work/broken/kv" ] || give_up "serve leaves $(ls -R "$work/broken/kv")"
pass "KV damaged on disk is computed again to the same text; a prompt that comes again is not"

# --- demo ---
all_gone() { for one in "$@"; do ! kill -0 "$one" 2>/dev/null || return 1; done; }
for signal in INT TERM KILL; do
  launch "demo-$signal" demo --peers 2 --api 127.0.0.1:0 --state "$work/demo"
  demo=$launched
  wait_for 10 "the demo's address" grep -q "^API at http://" "$work/demo-$signal.out"
  family=($(pgrep -P "$demo"))
  [ "${#family[@]}" = 2 ] || give_up "demo --peers 2 has ${#family[@]} children"
  if [ "$signal" = KILL ]; then
    kill -9 "${family[0]}"
    wait_for 5 "the announcement of the dead child" grep -q "was killed by signal 9" "$work/demo-KILL.err"
    wait_for 10 "the ring without it" stages_are "$work/demo" 1
    wait_for 10 "the ring without it" is_ready "$work/demo"
  fi
  kill "-$signal" "$demo"
  wait "$demo" 2>/dev/null || true
  wait_for 5 "the children's end after $signal" all_gone "${family[@]}"
done
pass "demo: its children end with it, a dead one is announced, and the ring forms again"

# A head that was killed leaves its file; the next one takes over, and says what it is not.
expect_exit 1 "no daemon is running" status --state "$work/demo"
echo "$passed checks of the processes passed in $((SECONDS - started)) s"
