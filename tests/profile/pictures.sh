#!/usr/bin/env bash
# Makes the pictures of docs/profiling.md anew: tests/profile/pictures.sh BUILD FOLDER [RUN_DIR]. Trains configs/straggler.toml on 8
# ranks (about two minutes) unless RUN_DIR is such a run, writes its report, takes pictures with Debian's chromium.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
mkdir -p "$2"
pictures=$(cd "$2" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
run=${3:-$scratch/run}
if [ $# -lt 3 ]; then
    BUILD_DIR=$build "$root/launch/local.sh" 8 "$root/configs/straggler.toml" --run-dir "$run" --quiet
fi
"$build/moetrain" report "$run" -o "$scratch/straggler.html"
python3 "$root/tests/profile/browser.py" "$scratch/straggler.html" --pictures "$scratch" --section header --section ranks \
    --section heat --section whatif --section critical
mv "$scratch"/straggler-*-light.png "$pictures"
