#!/usr/bin/env bash
# From a rehearsed straggler to its report, by the program itself: a finished run, one that is going on, one that was
# killed, damaged files; as text, as a page, as a trace. tests/profile/pages.sh looks at pages with a browser.
. "$(dirname "$0")/../support/run.sh"
rm -rf ./*
here=$MT_SOURCE/tests/profile
run=(--quiet --set 'placement.policy="ep"' --set device.pace_gflops=0.02 --set train.global_batch_size=6)
report() { timeout -k 5 60 "$MOETRAIN" report "$@"; }
page() { python3 -S "$here/check_page.py" "$@" || fail "the page $* is not as it should be"; }

killed() {
    # A run that goes on, then is killed: the same report until then.
    start 2 "$config" --run-dir killed "${run[@]}" --set train.steps=100000
    wait_for_steps killed 12
    expect 0 "" report killed --text
    grep -q 'is running, now at step' out.txt || fail "a running run: $(sed -n 1,6p out.txt)"
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    for _ in $(seq 100); do
        report killed --text 2>err.txt | grep -q 'broke off at step' && break
        sleep 0.1
    done
    expect 0 "" report killed --text -o killed.html
    grep -q 'broke off at step' out.txt || fail "a killed run: $(sed -n 1,6p out.txt)"
    page killed.html
}
seams() {
    # A run that was stopped and went on, after one step each time, then with fewer ranks: each start counts its collectives anew.
    for steps in 1 2 3; do
        ranks 3 "$config" --run-dir seams --quiet --set train.global_batch_size=6 --set checkpoint.interval=1 \
            --set train.steps="$steps" || fail "start to step $steps"
    done
    expect 0 "" report seams --text
    grep -q 'profiles of 3 of 3 ranks: 3 steps, of which 3 with the arrivals of all ranks' out.txt || fail "starts of one step: $(cat out.txt)"
    grep -qE '^what if \(3 steps' out.txt || fail "starts of one step are not replayed: $(cat out.txt)"
    ranks 2 "$config" --run-dir seams --quiet --set train.global_batch_size=6 --set checkpoint.interval=1 --set train.steps=5 ||
        fail "start with fewer ranks"
    expect 0 "" report seams --text -o seams.html --trace seams.json
    grep -q 'profiles of 2 of 2 ranks: 5 steps, of which 2 with the arrivals of all ranks' out.txt || fail "fewer ranks: $(cat out.txt)"
    page seams.html
}
beside killed # beside the slow run, which sleeps
beside seams

# Paced so slowly that a busy machine does not matter: rank 1 takes three times as long.
ranks 3 "$config" --run-dir slow "${run[@]}" --set train.steps=16 --set 'device.slowdown={ 1 = 3.0 }' \
    --set 'profile.trace_steps=[4, 5]' || fail "training"
expect 0 "" report slow --text
head -1 out.txt | grep -qE '^finding: rank 1 slow-device [0-9.]+%$' || fail "the finding: $(head -3 out.txt)"
for word in '^Rank 1 is slow' '^phase ' '^what if \([0-9]+ steps' '^-> .* rank 1 were as fast' '^critical path' '^rows of experts' \
    '^memory ' '^placement '; do
    grep -qE -- "$word" out.txt || fail "the text lacks $word: $(cat out.txt)"
done
expect 0 "" report slow
grep -q 'the report is in slow/report.html' out.txt || fail "where the report is: $(cat out.txt)"
expect 0 "" report slow -o page.html --trace trace.json.gz
page slow/report.html page.html
python3 "$here/check_trace.py" trace.json.gz 3 || fail "the trace"

# Damaged files are named and skipped, the rest is reported.
cp -r slow damaged
head -c 2000 slow/profile/rank-00001.jsonl >damaged/profile/rank-00001.jsonl # cut in a line: as after a kill
: >damaged/profile/rank-00002.jsonl
echo 'an old shoe' >damaged/profile/rank-00007.jsonl
printf '{"step":' >>damaged/metrics.jsonl
rm damaged/lock && mkfifo damaged/lock # nobody writes into it
expect 0 "" report damaged --text -o damaged.html
for name in rank-00001.jsonl rank-00002.jsonl rank-00007.jsonl; do
    grep -q "^skipped: .*$name" out.txt || fail "$name is not named: $(cat out.txt)"
done
grep -q '1 lines of metrics.jsonl are broken' out.txt || fail "broken metrics: $(tail -8 out.txt)"
page damaged.html

# What is no run, and what cannot be written.
mkdir empty
expect 3 'empty' report empty
expect 3 'nowhere' report nowhere
expect 4 'no/where.html' report slow -o no/where.html
expect 4 'no/where.json: No such file or directory; .*; .*--trace' report slow --trace no/where.json
mkfifo pipe # nobody reads it
expect 4 'pipe: it is not a regular file; .*; .*-o' report slow -o pipe
expect 4 'pipe: it is not a regular file; .*; .*--trace' report slow --trace pipe
to_full_disk() { report "$@" >/dev/full; }
expect 4 'No space left on device; .*; write it elsewhere' to_full_disk slow --text
rm -rf slow/profile/*
expect 3 'slow' report slow --text
together
rm -rf ./*
