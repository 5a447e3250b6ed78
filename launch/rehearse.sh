#!/usr/bin/env bash
# A cluster to rehearse on, on this machine (docs/rehearsal.md):
#   launch/rehearse.sh up 4x2 --rate 1gbit      4 hosts of 2 ranks, each on a link of 1 Gbit/s both ways
#                                               with --slow 2:100mbit host2's link carries that only
#   launch/rehearse.sh run CONFIG [OPTIONS]     moetrain on all its ranks; also: run bench collectives
#   launch/rehearse.sh check                    do the links hold their rate?
#   launch/rehearse.sh status                   the clusters that are up
#   launch/rehearse.sh down
#   --name NAME after the command keeps several apart; run --ranks N fills hosts in order, the last maybe partly
# Ends with moetrain's codes: 2 for a bad command line or a cluster in the wrong state, 4 for what this machine lacks.
# Ctrl-C, SIGTERM and SIGUSR1 to `run` ask the ranks to save and end.
#
# A cluster is one process with namespaces of its own (rehearse/hold.sh): no file, no entry in
# `ip link` or `ip netns` outlives it.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
inside=$root/launch/rehearse
files=/dev/shm/cluster # as the cluster's own processes see it
max_nodes=64 max_ranks=256
min_bits_per_s=1000000 max_bits_per_s=5000000000

refuse() { # CODE MESSAGE
    printf 'rehearse.sh: %s\n' "$2" >&2
    exit "$1"
}
usage() { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

need() { # TOOL PACKAGE ...
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null ||
            refuse 4 "the program '$1' is missing; expected it in PATH ($PATH); install the package $2"
        shift 2
    done
}

# The process that holds cluster $1 (process 1 of its namespaces), or nothing.
holder() { pgrep -u "$(id -u)" -f "^moetrain-cluster $1 "; }
shape_of() { tr '\0' ' ' <"/proc/$1/cmdline" | cut -d' ' -f3; }
rate_of() { tr '\0' ' ' <"/proc/$1/cmdline" | cut -d' ' -f4; }
is_busy() { ! flock -n "/proc/$1/root$files/busy" true; }

as_root=() enter_user=()
if [ "$(id -u)" != 0 ]; then
    as_root=(--user --map-root-user)
    enter_user=(--user --preserve-credentials)
fi

# --rate 1gbit -> 1000000000
read_rate() {
    local rate=${1,,} number unit
    [[ $rate =~ ^([0-9]{1,9}(\.[0-9]{1,3})?)([kmg]bit)$ ]] ||
        refuse 2 "--rate '$1' is not a rate; expected a number with kbit, mbit or gbit; e.g. --rate 1gbit"
    number=${BASH_REMATCH[1]} unit=${BASH_REMATCH[3]}
    bits_per_s=$(LC_ALL=C awk -v n="$number" -v u="${unit:0:1}" \
        'BEGIN { printf "%.0f", n * (u == "k" ? 1e3 : u == "m" ? 1e6 : 1e9) }')
    if [ "$bits_per_s" -lt $min_bits_per_s ] || [ "$bits_per_s" -gt $max_bits_per_s ]; then
        refuse 2 "--rate $1 cannot be reached; expected 1mbit to 5gbit, which the shaper of one machine holds; ask for a rate in this range, and see what it holds with: launch/rehearse.sh check"
    fi
}

read_shape() {
    [[ $1 =~ ^([1-9][0-9]{0,3})x([1-9][0-9]{0,3})$ ]] ||
        refuse 2 "'$1' is not a shape of a cluster; expected NODESxRANKS; e.g. launch/rehearse.sh up 4x2 --rate 1gbit"
    nodes=${BASH_REMATCH[1]} ranks=${BASH_REMATCH[2]}
    if [ "$nodes" -gt $max_nodes ] || [ $((nodes * ranks)) -gt $max_ranks ]; then
        refuse 2 "$1 is $nodes hosts with $((nodes * ranks)) ranks; expected at most $max_nodes hosts and $max_ranks ranks; ask for fewer"
    fi
}

# --slow 2:100mbit -> slow=(2 100000000), with the shape read and bits_per_s the others' rate
read_slow() {
    local all_bits_per_s=$bits_per_s host=${1%%:*}
    slow=()
    [ -n "$1" ] || return 0
    if ! [[ $1 =~ ^[0-9]{1,2}:[^:]+$ ]] || [ "$host" -ge "$nodes" ]; then
        refuse 2 "--slow '$1' is not a host and its rate; expected HOST:RATE with a host from 0 to $((nodes - 1)); e.g. --slow 1:100mbit"
    fi
    read_rate "${1#*:}"
    slow=("$host" "$bits_per_s")
    bits_per_s=$all_bits_per_s
}

up() {
    local shape=${1:-} rate=${options[--rate]:-} pid line said="" word
    [ $# -le 1 ] || refuse 2 "'$2' is one argument too many; expected up NODESxRANKS --rate RATE; leave it out"
    [ -n "$shape" ] || refuse 2 "up has no shape; expected NODESxRANKS; e.g. launch/rehearse.sh up 4x2 --rate 1gbit"
    [ -n "$rate" ] || refuse 2 "up has no rate; expected --rate with a number and kbit, mbit or gbit; e.g. --rate 1gbit"
    read_shape "$shape"
    read_rate "$rate"
    read_slow "${options[--slow]-}"
    need ip iproute2 tc iproute2 mpirun openmpi-bin unshare util-linux nsenter util-linux pgrep procps
    exec {lock}<"${BASH_SOURCE[0]}"
    flock $lock # one `up` at a time: what it looks for stays true until it is done
    pid=$(holder "$name")
    [ -z "$pid" ] ||
        refuse 2 "cluster '$name' is up already ($(shape_of "$pid") at $(rate_of "$pid"), process $pid); expected none of this name; take it down first: launch/rehearse.sh down --name $name"
    coproc hold {
        exec {lock}<&-
        exec setsid unshare "${as_root[@]}" --net --mount --pid --uts --ipc --fork --kill-child \
            --mount-proc --propagation slave \
            bash "$inside/hold.sh" "$name" "$nodes" "$ranks" "${rate,,}" "$bits_per_s" "${slow[@]}" 2>&1
    }
    # shellcheck disable=SC2154
    exec {from}<&"${hold[0]}" {to}>&"${hold[1]}"
    word=""
    while read -r line <&$from; do
        [ "$line" != ready ] || { word=ready && break; }
        said+="${said:+; }$line"
    done
    [ -n "$word" ] ||
        refuse 4 "this machine gives no namespaces with shaped links (it says: ${said:-nothing}); expected the rights of root with CAP_SYS_ADMIN and CAP_NET_ADMIN, or a kernel that lets users make namespaces, and its modules bridge, veth and sch_tbf; run it as root, or allow users namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces and its siblings above 0)"
    echo stay >&$to
    for _ in $(seq 200); do
        pid=$(holder "$name") && break
        sleep 0.01
    done
    [ -n "$pid" ] || refuse 1 "cluster '$name' ended as soon as it was up; expected it to stay; please report it"
    say "cluster '$name' is up: $nodes hosts of $ranks ranks, $rate a link; next: launch/rehearse.sh run CONFIG"
}

# enter PROCESS COMMAND...: in the place of the machine that starts jobs, the switch's.
enter() {
    local pid=$1
    shift
    exec setsid --wait nsenter --target "$pid" "${enter_user[@]}" --net --mount --pid --uts --ipc \
        unshare --mount --pid --fork --kill-child --mount-proc "$@"
}

find_cluster() {
    pid=$(holder "$name")
    [ -n "$pid" ] ||
        refuse 2 "cluster '$name' is not up; expected one; start it: launch/rehearse.sh up 4x2 --rate 1gbit --name $name"
}

# job COMMAND...: in the cluster as process tree of its own; ends with its code. Signals go over a pipe,
# since a job has its own process ids; the pipe's end is also how the job learns that this script is gone.
job() {
    local code job_pid control
    exec 8<&0
    exec {control}> >(enter "$pid" bash "$inside/job.sh" "$PWD" "$@" 9<&0 <&8 8<&-)
    job_pid=$!
    exec 8<&-
    # shellcheck disable=SC2064
    trap "echo USR1 >&$control" INT TERM USR1 HUP
    while :; do
        wait $job_pid
        code=$?
        kill -0 $job_pid 2>/dev/null || break
    done
    return $code
}

run() {
    local n=${options[--ranks]:-} shape code
    [ $# -gt 0 ] || refuse 2 "run has nothing to run; expected a configuration or a command of moetrain; e.g. launch/rehearse.sh run configs/tiny.toml"
    need mpirun openmpi-bin
    find_cluster
    shape=$(shape_of "$pid")
    local all=$((${shape%x*} * ${shape#*x}))
    n=${n:-$all}
    if ! [[ $n =~ ^[1-9][0-9]{0,3}$ ]] || [ "$n" -gt $all ]; then
        refuse 2 "--ranks '$n' does not fit the cluster; expected 1 to $all, which fill its hosts in order; ask for fewer or start a larger cluster"
    fi
    [ -x "$BUILD_DIR/moetrain" ] ||
        refuse 4 "$BUILD_DIR/moetrain is not built; expected it there; run launch/quickstart.sh once, or say BUILD_DIR=..."
    export OMP_WAIT_POLICY=passive
    # Open MPI has one TCP connection for both directions of a pair, and writes a message into it as a whole: what
    # the other side needs to begin its own waits behind it, and one of two exchanges filled half of a 1 Gbit/s link.
    # Fragments and a short send buffer fill .90 to 1.00 of it.
    # Daemons stay in the session of this job: the kernel deals time to sessions first (sched_autogroup), and with one a
    # host ranks that give up their core give it to ranks of their own host until the host's turn is over, while what they
    # wait for is with another. And 64 connections a rank are asked for all at once (epoll), not one by one.
    job mpirun -q -np "$n" --hostfile $files/slots --oversubscribe --allow-run-as-root \
        --bind-to none --mca plm rsh --mca plm_rsh_agent $files/reach \
        --mca plm_rsh_no_tree_spawn 1 --mca orte_tmpdir_base /dev/shm/run \
        --mca orte_leave_session_attached 1 --mca opal_event_include epoll \
        --mca oob_tcp_if_include 10.83.0.0/24 --mca pml ob1 --mca btl self,vader,tcp \
        --mca btl_tcp_if_include 10.83.0.0/24 --mca btl_tcp_flags send,inplace --mca btl_tcp_sndbuf 262144 \
        --mca btl_vader_single_copy_mechanism none --mca mpi_yield_when_idle 1 "$BUILD_DIR/moetrain" "$@"
    code=$?
    # killed: alone, or with the cluster, whose process is the last of it to go
    for _ in $([ $code = 137 ] && seq 50); do
        [ -d "/proc/$pid" ] && sleep 0.02
    done
    [ -d "/proc/$pid" ] ||
        refuse 4 "cluster '$name' was taken down under its job; expected it to stay until the job's end; start both again, the job goes on from its last checkpoint"
    if [ $code -gt 128 ] && [ $code -le 192 ]; then # a killed rank cannot speak, and mpirun is quiet
        printf 'moetrain: a rank was ended by signal %d; expected all to run to the end; start it again to go on from the last checkpoint\n' \
            $((code - 128)) >&2
    fi
    return $code
}

check() {
    need python3 python3
    find_cluster
    local shape
    shape=$(shape_of "$pid")
    read_rate "$(rate_of "$pid")"
    job python3 "$inside/links.py" "${shape%x*}" "$bits_per_s"
}

status() {
    local pid any=no
    for pid in $(holder '[^ ]*'); do
        any=yes
        printf '%s: %s at %s, process %d, %s\n' \
            "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -d' ' -f2)" "$(shape_of "$pid")" "$(rate_of "$pid")" \
            "$pid" "$(is_busy "$pid" && echo running || echo idle)"
    done
    [ $any = yes ] || say "no cluster is up"
}

down() {
    pid=$(holder "$name")
    if [ -z "$pid" ]; then
        say "cluster '$name' is not up"
        return
    fi
    ! is_busy "$pid" || say "the job that runs on it ends with it"
    kill -KILL "$pid"
    for _ in $(seq 500); do
        [ -d "/proc/$pid" ] || { say "cluster '$name' is down" && return; }
        sleep 0.02
    done
    refuse 1 "process $pid of cluster '$name' did not end in 10 s; expected SIGKILL to end it; see: ps $pid"
}

[ $# -gt 0 ] || { usage >&2 && exit 2; }
command=$1
shift
case $command in
up | run | check | status | down) ;;
--help | -h) usage && exit 0 ;;
*) refuse 2 "'$command' is not a command; expected up, run, check, status or down; see launch/rehearse.sh --help" ;;
esac
declare -A options=()
arguments=()
while [ $# -gt 0 ]; do
    option=${1%%=*}
    case $command:$option in
    *:--name | up:--rate | up:--slow | run:--ranks)
        value=${1#*=}
        if [ "$option" = "$1" ]; then
            [ $# -ge 2 ] || refuse 2 "$option has no value; expected one after it; see launch/rehearse.sh --help"
            value=$2
            shift
        fi
        options[$option]=$value
        ;;
    *:--help | *:-h) usage && exit 0 ;;
    run:*) break ;; # the rest is moetrain's
    up:[!-]*) arguments+=("$1") ;;
    *) refuse 2 "$command does not know '$1'; expected what launch/rehearse.sh --help shows; leave it out" ;;
    esac
    shift
done
name=${options[--name]-default}
[[ $name =~ ^[A-Za-z0-9_-]{1,32}$ ]] ||
    refuse 2 "--name '$name' is not a name; expected up to 32 letters, digits, - and _; choose another"
"$command" "${arguments[@]}" "$@"
exit $?
