#!/usr/bin/env bash
# Named validation sets: their losses beside the whole's, the same from training and from eval; and an
# evaluation that lasts: its time is told, a stop ends it, and a stuck rank is found in it.
. "$(dirname "$0")/../cli/refuse.sh"
rm -rf run* ./*.txt ./*.toml
seq 2000 >web.txt && seq 9000 -3 6000 >code.txt && seq 500 900 >plain.txt
sed 's/^format = "random"/train = ["web.txt"]/' "$config" >sets.toml
printf '\n[data.validation_sets]\nweb = ["web.txt"]\ncode = ["code.txt", "plain.txt"]\n' >>sets.toml
train() { # NAME RANKS ARGUMENTS
    ranks "$2" sets.toml --quiet --run-dir "run-$1" --set train.steps=4 --set train.eval_interval=2 \
        --set train.eval_sequences=5 --set 'moe.balance.window="exact"' --set checkpoint.interval=2 "${costs[@]}" "${@:3}" || fail "$1: $?"
}
train one 1
train three 3
data=(--data web=web.txt --data code=code.txt --data code=plain.txt)
expect 0 "" ranks 2 eval sets.toml --run-dir run-one --sequences 5 "${data[@]}"
mv out.txt named.json
expect 0 "" one eval sets.toml --run-dir run-one --sequences 5 --data web.txt
mv out.txt plain.json
python3 - <<'PY' || fail "losses by set"
import json
def lines(run):
    return [line for line in map(json.loads, open(f"run-{run}/metrics.jsonl")) if "eval_loss" in line]
named, plain = json.load(open("named.json")), json.load(open("plain.json"))
one, three = lines("one"), lines("three")
assert [line["step"] for line in one] == [2, 4] and len(three) == 2
for a, b in zip(one, three):
    assert a["eval_tokens"] == b["eval_tokens"] == 2 * 5 * 16
    assert sorted(a["eval_loss_by_set"]) == ["code", "web"]
    for line in (a, b):
        by_set = line["eval_loss_by_set"]
        assert abs(sum(by_set.values()) / 2 - line["eval_loss"]) < 1e-9  # as many tokens of each
        assert by_set["web"] != by_set["code"]
        assert line["eval_time_s"] > 0 and sum(line["phase_s"].values()) <= 1.05 * line["eval_time_s"]
        assert line["phase_s"]["attention"] > 0 and line["exposed_comm_s"] >= 0
    assert all(abs(a["eval_loss_by_set"][k] - b["eval_loss_by_set"][k]) < 1e-5 for k in by_set)
assert abs(named["eval_loss"] - one[1]["eval_loss"]) < 1e-6
assert all(abs(named["eval_loss_by_set"][k] - one[1]["eval_loss_by_set"][k]) < 1e-6 for k in ("web", "code"))
assert "eval_loss_by_set" not in plain and abs(plain["eval_loss"] - named["eval_loss_by_set"]["web"]) < 1e-6
PY
refuse 2 'validation_sets has the key "a b"' sets.toml --set 'data.validation_sets."a b"=["x"]' --check-config
refuse 2 'validation_sets.a is empty' sets.toml --set data.validation_sets.a=[] --check-config
refuse 2 'validation_sets = 3 is an integer; a table of name = paths' sets.toml --set data.validation_sets.a=3 --check-config
refuse 3 'missing.txt: No such file' eval sets.toml --run-dir run-one --data a=missing.txt
refuse 2 'data names no file; expected --data PATH or NAME=PATH' eval sets.toml --run-dir run-one --data a=

# An evaluation of random data without end, on 3 ranks; $1: its run directory.
endless=(--quiet --set train.steps=4 --set train.eval_interval=2 --set checkpoint.interval=2 "${costs[@]}")
lasting() {
    start 3 "$config" --run-dir "$1" "${endless[@]}" --set train.eval_sequences=100000000 "${@:2}"
    wait_for_steps "$1" 2
    sleep 0.3
}
# A stop saves and ends it; the run that goes on makes it, and is the one that was not stopped.
lasting run-stop
kill -USR1 "$pid"
wait "$pid"
[ $? = 75 ] || fail "a stop in an evaluation: $(head -c 600 start.err)"
grep -q 'evaluation at step 2 gives way to the stop' run-stop/run.log || fail "no word about the stop"
for run in stop whole; do
    ranks 3 "$config" --run-dir run-$run "${endless[@]}" --set train.eval_sequences=24 || fail "$run: $?"
done
metrics same run-stop/metrics.jsonl run-whole/metrics.jsonl
# A stuck rank is found, and the message says where.
lasting run-stuck --set comm.watchdog_seconds=1
kill -STOP "$(pgrep -P "$pid" | sed -n 2p)"
wait "$pid"
[ $? = 124 ] || fail "a stuck rank in an evaluation: $(head -c 600 start.err)"
grep -q 'did not complete within 1 s' start.err || fail "the watchdog's message: $(cat start.err)"
# The wall-time limit holds in an evaluation, too.
expect 75 "" ranks 3 "$config" --run-dir run-limit "${endless[@]}" --set train.eval_sequences=100000000 \
    --set run.wall_time_minutes=0.03
