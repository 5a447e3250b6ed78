#!/usr/bin/env bash
# What only a GPU can show, on a machine with one or more of NVIDIA's and the CUDA toolkit, 12.8 or later:
#   tests/gpu.sh [--no-install] [--build-only]
# Builds for the GPUs that are there and runs
#   parity     the tests of tests/kernel/ with the kernels of src/kernel/cuda/ and the real cuBLAS
#   sanitizer  kernels of all kinds under compute-sanitizer, where that is installed
#   training   20 steps of configs/quickstart.toml on 1, 2, 4 .. GPUs against the same on the CPU
#   start      what the GPU's module costs runs that do not use it, and a GPU's start over the CPU's
#   speed      every kernel against the bandwidth of copies and the rate of products, measured in the same run; products
#              of experts by each of their ways over rows
#   links      every collective over NCCL between 2, 4 .. GPUs against what the links do in the same run
# and writes a report to $OUT/performance-gpu.md, or to docs/ where OUT is not set. Ends with 0 when everything holds,
# 1 when something does not, and 77 where there is no GPU. --build-only builds, GPU or not.
# BUILD_DIR (build-gpu) and MT_CUDA_ARCHITECTURES, for --build-only, are taken from the environment.
set -u
no_gpu=77
float32_bound=1e-4  # of losses, which agree to rounding
bfloat16_bound=1e-2 # what is rounded to bfloat16 may flip where sums differ in their last bit
kernels="adamw attention attention_bf16 bfloat16 bias cross_entropy embedding expert gate grouped linear rms_norm router rows sigmoid
    sums"
parts="parity sanitizer training start speed links"
only_build=0
NO_INSTALL=0
for argument in "$@"; do
    case $argument in
    --no-install) NO_INSTALL=1 ;;
    --build-only) only_build=1 ;;
    *) printf 'usage: tests/gpu.sh [--no-install] [--build-only]\n' >&2 && exit 2 ;;
    esac
done
export NO_INSTALL
BUILD_DIR=${BUILD_DIR:-build-gpu}
. "$(dirname "${BASH_SOURCE[0]}")/../launch/common.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wrong=0

# ---- what there is ----

# find_gpus: sets gpus, a line `NAME, CAPABILITY` each; ends the script where there is none.
find_gpus() {
    install_packages gcc libc6-dev
    cc -o "$work/probe" "$root/tests/cuda/probe.c" -ldl || fail "tests/cuda/probe.c cannot be compiled"
    if ! gpus=$("$work/probe" 2>"$work/probe.log"); then
        fail_with $no_gpu "$(cat "$work/probe.log"); expected one of NVIDIA's with its driver; nothing was run (--build-only builds)"
    fi
}

fail_with() {
    printf 'gpu.sh: %s\n' "$2" >&2
    exit "$1"
}

find_toolkit() {
    nvcc=$(PATH="$PATH:${CUDA_PATH:-/usr/local/cuda}/bin" command -v nvcc) ||
        fail "there is no nvcc; expected the CUDA toolkit in PATH, CUDA_PATH or /usr/local/cuda; install it"
    PATH=$PATH:$(dirname "$nvcc")
}

build_all() {
    # shellcheck disable=SC2086
    install_packages $build_packages bible-kjv python3
    build -DMT_CUDA=ON -DMT_NVCC="$nvcc" -DMT_CUDA_ARCHITECTURES="$1"
    cmake --build "$BUILD_DIR" --target gpu >"$BUILD_DIR/build.log" 2>&1 || {
        tail -n 40 "$BUILD_DIR/build.log" >&2
        fail "the tests for the GPU could not be built; all of it is in $BUILD_DIR/build.log"
    }
}

# ---- what is run; each prints its part of the report ----

# A log that shows why something failed, kept and named.
keep() {
    mkdir -p "$BUILD_DIR/gpu-logs"
    cp "$work/$1.log" "$BUILD_DIR/gpu-logs/"
    say "$1: $2; see $BUILD_DIR/gpu-logs/$1.log" >&2
    wrong=1
}

# check_parity NAME PROGRAM: one line.
check_parity() {
    local log=${1// /_} verdict="as the reference"
    OMP_NUM_THREADS=1 timeout 600 "$BUILD_DIR/tests/cuda/$2" >"$work/$log.log" 2>&1 || {
        verdict="**differs**: $(sed -n 's/^\[  FAILED  \] \([a-z_0-9]*\)$/\1/p' "$work/$log.log" | sort -u | paste -sd' ')"
        keep "$log" "differs from its reference"
    }
    say "| $1 | $(sed -n 's/^\[==========\] Running \([0-9]*\) .*/\1/p' "$work/$log.log") | $verdict |"
}

parity() {
    say "| operation | tests | verdict |"
    say "|---|---|---|"
    local name
    for name in $kernels; do
        check_parity "$name" "gpu_$name"
    done
    # Products grouped and one by one at once, for which those of tests are too small by the rule.
    for name in grouped expert; do
        MT_TEST_APART_FLOPS=200000 check_parity "$name both ways" "gpu_$name"
    done
}

# check NAME TOOL PROGRAM...: one line of what compute-sanitizer finds.
check() {
    local name=$1 tool=$2 verdict="clean"
    shift 2
    timeout 1800 compute-sanitizer --tool "$tool" --error-exitcode 1 "$@" >"$work/$tool.$name.log" 2>&1 || {
        verdict="**not clean**"
        keep "$tool.$name" "compute-sanitizer or the program found something"
    }
    say "| $name | $tool | $verdict |"
}

sanitizer() {
    if ! command -v compute-sanitizer >/dev/null; then
        say "Not run: there is no compute-sanitizer beside nvcc."
        return
    fi
    say "| what | tool | verdict |"
    say "|---|---|---|"
    local tool name
    for tool in memcheck racecheck synccheck; do
        check "every kernel once" $tool "$BUILD_DIR/tests/cuda/gpu_measure" small
    done
    for name in gate rms_norm rows; do
        check "the tests of $name" memcheck "$BUILD_DIR/tests/cuda/gpu_$name"
    done
}

# train_as KIND DTYPE RANKS: 20 steps into $work/KIND.DTYPE.RANKS
train_as() {
    "$root/launch/local.sh" "$3" "$root/configs/quickstart.toml" --run-dir "$work/$1.$2.$3" \
        --set train.steps=20 --set "device.kind=\"$1\"" --set "device.dtype=\"$2\"" >"$work/$1.$2.$3.log" 2>&1
}

# compare_losses DTYPE RANKS BOUND: prints the largest difference; fails beyond the bound.
compare_losses() {
    python3 - "$work/cpu.$1.$2/metrics.jsonl" "$work/cuda.$1.$2/metrics.jsonl" "$3" <<'END'
import json
import sys


def losses(path):
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


ours, theirs = losses(sys.argv[2]), losses(sys.argv[1])
if not theirs or ours.keys() != theirs.keys():
    sys.exit("other steps than the CPU's")
worst = max(abs(ours[step] - theirs[step]) for step in ours)
print(f"{worst:.1e}")
sys.exit(0 if worst <= float(sys.argv[3]) else 1)
END
}

# train_pair DTYPE RANKS BOUND: one line.
train_pair() {
    local verdict="as the CPU's" difference="-"
    if ! train_as cpu "$1" "$2"; then
        verdict="**the CPU's run failed**"
        keep "cpu.$1.$2" "training on the CPU failed"
    elif ! train_as cuda "$1" "$2"; then
        verdict="**refused or failed**: $(grep -m 1 '^moetrain' "$work/cuda.$1.$2.log" || tail -n 1 "$work/cuda.$1.$2.log")"
        keep "cuda.$1.$2" "moetrain does not train with device.kind = \"cuda\" here"
    elif ! difference=$(compare_losses "$1" "$2" "$3" 2>&1); then
        verdict="**beyond $3**"
        keep "cuda.$1.$2" "losses differ from the CPU's by $difference"
    fi
    say "| $2 | $1 | $difference | $verdict |"
}

training() {
    local ranks=1 flags=()
    [ "$NO_INSTALL" = 0 ] || flags=(--no-install)
    "$root/launch/make-corpus.sh" "$root/corpus" "${flags[@]}" >"$work/corpus.log" 2>&1 ||
        keep corpus "the corpus for training could not be made"
    say "| GPUs | products in | largest difference of a loss | verdict |"
    say "|---|---|---|---|"
    while [ $ranks -le "$n_gpu" ]; do
        train_pair float32 $ranks $float32_bound
        ranks=$((2 * ranks))
    done
    train_pair bfloat16 1 $bfloat16_bound
}

speed() {
    if ! "$BUILD_DIR/tests/cuda/gpu_measure" 2>"$work/measure.log"; then
        say "Not measured: $(tail -n 1 "$work/measure.log")"
        keep measure "kernels could not be measured"
    fi
}

start() {
    python3 "$root/tests/cuda/startup.py" "$BUILD_DIR/moetrain" "$BUILD_DIR/libmoetrain_cuda.so" --gpu 2>"$work/start.log" ||
        keep start "the module is loaded where it is not wanted, or a run failed"
}

# Transport nccl, a rank a GPU.
links() {
    local ranks=2
    if [ "$n_gpu" -lt 2 ]; then
        say "Not measured: there is one GPU."
    elif [ ! -x "$BUILD_DIR/tests/cuda/gpu_collectives" ]; then
        say "Not measured: the toolkit has no NCCL."
        return
    fi
    while [ $ranks -le "$n_gpu" ]; do
        timeout 600 mpirun -q -np $ranks --oversubscribe --allow-run-as-root --bind-to none \
            "$BUILD_DIR/tests/cuda/gpu_collectives" 2>"$work/links.$ranks.log" ||
            keep "links.$ranks" "collectives on $ranks GPUs could not be measured"
        say
        ranks=$((2 * ranks))
    done
}

report() {
    local part
    say "# A GPU's results"
    say
    say "Written by \`tests/gpu.sh\` at revision $(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || say unknown) on"
    say "$n_gpu x ${gpus%%,*}, $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/toolkit \1/p')."
    for part in $parts; do
        say
        say "## ${part^}"
        say
        cat "$work/$part.md"
    done
}

[ $only_build = 1 ] || find_gpus
find_toolkit
if [ $only_build = 1 ]; then
    build_all "${MT_CUDA_ARCHITECTURES:-80;90;100}"
    say "built: $BUILD_DIR/tests/cuda/gpu_*; nothing was run"
    exit 0
fi
n_gpu=$(wc -l <<<"$gpus")
# The oldest first: what newer ones lack is compiled from its PTX.
build_all "$(sed 's/.*, //' <<<"$gpus" | sort -nu | paste -sd';')"
for part in $parts; do
    say "$part" >&2
    $part >"$work/$part.md"
done
OUT=${OUT:-$root/docs}
mkdir -p "$OUT"
report | tee "$OUT/performance-gpu.md"
say "written to $OUT/performance-gpu.md" >&2
[ $wrong = 0 ] || fail "something above does not hold; its logs are in $BUILD_DIR/gpu-logs"
