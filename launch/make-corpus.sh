#!/bin/bash
# The King James text as a corpus of plain text: OUT_DIR/king-james-{train,validation}.txt.
#
# One verse a line without its reference, which nothing in the text predicts; a blank line between
# chapters. Every 20th chapter is for validation: so law, history, psalms, gospels and letters are
# all in it, where the last 5 % would be the Revelation alone. The bytes are the same wherever it
# runs.
set -euo pipefail
export LC_ALL=C

. "$(dirname "${BASH_SOURCE[0]}")/corpus.sh"

train=$out/king-james-train.txt
validation=$out/king-james-validation.txt
if [ -s "$train" ] && [ -s "$validation" ]; then
    exit 0
fi

if ! command -v bible >/dev/null; then
    [ $install = yes ] ||
        fail "the program 'bible' is missing; it prints the text; install the package bible-kjv" 4
    run=
    [ "$(id -u)" = 0 ] || run=sudo
    if ! $run apt-get -qq update ||
        ! $run apt-get -qq install -y --no-install-recommends bible-kjv >/dev/null; then
        fail "apt-get could not install bible-kjv; a reachable Debian mirror is needed" 4
    fi
fi

mkdir -p "$out"
temporary=$(mktemp -d "$out/.make-corpus.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

# `bible -f` prints "Ge1:1 In the beginning ...", one verse a line.
bible -f gen1:1-rev22:21 </dev/null >"$temporary/verses"
[ "$(wc -l <"$temporary/verses")" -eq 31102 ] ||
    fail "'bible -f gen1:1-rev22:21' did not print the 31102 verses of the text; check bible-kjv" 3
awk -v train="$temporary/train" -v validation="$temporary/validation" '
    {
        chapter = $1
        sub(/:.*/, "", chapter)
        if (chapter != last) {
            file = n % 20 == 10 ? validation : train
            if (file in begun)
                print "" >file
            begun[file] = 1
            last = chapter
            n++
        }
        sub(/^[^ ]* /, "")
        print >file
    }' "$temporary/verses"
mv "$temporary/train" "$train"
mv "$temporary/validation" "$validation"
