#!/usr/bin/env bash
# reshard_pairs.sh [--ranks LIST] [--policies LIST] [--width N]: reshard_pairs.py on the program in
# $BUILD_DIR (build).
# Without arguments, as a test: three ranks, another policy.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
[ $# -gt 0 ] || set -- --ranks 3 --policies fsep,eplb
exec python3 "$here/reshard_pairs.py" "$@"
