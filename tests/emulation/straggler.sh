#!/usr/bin/env bash
# A GPU whose work takes three times as long, by its own clock: the report finds that rank and why. What work takes is
# asked of the emulator (MT_EMU_PACE), so sums by phase are known exactly; the host's spans, of enqueuing, are in none.
. "$(dirname "$0")/../support/run.sh"
export MT_EMU_GPUS=2 MT_EMU_PACE=4000000 MT_EMU_SLOW="1 3" MT_CUDA_MODULE=$MT_BUILD/tests/emulation/libmoetrain_emulated.so
rm -rf slow
ranks 2 "$config" --run-dir slow --quiet "${costs[@]}" --set 'device.kind="cuda"' --set model.num_layers=1 \
    --set train.global_batch_size=2 --set model.max_seq_len=8 --set checkpoint.interval=0 --set train.steps=5 \
    --set 'profile.trace_steps=[1,2,3,4,5]' >out.txt 2>&1 || fail "training ended with $?: $(tail -c 600 out.txt)"
"$MOETRAIN" report slow --text >report.txt || fail "no report"
grep -q '^finding: rank 1 slow-device' report.txt || fail "the finding: $(head -7 report.txt)"
grep -q 'takes it 3\.00 times as long' report.txt || fail "how slow: $(head -7 report.txt)"
python3 - <<'PY' || fail "sums by phase"
import json
HOST = {"data", "plan", "checkpoint", "eval", "metrics"}
def read(rank):
    """Time at work by phase: of the steps' sums, and of the device's spans."""
    sums, spans = {}, {}
    for line in map(json.loads, open(f"slow/profile/rank-{rank:05}.jsonl")):
        names = line.get("phases") or names
        for phase, time, waiting in line.get("phase", []) if "step" in line else []:
            sums[names[phase]] = sums.get(names[phase], 0) + time - waiting
        for track, phase, _, _, _, length, _, _ in line.get("s", []):
            if track == 3:
                spans[names[phase]] = spans.get(names[phase], 0) + length
    return tuple({n: t for n, t in s.items() if n not in HOST and t > 0} for s in (sums, spans))
healthy, slow = read(0), read(1)
for sums, spans in healthy, slow:
    assert sums.pop("materialize") >= spans.pop("materialize") > 0  # parameters travel before the first step, too
    assert sums == spans, (sums, spans)
for phase in "attention", "head", "attention.backward", "moe.gate.backward", "embed":
    assert healthy[0][phase] >= 4000000 and slow[0][phase] == 3 * healthy[0][phase], (phase, healthy, slow)
# The healthy GPU's host waits in the gate for the other's counts: that is no work. Events are float32 milliseconds.
assert abs(slow[0]["moe.gate"] / healthy[0]["moe.gate"] - 3) < 1e-5, (healthy, slow)
last = [json.loads(line) for line in open("slow/metrics.jsonl")][-1]
assert abs(last["phase_max_over_mean"]["attention"] - 1.5) < 1e-9, last["phase_max_over_mean"]
PY
"$MOETRAIN" report slow --trace trace.json >/dev/null || fail "no trace"
python3 "$MT_SOURCE/tests/profile/check_trace.py" trace.json 2 5 || fail "the trace"
exit 0
