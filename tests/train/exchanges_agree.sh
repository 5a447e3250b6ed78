#!/usr/bin/env bash
# With the same copies training does not depend on which all-to-all carries the rows (`adaptive` prices the one it has,
# so costs are given here by which its plans are alike): by two levels and through leaders losses and
# norms are those of the direct one to the bit, deduplicated within 1e-6 - on nodes of 1, 2 and 3 ranks, uneven
# ones too, with several slices of rows, with a rank without tokens. MT_ALL=1: also 6 and 8 ranks.
. "$(dirname "$0")/../support/run.sh"
rm -rf r*
common=(--quiet "${costs[@]}" --set train.steps=4 --set schedule.decay_steps=4 --set moe.top_k=4 --set model.init_std=0.3)

train() { # NAME RANKS RANKS_PER_NODE EXCHANGE ARGUMENTS
    local name=$1 n=$2 per_node=$3 exchange=$4
    shift 4
    ranks "$n" "$config" --run-dir "$name" "${common[@]}" --set comm.ranks_per_node="$per_node" \
        --set "comm.all_to_all=\"$exchange\"" "$@" || fail "$name ended with $?"
}

compare() { # RANKS RANKS_PER_NODE NAME ARGUMENTS
    local n=$1 per_node=$2 name=r.$1.$2.$3 exchange
    shift 3
    train "$name.direct" "$n" "$per_node" direct "$@"
    for exchange in hierarchical leader auto deduplicated; do
        train "$name.$exchange" "$n" "$per_node" "$exchange" "$@"
    done
    for exchange in hierarchical leader auto; do
        metrics equal "$name.direct/metrics.jsonl" "$name.$exchange/metrics.jsonl" loss grad_norm balance_loss
    done
    metrics close "$name.direct/metrics.jsonl" "$name.deduplicated/metrics.jsonl" 1e-6 1e-6
}

sent() { # RUN COLLECTIVE: it carried rows there
    grep -q "\"$2\":[1-9]" "$1/metrics.jsonl" || fail "$1 sent nothing by $2"
}

slices=(--set 'placement.policy="ep"' --set 'moe.routing="synthetic"' --set 'moe.workload="hot_rank"' --set moe.skew=3.5)
compare 1 1 plain
compare 2 1 plain
compare 3 2 plain
compare 4 2 plain
compare 4 2 slices "${slices[@]}" --set 'train.recompute="layer"'
compare 4 3 empty --set train.global_batch_size=3
if [ "${MT_ALL:-0}" = 1 ]; then
    for n in 6 8; do
        for per_node in 1 2 3 4; do
            compare $n $per_node plain
        done
    done
    compare 3 1 plain
    compare 4 1 slices "${slices[@]}"
    compare 8 3 slices "${slices[@]}"
fi

sent r.4.2.plain.hierarchical alltoallv_two_level
sent r.4.2.plain.leader alltoallv_leader
sent r.4.2.slices.deduplicated alltoallv_deduplicated
sent r.4.2.plain.deduplicated row_numbers
# One node has nothing to choose; auto never sums in another order unless it may.
for run in r.1.1.plain.leader r.4.2.plain.auto; do
    if grep -q 'alltoallv_deduplicated\|row_numbers' $run/metrics.jsonl; then fail "$run sent deduplicated"; fi
done
train r.choice 4 2 auto --set comm.exact=false --set 'placement.policy="ep"'
metrics close r.4.2.plain.direct/metrics.jsonl r.choice/metrics.jsonl 1e-6 1e-4

# Resumed, auto goes on as it would have: the costs are kept.
train r.resumed 4 2 auto --set train.steps=2 --set checkpoint.interval=2
train r.resumed 4 2 auto --set checkpoint.interval=2
metrics equal r.4.2.plain.auto/metrics.jsonl r.resumed/metrics.jsonl loss grad_norm bytes_sent
echo ok
