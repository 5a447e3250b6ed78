#!/usr/bin/env python3
"""Words that must not stand in the sources, with what to use instead."""
import pathlib
import re
import sys
import tempfile

import source

CALLS = {
    "rand": "base/random.h", "srand": "base/random.h", "atoi": "strtoll with checks",
    "atof": "strtod with checks", "strcpy": "snprintf", "strcat": "snprintf",
    "sprintf": "snprintf", "vsprintf": "vsnprintf", "gets": "getline",
}
ALLOCATORS = {"malloc", "calloc", "realloc"}  # base/memory.h keeps the account
PRINTERS = {"printf", "puts", "perror"}       # style rule 5
ENDERS = {"exit", "_exit", "abort", "_Exit"}
PROMISES = re.compile(r"\b(FIXME|XXX|HACK|placeholder|simplified|for now|not implemented|"
                      r"unimplemented)\b|\bTODO\b(?!\([^)]+\):)", re.I)
DEAD = re.compile(r"^\s*#\s*if\s+0\b", re.M)
ABSOLUTE = re.compile(r"/(?:work|root|home)/[a-z]")


def calls(code):
    for match in re.finditer(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(", code):
        yield match.group(1), code.count("\n", 0, match.start()) + 1


def allowed(name, relative):
    room = relative.parts[1] if len(relative.parts) > 1 else ""
    in_source = relative.parts[0] == "src"
    if name in ALLOCATORS:
        return not in_source or room == "base" or relative.suffix == ".cc"
    if name in PRINTERS:
        return not in_source or room == "cli" or str(relative) in ("src/base/log.c",)
    if name in ENDERS:
        return not in_source or room == "cli" or str(relative).startswith("src/base/job")
    return True


def check_file(relative, text):
    code = source.code_only(text)
    for name, line in calls(code):
        if name in CALLS:
            yield f"{relative}:{line}: {name}() is banned; use {CALLS[name]}"
        elif not allowed(name, relative):
            yield f"{relative}:{line}: {name}() does not belong in this room"
    if DEAD.search(code):
        yield f"{relative}: #if 0; delete the code"


def check(root):
    root = pathlib.Path(root)
    for path in source.files(root):
        yield from check_file(path.relative_to(root), path.read_text())
    texts = [p for folder in ("src", "tests", "launch", "configs", "docs", "cmake")
             for p in (root / folder).rglob("*") if p.suffix in
             source.SUFFIXES | {".sh", ".py", ".md", ".toml", ".cmake", ".txt"}]
    for path in texts + [p for p in root.glob("*.md")]:
        if path.parent.name == "lint":
            continue
        for number, line in enumerate(path.read_text(errors="replace").split("\n"), 1):
            if PROMISES.search(line):
                yield f"{path.relative_to(root)}:{number}: promises later work: {line.strip()[:80]}"
            if ABSOLUTE.search(line):
                yield f"{path.relative_to(root)}:{number}: a path of one machine: {line.strip()[:80]}"


def self_test():
    bad = pathlib.Path("src/moe/bad.c")
    assert list(check_file(bad, "void f(void)\n{\n    x = rand();\n}\n"))
    assert list(check_file(bad, "void f(void)\n{\n    printf(1);\n}\n"))
    assert list(check_file(bad, "#if 0\n#endif\n"))
    assert not list(check_file(bad, "/* rand() */ void f(void)\n{\n    mt_rand();\n}\n"))
    assert PROMISES.search("TODO later") and not PROMISES.search("TODO(rank order): why")


if __name__ == "__main__":
    sys.exit(source.run(check, self_test))
