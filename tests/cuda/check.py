#!/usr/bin/env python3
"""Registers, shared memory, spills and instructions of compiled kernels against budget.txt.

check.py BUDGET FOLDER ARCHITECTURE: FOLDER has nvcc's logs (ptxas -v) and *.keep/ with the PTX.
Without a line in the budget a kernel is an error, so is a line without a kernel."""
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
PTX_ENTRY = re.compile(r"\.entry\s+(\w+)\(.*?\n\}", re.S)


def demangle(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                          check=True).stdout
    return [re.sub(r"\(.*", "", line).split()[-1] for line in text.splitlines()]


def read_budget(text):
    """name -> (registers, shared bytes, set of words)"""
    lines = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words:
            lines[words[0]] = (int(words[1]), int(words[2]), set(words[3:]))
    return lines


def read_log(text):
    """(mangled name, registers, shared bytes, stack and spilled bytes)"""
    for part in re.split(r"(?=Compiling entry function)", text):
        entry, stack, used = ENTRY.search(part), STACK.search(part), USED.search(part)
        if entry and stack and used:
            shared = SHARED.search(part)
            yield (entry.group(1), int(used.group(1)), int(shared.group(1)) if shared else 0,
                   sum(int(number) for number in stack.groups()))


def check_ptx(name, body, words):
    if ("v4" in words) != bool(re.search(r"\.(global|shared)\.v4\.(f32|u32|b32)", body)):
        yield f"{name}: 16-byte accesses are {'missing' if 'v4' in words else 'not promised'}"
    if ("mma" in words) != ("mma.sync" in body):
        yield f"{name}: matrix instructions are {'missing' if 'mma' in words else 'not promised'}"
    if ("async" in words) != bool(re.search(r"cp\.async\.cg\.shared\.global.*, 16,", body)):
        yield f"{name}: asynchronous copies are {'missing' if 'async' in words else 'not promised'}"
    if ("ldmatrix" in words) != ("ldmatrix.sync.aligned.m8n8.x4" in body):
        yield f"{name}: loads of matrices are {'missing' if 'ldmatrix' in words else 'not promised'}"
    if "f64" not in words and re.search(r"\.f64\b", body):
        yield f"{name}: float64 where none is stated"
    if re.search(r"\.local\b", body):
        yield f"{name}: local memory"


def check(budget, log, ptx, seen):
    """Messages for one file."""
    rows = list(read_log(log))
    bodies = {match.group(1): match.group(0) for match in PTX_ENTRY.finditer(ptx)}
    for (mangled, registers, shared, spilled), name in zip(rows, demangle([r[0] for r in rows])):
        seen.add(name)
        if name not in budget:
            yield f"{name}: not in the budget ({registers} registers, {shared} bytes shared)"
            continue
        most_registers, most_shared, words = budget[name]
        if registers > most_registers:
            yield f"{name}: {registers} registers, at most {most_registers}"
        if shared > most_shared:
            yield f"{name}: {shared} bytes of shared memory, at most {most_shared}"
        if spilled:
            yield f"{name}: {spilled} bytes of stack and spills"
        yield from check_ptx(name, bodies[mangled], words)


def main(budget_file, folder, architecture):
    budget = read_budget(pathlib.Path(budget_file).read_text())
    messages, seen = [], set()
    for log in sorted(pathlib.Path(folder).glob("*.log")):
        ptx = "\n".join(p.read_text() for p in log.with_suffix(".keep").glob("*.ptx"))
        messages += check(budget, log.read_text(), ptx, seen)
    messages += [f"{name}: in the budget, and no such kernel" for name in set(budget) - seen]
    for message in messages:
        print(f"{architecture}: {message}")
    print(f"{architecture}: {len(seen)} kernels, {len(messages)} beyond the budget")
    return 1 if messages else 0


def self_test():
    log = ("ptxas info    : Compiling entry function 'name' for 'sm_80'\n"
           "    {} bytes stack frame, {} bytes spill stores, 0 bytes spill loads\n"
           "ptxas info    : Used {} registers, used 0 barriers, {} bytes smem, 1 bytes cmem[0]\n")
    ptx = ".visible .entry name(\n)\n{{\n{}\n}}\n"

    def messages(line, stack=0, spill=0, registers=10, shared=0, body="ld.global.v4.f32"):
        return list(check(read_budget(line), log.format(stack, spill, registers, shared),
                          ptx.format(body), set()))
    assert not messages("name 10 0 v4")
    assert not messages("name 10 0", body="ld.global.f32")
    assert messages("other 10 0 v4")
    assert messages("name 9 0 v4")
    assert messages("name 10 0 v4", shared=4)
    assert messages("name 10 0 v4", spill=4)
    assert messages("name 10 0 v4", stack=8)
    assert messages("name 10 0 v4", body="ld.global.f32")
    assert messages("name 10 0")
    assert messages("name 10 0 v4", body="ld.global.v4.f32\nadd.f64")
    assert not messages("name 10 0 v4 f64", body="ld.global.v4.f32\nadd.f64")
    assert messages("name 10 0 v4", body="ld.global.v4.f32\nmma.sync.aligned")
    assert messages("name 10 0 v4 mma")
    assert not messages("name 10 0 v4 mma", body="ld.global.v4.f32\nmma.sync.aligned")
    copies = "cp.async.cg.shared.global [%r1], [%rd1], 16, %r2;\nldmatrix.sync.aligned.m8n8.x4.trans"
    assert not messages("name 10 0 async ldmatrix", body=copies)
    assert messages("name 10 0 ldmatrix", body=copies)
    assert messages("name 10 0 async", body=copies)
    assert messages("name 10 0 async ldmatrix", body=copies.replace("16", "4"))
    assert messages("name 10 0 async ldmatrix", body="ldmatrix.sync.aligned.m8n8.x2")
    assert messages("name 10 0 v4", body="ld.global.v4.f32\n.local .b8 depot[4]")
    print("planted faults found")


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        sys.exit(main(*sys.argv[1:]))
