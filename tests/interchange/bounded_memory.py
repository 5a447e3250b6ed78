"""Import and export take the same memory for a model of 2 MB and for one of 130 MB: models with sparse files."""
import json
import os
import pathlib
import shutil
import struct
import sys

MODEL = dict(model_type="mixtral", vocab_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=32, num_local_experts=4, num_experts_per_tok=2)


def make(folder, width, inner):
    tensors = {"model.embed_tokens.weight": [64, width], "lm_head.weight": [64, width], "model.norm.weight": [width]}
    for layer in range(2):
        at = f"model.layers.{layer}"
        tensors |= {f"{at}.input_layernorm.weight": [width], f"{at}.post_attention_layernorm.weight": [width],
                    f"{at}.self_attn.q_proj.weight": [width, width], f"{at}.self_attn.o_proj.weight": [width, width],
                    f"{at}.self_attn.k_proj.weight": [width // 2, width],
                    f"{at}.self_attn.v_proj.weight": [width // 2, width], f"{at}.mlp.gate.weight": [4, width],
                    f"{at}.mlp.experts.gate_up_proj": [4, 2 * inner, width],
                    f"{at}.mlp.experts.down_proj": [4, width, inner]}
    header, end = {}, 0
    for name, shape in tensors.items():
        begin = end
        for i, n in enumerate(shape):
            end = begin + 2 * n if i == 0 else begin + (end - begin) * n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(MODEL | {"hidden_size": width, "intermediate_size": inner}))
    return end


def peak_kib(*command):
    process = os.posix_spawn(command[0], [str(part) for part in command], os.environ,
                             file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _, status, usage = os.wait4(process, 0)
    assert status == 0, (command, status)
    return usage.ru_maxrss


program, peaks = sys.argv[1], []
for name, width, inner in (("small", 64, 256), ("large", 1024, 2560)):
    n_byte = make(pathlib.Path(name), width, inner)
    peaks.append((n_byte, peak_kib(program, "import", name, "-o", f"{name}-checkpoint"),
                  peak_kib(program, "export", f"{name}-checkpoint", "-o", f"{name}-again", "--dtype", "bfloat16")))
    for made in pathlib.Path().glob(name + "*"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
for n_byte, imported, exported in peaks:
    print(f"{n_byte / 1e6:.1f} MB of tensors: {imported} KiB to import, {exported} KiB to export")
assert peaks[1][0] > 60 * peaks[0][0]
assert peaks[1][1] - peaks[0][1] < 6144 and peaks[1][2] - peaks[0][2] < 6144, "memory grows with the model"
