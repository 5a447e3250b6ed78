#!/usr/bin/env bash
# `moetrain plan`: a row for every policy on machines that are not there, from workloads and traces; what
# does not fit together is refused with the numbers.
. "$(dirname "$0")/refuse.sh"
rm -rf ./*.csv ./*.jsonl ./*.h5 ./*.txt
policies=$(sed -n 's/^ *{\.name = "\([a-z_]*\)",$/\1/p' "$MT_SOURCE/src/placement/policy.c")
[ -n "$policies" ] || fail "no policy found in the table"
plan=(plan "$config" --set train.global_batch_size=64)

# rows: the last plan has a row of numbers for every policy, ep's ratio to itself is 1.
rows() {
    local policy
    for policy in $policies; do
        grep -qE "^  $policy +[0-9.e+-]+ " out.txt || fail "no row for $policy: $(tail -20 out.txt)"
    done
    grep -qE '^  ep +[0-9.e+-]+ +1\.000 ' out.txt || fail "$(grep '^  ep ' out.txt)"
    ! grep -iE 'nan|inf ' out.txt || fail "not a number"
}

for shape in "1 1" "3 2" "64 8" "7 7"; do
    read -r r m <<<"$shape"
    expect 0 "" one "${plan[@]}" --ranks "$r" --nodes "$m"
    rows
done
grep -q 'no trace and no workload given: assumed workload hot_rank at skew 2' out.txt || fail "$(cat out.txt)"
grep -q 'assumed: H100-class bf16 at 40 % utilisation' out.txt || fail "$(cat out.txt)"
cp out.txt again.txt
expect 0 "" one "${plan[@]}" --ranks 7 --nodes 7
cmp out.txt again.txt || fail "two plans differ"
for workload in balanced hot_set hot_rank spread_heat ragged_source zero_load_ranks rotating_hotspot burst; do
    expect 0 "" one "${plan[@]}" --ranks 5 --nodes 2 --workload $workload --skew 3 --steps 6
    rows
    grep -q "loads: workload $workload at skew 3" out.txt || fail "$(cat out.txt)"
done
# More ranks than sequences: some have no tokens.
expect 0 "" one plan "$config" --ranks 16 --nodes 3
rows
# Faster devices leave links the bottleneck: never slower.
step() { awk '$1 == "ep" && NF > 10 { print $2 }' out.txt; }
expect 0 "" one "${plan[@]}" --ranks 8 --device-tflops 0.001
slow=$(step)
expect 0 "" one "${plan[@]}" --ranks 8 --device-tflops 0.01 --inter-gbytes-per-s 10 --intra-latency-us 0
awk -v a="$slow" -v b="$(step)" 'BEGIN { exit !(a > b && b > 0) }' || fail "$slow s, then $(step) s"
! grep -q 'assumed: H100' out.txt || fail "options are no assumption"
# A model without experts has no policies.
expect 0 "" one "${plan[@]}" --set model.first_k_dense=2 --set model.dense_intermediate_size=32 --ranks 2
! grep -q 'placement policy' out.txt || fail "policies of a dense model"

# Traces: the model has 8 experts and 2 layers.
make_trace() { # STEPS LAYERS EXPERTS FILE
    python3 - "$@" <<'PY'
import json
import sys
steps, layers, experts = map(int, sys.argv[1:4])
rows = [(s, l, [(s * 7 + l * 3 + e * e) % 50 for e in range(experts)])
        for s in range(1, steps + 1) for l in range(layers)]
with open(sys.argv[4], "w") as file:
    if sys.argv[4].endswith("csv"):
        file.write("step,layer," + ",".join(f"expert_{e}" for e in range(experts)) + "\n")
    for s, l, c in rows:
        if sys.argv[4].endswith("csv"):
            file.write(f"{s},{l}," + ",".join(map(str, c)) + "\n")
        else:
            file.write(json.dumps({"step": s, "layer": l, "counts": c}) + "\n")
PY
}
make_trace 9 2 8 good.csv
make_trace 9 2 8 good.jsonl
make_trace 9 4 16 other.csv
expect 0 "" one "${plan[@]}" --ranks 6 --nodes 2 --trace good.csv
rows
grep -q 'loads: trace of 9 steps' out.txt || fail "$(cat out.txt)"
grep -q 'studied: 7 steps after 2' out.txt || fail "$(cat out.txt)"
sed 's/^.*loads:.*$//' out.txt >csv.txt
expect 0 "" one "${plan[@]}" --ranks 6 --nodes 2 --trace good.jsonl
sed 's/^.*loads:.*$//' out.txt | cmp - csv.txt || fail "the same trace in two formats differs"
make_trace 1 2 8 single.csv
expect 0 "" one "${plan[@]}" --ranks 6 --nodes 2 --trace single.csv
rows
# What a trace says arrives: 8 experts on 4 ranks, so expert 6 is rank 3's in both layers.
ratio() { awk '$1 == "ep" && NF > 10 { print $8 }' out.txt; }
one_layer() { # COUNTS of step 1, layers 0 and 1, as JSON
    printf '{"step":1,"layer":0,"counts":%s}\n{"step":1,"layer":1,"counts":%s}\n' "$1" "$1" >known.jsonl
    expect 0 "" one "${plan[@]}" --ranks 4 --trace known.jsonl
}
one_layer '[0,0,0,0,0,0,9,0]'
[ "$(ratio)" = 4.000 ] || fail "all rows to one rank: largest / mean $(ratio)"
one_layer '[5,5,5,5,5,5,5,5]'
[ "$(ratio)" = 1.000 ] || fail "even rows: largest / mean $(ratio)"
one_layer '[0,4,0,0,2,2,0,0]'
[ "$(ratio)" = 2.000 ] || fail "halves: largest / mean $(ratio)"
one_layer '[0,0,0,0,0,0,0,0]'
[ "$(ratio)" = 1.000 ] || fail "no rows: largest / mean $(ratio)"
# Rows by source: each source's for its own experts, so that nothing is exchanged; the same of 2 ranks is spread.
exchange() { awk '$1 == "ep" && NF > 10 { print $6 }' out.txt; }
one_layer '[[3,3,0,0,0,0,0,0],[0,0,3,3,0,0,0,0],[0,0,0,0,3,3,0,0],[0,0,0,0,0,0,3,3]]'
[ "$(exchange)" = 0 ] || fail "rows that stay at home are exchanged: $(exchange) s"
one_layer '[[3,3,3,3,0,0,0,0],[0,0,0,0,3,3,3,3]]'
[ "$(exchange)" != 0 ] && [ "$(ratio)" = 1.000 ] || fail "sources of 2 ranks: $(exchange) s, $(ratio)"
# Rows split as the literature does, and settled: the most loaded rank has the more, or the fewer.
largest() { awk '$1 == "adaptive" && NF > 10 { print $8 }' out.txt; }
expect 0 "" one "${plan[@]}" --ranks 8 --skew 4 --set 'placement.split="local_first"'
grep -q 'rows under every policy: placement.split = "local_first"' out.txt || fail "the split is not said"
even=$(largest)
expect 0 "" one "${plan[@]}" --ranks 8 --skew 4
awk -v a="$even" -v b="$(largest)" 'BEGIN { exit !(a > b && b >= 1) }' || fail "local first $even, settled $(largest)"
refuse_plan() { refuse "$1" "$2" "${plan[@]}" "${@:3}"; }
refuse_plan 2 'the trace has 16 experts and 4 layers; the model has 8 and 2' --ranks 4 --trace other.csv
refuse_plan 2 'steps 1 after --warm-up 20 are more than the 9 that the trace has' --ranks 4 --trace good.csv --warm-up 20
refuse_plan 2 'that plan goes through' --ranks 4 --warm-up 9223372036854775807
refuse_plan 3 'missing.csv: No such file' --ranks 4 --trace missing.csv
head -c 100 good.csv >short.csv
refuse_plan 3 'short.csv:' --ranks 4 --trace short.csv
refuse_plan 2 'ends in .csv, .jsonl or .h5' --ranks 4 --trace good.txt
refuse_plan 2 '--steps 10 after --warm-up 2 are more than the 9' --ranks 4 --trace good.csv --steps 10
refuse_plan 2 'both say the loads' --ranks 4 --trace good.csv --workload burst
refuse_plan 2 '--workload boring is not known; expected one of balanced' --ranks 4 --workload boring
refuse_plan 2 '--skew 0.5 is not a number of at least 1' --ranks 4 --skew 0.5
many=(--set train.global_batch_size=16777216 --set train.micro_batch_size=4194304 --set model.max_seq_len=65536)
refuse_plan 2 '274877906944 tokens of a rank.s micro-batch, with 2 experts each on 4 ranks, are too many' --ranks 4 "${many[@]}"
expect 0 "" one "${plan[@]}" --ranks 4 "${many[@]}" --no-policies
refuse_plan 2 '4 ranks on 5 nodes' --ranks 4 --nodes 5
refuse_plan 2 '--device-tflops 0 is not a number' --ranks 4 --device-tflops 0
refuse_plan 2 '--intra-latency-us nan' --ranks 4 --intra-latency-us nan

# Costs of a file, given or the configuration's.
write_costs() { # ROW_PS
    printf '{"format":"moetrain-costs","format_version":1,"row_ps":%s,"instance_ps":10,"attention_ps":1000,
"node":{"alpha_ps":10,"kib_ps":10},"network":{"alpha_ps":20,"kib_ps":40}}' "$1" >costs.json
}
write_costs 5000000
expect 0 "" one "${plan[@]}" --ranks 4 --costs costs.json
rows
grep -q 'machine: costs of costs.json: 5 us a row' out.txt || fail "$(cat out.txt)"
mv out.txt given.txt
expect 0 "" one "${plan[@]}" --ranks 4 --set 'placement.costs="costs.json"'
cmp out.txt given.txt || fail "--costs and placement.costs differ"
refuse_plan 2 'both say how long things take' --ranks 4 --costs costs.json --device-tflops 3
refuse_plan 3 'none.json' --ranks 4 --costs none.json
write_costs -1
refuse_plan 3 'costs.json' --ranks 4 --costs costs.json
