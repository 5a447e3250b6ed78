#!/usr/bin/env bash
# `moetrain doctor` on real ranks. How fast this machine is, and how busy, decides what else is found, so
# the tests of judging are train.test_doctor; here a paced rank that imitates a slow one is named, the exit
# code goes with the findings, and nothing is left behind.
. "$(dirname "$0")/refuse.sh"
rm -rf ./*
paced=(--set device.pace_gflops=0.5)

# examine RANKS NODES [slow RANK] -- ARGUMENTS...: JSON that holds, and the code that it says.
examine() {
    local n=$1 about=("$1" "$2") code got
    shift 2
    while [ "$1" != -- ]; do
        about+=("$1")
        shift
    done
    shift
    ranks "$n" doctor "$@" --json >out.txt 2>err.txt
    got=$?
    code=$(python3 "$MT_SOURCE/tests/cli/doctor.py" "${about[@]}" <out.txt) ||
        fail "doctor $* on $n ranks: $(cat out.txt err.txt)"
    [ "$got" = "$code" ] || fail "code $got, but findings say $code: $(cat out.txt err.txt)"
    [ "$(grep -c '^moetrain: doctor: ' err.txt)" = $((code / 4)) ] || fail "messages: $(cat err.txt)"
}

# Beside the slow ranks, which are paced: what may find anything or nothing, and what measures nothing.
healthy() {
    examine 1 1 -- "$config" "${paced[@]}"
    examine 2 1 -- "$config"
    examine 3 2 -- "$config" "${paced[@]}" --set comm.ranks_per_node=2 --set 'device.dtype="bfloat16"'
}
others() {
    # The same constants for plans.
    ranks 2 doctor "$config" --write-costs . --json >out.txt 2>err.txt
    [ -s costs.json ] || fail "no costs.json: $(cat err.txt)"
    expect 0 "" one plan "$config" --ranks 2 --costs costs.json
    rm -f costs.json

    refuse 2 'one argument too many' doctor "$config" extra
    refuse 2 'nowhere.toml: No such file' doctor nowhere.toml
    refuse_everywhere 2 'write-costs needs a configuration' doctor --write-costs .
    refuse_everywhere 2 'model.colour' doctor "$config" --set model.colour=3
    refuse_everywhere 4 'needs a GPU' doctor --set 'device.kind="cuda"'
    expect 4 'nowhere' ranks 2 doctor "$config" --write-costs nowhere

    # plan --print-topology: as given, and as found.
    expect 0 "" one plan "$config" --print-topology --ranks 10 --nodes 4
    for word in '^10 ranks on 4 nodes, by --ranks and --nodes$' '^ +0 +3 +0-2; [0-9]' '^ +3 +2 +8-9; [0-9]' 'package' '  L1: '; do
        grep -qE -- "$word" out.txt || fail "the given topology lacks $word: $(cat out.txt)"
    done
    expect 0 "" ranks 3 plan "$config" --print-topology
    grep -qE '^3 ranks on 1 node, by ranks that share memory$' out.txt || fail "found: $(cat out.txt)"
    expect 0 "" ranks 3 plan "$config" --print-topology --set comm.ranks_per_node=2
    for word in '^3 ranks on 2 nodes, by comm.ranks_per_node$' '^ +0 +2 +0-1; ' '^ +1 +1 +2; '; do
        grep -qE -- "$word" out.txt || fail "uneven nodes lack $word: $(cat out.txt)"
    done
    refuse_everywhere 2 '2 ranks on 3 nodes' plan "$config" --print-topology --ranks 2 --nodes 3
}
beside healthy
beside others

for n in 2 4; do # of two ranks the slower one is odd
    examine "$n" 1 slow 1 -- "$config" "${paced[@]}" --set 'device.slowdown={ 1 = 8.0 }'
done
examine 4 2 slow 3 -- --set comm.ranks_per_node=3 "${paced[@]}" --set 'device.slowdown={ 3 = 8.0 }'

# The table ends with the count of what was found; each line says what to do.
expect 4 'doctor: [0-9]+ findings? on 2 ranks, the first: ' ranks 2 doctor "$config" "${paced[@]}" \
    --set 'device.slowdown={ 0 = 8.0 }'
grep -qE '^odd: rank 0 \(.*matrix products: .*; expected at least 0.8 of the median' out.txt ||
    fail "rank 0 is not named: $(cat out.txt)"
tail -1 out.txt | grep -qE '^doctor: [0-9]+ findings? on 2 ranks$' || fail "last line: $(tail -1 out.txt)"
for word in '^ +0 ' '^ +1 ' '^within nodes +1 of 1 ' '^between nodes +0 of 0 ' 'package' 'hwloc [0-9]' 'the run needs'; do
    grep -qE -- "$word" out.txt || fail "the table lacks $word: $(cat out.txt)"
done

together
rm -f out.txt err.txt beside.*/{out,err,said}.txt
rmdir beside.*
[ -z "$(ls -A)" ] || fail "left behind: $(ls -A)"
