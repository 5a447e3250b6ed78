# The rooms that know processors, device and kernel, compile for arm64 without a warning. Headers of
# libraries are this machine's, which declare the same there; nothing is linked.
set -eu
compiler=${MT_ARM64_CC:-aarch64-linux-gnu-gcc}
if ! command -v "$compiler" >/dev/null; then
    echo "skipped: no $compiler here (Debian: apt-get install gcc-aarch64-linux-gnu)"
    exit 77
fi
flags=$(pkg-config --cflags hwloc)
for directory in device kernel kernel/cpu; do
    for source in "$MT_SOURCE/src/$directory"/*.c; do
        # shellcheck disable=SC2086
        "$compiler" -std=c17 -O3 -fopenmp -ffp-contract=off -D_GNU_SOURCE -DMT_VERSION='"0"' \
            -DMT_REVISION='"0"' -I"$MT_SOURCE/src" $flags \
            -idirafter /usr/include -idirafter "/usr/include/$(uname -m)-linux-gnu" \
            -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wdouble-promotion -Werror \
            -c "$source" -o one.o
    done
done
echo "all compile"
