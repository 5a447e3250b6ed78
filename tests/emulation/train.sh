#!/usr/bin/env bash
# The unmodified program trains on the emulated device, which it loads as its GPU's module: the CPU's losses within
# 1e-4 on one and two ranks; checkpoints of either go on on the other; an order of GPU threads, blocks and streams
# changes no bit; and what is missing is told in one message with the right code.
. "$(dirname "$0")/../support/run.sh"
module=$MT_BUILD/tests/emulation/libmoetrain_emulated.so
short=(--set model.num_layers=1 --set train.global_batch_size=4 --set model.max_seq_len=8 --set checkpoint.interval=0)
gpu=(--set 'device.kind="cuda"')
export MT_EMU_GPUS=2
on_gpu() { MT_CUDA_MODULE=$module ranks "$@" "${gpu[@]}"; }
train() { # NAME RANKS HOW ARGUMENTS...: HOW ranks or on_gpu
    local name=$1 n=$2 how=$3
    shift 3
    rm -rf "$name"
    "$how" "$n" "$config" --run-dir "$name" --quiet "${costs[@]}" "${short[@]}" --set train.steps=3 "$@" >out.txt 2>&1 ||
        fail "$how on $n ranks ended with $?: $(tail -c 600 out.txt)"
}

# Every part of a layer, two micro-batches; then two ranks with copies of experts that travel.
parts=(--set 'model.qk_norm="head"' --set moe.num_shared_experts=1 --set moe.shared_gate=true)
train cpu1 1 ranks "${parts[@]}"
train gpu1 1 on_gpu "${parts[@]}" --set 'profile.trace_steps=[1,2,3]'
metrics close cpu1/metrics.jsonl gpu1/metrics.jsonl 1e-4 1e-4
MT_EMU_ORDER=4711 train random1 1 on_gpu "${parts[@]}"
metrics same gpu1/metrics.jsonl random1/metrics.jsonl
# When the GPU did what: every layer's work, one thing at a time.
"$MOETRAIN" report gpu1 --trace trace.json >/dev/null || fail "no trace"
python3 "$MT_SOURCE/tests/profile/check_trace.py" trace.json 1 3 || fail "the trace"
python3 - <<'PY' || fail "the GPU's track"
import json
events = json.load(open("trace.json"))["traceEvents"]
track = {e["tid"] for e in events if e["name"] == "thread_name" and e["args"]["name"] == "device"}
device = sorted((e["ts"], e["dur"], e["name"]) for e in events if e["ph"] == "X" and e["tid"] in track)
steps = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X" and e["name"].startswith("step "))
for wanted in "attention", "moe.gate", "moe.expert", "moe.expert.backward", "attention.backward", "update":
    assert any(name == wanted and dur > 0 for _, dur, name in device), wanted
assert all(a[0] + a[1] <= b[0] + 0.0011 for a, b in zip(device, device[1:])), "two things at a time"
assert steps[0][0] <= device[0][0] and sum(dur for _, dur, _ in device) > 0.5 * sum(e - b for b, e in steps)
PY
copies=(--set 'placement.policy="fssdp"' --set moe.num_shared_experts=1)
train cpu2 2 ranks "${copies[@]}"
train gpu2 2 on_gpu "${copies[@]}"
metrics close cpu2/metrics.jsonl gpu2/metrics.jsonl 1e-4 1e-4

# The GPU goes on from the CPU's checkpoint, and the CPU from the GPU's.
saves=(--set checkpoint.interval=1 --set train.steps=1)
train a 1 ranks "${saves[@]}"
train b 1 on_gpu "${saves[@]}"
on_gpu 1 "$config" --run-dir a --quiet "${costs[@]}" "${short[@]}" --set train.steps=2 || fail "resuming on the GPU"
ranks 1 "$config" --run-dir b --quiet "${costs[@]}" "${short[@]}" --set train.steps=2 || fail "resuming on the CPU"
metrics steps a/metrics.jsonl 1 2
metrics close a/metrics.jsonl b/metrics.jsonl 1e-4 1e-4

# What is missing.
refused=("$config" --run-dir r --quiet "${short[@]}" --set train.steps=1)
refuse() { # TEXT RANKS ARGUMENTS...
    local text=$1
    shift
    expect 4 "$text" "$@"
    rm -rf r
}
refuse 'needs a GPU, and this (build drives none|machine has no NVIDIA driver)' ranks 1 "${refused[@]}" "${gpu[@]}"
refuse 'could not be loaded' env MT_CUDA_MODULE=/dev/null "$MOETRAIN" "${refused[@]}" "${gpu[@]}"
MT_EMU_GPUS=0 refuse 'CUDA shows none here' on_gpu 1 "${refused[@]}"
MT_EMU_GPUS=1 refuse 'this machine has 2 ranks and 1 GPU' on_gpu 2 "${refused[@]}"
MT_EMU_MIB=196 refuse 'MiB are wanted on GPU 0, and .* MiB are free' on_gpu 1 "${refused[@]}"
MT_EMU_MIB=232 refuse 'needs about .* on each GPU, and .* are free' on_gpu 1 "${refused[@]}" \
    --set moe.expert_intermediate_size=8192
cat >other.c <<'C'
struct module { int version; const char *program; long device_bytes; } other = {99, "0.0.9", 1};
const struct module *mt_module_entry(const void *host) { return host ? &other : 0; }
C
cc -shared -fPIC -o other.so other.c || fail "the other module"
refuse 'is of moetrain 0.0.9 .version 99.' env MT_CUDA_MODULE="$PWD/other.so" "$MOETRAIN" "${refused[@]}" "${gpu[@]}"
mkdir -p bin && cp "$MOETRAIN" bin/ && cp other.so bin/libmoetrain_cuda.so
if ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    refuse 'no NVIDIA driver' bin/moetrain "${refused[@]}" "${gpu[@]}"
fi

# "auto" takes the GPU where there is one, and else the CPU, and says why; help loads nothing.
MT_CUDA_MODULE=$module ranks 1 "$config" --run-dir r "${short[@]}" --set train.steps=1 >out.txt 2>&1 || fail "auto"
grep -q 'cuda, GPU 0, emulated' out.txt || fail "auto did not take the GPU"
rm -rf r
MT_EMU_GPUS=0 MT_CUDA_MODULE=$module ranks 1 "$config" --run-dir r "${short[@]}" --set train.steps=1 >out.txt 2>&1 ||
    fail "auto without a GPU"
grep -q 'device.kind = "auto" is the CPU: CUDA shows none here' out.txt || fail "auto does not say why"
LD_DEBUG=files "$MOETRAIN" --help 2>&1 | grep -E '/lib(cuda|cublas|nccl|moetrain_)' | grep -q 'calling init' && fail "help loads CUDA"
LD_DEBUG=files ranks 1 "$config" --run-dir r "${short[@]}" --set train.steps=1 --set 'device.kind="cpu"' 2>&1 |
    grep -E '/lib(cuda|cublas|nccl|moetrain_)' | grep -q 'calling init' && fail "training on the CPU loads CUDA"
rm -rf r
ldd "$MOETRAIN" | grep -qiE 'cuda|cublas|nccl' && fail "the program links a CUDA library"
exit 0
