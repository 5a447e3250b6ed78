#!/usr/bin/env bash
# Runs moetrain on N ranks of this machine: launch/local.sh N CONFIG [ARGUMENTS]
#
# Quiet mpirun, more ranks than cores allowed, root allowed. Ranks that wait give up their core, and
# SIGTERM leaves them two minutes to save. Ends with moetrain's own exit code.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
    printf 'usage: launch/local.sh N CONFIG [ARGUMENTS]   e.g. launch/local.sh 4 configs/quickstart.toml\n' >&2
    exit 2
fi
ranks=$1
shift
[ -x "$BUILD_DIR/moetrain" ] || fail "$BUILD_DIR/moetrain is not built; run launch/quickstart.sh once"

export OMP_WAIT_POLICY=passive
exec mpirun -q -np "$ranks" --oversubscribe --allow-run-as-root --bind-to none \
    --mca mpi_yield_when_idle 1 --mca btl_vader_single_copy_mechanism none \
    --mca odls_base_sigkill_timeout 120 "$BUILD_DIR/moetrain" "$@"
