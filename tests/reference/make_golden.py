#!/usr/bin/env python3
"""Golden values of whole models, from an implementation that shares nothing with src/.

    python3 tests/reference/make_golden.py            # Python >= 3.11 with PyTorch

For every golden/<name>.toml it computes, in float64 with automatic differentiation, the losses, the
global gradient norm, every gradient and every parameter after one AdamW step, and writes
golden/<name>.txt (scalars, tokens, index), golden/<name>.bin (float32, little-endian). Run by hand
when a configuration changes; the results are committed, neither build nor tests need Python.

Parameters are not stored: element i of tensor `t` of golden `name` is a function of (name, t, i),
exact in float32, that tests/model/golden.c repeats:

    stream = FNV-1a-64 of "<name>:<t>";  u = mix(mix(stream) + i) >> 48     16 bits
    value = base + scale * (u / 2^16 - 1/2)

with mix one step of SplitMix64 (Steele, Lea, Flood 2014); base and scale stand in the index.
"""

import math
import pathlib
import struct
import sys
import tomllib

import torch

torch.set_default_dtype(torch.float64)

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
MASK = (1 << 64) - 1
# Between the K-th and the next probability of any token; rounding in float32 moves them by 1e-6.
SMALLEST_GAP = 2e-4


def fnv1a(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK
    return h


def mix(z):
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def bits16(stream, index):
    return mix((mix(stream) + index) & MASK) >> 48


def shapes(config):
    """name -> (shape, base, scale) in the order of the model."""
    model, moe = config["model"], config["moe"]
    vocab, width, head = model["vocab_size"], model["hidden_size"], model["head_dim"]
    q = model["num_attention_heads"] * head
    kv = model["num_key_value_heads"] * head
    experts, inner = moe["num_experts"], moe["expert_intermediate_size"]
    shared = moe.get("shared_intermediate_size", 0) or moe.get("num_shared_experts", 0) * inner
    table = {"embed_tokens": ((vocab, width), 0.0, 2.0)}
    for layer in range(model["num_layers"]):
        rows = {"input_norm": ((width,), 1.0, 0.5)}
        for name, shape in (("q", (q, width)), ("k", (kv, width)), ("v", (kv, width)),
                            ("o", (width, q))):
            rows[f"attention/{name}_proj"] = (shape, 0.0, 1.0)
        if model.get("attention_bias", False):
            for name, width_out in (("q", q), ("k", kv), ("v", kv)):
                rows[f"attention/{name}_bias"] = ((width_out,), 0.0, 1.0)
        if model["qk_norm"] != "none":
            per_head = model["qk_norm"] == "head"
            rows["attention/q_norm"] = ((head if per_head else q,), 1.0, 0.5)
            rows["attention/k_norm"] = ((head if per_head else kv,), 1.0, 0.5)
        rows["post_attention_norm"] = ((width,), 1.0, 0.5)
        if layer < model.get("first_k_dense", 0):
            dense = model["dense_intermediate_size"]
            rows["mlp/gate_proj"] = ((dense, width), 0.0, 1.0)
            rows["mlp/up_proj"] = ((dense, width), 0.0, 1.0)
            rows["mlp/down_proj"] = ((width, dense), 0.0, 1.0)
        else:
            rows["moe/router"] = ((experts, width), 0.0, 2.0)
            if shared:
                rows["moe/shared/gate_proj"] = ((shared, width), 0.0, 1.0)
                rows["moe/shared/up_proj"] = ((shared, width), 0.0, 1.0)
                rows["moe/shared/down_proj"] = ((width, shared), 0.0, 1.0)
            if moe.get("shared_gate", False):
                rows["moe/shared/gate"] = ((1, width), 0.0, 2.0)
            rows["moe/experts/gate_proj"] = ((experts, inner, width), 0.0, 1.0)
            rows["moe/experts/up_proj"] = ((experts, inner, width), 0.0, 1.0)
            rows["moe/experts/down_proj"] = ((experts, width, inner), 0.0, 1.0)
        table.update({f"layers/{layer}/{name}": row for name, row in rows.items()})
    table["norm"] = ((width,), 1.0, 0.5)
    if not model["tie_word_embeddings"]:
        table["lm_head"] = ((vocab, width), 0.0, 1.0)
    return table


def make_parameters(golden, table):
    parameters = {}
    for name, (shape, base, scale) in table.items():
        stream = fnv1a(f"{golden}:{name}")
        values = [base + scale * (bits16(stream, i) / 65536.0 - 0.5)
                  for i in range(math.prod(shape))]
        tensor = torch.tensor(values).reshape(shape)
        assert torch.equal(tensor, tensor.float().double())
        parameters[name] = tensor.requires_grad_()
    return parameters


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, theta):
    """x [B,T,H,Dh]: complex numbers made of both halves, turned by position * theta^(-2i/Dh)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-2.0 * torch.arange(half) / x.shape[-1])
    angle = torch.arange(x.shape[1])[:, None].double() * frequency
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angle), angle)[None, :, None, :]
    return torch.cat((turned.real, turned.imag), -1)


def attention(x, weights, model):
    batch, length, _ = x.shape
    head, n_q = model["head_dim"], model["num_attention_heads"]
    n_kv = model["num_key_value_heads"]
    q, k, v = (x @ weights[f"attention/{name}_proj"].T + weights.get(f"attention/{name}_bias", 0.0)
               for name in "qkv")
    if model["qk_norm"] == "projection":
        q = rms_norm(q, weights["attention/q_norm"], model["rms_norm_eps"])
        k = rms_norm(k, weights["attention/k_norm"], model["rms_norm_eps"])
    q = q.reshape(batch, length, n_q, head)
    k = k.reshape(batch, length, n_kv, head)
    v = v.reshape(batch, length, n_kv, head)
    if model["qk_norm"] == "head":
        q = rms_norm(q, weights["attention/q_norm"], model["rms_norm_eps"])
        k = rms_norm(k, weights["attention/k_norm"], model["rms_norm_eps"])
    q, k = rotate(q, model["rope_theta"]), rotate(k, model["rope_theta"])
    k, v = (y.repeat_interleave(n_q // n_kv, dim=2) for y in (k, v))
    score = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(head)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    probability = score.masked_fill(future, -math.inf).softmax(-1)
    out = torch.einsum("bhts,bshd->bthd", probability, v).reshape(batch, length, n_q * head)
    return out @ weights["attention/o_proj"].T


def swiglu(x, gate, up, down):
    return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T


def mixture(x, weights, moe, report):
    """x [N,D] -> (y [N,D], balance loss, z-loss) of one layer; every expert sees every token."""
    logits = x @ weights["moe/router"].T
    probability = logits.softmax(-1)
    ordered, order = probability.sort(stable=True, dim=-1, descending=True)
    top_k = moe["top_k"]
    if top_k < moe["num_experts"]:
        gap = (ordered[:, top_k - 1] - ordered[:, top_k]).min().item()
        report["gap"] = min(report["gap"], gap)
    chosen = torch.zeros_like(probability).scatter(1, order[:, :top_k], 1.0)
    weight = probability * chosen
    if moe.get("normalize_top_k", True):
        weight = weight / weight.sum(-1, keepdim=True)
    weight = weight * moe.get("routed_scaling_factor", 1.0)
    outputs = torch.stack([swiglu(x, weights["moe/experts/gate_proj"][e],
                                  weights["moe/experts/up_proj"][e],
                                  weights["moe/experts/down_proj"][e])
                           for e in range(moe["num_experts"])])
    y = torch.einsum("ne,end->nd", weight, outputs)
    if moe.get("num_shared_experts", 0):
        shared = swiglu(x, *(weights[f"moe/shared/{m}_proj"] for m in ("gate", "up", "down")))
        if "moe/shared/gate" in weights:
            shared = shared * torch.sigmoid(x @ weights["moe/shared/gate"].T)
        y = y + shared
    share = chosen.sum(0) / chosen.sum()
    balance = moe["num_experts"] * (share * probability.mean(0)).sum()
    return y, balance, logits.logsumexp(-1).pow(2).mean()


def run(config, parameters, token, target, report):
    """-> loss, [balance losses], [z-losses]"""
    model = config["model"]
    width = model["hidden_size"]
    x = parameters["embed_tokens"][token]
    balance, z = [], []
    for layer in range(model["num_layers"]):
        prefix = f"layers/{layer}/"
        weights = {name.removeprefix(prefix): value for name, value in parameters.items()
                   if name.startswith(prefix)}
        x = x + attention(rms_norm(x, weights["input_norm"], model["rms_norm_eps"]), weights, model)
        h = rms_norm(x, weights["post_attention_norm"], model["rms_norm_eps"])
        if layer < model.get("first_k_dense", 0):
            x = x + swiglu(h, *(weights[f"mlp/{m}_proj"] for m in ("gate", "up", "down")))
            continue
        y, layer_balance, layer_z = mixture(h.reshape(-1, width), weights, config["moe"], report)
        balance.append(layer_balance)
        z.append(layer_z)
        x = x + y.reshape(x.shape)
    x = rms_norm(x, parameters["norm"], model["rms_norm_eps"])
    head = parameters["embed_tokens" if model["tie_word_embeddings"] else "lm_head"]
    loss = torch.nn.functional.cross_entropy((x @ head.T).reshape(-1, model["vocab_size"]),
                                             target.reshape(-1))
    return loss, balance, z


def adamw_step(parameters, grads, scale, optimizer):
    """The first step from zero moments: bias correction turns them into g and g^2."""
    (beta1, beta2), lr, eps = optimizer["betas"], optimizer["lr"], optimizer["eps"]
    updated = {}
    for name, value in parameters.items():
        g = grads[name] * scale
        m, v = (1 - beta1) * g, (1 - beta2) * g * g
        decay = optimizer["weight_decay"] if value.dim() > 1 else 0.0
        step = (m / (1 - beta1)) / ((v / (1 - beta2)).sqrt() + eps) + decay * value
        updated[name] = value - lr * step
    return updated


def write(golden, table, batch, scalars, grads, updated):
    blob = bytearray()
    lines = ["moetrain-golden 1"]
    lines += [f"scalar {name} {value:.17g}" for name, value in scalars.items()]
    for name, values in batch.items():
        lines.append(f"{name} {values.numel()} " + " ".join(map(str, values.flatten().tolist())))
    for name, (shape, base, scale) in table.items():
        at = len(blob) // 4
        for values in (grads[name], updated[name]):
            blob += struct.pack(f"<{values.numel()}f", *values.flatten().tolist())
        # name, elements, base, scale, first float of the gradient and of the updated values
        n = math.prod(shape)
        lines.append(f"tensor {name} {n} {base:g} {scale:g} {at} {at + n}")
    (GOLDEN / f"{golden}.txt").write_text("\n".join(lines) + "\n")
    (GOLDEN / f"{golden}.bin").write_bytes(blob)


def make(path):
    golden = path.stem
    config = tomllib.loads(path.read_text())
    model, balance_config = config["model"], config["moe"]["balance"]
    optimizer = config["optimizer"]
    table = shapes(config)
    parameters = make_parameters(golden, table)
    shape = (config["train"]["global_batch_size"], model["max_seq_len"])
    batch = {name: torch.tensor([bits16(fnv1a(f"{golden}:{name}"), i) % model["vocab_size"]
                                 for i in range(math.prod(shape))]).reshape(shape)
             for name in ("token", "target")}
    report = {"gap": math.inf}
    loss, balance, z = run(config, parameters, batch["token"], batch["target"], report)
    if report["gap"] < SMALLEST_GAP:
        sys.exit(f"{golden}: two experts are within {report['gap']:.1e}; change a shape or a name")
    objective = (loss + balance_config["loss_coef"] * sum(balance)
                 + balance_config["z_loss_coef"] * sum(z))
    grads = dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values()))))
    norm = math.sqrt(sum(g.pow(2).sum().item() for g in grads.values()))
    clip = optimizer["grad_clip"]
    scale = min(1.0, clip / norm) if clip > 0 else 1.0
    values = {name: value.detach() for name, value in parameters.items()}
    scalars = {"loss": loss.item(),
               "balance_loss": sum(balance).item() / len(balance),
               "z_loss": sum(z).item() / len(z),
               "grad_norm": norm,
               "clip_factor": scale}
    write(golden, table, batch, scalars, grads, adamw_step(values, grads, scale, optimizer))
    print(golden, " ".join(f"{k} {v:.6g}" for k, v in scalars.items()), f"gap {report['gap']:.2g}")


if __name__ == "__main__":
    for file in sorted(GOLDEN.glob("*.toml")):
        make(file)
