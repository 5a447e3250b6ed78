#!/usr/bin/env bash
# killed_conversion.sh [--every N] [--seed S]: killed_conversion.py on the program in $BUILD_DIR (build).
# Without arguments, as a test: one call of 25.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
[ $# -gt 0 ] || set -- --every 25 --seed 4
exec python3 "$here/killed_conversion.py" "$@"
