"""bench_step.py RESOLVED RANKS|more <JSON: the FLOPs of `moetrain bench step` against the formula."""
import json
import re
import sys

resolved, ranks = sys.argv[1:]
key = {}
section = ""
for line in open(resolved):
    if match := re.match(r"\[([a-z.]+)\]", line):
        section = match[1]
    elif match := re.match(r"([a-z_]+) = (\d+)$", line):
        key[f"{section}.{match[1]}"] = int(match[2])
width, layers = key["model.hidden_size"], key["model.num_layers"]
heads, dim, length = key["model.num_attention_heads"], key["model.head_dim"], key["model.max_seq_len"]
experts, inner = key["moe.num_experts"], key["moe.expert_intermediate_size"]
batch = key["train.global_batch_size"]
dense = min(key["model.first_k_dense"], layers)
expert = 3 * width * inner
multiplied = layers * 2 * width * (heads + key["model.num_key_value_heads"]) * dim
multiplied += dense * 3 * width * key["model.dense_intermediate_size"]
multiplied += (layers - dense) * (width * experts + (key["moe.top_k"] + key["moe.num_shared_experts"]) * expert)
multiplied += key["model.vocab_size"] * width
# Scores and values forward; scores again and four gradients backward: seven products of the causal half.
causal = 7 * 2 * layers * batch * heads * dim * length * (length + 1) // 2
products = 6 * multiplied * batch * length + causal
model = (6 * multiplied + 12 * layers * length * heads * dim) * batch * length

got = json.load(sys.stdin)
assert got["tokens"] == batch * length
assert 0 < got["best_step_s"] <= got["step_s"] and got["tokens"] / got["step_s"] > 0
assert 0 <= got["outside_products"] <= 1 and got["share_of_peak"] > 0
assert abs(got["share_of_loaded"] * got["loaded_gflops"] / (got["share_of_peak"] * got["peak_gflops"]) - 1) < 1e-9
assert got["peak_bytes"] > got["start_bytes"] > 0 and got["planned_bytes"] > 0
phases = got["phases"].values()
if ranks == "more":
    assert got["product_flops"] > 1.2 * products
else:
    assert got["ranks"] == int(ranks)
    assert abs(got["product_flops"] / products - 1) < 1e-9, (got["product_flops"], products)
    assert abs(got["model_flops"] / model - 1) < 1e-9, (got["model_flops"], model)
    flops = sum(p["flops"] for p in phases) * got["ranks"]
    assert abs(flops / got["executed_flops"] - 1) < 1e-9 and flops > products
