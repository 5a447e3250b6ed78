#!/usr/bin/env bash
# `cmake --install` into a place of one's own: the program runs from there, with its man page and examples.
. "$(dirname "$0")/refuse.sh"
rm -rf prefix run
cmake --install "$MT_BUILD" --prefix "$PWD/prefix" >install.txt 2>&1 || fail "$(tail -5 install.txt)"
MOETRAIN=$PWD/prefix/bin/moetrain
expect 0 "" one --version
page=$(find prefix -name 'moetrain.1*')
[ -n "$page" ] || fail "no man page: $(find prefix -type f | head)"
grep -q '^.TH MOETRAIN 1' "$page" || fail "$page is no man page"
if command -v man >/dev/null; then
    [ -z "$(MANROFFSEQ='' MANWIDTH=80 LC_ALL=C.UTF-8 man --warnings -l "$page" 2>&1 >/dev/null)" ] ||
        fail "$(LC_ALL=C.UTF-8 man --warnings -l "$page" 2>&1 >/dev/null | head -5)"
fi
for example in tiny quickstart bench-cpu; do
    expect 0 "" one "prefix/share/moetrain/configs/$example.toml" --check-config
done
expect 0 "" one prefix/share/moetrain/configs/tiny.toml --quiet --run-dir run --set train.steps=1
[ -s run/metrics.jsonl ] || fail "no metrics"
