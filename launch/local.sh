#!/usr/bin/env bash
# Runs moetrain on N ranks of this machine: launch/local.sh N CONFIG [ARGUMENTS]
#
# Quiet mpirun, more ranks than cores allowed, root allowed; ranks that wait give up their core, and so do their threads
# where ranks outnumber cores. SIGTERM and SIGUSR1 to this script ask the ranks to save and end. Ends with moetrain's
# own exit code.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
    printf 'usage: launch/local.sh N CONFIG [ARGUMENTS]   e.g. launch/local.sh 4 configs/quickstart.toml\n' >&2
    exit 2
fi
ranks=$1
shift
[ -x "$BUILD_DIR/moetrain" ] || fail "$BUILD_DIR/moetrain is not built; run launch/quickstart.sh once"
choose_messages

[ "$ranks" -le "$(nproc)" ] || export OMP_WAIT_POLICY=passive
# mpirun waits twice odls_base_sigkill_timeout (1 s) after *every* failure before it returns, for ranks that
# have no more to do. It is 0 here: a stop request goes as SIGUSR1, which mpirun forwards and does not time
# (docs/decisions/0005-stopping.md).
pid=""
pass() { [ -z "$pid" ] || kill "-$1" "$pid" 2>/dev/null; }
trap 'pass USR1' TERM USR1
trap 'pass INT' INT
mpirun -q -np "$ranks" --oversubscribe --allow-run-as-root --bind-to none \
    --mca odls_base_sigkill_timeout 0 "${message_flags[@]}" \
    "$BUILD_DIR/moetrain" "$@" <&0 &
pid=$!
while :; do
    wait "$pid"
    code=$?
    kill -0 "$pid" 2>/dev/null || break # else a trap ended the wait, not the job
done
if [ $code -gt 128 ] && [ $code -le 192 ]; then # a killed rank cannot speak, and mpirun is quiet
    printf 'moetrain: a rank was ended by signal %d; expected all to run to the end; start it again to go on from the last checkpoint\n' \
        $((code - 128)) >&2
fi
exit $code
