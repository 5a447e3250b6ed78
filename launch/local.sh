#!/usr/bin/env bash
# Runs moetrain on N ranks of this machine: launch/local.sh N CONFIG [ARGUMENTS]
#
# Quiet mpirun, more ranks than cores allowed, root allowed; ranks that wait give up their core, and so do their threads
# where ranks outnumber cores. Ctrl-C, SIGTERM, SIGUSR1 and the end of the terminal ask the ranks to save and end, a
# second time to end at once. Ends with moetrain's own exit code.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
    printf 'usage: launch/local.sh N CONFIG [ARGUMENTS]   e.g. launch/local.sh 4 configs/quickstart.toml\n' >&2
    exit 2
fi
ranks=$1
shift
[ -x "$BUILD_DIR/moetrain" ] || fail "$BUILD_DIR/moetrain is not built; run launch/quickstart.sh once"
choose_messages "$ranks"

[ "$ranks" -le "$(nproc)" ] || export OMP_WAIT_POLICY=passive
# After *every* failure mpirun waits twice odls_base_sigkill_timeout (1 s) before it returns. Nobody needs that time: a
# stop request goes as SIGUSR1, which mpirun forwards and does not time (docs/decisions/0005-stopping.md). A session of
# its own, since a terminal's Ctrl-C would reach mpirun as well, which then kills the ranks; and mpirun hears of it when
# this script is killed.
pid="" asked=no
ask_to_stop() {
    asked=yes
    [ -z "$pid" ] || kill -USR1 "$pid" 2>/dev/null
}
trap ask_to_stop INT TERM USR1 HUP
setpriv --pdeathsig USR1 setsid mpirun -q -np "$ranks" --oversubscribe --allow-run-as-root --bind-to none \
    --mca odls_base_sigkill_timeout 0 "${message_flags[@]}" \
    "$BUILD_DIR/moetrain" "$@" <&0 &
pid=$!
while :; do
    wait "$pid"
    code=$?
    kill -0 "$pid" 2>/dev/null || break # else a trap ended the wait, not the job
done
if [ $code -eq $((128 + $(kill -l USR1))) ] && [ $asked = yes ]; then # by ranks that had not begun, or do not listen
    printf 'moetrain: stopped at once on request; only training, evaluation and text stop in order; nothing was saved\n' >&2
elif [ $code -gt 128 ] && [ $code -le 192 ]; then # a killed rank cannot speak, and mpirun is quiet
    printf 'moetrain: a rank was ended by signal %d; expected all to run to the end; start it again to go on from the last checkpoint\n' \
        $((code - 128)) >&2
fi
exit $code
