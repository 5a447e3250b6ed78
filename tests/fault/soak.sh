#!/usr/bin/env bash
# soak.sh --minutes N --seed S [...]: soak.py on the program in $BUILD_DIR (build). Without arguments,
# as a test: what no other test does, once.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
[ $# -gt 0 ] || set -- --each --seed 3 --interval 5 --pace 0 --watchdog 5 --kinds \
    "abort of a rank,flipped bit,SIGTERM in a save,stop request at start,two stop requests,hang in a save"
exec python3 "$here/soak.py" "$@"
