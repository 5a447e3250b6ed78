"""Files of the project, and C with its comments and strings blanked out (lines stay)."""
import pathlib
import re

ROOMS = ("base config device kernel comm placement text data store optim moe model checkpoint "
         "interchange profile train cli").split()
SUFFIXES = {".c", ".h", ".cc", ".cu", ".cuh"}


def files(root, folders=("src", "tests")):
    for folder in folders:
        for path in sorted((pathlib.Path(root) / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                yield path


_TOKENS = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_only(text, keep_strings=False):
    def blank(match):
        token = match.group(0)
        if keep_strings and token[0] in "\"'":
            return token
        return re.sub(r"[^\n]", " ", token)
    return _TOKENS.sub(blank, text)


def run(check, self_test):
    """Exit code for a checker: `check(root)` yields messages."""
    import sys
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        print("planted faults found")
        return 0
    messages = list(check(sys.argv[1]))
    for message in messages:
        print(message)
    return 1 if messages else 0
