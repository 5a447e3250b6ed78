#!/usr/bin/env bash
# Every placement policy gives the same training: first loss and gradient norm within 1e-6 relative, 30 losses
# within 1e-4, on any number of ranks, with re-materialization on and off, 1 and 4 micro-batches, owners that
# move. MT_ALL=1 runs the whole matrix, R = 1, 2, 3, 4, 8.
. "$(dirname "$0")/../support/run.sh"
rm -rf r* f*
common=(--quiet "${costs[@]}" --set train.steps=30 --set 'moe.balance.window="exact"' --set moe.balance.loss_coef=0.05
    --set model.init_std=0.3 --set placement.reshard_interval=4 --set placement.slots=3
    --set schedule.decay_steps=30)
policies='ep fsdp fastermoe smartmoe flexmoe eplb fssdp fsep least_loaded quota adaptive'

train() { # NAME RANKS MICRO ARGUMENTS
    local name=$1 n=$2 micro=$3
    shift 3
    ranks "$n" "$config" --run-dir "$name" "${common[@]}" --set train.micro_batch_size="$micro" "$@" ||
        fail "$name ended with $?"
}

# One policy, ranks, micro-batch and re-materialization against one rank under `ep`.
compare() {
    train "f.$1.$2.$3.$4" "$2" "$3" --set "placement.policy=\"$1\"" --set "placement.rematerialize=$4" "${@:5}"
    metrics close r1/metrics.jsonl "f.$1.$2.$3.$4/metrics.jsonl" 1e-6 1e-4
}

train r1 1 8 --set 'placement.policy="ep"'
for policy in $policies; do
    common=("${common[@]}" --set "placement.slots=$([ $policy = fsdp ] && echo '"auto"' || echo 3)")
    if [ "${MT_ALL:-0}" = 1 ]; then
        for n in 1 2 3 4 8; do
            for micro in $((8 / n > 0 ? (8 + n - 1) / n : 1)) 1; do
                compare "$policy" "$n" "$micro" true
                [ "$n.$micro" = 8.1 ] || compare "$policy" "$n" "$micro" false
            done
        done
    else
        compare "$policy" 4 2 true --set comm.ranks_per_node=2
        compare "$policy" 3 1 false
        case $policy in # four micro-batches, ranks that are alone, as many ranks as sequences
        fssdp | smartmoe | fsep | adaptive)
            compare "$policy" 1 2 true
            compare "$policy" 2 1 false
            compare "$policy" 8 1 true
            ;;
        esac
    fi
done

# Policies act: these moved owners or made copies.
for policy in smartmoe eplb; do
    grep -q '"moves":[1-9]' f.$policy.*/metrics.jsonl || fail "$policy moved no owner"
done
for policy in fsdp fastermoe flexmoe eplb fssdp fsep least_loaded quota adaptive; do
    grep -q '"copies":[1-9]' f.$policy.*/metrics.jsonl || fail "$policy made no copies"
done
echo ok
