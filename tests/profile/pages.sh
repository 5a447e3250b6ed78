#!/usr/bin/env bash
# Pages of made runs in headless Chromium: no console message, no request, nothing empty, keys answered, light and
# dark, as wide as a phone. Without Chromium only what can be told without it (tests/run.sh does not install it: with
# what it needs it is 110 MB to fetch and 350 MB on disk).
. "$(dirname "$0")/../support/run.sh"
rm -rf ./*
here=$MT_SOURCE/tests/profile
for kind in slow skewed clean many killed one bare; do
    "$MT_BUILD/tests/profile/report_of_made_run" "$kind" "$kind.html" >"$kind.txt" || fail "the report of $kind"
    grep -q '^finding: ' "$kind.txt" || fail "no finding of $kind"
done
python3 "$here/check_page.py" ./*.html || fail "a page is not as it should be"
if command -v chromium >/dev/null; then
    timeout -k 5 250 python3 "$here/browser.py" ./*.html || fail "a page in the browser"
fi
rm -f ./*
