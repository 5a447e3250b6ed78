#!/usr/bin/env bash
# What halves of micro-batches hide of the exchange, on a rehearsed cluster of 4 x 2 ranks at 1 Gbit/s:
#   launch/overlap-table.sh [--rounds N] [--policies ep,adaptive,fssdp] [--skews 1,2,3] [-- TRAIN OPTIONS]
# Runs with and without halves take turns. For each policy and skew: seconds a step (least), seconds that a rank
# waits in a step for rows (the moe.dispatch and moe.combine phases) and in gates for the counts of others (lower
# quartiles), the share of the first that halves take away, and the step of ep without halves over the one with them.
# Skew 1 is the workload "balanced", others are "rotating_hotspot".
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=2 policies=ep,adaptive,fssdp skews=1,2,3
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2 && shift ;;
    --policies) policies=$2 && shift ;;
    --skews) skews=$2 && shift ;;
    --) shift && break ;;
    *) fail "unknown option $1; expected --rounds, --policies, --skews or --" ;;
    esac
    shift
done
rehearse=$root/launch/rehearse.sh name=overlap-table-$$
work=$(mktemp -d)
trap '"$rehearse" down --name "$name" >/dev/null; rm -rf "$work"' EXIT
"$rehearse" up --name "$name" 4x2 --rate 1gbit >/dev/null || fail "no cluster to rehearse on"

train() { # DIRECTORY POLICY SKEW OVERLAP OPTIONS
    local dir=$1 policy=$2 skew=$3 overlap=$4 workload=rotating_hotspot
    shift 4
    [ "$skew" = 1 ] && workload=balanced
    "$rehearse" run --name "$name" "$root/configs/bench-overlap.toml" --quiet --run-dir "$dir" \
        --set "placement.policy=\"$policy\"" --set moe.skew="$skew" --set "moe.workload=\"$workload\"" \
        --set "comm.overlap=\"$overlap\"" "$@" >"$work/log" 2>&1 ||
        fail "a run ended early: $(tail -n 3 "$work/log")"
}

for round in $(seq "$rounds"); do
    for skew in ${skews//,/ }; do
        for policy in ${policies//,/ }; do
            for overlap in off on; do
                train "$work/$policy.$skew.$overlap.$round" "$policy" "$skew" "$overlap" "$@"
            done
        done
    done
done

python3 - "$work" "$policies" "$skews" <<'PYTHON'
import glob
import json
import sys

WARM_UP = 2
PHASES = {
    "rows": ["moe.dispatch", "moe.combine", "moe.dispatch.backward", "moe.combine.backward"],
    "counts": ["moe.gate"],
}


def steps(work, policy, skew, overlap):
    lines = []
    for path in glob.glob(f"{work}/{policy}.{skew}.{overlap}.*/metrics.jsonl"):
        with open(path) as file:
            lines += [line for line in map(json.loads, file) if line.get("step", 0) > WARM_UP and "loss" in line]
    return lines


def quartile(values):
    return sorted(values)[len(values) // 4]


def waits(lines, kind):
    return quartile([sum(line["phase_wait_s"].get(phase, 0.0) for phase in PHASES[kind]) for line in lines])


work, policies, skews = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
print("| skew | policy | step off | step on | rows off | rows on | hidden | counts off | counts on | ep over it |")
print("|" + "---|" * 10)
for skew in skews:
    ep = None
    for policy in policies:
        off, on = (steps(work, policy, skew, overlap) for overlap in ("off", "on"))
        step = [min(line["step_time_s"] for line in lines) for lines in (off, on)]
        ep = ep or step[0]
        rows = [waits(lines, "rows") for lines in (off, on)]
        cells = [f"{value:.2f}" for value in step] + [f"{value:.3f}" for value in rows]
        cells += [f"{1 - rows[1] / rows[0]:.2f}"]
        cells += [f"{waits(lines, 'counts'):.3f}" for lines in (off, on)]
        print(f"| {skew} | {policy} | " + " | ".join(cells) + f" | {ep / step[1]:.2f} |")
PYTHON
