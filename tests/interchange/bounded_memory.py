"""Import and export take the same memory whatever a model's tensors are long: sparse files, which take no disk.

  bounded_memory.py MOETRAIN                     0.9 and 139 MB, as the suite runs it
  bounded_memory.py MOETRAIN import|export GB... bfloat16 models of so many GB in files of 2 GB, each beside one with as
                                                 many tensors of a thousandth the size; as much disk is needed, by
                                                 export twice as much

All run under a limit of 256 MiB of data (RLIMIT_DATA).

Works in the current directory.
"""
import json
import os
import pathlib
import resource
import shutil
import struct
import sys

MODEL = dict(model_type="mixtral", vocab_size=64, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=32, num_experts_per_tok=2)
DATA_LIMIT = 256 << 20


def shapes(width, inner, n_layer, n_expert):
    yield "model.embed_tokens.weight", [64, width]
    for layer in range(n_layer):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", [width]
        yield f"{at}.post_attention_layernorm.weight", [width]
        for name, rows in dict(q=width, k=width // 2, v=width // 2, o=width).items():
            yield f"{at}.self_attn.{name}_proj.weight", [rows, width]
        yield f"{at}.mlp.gate.weight", [n_expert, width]
        yield f"{at}.mlp.experts.gate_up_proj", [n_expert, 2 * inner, width]
        yield f"{at}.mlp.experts.down_proj", [n_expert, width, inner]
    yield "model.norm.weight", [width]
    yield "lm_head.weight", [64, width]


def write_file(path, tensors):
    header, end = {}, 0
    for name, shape in tensors:
        begin, end = end, end + bytes_of(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def bytes_of(shape):
    n = 2
    for rows in shape:
        n *= rows
    return n


def make(folder, width, inner, n_layer=2, n_expert=4, file_bytes=2 << 30):
    files = [[]]
    for tensor in shapes(width, inner, n_layer, n_expert):
        if sum(bytes_of(shape) for _, shape in files[-1]) + bytes_of(tensor[1]) > file_bytes:
            files.append([])
        files[-1].append(tensor)
    folder.mkdir()
    names = ["model.safetensors"] if len(files) == 1 else \
        [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    for name, tensors in zip(names, files):
        write_file(folder / name, tensors)
    if len(files) > 1:
        index = {tensor[0]: name for name, tensors in zip(names, files) for tensor in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = dict(hidden_size=width, intermediate_size=inner, num_hidden_layers=n_layer, num_local_experts=n_expert)
    (folder / "config.json").write_text(json.dumps(MODEL | config))
    return sum(bytes_of(shape) for tensors in files for _, shape in tensors)


def peak_kib(*command):
    """The largest resident set of a command, which has to end well."""
    process = os.fork()
    if process == 0:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT, DATA_LIMIT))
        os.execv(command[0], [str(part) for part in command])
    _, status, usage = os.wait4(process, 0)
    assert status == 0, (command, status)
    return usage.ru_maxrss


def clear(name):
    for made in pathlib.Path().glob(name + "*"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()


def measure(program, name, exports, **size):
    """Bytes of tensors, and peaks of import and export (0: not exported)."""
    clear(name)
    n_byte = make(pathlib.Path(name), **size)
    imported = peak_kib(program, "import", name, "-o", f"{name}-checkpoint", "--dtype", "bfloat16")
    exported = 0
    if exports:
        exported = peak_kib(program, "export", f"{name}-checkpoint", "-o", f"{name}-again", "--dtype", "bfloat16")
    clear(name)
    export = f", {exported} KiB to export" if exports else ""
    print(f"{n_byte / 1e6:.1f} MB of tensors: {imported} KiB to import{export}", flush=True)
    return n_byte, imported, exported


def compare(peaks):
    assert peaks[1][0] > 60 * peaks[0][0]
    for i in (1, 2):
        assert peaks[1][i] - peaks[0][i] < 6144, "memory grows with the model"


def main(program, command=None, *sizes):
    if command is None:
        compare([measure(program, name, True, width=width, inner=inner)
                 for name, width, inner in (("small", 64, 256), ("large", 1024, 2560))])
    layer = bytes_of([3 * 8 * 5632, 2048])
    for gb in sizes:
        n_layer = max(1, round(float(gb) * 1e9 / layer))
        compare([measure(program, "model", command == "export", width=width, inner=inner, n_layer=n_layer, n_expert=8)
                 for width, inner in ((64, 176), (2048, 5632))])


main(*sys.argv[1:])
