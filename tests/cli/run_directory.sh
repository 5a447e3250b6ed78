#!/usr/bin/env bash
# Run directories that are used, in use, finished, or cannot be written.
. "$(dirname "$0")/refuse.sh"
rm -rf run* file folder
train=("$config" --quiet --set train.steps=2)

# Nothing on standard output with --quiet; the log has it.
expect 0 "" ranks 3 "${train[@]}" --run-dir run
said_nothing_else
grep -q 'done: 2 steps' run/run.log || fail "run.log: $(cat run/run.log)"
for file in config.toml metrics.jsonl checkpoints; do
    [ -e run/$file ] || fail "$file is missing"
done
# Finished: nothing to do, code 0, and nothing changes.
cp run/metrics.jsonl before.jsonl
expect 0 "" one "${train[@]}" --run-dir run
cmp before.jsonl run/metrics.jsonl || fail "a finished run was changed"
grep -q 'nothing to do' run/run.log || fail "run.log: $(cat run/run.log)"
# Used.
refuse_everywhere 2 'run has been used; expected an unused one' "${train[@]}" --run-dir run --resume never
cmp before.jsonl run/metrics.jsonl || fail "a refused run was changed"
expect 0 "" one "${train[@]}" --run-dir run_new --resume never
# In use: the lock's holder is named. It is the kernel's lock, held here by this shell.
exec 9<>run/lock
flock 9
printf 'host somewhere, pid 4242, started 2026-01-02T03:04:05Z\n' >run/lock
refuse_everywhere 2 'run is in use by host somewhere, pid 4242, started 2026-01-02T03:04:05Z' \
    "${train[@]}" --run-dir run
exec 9>&-
expect 0 "" one "${train[@]}" --run-dir run --set train.steps=3

# A start that comes to nothing leaves nothing behind, and nothing of what was there is missing.
missing=(--set 'data.train=["no_such_file"]' --set 'data.format="bytes"')
refuse_everywhere 3 'no_such_file' "${train[@]}" --run-dir run_failed/deep "${missing[@]}"
[ ! -e run_failed ] || fail "a failed start left $(find run_failed)"
mkdir run_empty && touch run_empty/mine
refuse 3 'no_such_file' "${train[@]}" --run-dir run_empty "${missing[@]}"
[ "$(ls -A run_empty)" = mine ] || fail "a failed start left $(find run_empty)"
refuse 3 'no_such_file' "${train[@]}" --run-dir run "${missing[@]}"
for file in config.toml metrics.jsonl run.log checkpoints; do
    [ -e run/$file ] || fail "a failed start took $file away"
done

# A path that leaves no room for the names of files below it, which the first save would find out.
long=run_long/$(printf 'x%.0s/' {1..2010})
refuse_everywhere 2 'path has 4029 bytes; at most 4013 were expected' "${train[@]}" --run-dir "$long"
[ ! -e run_long ] || fail "a refused path was made"

# A line without end: gigabytes that take no room on the disk.
cp -r run run_endless && truncate -s 8G run_endless/metrics.jsonl
refuse_everywhere 3 'run_endless/metrics.jsonl has a line of more than 16 MiB' "${train[@]}" --run-dir run_endless
[ "$(stat -c %s run_endless/metrics.jsonl)" = $((8 << 30)) ] || fail "the refused file was changed"
rm -rf run_endless

# Places where nothing can be written. (Permissions do not stop root; these places do.)
: >file
refuse_everywhere 4 'cannot make the folder /proc/moetrain' "${train[@]}" --run-dir /proc/moetrain
refuse 4 'cannot make the folder file: ' "${train[@]}" --run-dir file
refuse 4 'cannot make the folder file' "${train[@]}" --run-dir file/run
for name in checkpoints lock run.log config.toml metrics.jsonl; do
    rm -rf run_$name && mkdir run_$name
    if [ $name = checkpoints ]; then
        : >run_$name/$name
    else
        mkdir run_$name/$name
    fi
    refuse 4 "run_$name/$name" "${train[@]}" --run-dir run_$name
done
refuse_everywhere 4 'run_metrics.jsonl/metrics.jsonl' "${train[@]}" --run-dir run_metrics.jsonl
