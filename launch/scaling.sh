#!/usr/bin/env bash
# How a step of one model gets faster with ranks and with threads: launch/scaling.sh [CONFIG [REPEAT [ARGUMENTS]]]
#
# Goes through the ways to use 1 .. all cores in turn, REPEAT times (default 5), so that whatever else runs here
# disturbs all alike, and takes the best step of each. Needs a quiet machine for figures that mean something. Prints per
# way: step time, tokens/s, the ratio to one rank with one thread, time in communication that nothing hid (mean over
# ranks), the rows of the fullest rank over the mean, and the phases that take longer than on a perfect division.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=${1:-$root/configs/bench-cpu.toml}
repeat=${2:-5}
shift $(($# < 2 ? $# : 2))
[ -x "$BUILD_DIR/moetrain" ] || fail "$BUILD_DIR/moetrain is not built; run launch/quickstart.sh once"
cores=$(nproc)
choose_messages "$cores"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

# RANKS x THREADS, each pair on as many cores as it has threads; all the cores once with ranks, once with threads.
ways="1x1"
for ((n = 2; n <= cores; n *= 2)); do
    ways="$ways ${n}x1 1x${n}"
done
cpus() { # N: the first N of the processors that this shell may use
    taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' | awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }' |
        head -n "$1" | paste -sd,
}
for ((i = 1; i <= repeat; i++)); do
    for way in $ways; do
        n_rank=${way%x*}
        n_thread=${way#*x}
        # The ranks divide what they are granted and bind their threads to it (src/device/cores.h).
        taskset -c "$(cpus $((n_rank * n_thread)))" mpirun -q -np "$n_rank" --oversubscribe --allow-run-as-root \
            --bind-to none "${message_flags[@]}" \
            "$BUILD_DIR/moetrain" "$config" --quiet --run-dir "$runs/$way.$i" --set train.steps=12 "${@}"
    done
done
python3 - "$runs" $ways <<'PY'
import glob, json, sys

def best(runs, way):
    """The fastest step of all repetitions, and the least time of each phase."""
    steps = [line for path in glob.glob(f"{runs}/{way}.*/metrics.jsonl") for line in map(json.loads, open(path))
             if "loss" in line and line["step"] > 2]
    phases = {}
    for step in steps:
        for name, seconds in step["phase_s"].items():
            phases[name] = min(phases.get(name, seconds), seconds)
    return min(steps, key=lambda step: step["step_time_s"]), phases

runs, ways = sys.argv[1], sys.argv[2:]
one, one_phases = best(runs, "1x1")
print(f"{'ranks x threads':>15} {'ms/step':>8} {'tokens/s':>9} {'ratio':>6} {'exposed':>8} {'load':>5}  beyond a perfect division, ms")
for way in ways:
    step, phases = best(runs, way)
    n_rank, n_thread = map(int, way.split("x"))
    n = n_rank * n_thread
    extra = {name: 1e3 * (s - one_phases.get(name, 0.0) / n) for name, s in phases.items()}
    shown = ", ".join(f"{name} {ms:.1f}" for name, ms in sorted(extra.items(), key=lambda e: -e[1]) if ms >= 1.0 and n > 1)
    load = step["rank_load_max_over_mean"]
    print(f"{way:>15} {1e3 * step['step_time_s']:8.1f} {step['tokens_per_s']:9.0f} "
          f"{one['step_time_s'] / step['step_time_s']:6.3f} {1e3 * step['exposed_comm_s']:8.1f} {load:5.2f}  {shown}")
PY
