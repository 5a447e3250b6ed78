#!/usr/bin/env bash
# The cluster itself: hold.sh NAME NODES RANKS RATE BITS_PER_S [SLOW_HOST SLOW_BITS_PER_S], as process 1 of namespaces of its own
# (launch/rehearse.sh up starts it there). Everything it makes lives in those namespaces, so the kernel
# takes all of it back when this process ends, however it ends.
#
#   /dev/shm/cluster/hostI/{net,uts,ipc}   a host: files that hold its namespaces
#   /dev/shm/cluster/{hosts,reach}         names for mpirun, and its way to a host
#   /dev/shm/cluster/busy                  locked while a job runs
#
# Says "ready", or what went wrong, on standard output, then waits for the word "stay": should `up` be
# killed before it gives that word, its end of the pipe closes and the cluster goes with it.
set -eu
here=$(dirname "$0")

rest() { # process 1 collects the orphans of its namespace
    trap 'exit 0' TERM INT HUP
    while :; do
        sleep infinity &
        wait $! || true
    done
}
[ "$1" != --up ] || rest

nodes=$2 ranks=$3 slow_host=${6:-none} slow_bits_per_s=${7:-0}
# Segments of a quarter of a millisecond and a bucket of two: larger ones cost the shaper less (at 5 Gbit/s,
# 64 KiB carry twice what 16 KiB do), smaller ones show short messages the rate sooner.
mtu=9000
[ "$5" -ge 100000000 ] || mtu=1500
[ "$slow_host" = none ] || [ "$slow_bits_per_s" -ge 100000000 ] || mtu=1500

rate() { # BITS_PER_S: of the links that are made next
    bits_per_s=$1
    segment_bytes=$((bits_per_s / 32000))
    [ $segment_bytes -ge $((mtu + 200)) ] || segment_bytes=$((mtu + 200))
    [ $segment_bytes -le 65536 ] || segment_bytes=65536
    burst_bytes=$((bits_per_s / 16000))
    [ $burst_bytes -ge $((2 * segment_bytes)) ] || burst_bytes=$((2 * segment_bytes))
}
# A queue that no number of senders fills: links of clusters wait, they do not lose.
limit_bytes=268435456

shape() { # DEVICE: the rate for what leaves through it
    tc qdisc add dev "$1" root tbf rate "${bits_per_s}bit" burst $burst_bytes limit $limit_bytes
}

mount -n -t tmpfs -o mode=755 moetrain /dev/shm
cluster=/dev/shm/cluster
mkdir $cluster /dev/shm/run
: >$cluster/busy
printf '127.0.0.1 localhost\n10.83.0.254 head\n' >$cluster/hosts
hostname head
ip link set lo up
ip link add name switch type bridge stp_state 0 mcast_snooping 0
ip link set switch mtu $mtu up
ip address add 10.83.0.254/24 dev switch
for ((i = 0; i < nodes; i++)); do
    ! read -rt 0 || exit 0 # `up` is gone
    host=$cluster/host$i
    mkdir "$host"
    touch "$host/net" "$host/uts" "$host/ipc"
    if [ "$i" = "$slow_host" ]; then rate "$slow_bits_per_s"; else rate "$5"; fi
    unshare --net="$host/net" --uts="$host/uts" --ipc="$host/ipc" hostname "host$i"
    ip link add name "port$i" mtu $mtu gso_max_size $segment_bytes type veth \
        peer name eth0 mtu $mtu gso_max_size $segment_bytes netns "$host/net"
    ip link set "port$i" master switch up
    shape "port$i"
    export -f shape
    export bits_per_s burst_bytes limit_bytes
    nsenter --net="$host/net" bash -euc "
        ip link set lo up
        ip link set eth0 up
        ip address add 10.83.0.$((i + 1))/24 dev eth0
        shape eth0"
    printf '10.83.0.%d host%d\n' $((i + 1)) "$i" >>$cluster/hosts
    printf 'host%d slots=%d\n' "$i" "$ranks" >>$cluster/slots
done
mount -n --bind $cluster/hosts /etc/hosts
cp "$here/reach.sh" $cluster/reach
chmod 755 $cluster/reach

echo ready
read -r word || exit 0
[ "$word" = stay ] || exit 0
exec -a "moetrain-cluster $1 ${nodes}x$ranks $4" bash "$0" --up </dev/null >/dev/null 2>&1
