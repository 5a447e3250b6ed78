#!/usr/bin/env bash
# Training in bfloat16: a run repeats bit for bit, on any number of threads too; every policy gives ep's
# training on 1, 2 and 4 ranks; checkpoints hold float32 parameters, from which either type goes on.
#
# The first step differs in the order of sums only, as in float32. Later ones also where a difference in the last
# bit of a float makes rounding to bfloat16 go the other way, 2^-8 of it: losses within 5e-4 (6e-5 measured).
. "$(dirname "$0")/../support/run.sh"
rm -rf a b t* p* f* mixed
bf16=(--quiet --set 'device.dtype="bfloat16"' "${costs[@]}")
train() { # NAME RANKS ARGUMENTS
    local name=$1 n=$2
    shift 2
    ranks "$n" "$config" --run-dir "$name" "${bf16[@]}" "$@" || fail "$name ended with $?"
}

for name in a b; do
    train $name 3 --set checkpoint.interval=10
done
metrics same a/metrics.jsonl b/metrics.jsonl
for file in a/checkpoints/step-00000020/shard-*.h5; do
    cmp "$file" "${file/#a/b}" || fail "checkpoints differ"
done
for threads in 1 2 3; do
    train "t$threads" 1 --set device.threads=$threads
    metrics same t1/metrics.jsonl "t$threads/metrics.jsonl"
done
grep -q bfloat16 a/*.log a/metrics.jsonl a/* 2>/dev/null || fail "no file of the run says bfloat16"

common=(--set train.steps=20 --set 'moe.balance.window="exact"' --set moe.balance.loss_coef=0.05 --set model.init_std=0.3
    --set placement.reshard_interval=4)
train p.ep.1 1 "${common[@]}" --set 'placement.policy="ep"'
for n in 1 2 4; do
    [ $n = 1 ] || train p.ep.$n $n "${common[@]}" --set 'placement.policy="ep"'
    metrics close p.ep.1/metrics.jsonl p.ep.$n/metrics.jsonl 1e-6 5e-4
    for policy in fsdp fssdp smartmoe fsep quota adaptive; do
        slots=$([ $policy = fsdp ] && echo '"auto"' || echo 3)
        train p.$policy.$n $n "${common[@]}" --set "placement.policy=\"$policy\"" --set "placement.slots=$slots" \
            --set train.micro_batch_size=2
        metrics close p.ep.1/metrics.jsonl p.$policy.$n/metrics.jsonl 1e-6 5e-4
    done
done

# The other type goes on from a checkpoint, says so, and its loss is near.
train f 2 --set 'device.dtype="float32"' --set checkpoint.interval=10
train g 2 --set checkpoint.interval=10
for pair in f.bfloat16 g.float32; do
    from=${pair%.*}
    rm -rf mixed && mkdir mixed && cp -r "$from/checkpoints" mixed/checkpoints && rm -r mixed/checkpoints/step-00000020
    ranks 2 "$config" --run-dir mixed "${costs[@]}" --set "device.dtype=\"${pair#*.}\"" >out.txt 2>&1 ||
        fail "$pair ended with $?: $(tail -n 3 out.txt)"
    grep -q 'device.dtype: ' out.txt || fail "the change of type is not told: $(cat out.txt)"
    metrics steps mixed/metrics.jsonl 11 20
    python3 - "$from" <<PY || fail "$pair: losses differ"
import json, sys
read = lambda p: {l["step"]: l["loss"] for l in map(json.loads, open(p)) if "loss" in l}
a, b = read(sys.argv[1] + "/metrics.jsonl"), read("mixed/metrics.jsonl")
assert all(abs(a[s] - b[s]) / a[s] < 2e-3 for s in b), [(a[s], b[s]) for s in b]
PY
done
echo ok
