#!/usr/bin/env bash
# One rank that gets no memory while ranks meet - topology, transport, cores - ends the job with code 4 and one message:
# it used to leave the others waiting for ever.
. "$(dirname "$0")/refuse.sh"
! grep -qE '__[at]san_init' "$MOETRAIN" || exit 0 # sanitizers have an allocator of their own
export MT_FAIL_RANK=1 MT_FAIL_AT
# Topology, transport, small collectives, cores.
for MT_FAIL_AT in 6 10 15 20; do
    LD_PRELOAD=$MT_BUILD/tests/cli/libfail_allocation.so timeout -k 5 60 mpirun "${mpirun_flags[@]}" -np 2 \
        "$MOETRAIN" plan "$config" --print-topology >out.txt 2>err.txt
    code=$?
    [ $code = 4 ] && [ "$(grep -c '^moetrain: ' err.txt)" = 1 ] ||
        fail "allocation $MT_FAIL_AT of rank 1: code $code, $(head -c 600 err.txt)"
done
echo ok
