#!/usr/bin/env bash
# A few rehearsed stragglers and some clean windows, through the whole program: straggler_study.py is the long form.
. "$(dirname "$0")/../support/run.sh"
python3 "$MT_SOURCE/tests/profile/straggler_study.py" --build "$MT_BUILD" --cases 6 --clean-windows 3 --seed 3 ||
    fail "a straggler was not found, or one was that is none"
