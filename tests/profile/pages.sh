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
# With metrics: decisions of placement, and what other policies were predicted to cost.
for step in $(seq 12); do
    printf '{"step":%d,"step_time_s":0.02,"rank_load_max_over_mean":1.1,"placement":{"copies":2,"predicted_s":0.01,"ideal_s":0.008,' "$step"
    printf '"decisions":[{"layer":1,"expert":%d,"copies":2,"ranks":[0,3],"late":false,"rows":90,"saves_s":3e-4,"costs_s":4e-5}],' $((step % 8))
    printf '"shadow":{"ep":{"predicted_s":0.02,"rank_load_max_over_mean":1.8}}}}\n'
done >metrics.jsonl
"$MT_BUILD/tests/profile/report_of_made_run" skewed placed.html >placed.txt || fail "the report of a run with metrics"
grep -qE '^decision  .*expert 4 also on ranks 0 and 3: saves' placed.txt || fail "no decision: $(cat placed.txt)"
grep -qE '^ep  .* 2\.00 ' placed.txt || fail "no other policy: $(cat placed.txt)"
python3 "$here/check_page.py" ./*.html || fail "a page is not as it should be"
if command -v chromium >/dev/null; then
    timeout -k 5 250 python3 "$here/browser.py" ./*.html || fail "a page in the browser"
fi
rm -f ./*
