# What the scripts of tests/fault/ need to know; CTest tells it, and by hand it is found here. Sourced.
# shellcheck shell=bash
MT_SOURCE=${MT_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
MT_BUILD=${MT_BUILD:-$(cd "$MT_SOURCE" && cd "${BUILD_DIR:-build}" && pwd)}
MOETRAIN=${MOETRAIN:-$MT_BUILD/moetrain}
[ -x "$MOETRAIN" ] || { echo "\"$MOETRAIN\" is not built; BUILD_DIR says where to look" >&2; exit 2; }
export MT_SOURCE MT_BUILD MOETRAIN OMP_NUM_THREADS=1
# A library that comes before a sanitizer's own is what LD_PRELOAD is for.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0
