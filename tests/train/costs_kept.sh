#!/usr/bin/env bash
# Costs that plans are made from: in the run directory, kept by checkpoints, from a file, refused when bad.
. "$(dirname "$0")/../support/run.sh"
rm -rf a b c d e *.json
train() { # NAME RANKS ARGUMENTS
    local name=$1 n=$2
    shift 2
    ranks "$n" "$config" --run-dir "$name" --quiet --set checkpoint.interval=4 \
        --set 'schedule.kind="constant"' "$@"
}
costs() { # RUN: its numbers in one line
    python3 - "$1/costs.json" <<'PY'
import json, sys
costs = json.load(open(sys.argv[1]))
assert costs.pop("format") == "moetrain-costs" and costs.pop("format_version") == 1
costs.pop("origin")
print(json.dumps(costs, sort_keys=True))
PY
}
origin() { # RUN TEXT
    grep -q "\"origin\": \"$2" "$1/costs.json" || fail "$1: expected \"$2\" in $(cat "$1/costs.json")"
}
train a 3 --set train.steps=4 || fail "a ended with $?"
origin a 'measured (R = 3, M = 1, B = 2)'
first=$(costs a) || fail "a/costs.json"
# Resumed on as many ranks: the checkpoint's numbers, whatever lies in the run directory.
rm a/costs.json
train a 3 --set train.steps=8 || fail "resuming ended with $?"
origin a 'from the checkpoint'
[ "$(costs a)" = "$first" ] || fail "resuming changed the costs: $first, $(costs a)"
# A finished run changes nothing.
cp a/costs.json before.json
train a 3 --set train.steps=8 || fail "a finished run ended with $?"
cmp before.json a/costs.json || fail "a finished run wrote costs"
# On other ranks, in other nodes or paced otherwise they are measured again.
cp -r a b
train b 2 --set train.steps=10 || fail "b ended with $?"
origin b 'measured (R = 2'
cp -r a c
train c 3 --set train.steps=10 --set comm.ranks_per_node=2 || fail "c ended with $?"
origin c 'measured (R = 3, M = 2'
# What exchanges took is measured where there is a choice of them, and kept like the rest.
grep -q exchange_percent a/costs.json && fail "one node has nothing to choose: $(costs a)"
first=$(costs c)
train c 3 --set train.steps=12 --set comm.ranks_per_node=2 || fail "c ended with $?"
origin c 'from the checkpoint'
[ "$(costs c)" = "$first" ] || fail "resuming changed the costs: $first, $(costs c)"
case $first in *'"exchange_percent"'*) ;; *) fail "no exchange was timed: $first" ;; esac
# A file wins over the checkpoint, and gives what it says; without it they are measured again.
sed 's/"row_ps": [0-9]*/"row_ps": 4321/' before.json >mine.json
train a 3 --set train.steps=12 --set 'placement.costs="mine.json"' || fail "a with a file ended with $?"
origin a 'from mine.json'
costs a | grep -q '"row_ps": 4321' || fail "the file's numbers were not used: $(costs a)"
train a 3 --set train.steps=16 || fail "a without its file ended with $?"
origin a 'measured'
# The run directory's own costs, said to be used.
train d 2 --set train.steps=4 --set placement.costs="\"$PWD/a/costs.json\"" || fail "d ended with $?"
[ "$(costs d)" = "$(costs a)" ] || fail "d has other costs than its file"
# Bad files: one message that names file and key, code 3.
expect 3 'cannot read none.json: No such file.*placement.costs' train b 2 --set train.steps=20 \
    --set 'placement.costs="none.json"'
echo '{"format": "moetrain-costs"}' >bad.json
expect 3 'bad.json: the value of "format_version"' train b 3 --set train.steps=20 \
    --set 'placement.costs="bad.json"'
# No MoE layer: nothing to plan, nothing measured.
train e 2 --set train.steps=1 --set model.first_k_dense=2 --set model.dense_intermediate_size=32 ||
    fail "a dense model ended with $?"
[ ! -e e/costs.json ] || fail "a dense model has costs"
