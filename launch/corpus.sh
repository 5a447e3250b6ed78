# The command line that the corpus makers share: [--no-install] OUT_DIR. Sourced with their arguments;
# sets `install` (yes or no) and `out`.
# shellcheck shell=bash

usage()
{
    echo "usage: ${0##*/} [--no-install] OUT_DIR"
}

fail()
{
    echo "${0##*/}: $1" >&2
    exit "$2"
}

install=yes
out=
for argument in "$@"; do
    case $argument in
    --no-install) install=no ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) out=$argument ;;
    esac
done
[ -n "$out" ] || { usage >&2; exit 2; }
