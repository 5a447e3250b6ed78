#!/usr/bin/env bash
# Policies and slots that cannot work here, traces that do not fit or are damaged: one message with the numbers.
. "$(dirname "$0")/refuse.sh"
rm -rf run ./*.csv
experts() { # STEP LAYER N: a line of a trace
    printf '%s,%s' "$1" "$2"
    for _ in $(seq "$3"); do printf ',10'; done
    printf '\n'
}
trace() { # EXPERTS LAYERS
    printf 'step,layer'
    for e in $(seq 0 $(($1 - 1))); do printf ',expert_%s' "$e"; done
    printf '\n'
    for layer in $(seq 0 $(($2 - 1))); do experts 1 "$layer" "$1"; done
}
trace 8 2 >good.csv
trace 16 4 >other.csv
sed 's/10$/-1/' good.csv >negative.csv
replay=(--run-dir run --set 'moe.routing="replay"' --set)

# fsdp wants every expert everywhere; quota wants nodes of several ranks.
n_ranks=3
refuse_ranks() { # CODE TEXT ARGUMENTS
    expect "$1" '^moetrain: ' ranks "$n_ranks" "${@:3}"
    also "$2"
}
refuse_ranks 2 '"fsdp" holds every expert on every rank: 6 slots beside 2 of its own, but placement.slots = 2' \
    "$config" --run-dir run --set 'placement.policy="fsdp"' --set placement.slots=2
refuse_ranks 2 '"quota" makes copies only inside nodes, and each of the 3 nodes has one rank' \
    "$config" --run-dir run --set 'placement.policy="quota"' --set comm.ranks_per_node=1
refuse 2 'each of the 4 nodes has one rank' plan "$config" --ranks 4 --nodes 4 --set 'placement.policy="quota"'

# Traces.
refuse_ranks 2 '16 experts' "$config" "${replay[@]}" 'moe.trace="other.csv"'
refuse_ranks 3 'absent.csv' "$config" "${replay[@]}" 'moe.trace="absent.csv"'
refuse_ranks 3 'negative.csv' "$config" "${replay[@]}" 'moe.trace="negative.csv"'
refuse_ranks 2 'ending' "$config" "${replay[@]}" 'moe.trace="good.txt"'
expect 0 '' ranks 3 "$config" "${replay[@]}" 'moe.trace="good.csv"' --quiet --set train.steps=2
echo ok
