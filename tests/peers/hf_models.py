"""Models of Hugging Face transformers against import and export; docs/interchange.md.

  hf_models.py make FOLDER      writes random-initialised tiny models of each family, with logits, loss and gradients,
                                as FOLDER/<family>: the committed tests/interchange/vectors
  hf_models.py scaled MOETRAIN  each family with each way to stretch the rotary embedding, imported and exported: losses
                                of `moetrain eval`, logits of what transformers loads
  hf_models.py check MOETRAIN [FOLDER]   import, export in every layout and dtype, load by transformers: no key is
                                missing or unexpected, tensors have the same bytes, logits are the same

Needs torch, transformers 5 and safetensors (pip install torch transformers safetensors). DeepSeek-MoE is not part of
transformers: its attention here is that of transformers' Llama, as in the code beside its weights; its experts are
written below.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

LENGTH, SEQUENCES, VOCAB = 12, 2, 64
SHAPE = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=32, bos_token_id=None, eos_token_id=None, pad_token_id=None)
MOE = dict(num_experts_per_tok=2, moe_intermediate_size=12)


class DeepseekExperts(torch.nn.Module):
    """Softmax over all experts, the best few as they are, and shared experts for every token."""

    def __init__(self, config):
        super().__init__()
        def mlp(width):
            from transformers.models.llama.modeling_llama import LlamaMLP
            return LlamaMLP(transformers.LlamaConfig(hidden_size=config.hidden_size, intermediate_size=width,
                                                     num_attention_heads=1))
        self.top_k, self.normalize = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = torch.nn.Linear(config.hidden_size, config.n_routed_experts, bias=False)
        self.experts = torch.nn.ModuleList(mlp(config.moe_intermediate_size) for _ in range(config.n_routed_experts))
        self.shared_experts = mlp(config.moe_intermediate_size * config.n_shared_experts)

    def forward(self, x):
        chosen, index = self.gate(x).softmax(-1).topk(self.top_k, -1)
        if self.normalize:
            chosen = chosen / chosen.sum(-1, keepdim=True)
        weight = torch.zeros_like(self.gate(x)).scatter(-1, index, chosen)
        return self.shared_experts(x) + sum(weight[..., e:e + 1] * expert(x) for e, expert in enumerate(self.experts))


def deepseek(config):
    model = transformers.LlamaForCausalLM(config)
    for layer in model.model.layers[config.first_k_dense_replace:]:
        layer.mlp = DeepseekExperts(config)
    return model


def configs():
    t = transformers
    yield "mixtral", t.MixtralConfig(**SHAPE, intermediate_size=12, num_local_experts=5, num_experts_per_tok=2)
    yield "olmoe", t.OlmoeConfig(**SHAPE, intermediate_size=12, num_experts=5, num_experts_per_tok=2,
                                 router_aux_loss_coef=0.01)
    yield "qwen2-moe", t.Qwen2MoeConfig(**SHAPE, **MOE, num_experts=5, shared_expert_intermediate_size=20,
                                        intermediate_size=24, mlp_only_layers=[0])
    yield "qwen3-moe", t.Qwen3MoeConfig(**SHAPE, **MOE, num_experts=5, head_dim=8, norm_topk_prob=True,
                                        intermediate_size=24, tie_word_embeddings=True)
    yield "deepseek", t.LlamaConfig(**SHAPE, **MOE, model_type="deepseek", n_routed_experts=5, n_shared_experts=2,
                                    first_k_dense_replace=1, intermediate_size=24, norm_topk_prob=False)
    yield "llama", t.LlamaConfig(**SHAPE, intermediate_size=24, head_dim=6)


# Frequencies of 8 wide heads in all three bands: stretched, between, as they are.
STRETCHED = {
    "linear": dict(rope_type="linear", factor=2.5),
    "llama3": dict(rope_type="llama3", factor=8.0, low_freq_factor=0.3, high_freq_factor=4.0,
                   original_max_position_embeddings=32),
    "yarn": dict(rope_type="yarn", factor=4.0, beta_slow=0.2, beta_fast=3.0, original_max_position_embeddings=32),
    "yarn-magnitude": dict(rope_type="yarn", factor=4.0, mscale=0.7, mscale_all_dim=1.3,
                           original_max_position_embeddings=8),
}


def stretched(family, how):
    config = dict(configs())[family]
    config.hidden_size, config.head_dim, config.max_position_embeddings = 32 if family == "olmoe" else 16, 8, 128
    config.rope_parameters = dict(STRETCHED[how], rope_theta=100.0)
    return config


def committed():
    yield from configs()
    yield "llama.llama3", stretched("llama", "llama3")
    yield "qwen3-moe.yarn", stretched("qwen3-moe", "yarn")


def build(family, config):
    family = family.split(".")[0]
    if family == "deepseek":
        return deepseek(config)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def randomise(model, seed):
    """Norms near 1, everything else wide enough that routing and attention differ from token to token."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if "norm" in name and p.dim() == 1 else 0.3 * noise)


def expected(model, tokens):
    """Logits, loss and gradients of the next-token loss, as float32."""
    model.zero_grad()
    logits = model(input_ids=tokens[:, :-1]).logits.float()
    loss = F.cross_entropy(logits.reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
    loss.backward()
    return logits.detach(), loss.detach()


def gradients_as_saved(model, folder):
    """Gradients under the names that the model is saved with: saved in place of the weights."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.grad)
    save(model, folder)
    merged = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        merged.update(load_file(file))
    return merged


def save(model, folder, **options):
    if model.config.model_type == "deepseek":
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({n: p.detach().clone() for n, p in model.state_dict().items()}, f"{folder}/model.safetensors",
                  metadata={"format": "pt"})
        keep = ("vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
                "max_position_embeddings num_experts_per_tok moe_intermediate_size n_routed_experts n_shared_experts "
                "first_k_dense_replace intermediate_size norm_topk_prob rms_norm_eps hidden_act tie_word_embeddings "
                "attention_bias attention_dropout initializer_range").split()
        own = {key: getattr(model.config, key) for key in keep}
        own.update(model_type="deepseek", architectures=["DeepseekForCausalLM"], rope_theta=10000.0, moe_layer_freq=1,
                   scoring_func="softmax", aux_loss_alpha=0.001, seq_aux=True, bos_token_id=1, rope_scaling=None)
        pathlib.Path(folder, "config.json").write_text(json.dumps(own, indent=2) + "\n")
    else:
        model.save_pretrained(folder, **options)
        pathlib.Path(folder, "generation_config.json").unlink(missing_ok=True)


def make(root):
    for family, config in committed():
        folder = pathlib.Path(root) / family
        model = build(family, config)
        randomise(model, 1)
        tokens = torch.randint(0, VOCAB, (SEQUENCES, LENGTH + 1), generator=torch.Generator().manual_seed(2))
        logits, loss = expected(model, tokens)
        save(model, folder, **({"max_shard_size": "20KB"} if family == "qwen3-moe" else {}))
        if family == "mixtral":  # as transformers 5 holds it, and newer files store it
            other = pathlib.Path(root) / "mixtral-grouped"
            other.mkdir(parents=True, exist_ok=True)
            save_file({n: p.detach().clone() for n, p in model.state_dict().items()}, other / "model.safetensors")
            other.joinpath("config.json").write_bytes(folder.joinpath("config.json").read_bytes())
        with tempfile.TemporaryDirectory() as scratch:
            answer = {"grad." + n: g for n, g in gradients_as_saved(model, scratch).items()}
        answer.update(tokens=tokens.float(), logits=logits, loss=loss.reshape(1))
        folder.joinpath("expected").mkdir(exist_ok=True)
        save_file({n: t.contiguous() for n, t in answer.items()}, folder / "expected" / "model.safetensors")
        print(family, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), "bytes, loss", loss.item())


def tensors_of(folder):
    found = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as handle:
            found.update({name: handle.get_tensor(name) for name in handle.keys()})
    return found


def load(family, folder):
    """The model that transformers, or the code above, makes of a folder; no key may be left over."""
    if family == "deepseek":
        own = json.loads(pathlib.Path(folder, "config.json").read_text())
        model = deepseek(transformers.LlamaConfig(**own))
        tensors = tensors_of(folder)
        if any("gate_up_proj" in name for name in tensors):
            return None  # there is no such code
        missing, unexpected = model.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=False)
        assert not missing and not unexpected, (missing, unexpected)
        return model
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager")
    left = {key: list(value) for key, value in info.items() if value}
    assert not left, left
    return model


def rounded(family, folder, dtype, tokens):
    """Logits of the original with weights of so many bits: what the exported model must give."""
    model = load(family, folder)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(getattr(torch, dtype)))
    return expected(model, tokens)


def check(moetrain, root):
    worst = 0.0
    for folder in sorted(pathlib.Path(root).iterdir()):
        family = folder.name.replace("-grouped", "")
        word = family.split(".")[0]
        wanted = tensors_of(folder)
        answer = tensors_of(root / pathlib.Path(family) / "expected")
        tokens = answer["tokens"].long()
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([moetrain, "import", folder, "-o", f"{scratch}/c"], check=True, stdout=subprocess.DEVNULL)
            for layout in ("per-expert", "grouped"):
                for dtype in ("float32", "bfloat16", "float16"):
                    out = f"{scratch}/{layout}-{dtype}"
                    subprocess.run([moetrain, "export", f"{scratch}/c", "-o", out, "--layout", layout, "--dtype", dtype,
                                    "--family", word, "--shard-size", "9000"], check=True, stdout=subprocess.DEVNULL)
                    got = tensors_of(out)
                    if layout == ("grouped" if folder.name.endswith("grouped") else "per-expert"):
                        assert set(got) == set(wanted) - ({"lm_head.weight"} if word == "qwen3-moe" else set())
                        for name, tensor in got.items():
                            assert torch.equal(tensor, wanted[name].to(tensor.dtype)), name
                    model = load(family, out)
                    if model is None:
                        continue
                    logits, loss = expected(model, tokens)
                    same, same_loss = rounded(family, root / family, dtype, tokens)
                    if dtype == "float32":
                        assert torch.equal(same, answer["logits"])
                    error = (logits - same).abs().max().item()
                    print(f"{folder.name:16} {layout:10} {dtype:8} logits off by {error:.2g}, "
                          f"loss by {abs(loss.item() - same_loss.item()):.2g}")
                    assert error < 1e-4, (out, error)
                    worst = max(worst, error)
    print(f"no key missing or unexpected; same bytes; logits off by at most {worst:.2g}")


def check_scaled(moetrain):
    """The loss that `moetrain eval` has of an imported model, and what transformers makes of the exported one."""
    for family in ("mixtral", "olmoe", "qwen2-moe", "qwen3-moe", "llama"):
        for how in STRETCHED:
            model = build(family, stretched(family, how))
            randomise(model, 1)
            tokens = torch.randint(0, VOCAB, (1, 129), generator=torch.Generator().manual_seed(2))
            logits, loss = expected(model, tokens)
            with tempfile.TemporaryDirectory() as scratch:
                save(model, f"{scratch}/m")
                pathlib.Path(scratch, "t.u16").write_bytes(tokens.to(torch.int16).numpy().tobytes())
                run = lambda *words: subprocess.run([moetrain, *words], check=True, capture_output=True, cwd=scratch)
                run("import", "m", "-o", "c")
                with open(f"{scratch}/c.toml", "a") as config:
                    config.write('[optimizer]\nlr = 0.0\n[data]\ntrain = ["t.u16"]\nvalidation = ["t.u16"]\n'
                                 'format = "tokens"\ntoken_type = "u16"\n'
                                 "[train]\nsteps = 1\nglobal_batch_size = 1\nmicro_batch_size = 1\n")
                ours = json.loads(run("eval", "c.toml", "--checkpoint", "c").stdout)["eval_loss"]
                run("export", "c", "-o", "back", "--family", family)
                back, _ = expected(load(family, f"{scratch}/back"), tokens)
            error, off = (back - logits).abs().max().item(), abs(ours - loss.item())
            print(f"{family:10} {how:15} loss off by {off:.2g} of {loss.item():.4f}, exported logits by {error:.2g}")
            assert off < 1e-5 and error < 1e-4


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    vectors = pathlib.Path(__file__).resolve().parents[1] / "interchange" / "vectors"
    if sys.argv[1:2] == ["make"]:
        make(sys.argv[2])
    elif sys.argv[1:2] == ["scaled"]:
        check_scaled(pathlib.Path(sys.argv[2]).resolve())
    elif sys.argv[1:2] == ["check"]:
        check(pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else vectors)
    else:
        sys.exit(__doc__)
