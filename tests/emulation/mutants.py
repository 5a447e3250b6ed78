#!/usr/bin/env python3
"""Bugs put into the kernels one at a time: the emulated tests must fail for each.

mutants.py BUILD_DIR [NAME...]: compiles a changed copy of one kernel, links it into that kernel's
emulated test and runs the test. Prints what found the bug. Some minutes. BUILD_DIR may be any of the
four builds, which find their own kinds."""
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a line has that says why a test failed: the emulator, a comparison, sanitizers.
SIGNS = ["the device:", "relative error", "--- ", "runtime error:", "SUMMARY:"]
# name, file, test, what is replaced, by what
MUTANTS = [
    ("tile_barrier", "attention_forward.cu", "attention",
     "        __syncthreads(); /* the tiles before are read */\n", ""),
    ("loaded_barrier", "attention_backward.cu", "attention",
     "key, false);\n        __syncthreads();\n", "key, false);\n"),
    ("warp_barrier", "attention_forward.cu", "attention", "        __syncwarp();\n", ""),
    ("team_barrier", "attention_tile.cuh", "attention", "    __syncwarp();\n", ""),
    ("causal_edge", "attention_forward.cu", "attention", "- key + 1)", "- key)"),
    ("shared_size", "attention_forward.cu", "attention", "3 * tile<QUADS>::FLOATS + SCORE_FLOATS",
     "3 * tile<QUADS>::FLOATS + SCORE_FLOATS - 4"),
    ("past", "attention_forward.cu", "attention", "{a.q + own, stride, at.length, n_past}",
     "{a.q + own, stride, at.length, 0}"),
    ("last_keys", "attention_forward.cu", "attention", "(int)mt_cuda_min(at.first + TILE, at.length)",
     "at.first + TILE"),
    ("saved_row", "attention_tile.cuh", "attention", " + at.start;\n}\n\n/* Element", ";\n}\n\n/* Element"),
    ("second_places", "attention_places.cu", "attention", "                table += n;\n", ""),
    ("stage_barrier", "attention_forward_bf16.cu", "attention_bf16",
     "        __syncthreads(); /* all have", "        /* all have"),
    ("stage_barrier_of_keys", "attention_backward_bf16.cu", "attention_bf16",
     "        __syncthreads(); /* all have", "        /* all have"),
    ("copies_wait", "attention_forward_bf16.cu", "attention_bf16",
     "        mt_copies_wait();\n        __sync", "        __sync"),
    ("own_barrier", "attention_backward_bf16.cu", "attention_bf16",
     "    mt_copies_wait();\n    __syncthreads();\n", "    mt_copies_wait();\n"),
    ("room_barrier", "attention_forward_bf16.cu", "attention_bf16",
     "    __syncthreads(); /* the stages are read */\n", ""),
    ("room_warp_barrier", "attention_bf16.cuh", "attention_bf16", "    __syncwarp();\n", ""),
    ("edge_of_queries", "attention_forward_bf16.cu", "attention_bf16", "if (key > row", "if (key >= row"),
    ("edge_of_keys", "attention_backward_bf16.cu", "attention_bf16", "later + column >= j",
     "later + column > j"),
    ("fragment_of_keys", "attention_bf16.cuh", "attention_bf16", "{b[0], b[2]}; /* rows",
     "{b[2], b[0]}; /* rows"),
    ("not_turned", "attention_bf16.cuh", "attention_bf16", "mt_load_matrices_turned(", "mt_load_matrices("),
    ("rows_beyond", "attention_bf16.cuh", "attention_bf16", "row < rows.n);", "true);"),
    ("sum_not_shrunk", "attention_forward_bf16.cu", "attention_bf16",
     "        run->sum[row] *= shrink[row];\n", ""),
    ("diagonal_block", "attention_backward_bf16.cu", "attention_bf16", "-queries.ahead / BLOCK : 0",
     "-queries.ahead / BLOCK + 1 : 0"),
    ("saved_of_next_head", "attention_backward_bf16.cu", "attention_bf16",
     "            tile.saved += s.length;\n", ""),
    ("position_of_past", "attention_operands.cu", "attention_bf16", "x.n_past + position", "position"),
    ("bias_rows", "bias.cu", "bias", "min(n, begin + chunk)", "min(n, begin + chunk + 1)"),
    ("last_elements", "sigmoid.cu", "sigmoid", "has_quads && at + 4 <= n", "has_quads"),
    ("last_row", "rms_norm.cu", "rms_norm", "if (row >= a.n) {", "if (row > a.n) {"),
    ("quads_of_odd_rows", "rms_norm.cu", "rms_norm",
     "mt_has_quads(y, width) && mt_has_quads(x, width) && mt_has_quads(w, width)", "true"),
    ("chunk_overlap", "rms_norm.cu", "rms_norm", "min(n, begin + chunk)",
     "min(n, begin + chunk + 1)"),
    ("router_barrier", "router.cu", "router", "        }\n        __syncthreads();\n", "        }\n"),
    ("early_gradient", "cross_entropy.cu", "cross_entropy",
     "    __syncthreads(); /* read before the gradient takes its place */\n", ""),
    ("reduce_barrier", "cross_entropy.cu", "cross_entropy", "    __syncthreads();\n    if", "    if"),
    ("sum_barrier", "sums.cu", "sums", "        __syncthreads();\n    }\n", "    }\n"),
    ("fork", "product_ways.cu", "bfloat16",
     "mt_cuda_check(cuda, cudaStreamWaitEvent(cuda->side[i], cuda->forked, 0), \"a wait\");", ""),
    ("join", "product_ways.cu", "bfloat16",
     "mt_cuda_check(cuda, cudaStreamWaitEvent(cuda->stream, cuda->joined[i], 0), \"a wait\");", ""),
    ("host_table", "product_ways.cu", "grouped", "size[4], beta, c, CUDA_R_32F",
     "size[4], beta, const_cast<void **>(pointers.at + 2 * n), CUDA_R_32F"),
    ("last_side", "product_ways.cu", "ways", "i < n_side; i++) {\n        mt_cuda_check(cuda, cudaEventRecord("
     "cuda->joined", "i < n_side - 1; i++) {\n        mt_cuda_check(cuda, cudaEventRecord(cuda->joined"),
    ("side_not_forked", "product_ways.cu", "ways", "load[i] < load[least]", "load[i] <= load[least]"),
    ("fragment", "few_rows.cu", "bfloat16", "upper.y, lower.y}", "lower.y, upper.y}"),
    ("parts_barrier", "few_rows.cu", "bfloat16", "    __syncthreads();\n", ""),
    ("row_beyond_group", "few_rows.cu", "bfloat16", "i < n_row * COLUMNS", "i <= n_row * COLUMNS"),
    ("column_beyond", "few_rows.cu", "bfloat16", "column + 8 < f.n_out", "column < f.n_out"),
    ("ties", "gate.cu", "gate", "return x_id < y_id;", "return x_id > y_id;"),
    ("lone_lane", "gate.cu", "gate", "best_id = -1;\n    int j = 0;\n",
     "best_id = -1;\n    int j = 0;\n    if (threadIdx.x % MT_WARP >= n_expert) {\n"
     "        return -1;\n    }\n"),
    ("token_twice", "embedding.cu", "embedding", "first < row; first += MT_WARP",
     "first + MT_WARP < row; first += MT_WARP"),
    ("absent_row", "rows.cu", "rows", "if (to < 0 || from < 0) {", "if (to < 0) {"),
    ("second_batch", "adamw.cu", "adamw", "            job.n_item = 0;\n            n_chunk = 0;\n",
     "            job.n_item = 0;\n"),
    ("row_of_act", "expert.cu", "expert", "const int64_t at = row * a.width;",
     "const int64_t at = (row + 1) * a.width;"),
    ("order_of_gradients", "expert.cu", "expert",
     "    mt_cuda_products_weight(cuda, args->d_down_weight, d_y, act, close, groups);\n"
     "    mt_cuda_products_input(cuda, d_x, d_gate, weights->gate, groups, false);\n",
     "    mt_cuda_products_input(cuda, d_x, d_gate, weights->gate, groups, false);\n"
     "    mt_cuda_products_weight(cuda, args->d_down_weight, d_y, act, close, groups);\n"),
]


def compile_commands(build, target):
    return subprocess.run(["ninja", "-C", build, "-t", "commands", target], check=True,
                          capture_output=True, text=True).stdout.splitlines()


def run(build, folder, mutant):
    """What the emulated test says of the mutant; empty when it passes."""
    name, file, test, old, new = mutant
    copy = folder / name / "kernel" / "cuda"
    copy.mkdir(parents=True)
    for source in (ROOT / "src" / "kernel" / "cuda").glob("*"):
        (copy / source.name).write_text(source.read_text())
    text = (copy / file).read_text()
    if old not in text:
        return None
    (copy / file).write_text(text.replace(old, new, 1))
    units = [file] if file.endswith(".cu") else [
        unit.name for unit in copy.glob("*.cu") if f"cuda/{file}" in unit.read_text()]
    commands = compile_commands(build, f"emulated_{test}")
    objects = []
    for unit in units:
        command = next(c for c in commands if c.endswith(f"/src/kernel/cuda/{unit}"))
        words = [w for w in shlex.split(command) if w != "ccache"]
        words[-1] = str(copy / unit)
        words[words.index("-o") + 1] = str(copy / f"{unit}.o")
        words[1:1] = [f"-I{folder / name}"]
        words.append("-Wno-error")
        subprocess.run(words, cwd=build, check=True, stderr=subprocess.DEVNULL)
        objects.append(str(copy / f"{unit}.o"))
    link = re.sub(r"^: && | && :$", "", commands[-1])
    words = shlex.split(link)
    at = words.index("-o")
    words[at + 1] = str(folder / name / "test")
    words[at:at] = objects
    subprocess.run(words, cwd=build, check=True)
    result = subprocess.run([words[words.index("-o") + 1]], capture_output=True, text=True)
    lines = [line for line in (result.stdout + result.stderr).splitlines()
             if any(sign in line for sign in SIGNS)]
    return (lines[0] if lines else "failed") if result.returncode else ""


def main(build, names):
    n_alive = 0
    with tempfile.TemporaryDirectory() as temporary:
        for mutant in MUTANTS:
            if names and mutant[0] not in names:
                continue
            said = run(build, pathlib.Path(temporary), mutant)
            n_alive += 0 if said else 1
            what = "NO SUCH TEXT" if said is None else said or "NOT FOUND"
            print(f"{mutant[0]:20} {mutant[1]:22} {what[:110]}", flush=True)
    return 1 if n_alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
