#!/usr/bin/env bash
# Installs what is missing, builds, runs every test through CTest.
#   tests/run.sh [--no-install] [--sanitize] [CTEST ARGUMENTS]      e.g. tests/run.sh -L quick
# --sanitize: the whole suite under AddressSanitizer and UndefinedBehaviorSanitizer (BUILD_DIR
# defaults to build-asan then).
set -u
sanitize=0
NO_INSTALL=0
arguments=()
for argument in "$@"; do
    case $argument in
    --no-install) NO_INSTALL=1 ;;
    --sanitize) sanitize=1 ;;
    *) arguments+=("$argument") ;;
    esac
done
[ $sanitize = 0 ] || BUILD_DIR=${BUILD_DIR:-build-asan}
export NO_INSTALL
. "$(dirname "${BASH_SOURCE[0]}")/../launch/common.sh"

# shellcheck disable=SC2086
install_packages $build_packages bible-kjv hdf5-tools libglpk-dev python3 python3-h5py clang-format-14 clang-tidy-14 \
    iproute2 procps util-linux slurmctld slurmd slurm-client
if [ $sanitize = 1 ]; then
    build all -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMT_WERROR=ON -DMT_SANITIZE=address,undefined
else
    build all -DMT_WERROR=ON
fi
cd "$BUILD_DIR" || exit 1
# Two at a time on two cores; tests of more than one rank take both (PROCESSORS).
exec ctest --output-on-failure --no-tests=error -j 2 "${arguments[@]}"
