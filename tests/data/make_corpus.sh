#!/bin/bash
# The corpus script: the same bytes every time, whole chapters for validation, nothing left behind.
set -euo pipefail

fail()
{
    echo "FAILED: $1" >&2
    exit 1
}

rm -rf a b bin
"$MT_SOURCE/launch/make-corpus.sh" a
"$MT_SOURCE/launch/make-corpus.sh" --no-install b
for part in train validation; do
    cmp "a/king-james-$part.txt" "b/king-james-$part.txt" || fail "two runs gave different bytes"
done
[ "$(ls -A a | wc -l)" -eq 2 ] || fail "something was left beside the corpus: $(ls -A a)"
[ "$(cat a/*.txt | grep -c .)" -eq 31102 ] || fail "the two parts are not the whole text"

n_train=$(wc -c <a/king-james-train.txt)
n_validation=$(wc -c <a/king-james-validation.txt)
[ "$n_validation" -gt $((n_train / 30)) ] && [ "$n_validation" -lt $((n_train / 15)) ] ||
    fail "validation has $n_validation bytes beside $n_train"
[ "$(head -n 1 a/king-james-train.txt)" = \
    "In the beginning God created the heaven and the earth." ] || fail "the text begins otherwise"
! grep -q '[^ -~]' a/king-james-train.txt || fail "the text holds more than printable ASCII"

before=$(stat -c %Y.%i a/king-james-train.txt)
"$MT_SOURCE/launch/make-corpus.sh" a
[ "$(stat -c %Y.%i a/king-james-train.txt)" = "$before" ] || fail "a second run wrote again"

# A machine that has what the script needs to speak, and no `bible`.
mkdir bin
ln -s "$(command -v dirname)" bin/
code=0
PATH=$PWD/bin "$BASH" "$MT_SOURCE/launch/make-corpus.sh" --no-install c 2>message || code=$?
[ $code -eq 4 ] && grep -q 'install the package bible-kjv' message ||
    fail "without the program: code $code, $(cat message)"
echo ok
