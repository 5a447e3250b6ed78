#!/usr/bin/env bash
# random_kills.sh [--kills N] [--seed S] [--ranks R] [--sparse N] [--set KEY=VALUE] [--dir DIR]:
# random_kills.py on the program in $BUILD_DIR (build). Without arguments, as a test: four kills.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
[ $# -gt 0 ] || set -- --kills 4 --seed 7
exec python3 "$here/random_kills.py" "$@"
