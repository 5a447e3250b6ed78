#!/usr/bin/env bash
# exact_resume.sh [--points N] [...]: exact_resume.py on the program in $BUILD_DIR (build). Without
# arguments, as a test: one kill point.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
[ $# -gt 0 ] || set -- --points 1 --steps 12
exec python3 "$here/exact_resume.py" "$@"
