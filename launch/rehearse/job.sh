#!/usr/bin/env bash
# One job on a rehearsed cluster: job.sh DIRECTORY COMMAND..., as process 1 of a process namespace of its
# own, so that daemons and ranks end with it. Names of signals for the command come on descriptor 9;
# when that closes, launch/rehearse.sh is gone and so is the job.
set -u
exec 7>/dev/shm/cluster/busy
if ! flock -n 7; then
    printf 'rehearse.sh: the cluster runs a job already; expected one at a time, since they would share its links; wait for it, or start another cluster with --name\n' >&2
    exit 2
fi
mount -n -t tmpfs -o mode=755 moetrain /dev/shm/run || exit 4
cd "$1" || exit 4
shift
"$@" 9<&- &
job=$!
while read -r signal; do kill -s "$signal" $job 2>/dev/null; done <&9 >/dev/null &
wait -n # the job's end with its code, or the watcher's
code=$?
if kill -0 $job 2>/dev/null; then exit 137; fi
exit $code
