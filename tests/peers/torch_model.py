"""The model of moetrain in PyTorch, as fast as we can make it on a CPU; for torch_moe.py.

Four ways to compute the experts, all without dropping a row:
  loop      a product per expert of rows gathered by index_select; autograd
  function  the same with its own backward: buffers for all experts, no cat, no gradient of a view
  grouped   torch._grouped_mm over the rows in the order of their experts
  bmm       rows padded to the fullest expert, three batched products
"""
import math

import h5py
import torch
import torch.nn.functional as F


def rotate(x, turn):
    """x [B,T,H,Dh]. turn: cosine and sine for the half-split form; or complex, for pairs that lie side by side:
    one pass where the other makes seven, but nothing that torch.compile can fuse."""
    if isinstance(turn, torch.Tensor):
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turn).flatten(-2)
    cosine, sine = turn
    a, b = x.chunk(2, -1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)


def attention_block(x, norm, qkv, out, turn, shape):
    batch, length, heads, kv_heads, dim, eps = shape
    h = F.rms_norm(x, (x.shape[-1],), norm, eps)
    qk, v = F.linear(h, qkv).view(batch, length, heads + 2 * kv_heads, dim).split((heads + kv_heads, kv_heads), 2)
    q, k = rotate(qk, turn).to(v.dtype).transpose(1, 2).split((heads, kv_heads), 1)
    o = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=heads != kv_heads)
    return x + F.linear(o.transpose(1, 2).reshape(batch, length, heads * dim), out)


def gate(x, norm, router, top_k, eps):
    """Rows, chosen experts, their weights, and the balance loss of this layer without coefficient."""
    h = F.rms_norm(x, (x.shape[-1],), norm, eps).reshape(-1, x.shape[-1])
    with torch.autocast("cpu", enabled=False):
        p = F.linear(h, router).softmax(-1)
        chosen, expert = p.topk(top_k, -1)
        weight = chosen / chosen.sum(-1, keepdim=True)
        share = torch.zeros(p.shape[-1]).scatter_add_(0, expert.reshape(-1), torch.ones(expert.numel()))
        balance = p.shape[-1] * (share / expert.numel() * p.mean(0)).sum()
    return h, expert, weight, balance


def swiglu(gate_up):
    g, u = gate_up.chunk(2, -1)
    return F.silu(g) * u


def swiglu_backward(d_act, gate_up):
    """act, d_gate_up"""
    g, u = gate_up.chunk(2, -1)
    silu = F.silu(g)
    d_gate_up = torch.empty_like(gate_up)
    d_g, d_u = d_gate_up.chunk(2, -1)
    torch.mul(d_act, silu, out=d_u)
    torch.ops.aten.silu_backward.grad_input(d_act.mul_(u), g, grad_input=d_g)
    return silu.mul_(u), d_gate_up


def swiglu_backward_fused(d_act, gate_up):
    """The same for torch.compile."""
    g, u = gate_up.chunk(2, -1)
    s = torch.sigmoid(g)
    silu = g * s
    return silu * u, torch.cat((d_act * u * (s + silu * (1 - s)), d_act * silu), -1)


def head_loss(x, norm, head, target, eps):
    h = F.rms_norm(x, (x.shape[-1],), norm, eps)
    return F.cross_entropy(F.linear(h, head).float().view(-1, head.shape[0]), target)


class Experts(torch.autograd.Function):
    """y [S,D] of rows x [S,D] in the order of their experts; gate_up [E,2F,D], down [E,D,F]."""

    act = staticmethod(swiglu)
    act_backward = staticmethod(swiglu_backward)

    @staticmethod
    def forward(ctx, x, gate_up, down, ends):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        with torch.autocast("cpu", enabled=False):
            x, w1, w2 = x.to(dtype), gate_up.to(dtype), down.to(dtype)
            inner = x.new_empty(x.shape[0], w1.shape[1])
            y = x.new_empty(x.shape)
            for e, (first, last) in enumerate(ends):
                torch.mm(x[first:last], w1[e].t(), out=inner[first:last])
            act = Experts.act(inner)
            for e, (first, last) in enumerate(ends):
                torch.mm(act[first:last], w2[e].t(), out=y[first:last])
        ctx.save_for_backward(x, inner, w1, w2)
        ctx.ends = ends
        return y

    @staticmethod
    def backward(ctx, d_y):
        x, inner, w1, w2 = ctx.saved_tensors
        d_y = d_y.to(x.dtype)
        d_act = x.new_empty(x.shape[0], w2.shape[2])
        d_w1, d_w2 = torch.empty(w1.shape, dtype=x.dtype), torch.empty(w2.shape, dtype=x.dtype)
        for e, (first, last) in enumerate(ctx.ends):
            torch.mm(d_y[first:last], w2[e], out=d_act[first:last])
        act, d_inner = Experts.act_backward(d_act, inner)
        d_x = torch.empty_like(x)
        for e, (first, last) in enumerate(ctx.ends):
            torch.mm(d_y[first:last].t(), act[first:last], out=d_w2[e])
            torch.mm(d_inner[first:last].t(), x[first:last], out=d_w1[e])
            torch.mm(d_inner[first:last], w1[e], out=d_x[first:last])
        return d_x.float(), d_w1.float(), d_w2.float(), None


def by_loop(x, gate_up, down, ends):
    parts = [F.linear(swiglu(F.linear(x[first:last], w1)), w2)
             for (first, last), w1, w2 in zip(ends, gate_up, down)]
    return torch.cat(parts)


def by_function(x, gate_up, down, ends):
    return Experts.apply(x, gate_up, down, ends)


def by_grouped(x, gate_up, down, ends):
    offsets = torch.tensor([last for _, last in ends], dtype=torch.int32)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    inner = torch._grouped_mm(x.to(dtype), gate_up.to(dtype).transpose(1, 2), offs=offsets)
    return torch._grouped_mm(swiglu(inner), down.to(dtype).transpose(1, 2), offs=offsets)


def by_bmm(x, gate_up, down, ends):
    most = max(last - first for first, last in ends)
    index = torch.cat([torch.arange(e * most, e * most + last - first) for e, (first, last) in enumerate(ends)])
    padded = x.new_zeros(len(ends) * most, x.shape[1]).index_copy(0, index, x).view(len(ends), most, -1)
    y = torch.bmm(swiglu(torch.bmm(padded, gate_up.transpose(1, 2))), down.transpose(1, 2))
    return y.view(len(ends) * most, -1).index_select(0, index)


EXPERTS = {"loop": by_loop, "function": by_function, "grouped": by_grouped, "bmm": by_bmm}


class Gather(torch.autograd.Function):
    """x [N,D] -> rows in the order of experts; backward adds each token's K rows without atomics."""

    @staticmethod
    def forward(ctx, x, token, place, top_k):
        ctx.save_for_backward(place)
        ctx.top_k = top_k
        return x.index_select(0, token)

    @staticmethod
    def backward(ctx, d_rows):
        (place,) = ctx.saved_tensors
        return d_rows.index_select(0, place).view(-1, ctx.top_k, d_rows.shape[1]).sum(1), None, None, None


class Reorder(torch.autograd.Function):
    """Rows by a permutation whose inverse is known."""

    @staticmethod
    def forward(ctx, y, place, order):
        ctx.save_for_backward(order)
        return y.index_select(0, place)

    @staticmethod
    def backward(ctx, d_y):
        (order,) = ctx.saved_tensors
        return d_y.index_select(0, order), None, None


class Model:
    def __init__(self, path, config, experts, compiled):
        self.config, self.experts = config, EXPERTS[experts]
        self.parts = {f.__name__: f for f in (attention_block, gate, head_loss)}
        Experts.act, Experts.act_backward = swiglu, swiglu_backward
        if compiled:
            torch._dynamo.config.cache_size_limit = 64
            self.parts = {name: torch.compile(f) for name, f in self.parts.items()}
            Experts.act = torch.compile(swiglu)
            Experts.act_backward = torch.compile(swiglu_backward_fused)
        self.load(path, experts == "loop", not compiled)
        dim, length = config["head_dim"], config["length"]
        angle = torch.arange(length, dtype=torch.float64)[:, None] * config["theta"] ** (
            -torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angle = angle[None, :, None]
        self.turn = (angle.cos().float(), angle.sin().float()) if compiled else (
            torch.polar(torch.ones_like(angle), angle).to(torch.complex64))

    def load(self, path, split, pairs):
        """split: a parameter per expert; else one per layer for all of them. pairs: rows of q and k in another order,
        the same in both, so that what is rotated together lies side by side; their products stay as they are."""
        self.decayed, self.plain = [], []

        def parameter(value, decay=True):
            p = torch.nn.Parameter(torch.as_tensor(value).contiguous())
            (self.decayed if decay else self.plain).append(p)
            return p

        def stack(value):
            return [parameter(v.clone()) for v in value] if split else parameter(value)

        with h5py.File(path) as f:
            def get(name):
                value = torch.from_numpy(f["/model/" + name][...])
                if pairs and name.endswith(("q_proj", "k_proj")):
                    half = self.config["head_dim"] // 2
                    return value.view(-1, 2, half, value.shape[1]).transpose(1, 2).reshape(value.shape)
                return value
            self.embed, self.head = parameter(get("embed_tokens")), parameter(get("lm_head"))
            self.norm = parameter(get("norm"), False)
            self.layers = []
            for l in range(self.config["layers"]):
                at = f"layers/{l}/"
                attention, moe = at + "attention/", at + "moe/"
                self.layers.append((
                    parameter(get(at + "input_norm"), False),
                    parameter(torch.cat([get(attention + n + "_proj") for n in "qkv"])),
                    parameter(get(attention + "o_proj")),
                    parameter(get(at + "post_attention_norm"), False),
                    parameter(get(moe + "router")),
                    stack(torch.cat([get(moe + "experts/gate_proj"), get(moe + "experts/up_proj")], 1)),
                    stack(get(moe + "experts/down_proj"))))

    def moe(self, x, norm, router, gate_up, down):
        c = self.config
        h, expert, weight, balance = self.parts["gate"](x, norm, router, c["top_k"], c["eps"])
        flat = expert.reshape(-1)
        order = flat.argsort(stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))
        ends, first = [], 0
        for n in torch.bincount(flat, minlength=c["experts"]).tolist():
            ends.append((first, first + n))
            first += n
        rows = Gather.apply(h, order // c["top_k"], place, c["top_k"])
        y = Reorder.apply(self.experts(rows, gate_up, down, ends), place, order)
        y = torch.bmm(weight.to(y.dtype).unsqueeze(1), y.view(-1, c["top_k"], y.shape[1])).view(x.shape)
        return x + y, balance

    def loss(self, token, target):
        """Cross-entropy, and what is added to it for balance."""
        c = self.config
        shape = (token.shape[0], c["length"], c["heads"], c["kv_heads"], c["head_dim"], c["eps"])
        x = F.embedding(token, self.embed)
        balance = 0.0
        for norm1, qkv, out, norm2, router, gate_up, down in self.layers:
            x = self.parts["attention_block"](x, norm1, qkv, out, self.turn, shape)
            x, b = self.moe(x, norm2, router, gate_up, down)
            balance = balance + b
        return self.parts["head_loss"](x, self.norm, self.head, target.reshape(-1), c["eps"]), balance


class Trainer:
    def __init__(self, path, config, experts, compiled, dtype):
        self.model = Model(path, config, experts, compiled)
        self.config, self.dtype = config, dtype
        groups = [{"params": self.model.decayed, "weight_decay": config["decay"]},
                  {"params": self.model.plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config["lr"], betas=config["betas"],
                                           eps=config["adam_eps"], fused=True)
        self.parameters = self.model.decayed + self.model.plain

    def step(self, token, target):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
            loss, balance = self.model.loss(token, target)
        (loss + self.config["balance"] * balance).backward()
        grads = [p.grad for p in self.parameters]
        norm = math.sqrt(sum(n * n for n in torch.stack(torch._foreach_norm(grads)).tolist()))
        if norm > self.config["clip"]:
            torch._foreach_mul_(grads, self.config["clip"] / norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), norm
