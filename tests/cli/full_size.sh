#!/usr/bin/env bash
# The full-size configurations: their comments show the memory that the program plans today, and it fits
# GPUs of 80 GB, even where routing loads one rank beyond measure. A processor that cannot multiply bfloat16
# says so, and plans other packs: there the lines without them are compared.
. "$(dirname "$0")/refuse.sh"
for name in olmoe-1b-7b mixtral-8x7b qwen3-30b-a3b; do
    file=$MT_SOURCE/configs/$name.toml
    expect 0 "" one plan "$file" --ranks 64 --nodes 8 --no-policies
    sed -n '/^bytes on the rank/,/beyond measure/p' out.txt | sed 's/^/# /' >planned
    sed -n '/^# bytes on the rank/,/beyond measure/p' "$file" >shown
    [ "$(wc -l <shown)" = 17 ] || fail "$name: no table of 17 lines in its comment"
    awk '/resident|beyond measure/ { sum += $(NF - 1) } END { exit !(sum > 1024 && sum * 1048576 < 80e9) }' shown ||
        fail "$name does not fit 80 GB: $(cat shown)"
    if grep -q 'packs of bfloat16 as on this processor' out.txt; then
        sed -i '/ packed for products \| slots for copies \| total \| resident, /d' shown
        sed '/ packed for products \| slots for copies \| total \| resident, /d' planned >compared
        [ "$(wc -l <compared)" = 12 ] || fail "$name: 12 lines without packs were expected: $(cat compared)"
    else
        cp planned compared
    fi
    cmp -s compared shown || fail "$name: its comment is not what plan says: $(diff shown compared)"
    grep -q 'predicted step' out.txt && fail "--no-policies studied policies"
    for word in For Needs Run Expects; do
        grep -q "^# $word: " "$file" || fail "$name does not say what it is for, needs, how to run, what to expect"
    done
done
# The sizes are the published ones, in billions: parameters, and those active.
size() { one plan "$MT_SOURCE/configs/$1.toml" --no-policies | awk '/^  parameters, / { printf "%.1f ", $NF / 1e9 }'; }
[ "$(size olmoe-1b-7b)" = "6.9 1.3 " ] && [ "$(size mixtral-8x7b)" = "46.7 12.9 " ] &&
    [ "$(size qwen3-30b-a3b)" = "30.5 3.4 " ] || fail "sizes: $(size olmoe-1b-7b)$(size mixtral-8x7b)$(size qwen3-30b-a3b)"
