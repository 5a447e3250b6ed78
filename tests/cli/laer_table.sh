#!/usr/bin/env bash
# launch/laer-table.py: a row for each published cell; what is predicted for the systems that are modelled
# stays near what was published, so that nobody loses that unawares.
. "$(dirname "$0")/refuse.sh"
BUILD_DIR=$MT_BUILD python3 "$MT_SOURCE/launch/laer-table.py" >table.txt 2>table.err || fail "$(tail -3 table.err)"
[ "$(grep -cE '^(wikitext|C4) 8x(7|22)b-e(8k2|16k4) ' table.txt)" = 8 ] || fail "$(cat table.txt)"
sed -n 's/.*: Megatron \([0-9.]*\), FSDP+EP \([0-9.]*\),.*/\1 \2/p' table.txt |
    awk '{ exit !($1 > 0.75 && $1 < 1.25 && $2 > 0.75 && $2 < 1.25) }' || fail "$(tail -1 table.txt)"
