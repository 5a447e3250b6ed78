#!/usr/bin/env bash
# A rehearsed cluster: its hosts are nodes to moetrain, its links hold their rate, and nothing of it is left
# behind however it ends.
. "$(dirname "$0")/../support/run.sh"
export BUILD_DIR=$MT_BUILD
cluster=test-$$
rm -rf run_*

rehearse() { # COMMAND ARGUMENTS...
    local command=$1
    shift
    timeout -k 5 100 bash "$MT_SOURCE/launch/rehearse.sh" "$command" --name $cluster "$@"
}
traces() { # what a cluster could leave on the machine
    ip -br link | cut -d' ' -f1
    grep -E 'moetrain|/netns/' /proc/mounts
    pgrep -af "moetrain-cluster $cluster |hold.sh $cluster |$PWD/run_" | grep -v pgrep
}
nothing_left() { # AFTER WHAT
    local i
    for i in $(seq 100); do
        traces >traces.txt
        cmp -s traces.txt before.txt && return
        sleep 0.1
    done
    fail "after $1 there is: $(diff before.txt traces.txt)"
}
traces >before.txt
# `up` itself says whether this machine can.
rehearse up 2x2 --rate 100mbit >up.txt 2>err.txt
code=$?
if [ $code = 4 ]; then
    cat err.txt
    exit 77
fi
[ $code = 0 ] || fail "up: $(cat err.txt)"
trap 'rehearse down >/dev/null' EXIT
rehearse up 2x2 --rate 1gbit >out.txt 2>err.txt
[ $? = 2 ] && grep -q "is up already (2x2 at 100mbit, process .*; expected .*down --name $cluster" err.txt ||
    fail "a second up: $(cat err.txt)"

# Hosts are nodes, also when the last one is not full.
for n in 4 3; do
    rehearse run --ranks $n "$config" --run-dir run_$n --set train.steps=3 >out.txt 2>err.txt ||
        fail "run on $n ranks ended with $?: $(cat err.txt)"
    grep -q ": tiny, $n ranks on 2 nodes" out.txt || fail "expected $n ranks on 2 nodes: $(cat out.txt)"
    [ ! -s err.txt ] || fail "run on $n ranks said: $(cat err.txt)"
done
# Codes and messages come through, once.
rehearse run "$config" --set moe.zork=1 >out.txt 2>err.txt
[ $? = 2 ] && [ "$(grep -c '^moetrain: .*zork' err.txt)" = 1 ] && [ "$(wc -l <err.txt)" = 1 ] ||
    fail "a refusal of moetrain: $(cat err.txt)"
rehearse run --ranks 5 "$config" >out.txt 2>err.txt
[ $? = 2 ] && grep -q 'expected 1 to 4' err.txt || fail "five ranks on 2x2: $(cat err.txt)"

# The links. Never faster than asked; as fast at least once in three tries, since others use the machine.
held=no
for _ in 1 2 3; do
    rehearse check >check.txt 2>err.txt && held=yes
    awk '/of asked/ { sub(/.*\(/, ""); if ($1 > 1.1) exit 1 }' check.txt || fail "too fast: $(cat check.txt)"
    [ $held = no ] || break
done
[ $held = yes ] || fail "the links: $(cat check.txt err.txt)"

# A stop request reaches the ranks; a killed script takes its job along; the cluster stays.
begin() { # RUN: in the background, until it has done two steps; $pid is the script
    bash "$MT_SOURCE/launch/rehearse.sh" run --name $cluster "$config" --run-dir "$1" --quiet \
        --set train.steps=4000 --set device.pace_gflops=0.5 >start.out 2>start.err &
    pid=$!
    wait_for_steps "$1" 2
}
begin run_stopped
rehearse run "$config" >out.txt 2>err.txt
[ $? = 2 ] && grep -q 'runs a job already' err.txt || fail "a second job: $(cat err.txt)"
kill -USR1 $pid
wait $pid
code=$?
[ $code = 75 ] && [ -d run_stopped/checkpoints ] || fail "stopped: code $code: $(cat start.err)"
begin run_killed
kill -KILL $pid
wait $pid 2>/dev/null
for _ in $(seq 100); do
    pgrep -f "$PWD/run_killed|--run-dir run_killed" >/dev/null || break
    sleep 0.1
done
rehearse status | grep -q "^$cluster: 2x2 at 100mbit, process [0-9]*, idle" || fail "$(rehearse status)"
# Taken down under a job.
begin run_under
rehearse down >out.txt || fail "down: $(cat out.txt)"
wait $pid
code=$?
[ $code = 4 ] && grep -q 'taken down under its job' start.err || fail "down: code $code: $(cat start.err)"
nothing_left "down"

# `up` killed at any time; the cluster's own process killed.
for time in 0.02 0.05 0.1 0.2; do
    bash "$MT_SOURCE/launch/rehearse.sh" up 8x1 --rate 100mbit --name $cluster >up.txt 2>&1 &
    up=$!
    sleep $time
    kill -KILL $up 2>/dev/null
    wait $up 2>/dev/null
    rehearse down >/dev/null # had it been up already
    nothing_left "up killed after $time s"
done
rehearse up 2x1 --rate 100mbit >up.txt 2>&1 || fail "up: $(cat up.txt)"
kill -KILL "$(pgrep -f "^moetrain-cluster $cluster ")"
nothing_left "the cluster's process was killed"
