#!/bin/sh
# mpirun's way to a host of a rehearsed cluster, in the place of ssh: reach HOST COMMAND...
# Memory files (/dev/shm) are a host's own and a job's own: they end with the job's processes.
host=/dev/shm/cluster/$1
shift
exec nsenter --net="$host/net" --uts="$host/uts" --ipc="$host/ipc" unshare --mount sh -ec '
    mount -n -t tmpfs -o mode=755 moetrain /dev/shm/run
    mkdir /dev/shm/run/cluster /dev/shm/run/run
    mount -n --bind /dev/shm/cluster /dev/shm/run/cluster # mpirun'\''s daemon looks for this file again
    mount -n --move /dev/shm/run /dev/shm
    eval "$1"' reach "$*"
