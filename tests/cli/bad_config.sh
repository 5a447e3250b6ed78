#!/usr/bin/env bash
# Mistakes in a configuration: all of them in one message, each with its place, what was expected and the
# nearest legal value; code 2, before any work.
. "$(dirname "$0")/refuse.sh"
rm -rf ./*.toml run folder pipe

# Several at once.
cat >several.toml <<'TOML'
[model]
hidden_siez = 32
num_layers = "two"
num_attention_heads = 4
max_seq_len = 0
[moe]
num_experts = 8
top_k = 9
expert_intermediate_size = 32
[optimiser]
lr = 1e-3
[data]
format = "random"
[train]
steps = 20
global_batch_size = 8.5
micro_batch_size = 2
TOML
refuse_everywhere 2 '^moetrain: ' several.toml --run-dir run
also 'several.toml:2:1: unknown key "hidden_siez" in \[model\]; nearest valid key is "hidden_size"'
also 'several.toml:3:1: model.num_layers = .*integer is expected'
also 'several.toml:5:1: model.max_seq_len = 0 is out of range; allowed: 1 to '
also 'several.toml:8:1: moe.top_k = 9 exceeds num_experts = 8; .*allowed: 1 to 8'
also 'several.toml:10:2: unknown table \[optimiser\]; nearest valid table is \[optimizer\]'
also 'several.toml:16:1: train.global_batch_size = 8.5 .*integer is expected'
also '\[model\] lacks the required key hidden_size'
also 'table \[optimizer\] is missing; it needs lr'
[ "$(wc -l <err.txt)" -ge 8 ] || fail "expected a line for each mistake: $(cat err.txt)"

# One at a time, from the command line: KEY=VALUE, then what is said. `plan` checks as `train` does, without
# starting MPI.
while IFS='|' read -r override text; do
    refuse 2 "$text" plan "$config" --set "$override"
done <<'CASES'
placement.slots=9|placement.slots = 9 exceeds num_experts = 8; .*allowed: 1 to 8, or "auto"
placement.policy="adaptiv"|nearest is "adaptive"
moe.routing="synthetic"|routing = "synthetic" needs moe.workload
moe.routing="replay"|routing = "replay" needs moe.trace
moe.workload="zipf"|moe.workload = "zipf" is not one of "balanced"
moe.skew=0.5|moe.skew = 0.5 is out of range; allowed: 1 to
train.stepz=2|unknown key "stepz" in \[train\]; nearest valid key is "steps"
nothing=1|unknown key "nothing" outside of all tables
model.hidden_size=-1|model.hidden_size = -1 is out of range; allowed: 1 to 1048576
model.hidden_size=nan|model.hidden_size = nan .*integer is expected
model.hidden_size=1048577|hidden_size = 1048577 is out of range; allowed: 1 to 1048576
moe.num_experts=65537|num_experts = 65537 is out of range; allowed: 1 to 65536
model.num_layers=4097|num_layers = 4097 is out of range; allowed: 1 to 4096
model.num_layers=0|num_layers = 0 is out of range
train.steps=99999999999999999999|not representable in 64 bits
train.steps="many"|train.steps = .*integer is expected
train.micro_batch_size=true|micro_batch_size = true .*integer is expected
optimizer.lr=-1.0|optimizer.lr = -1.0 is out of range; allowed: 0 to 
optimizer.lr=nan|optimizer.lr = nan is not a finite number
optimizer.lr=inf|optimizer.lr = inf is not a finite number
optimizer.betas=[0.9, 1.0]|optimizer.betas.*0 to below 1
model.num_attention_heads=5|hidden_size = 32 does not divide by num_attention_heads = 5: 32 mod 5 = 2; nearest legal num_attention_heads: 4 or 8
model.num_key_value_heads=3|num_attention_heads = 4 does not divide by num_key_value_heads = 3: 4 mod 3 = 1; nearest legal num_key_value_heads: 2 or 4
model.head_dim=7|head_dim = 7 is odd.*nearest legal head_dim: 6 or 8
moe.top_k=9|top_k = 9 exceeds num_experts = 8.*allowed: 1 to 8
model.first_k_dense=3|first_k_dense = 3 exceeds num_layers = 2
model.first_k_dense=1|first_k_dense = 1 needs dense_intermediate_size
model.qk_norm="heads"|qk_norm.*heads.*"none", "head" or "projection".*head
data.format="bytes"|data.*train
moe.routing="synthetic"|moe.routing = "synthetic" needs moe.workload.*"hot_rank"
moe.routing="replay"|moe.routing = "replay" needs moe.trace
moe.workload="hotrank"|workload.*hotrank.*nearest is "hot_rank"
moe.skew=0.5|moe.skew = 0.5 is out of range; allowed: 1 to 
placement.slots=0|slots = 0 is out of range; allowed: 1 to 65536
moe.score_function="sigmoid"|"sigmoid" is not in this version
moe.capacity_factor=1.25|1.25 is not in this version
moe.num_expert_groups=2|2 is not in this version
moe.balance.loss="sequence"|"sequence" is not in this version
placement.policy="fastest"|policy.*fastest.*"ep", "fsdp".*"adaptive"; nearest is 
comm.transport="nccl"|"nccl" is not in this version
comm.all_to_all="leaders"|all_to_all.*"direct", "hierarchical", "leader" or "deduplicated"; nearest is "leader"
comm.rehearse_alpha_us=-1|rehearse_alpha_us = -1 is out of range; allowed: 0 to 
data.format="megatrons"|data.format = "megatrons" is not one of .*nearest is "megatron"
data.weights=[1, "2"]|data.weights = "2" is a string; a list of numbers is expected
data.weights=[0.0]|data.weights = 0.0 is out of range; allowed: above 0
train.recompute="layers"|recompute.*"none", "attention" or "layer"; nearest is "layer"
checkpoint.async=1|checkpoint.async = 1 is an integer; true or false is expected
device.dtype="bf16"|device.dtype = "bf16" is not one of "float32" or "bfloat16"
device.dtype="float16"|device.dtype = "float16" is not one of "float32" or "bfloat16"
device.kind="cpux"|device.kind.*"auto", "cpu" or "cuda"
train.steps|expected one section.key=value
device.kind=cuda|cuda is no TOML value.*quotation marks; write --set 'device.kind="cuda"'
[train]|expected one section.key=value
CASES

# Files that are no configuration.
mkdir folder
: >empty.toml
printf '[model\nhidden_size = 3' >broken.toml
head -c 3000 /dev/urandom >noise.toml
head -c 2000000 /dev/zero | tr '\0' '#' >huge.toml
refuse_everywhere 2 'nowhere.toml: No such file or directory' nowhere.toml
refuse 2 'folder: Is a directory' ./folder
mkfifo pipe
refuse 2 'pipe: is a pipe' ./pipe
refuse 2 'both say where the run starts' "$config" --run-dir run --resume x --init-from y
refuse 2 'unknown key "lr" outside of all tables; nearest valid key is "lr" in \[optimizer\]' \
    "$config" --run-dir run --set lr=1
refuse 2 'the table \[model\] is missing' empty.toml
also 'the table \[train\] is missing'
refuse 2 'broken.toml:1:' broken.toml
refuse 2 'noise.toml' noise.toml
refuse 2 'huge.toml: larger than' huge.toml
refuse 2 '--run-dir "" is no path' "$config" --run-dir ''
refuse 2 'not UTF-8' "$config" --run-dir $'run\xff'
[ ! -e run ] || fail "a refused configuration made a run directory"

# A device that is not there.
refuse_everywhere 4 'device.kind = "cuda" needs a GPU' "$config" --quiet --run-dir run --set 'device.kind="cuda"'
