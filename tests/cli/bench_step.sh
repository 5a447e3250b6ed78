#!/usr/bin/env bash
# `moetrain bench step`: the trainer's own step on any number of ranks, with the FLOPs that the model
# has by its formula, and nothing left behind.
. "$(dirname "$0")/refuse.sh"
rm -rf ./*
few=(--steps 2 --warm-up 1)

# Products of a step add up to the formula, whatever the ranks and the model. With costs that are given: by those of a
# machine that is held up the hot rank may keep more rows than it has room for, and computes some again.
given="placement.costs=\"$MT_SOURCE/tests/support/costs.json\""
variants=("" "model.qk_norm=\"head\" model.tie_word_embeddings=true moe.num_shared_experts=2"
    "model.first_k_dense=1 model.dense_intermediate_size=48 model.num_key_value_heads=1 moe.top_k=3"
    "train.micro_batch_size=1 moe.routing=\"synthetic\" moe.workload=\"hot_rank\" moe.skew=8 $given"
    "model.first_k_dense=2 model.dense_intermediate_size=40")
for variant in "${variants[@]}"; do
    set=()
    for value in $variant; do
        set+=(--set "$value")
    done
    one bench step "$config" --check-config "${set[@]}" >resolved.toml || fail "\"$variant\" is refused"
    ranks="1 3"
    [ -n "$variant" ] || ranks="1 2 3 4"
    for n in $ranks; do
        expect 0 "" ranks "$n" bench step "$config" "${few[@]}" --json "${set[@]}"
        python3 "$MT_SOURCE/tests/cli/bench_step.py" resolved.toml "$n" <out.txt ||
            fail "\"$variant\" on $n ranks: $(cat out.txt)"
    done
done

# The table has a row for every phase, and what it is judged by.
expect 0 "" ranks 2 bench step "$config" "${few[@]}"
for word in '^tiny, float32: 2 ranks of [0-9]+ threads?, 128 tokens a step; 2 steps, after 1' \
    '^with a product.s loads, between steps: [0-9.]+ GFLOP/s, [0-9.]+ of it ' \
    '^attention +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ (FLOPs|bytes) +[0-9.]+$' \
    '^moe.expert.backward ' '^update ' '^step, ms +[0-9.]+ +[0-9.]+$' '^tokens/s ' \
    '^  of the measured peak +[0-9.]+ ' '^  of it with a product.s loads +[0-9.]+$' \
    '^outside matrix products ' '^peak memory of a rank' \
    '^  ratio +[0-9.]+ +at most 1.10$'; do
    grep -qE "$word" out.txt || fail "the table lacks $word: $(cat out.txt)"
done
[ "$(awk 'length > 100' out.txt)" = "" ] || fail "lines of more than 100 columns"

# Without a configuration: that of configs/bench-cpu.toml.
expect 0 "" one bench step --check-config
mv out.txt default
expect 0 "" one bench step "$MT_SOURCE/configs/bench-cpu.toml" --check-config
cmp out.txt default || fail "the default is not configs/bench-cpu.toml: $(diff out.txt default)"
expect 0 "" one bench step --check-config --set model.num_layers=2
grep -q 'num_layers = 2' out.txt || fail "--set does not reach the default configuration"

# Operations alone, in the type that is asked for.
expect 0 "" one bench kernels --only expert --set device.dtype='"bfloat16"'
for word in ', bfloat16), copies ' '^expert_forward +8 x 64 x 512x256 ' \
    '^expert_forward_backward +8 x 256 x 512x256 '; do
    grep -qE "$word" out.txt || fail "bench kernels lacks $word: $(cat out.txt)"
done
expect 0 "" one bench kernels "$config" --only add_rms
grep -q ', float32), copies ' out.txt || fail "bench kernels is not in float32: $(cat out.txt)"

# Recomputation is work that the model's count does not have.
expect 0 "" one bench step "$config" "${few[@]}" --json --set 'train.recompute="layer"'
python3 "$MT_SOURCE/tests/cli/bench_step.py" resolved.toml more <out.txt || fail "recompute: $(cat out.txt)"

refuse_everywhere 2 '--steps 0 is not an integer of at least 1' bench step --steps 0
refuse 2 '--warm-up -1 is not an integer of at least 0' bench step --warm-up -1
refuse 2 '--steps 1000000: expected at most' bench step --steps 1000000
refuse 2 'nowhere.toml: No such file' bench step nowhere.toml
refuse 2 'device.dtype' bench kernels --set device.dtype='"half"'
refuse 2 'model.colour' bench step --set model.colour=3
refuse 2 'only nothing: no operation has that' bench kernels --only nothing
refuse_everywhere 5 'step 2 has loss .* so nothing was updated' bench step "$config" "${few[@]}" \
    --set optimizer.lr=1e38

rm -f out.txt err.txt default resolved.toml
[ -z "$(ls -A)" ] || fail "left behind: $(ls -A)"
