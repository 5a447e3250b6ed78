#!/usr/bin/env python3
"""Sizes: at most 70 lines a function, 500 a file, 100 columns, 8 parameters, 4 levels of nesting.

Relies on the format (lint.format): a function's braces stand alone in the first column."""
import pathlib
import re
import sys
import tempfile

import source

# Doubles of a library's functions have the library's parameters.
FOREIGN = re.compile(r"\bcublas\w+\(")
MAX_FUNCTION, MAX_FILE, MAX_COLUMNS, MAX_PARAMETERS, MAX_NESTING = 70, 500, 100, 8, 4


def parameters(signature):
    """Number of parameters of the last parenthesis group at depth one."""
    end = signature.rfind(")")
    depth, commas, start = 0, 0, None
    for i in range(end, -1, -1):
        if signature[i] == ")":
            depth += 1
        elif signature[i] == "(":
            depth -= 1
            if depth == 0:
                start = i
                break
        elif signature[i] == "," and depth == 1:
            commas += 1
    inside = signature[start + 1:end].strip() if start is not None else ""
    return 0 if inside in ("", "void") else commas + 1


def nesting(body):
    """Deepest block inside the function's own braces."""
    depth = deepest = 0
    for line in body:
        stripped = line.strip()
        for char in stripped:
            if char == "{":
                depth += 1
            elif char == "}":
                depth -= 1
        if stripped.endswith("{") and stripped != "{":
            deepest = max(deepest, depth)
    return deepest


def functions(lines):
    """(first line, signature, body lines) of each function; lines are code only."""
    start = None
    for i, line in enumerate(lines):
        if line.rstrip() == "{":
            start = i
        elif line.rstrip() == "}" and start is not None:
            head = start
            while head > 0 and lines[head - 1].strip() and not lines[head - 1].startswith(("}", "#")):
                head -= 1
            yield head, " ".join(lines[head:start]), lines[start + 1:i]
            start = None


def check_file(name, text):
    raw = text.split("\n")
    if len(raw) - 1 > MAX_FILE:
        yield f"{name}: {len(raw) - 1} lines, at most {MAX_FILE}"
    for number, line in enumerate(raw, 1):
        if len(line) > MAX_COLUMNS:
            yield f"{name}:{number}: {len(line)} columns, at most {MAX_COLUMNS}"
    for head, signature, body in functions(source.code_only(text).split("\n")):
        if "(" not in signature:
            continue
        where = f"{name}:{head + 1}"
        if len(body) + 2 > MAX_FUNCTION:
            yield f"{where}: function of {len(body) + 2} lines, at most {MAX_FUNCTION}"
        if parameters(signature) > MAX_PARAMETERS and not FOREIGN.search(signature):
            yield f"{where}: {parameters(signature)} parameters, at most {MAX_PARAMETERS}"
        if nesting(body) > MAX_NESTING:
            yield f"{where}: {nesting(body)} levels of nesting, at most {MAX_NESTING}"


def check(root):
    for path in source.files(root):
        yield from check_file(path.relative_to(root), path.read_text())


def self_test():
    long_function = "int f(void)\n{\n" + "    g();\n" * 80 + "}\n"
    wide = "int f(int a, int b, int c, int d, int e, int f, int g, int h, int i)\n{\n}\n"
    deep = ("int f(void)\n{\n" + "".join("    " * (i + 1) + "if (x) {\n" for i in range(5)) +
            "    }\n" * 5 + "}\n")
    assert any("lines" in m for m in check_file("a.c", long_function))
    assert any("parameters" in m for m in check_file("a.c", wide))
    assert any("nesting" in m for m in check_file("a.c", deep))
    assert any("columns" in m for m in check_file("a.c", "x" * 101 + "\n"))
    assert any("lines" in m for m in check_file("a.c", "\n" * 501))
    assert not list(check_file("a.c", "int f(void)\n{\n    return 1;\n}\n"))


if __name__ == "__main__":
    sys.exit(source.run(check, self_test))
