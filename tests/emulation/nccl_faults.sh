#!/usr/bin/env bash
# NCCL that fails at the start or in flight, never ends, or is another version: one message, the right
# code, and no rank that hangs. MT_EMULATED_NCCL: tests/emulation/nccl_double.h.
# shellcheck source=tests/support/run.sh
. "$MT_SOURCE/tests/support/run.sh"
program=$MT_BUILD/tests/emulation/nccl_faults

# job RANKS FAULT DEADLINE
job() {
    MT_EMULATED_NCCL=$2 timeout -k 5 100 mpirun "${mpirun_flags[@]}" -np "$1" "$program" "$3"
}

# try RANKS FAULT CODE TEXT: with a deadline that nothing reaches.
try() {
    expect "$3" "$4" job "$1" "$2" 90
    echo "done: $2 on $1 ranks"
}

# What never ends is the watchdog's; ranks of a busy machine start within its deadline.
beside expect 124 '^moetrain: .*the start of NCCL did not complete within 8 s' job 2 "deaf 1" 8
# Who needs nothing of rank 1 in step 3 comes as far as step 4, and names who did not.
late="did not complete within 8 s"
beside expect 124 "step 3: collective 3 .* $late|step 4: collective 4 \(the GPU's work\) $late.* reached collective 3:" job 4 "hang 1 3" 8

# The program itself, in the middle of a step. Builds with sanitizers have no module for it.
has_module() { ! grep -q '^MT_SANITIZE:[A-Z]*=.' "$MT_BUILD/CMakeCache.txt"; }
train() { # FAULT DEADLINE
    rm -rf r
    MT_EMULATED_NCCL=$1 MT_EMU_GPUS=2 MT_CUDA_MODULE=$MT_BUILD/tests/emulation/libmoetrain_emulated.so \
        ranks 2 "$config" --run-dir r --quiet "${costs[@]}" --set 'device.kind="cuda"' \
        --set model.num_layers=1 --set train.global_batch_size=4 --set model.max_seq_len=8 \
        --set train.steps=2 --set checkpoint.interval=0 --set "comm.watchdog_seconds=$2"
}
if has_module; then
    beside expect 124 '^moetrain: .* did not complete within 10 s' train "hang 1 5" 10
fi

other='2\.28\.9 on ranks 0, 2\.27\.3 on ranks 1;'
for n in 1 2 4; do
    try "$n" "" 0 ""
done
try 2 "version 1 22703" 4 "^moetrain: NCCL has different versions: $other"
try 4 "version 2 22703" 4 ': 2\.28\.9 on ranks 0-1, 3, 2\.27\.3 on ranks 2; expected one version'
try 3 "id 0" 4 'ncclGetUniqueId: unhandled system error'
for n in 2 4; do
    last=$((n - 1))
    try "$n" "refuse $last" 4 "^moetrain: rank $last \(.*NCCL failed in ncclCommInitRankConfig"
    try "$n" "lose $last" 4 "^moetrain: rank $last \(.*connecting all ranks: .*lost on purpose"
    try "$n" "break $last 3" 4 "^moetrain: rank $last \(.* step 3: NCCL failed in .*lost on purpose"
done
try 3 "break 0 1" 4 '^moetrain: rank 0 \(.* step 1: NCCL failed in'

if has_module; then
    expect 4 "^moetrain: NCCL has different versions: $other" train "version 1 22703" 600
    expect 4 '^moetrain: rank 1 \(.* step 1 .*NCCL failed in .*lost on purpose' train "break 1 5" 600
else
    echo "the program's own faults were left out"
fi
together
echo "all NCCL faults end as they should"
