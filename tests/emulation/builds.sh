#!/usr/bin/env bash
# The four builds of the emulated GPU (tests/emulation/CMakeLists.txt), made and run one after another:
#   tests/emulation/builds.sh FOLDER [plain|guards|address|thread ...]
# Builds into FOLDER/<build>, runs the tests emulation.* of each and prints a table; ends with 0 when all pass. A share
# of 1 is 10 minutes of processor time, which two cores have in 5. Needs what tests/run.sh installs, and no toolkit.
set -u
folder=${1:?usage: tests/emulation/builds.sh FOLDER [plain|guards|address|thread ...]}
shift
builds=("${@:-plain}")
[ $# -gt 0 ] || builds=(plain guards address thread)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
limit_s=600

options() {
    case $1 in
    plain) ;;
    guards) echo -DMT_EMULATED_GUARDS=ON ;;
    address) echo -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMT_SANITIZE=address,undefined ;;
    thread) echo -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMT_SANITIZE=thread ;;
    *) return 1 ;;
    esac
}

# make_build NAME: configures and builds; prints only when something fails.
make_build() {
    local log=$folder/$1.log flags
    flags=$(options "$1") || { echo "there is no build \"$1\"" >&2 && exit 2; }
    mkdir -p "$folder"
    # shellcheck disable=SC2086
    { cmake -S "$root" -B "$folder/$1" -G Ninja -DMT_WERROR=ON -DMT_CUDA=OFF $flags &&
        ninja -j2 -C "$folder/$1" emulated; } >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        echo "the build \"$1\" failed; all of it is in $log" >&2
        exit 1
    }
}

# count_s: sets processor_s, of this script's children so far. A subshell would count its own.
count_s() {
    times >"$folder/times"
    processor_s=$(awk -F'[ms ]' 'NR == 2 { printf "%d", $1 * 60 + $2 + $4 * 60 + $5 }' "$folder/times")
}

code=0
rows=()
for build in "${builds[@]}"; do
    make_build "$build"
    count_s
    before=$processor_s
    verdict=passed
    ctest --test-dir "$folder/$build" --output-on-failure -R '^emulation\.' >"$folder/$build.log" 2>&1 || {
        verdict=failed
        code=1
        tail -n 60 "$folder/$build.log" >&2
    }
    count_s
    n=$(grep -c '^ *[0-9]*/[0-9]* Test ' "$folder/$build.log")
    share=$(awk -v s=$((processor_s - before)) -v limit=$limit_s 'BEGIN { printf "%.2f", s / limit }')
    rows+=("| $build | $n | $verdict | $share |")
done
printf '| build | tests | verdict | of the time |\n|---|---|---|---|\n'
printf '%s\n' "${rows[@]}"
exit $code
