#!/usr/bin/env bash
# launch/slurm.sbatch below a real slurmctld and two slurmd of this machine: stopped by Slurm's signal it saves,
# goes back to the queue, resumes and finishes; cancelled, it saves and stays away.
. "$(dirname "$0")/../support/run.sh"
for tool in slurmctld slurmd sbatch; do
    if ! command -v $tool >/dev/null; then
        printf '%s is not installed; install slurmctld, slurmd and slurm-client\n' $tool
        exit 77
    fi
done
here=$(mktemp -d)
unset MOETRAIN_LAUNCHER "${!SLURM_@}" 2>/dev/null
export SLURM_CONF=$here/slurm.conf
host=$(hostname -s)
read -r -a ports <<<"$(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in held))')"
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool.%n
TmpFS=$here/tmp.%n
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.%n.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName=a NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=4
NodeName=b NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=4
PartitionName=all Nodes=ALL Default=YES
CONF
mkdir "$here/state" "$here/spool.a" "$here/spool.b" "$here/tmp.a" "$here/tmp.b"

daemons=()
start_daemon() { # COMMAND...: it ends with the test, or by itself should the test be killed
    timeout -k 2 100 "$@" >>"$here/daemons.out" 2>&1 &
    daemons+=($!)
}
end_all() {
    [ ${#daemons[@]} -gt 0 ] || return 0
    timeout 5 scancel --user="$(id -un)" 2>/dev/null # it asks for a minute when nobody answers
    kill "${daemons[@]}" 2>/dev/null
    wait "${daemons[@]}" 2>/dev/null
    daemons=()
}
trap 'end_all; rm -rf "$here"' EXIT
start_daemon slurmctld -D -i
start_daemon slurmd -D -N a
start_daemon slurmd -D -N b

until_true() { # WHAT COMMAND...: within 20 s
    local what=$1 i
    shift
    for i in $(seq 200); do
        "$@" && return
        sleep 0.1
    done
    fail "$what: $(cat "$here"/*.log daemons.out job.log 2>/dev/null | tail -n 40)"
}
nodes_are_idle() { [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; }
job_is() { # STATE JOB
    [ "$(scontrol show job "$2" 2>/dev/null | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p')" = "$1" ]
}
steps_ended() { ! compgen -G "$here/spool.*/*_$job.*" >steps.txt; } # sockets of the steps' daemons
submit() { # ARGUMENTS of moetrain: sets $job
    job=$(sbatch --parsable --nodes=2 --ntasks-per-node=1 --output="$PWD/job.log" \
        "$MT_SOURCE/launch/slurm.sbatch" "$@") || fail "sbatch: $(cat "$here"/*.log | tail)"
}
until_true "the nodes came up" nodes_are_idle

# Signal, queue, resume, finish.
rm -rf run_* job.log && touch start.err
slow=(--set device.pace_gflops=0.5)
submit "$config" --run-dir run_requeued "${slow[@]}" --set train.steps=60
wait_for_steps run_requeued 3
scancel --signal=USR1 --batch "$job" # as --signal does before the time limit
until_true "the job went back to the queue" job_is PENDING "$job"
stopped=$(sed -n 's/^stopped after step \([0-9]*\), saved.*/\1/p' job.log)
[ -n "$stopped" ] && [ "$stopped" -lt 60 ] || fail "it did not save first: $(cat job.log)"
until_true "the steps of the first start ended" steps_ended
sleep 1.1 # a node refuses a job in the second in which it killed its first start
scontrol update jobid="$job" StartTime=now # Slurm would wait two minutes
until_true "the job finished" job_is COMPLETED "$job"
metrics steps run_requeued/metrics.jsonl 1 60
grep -q "^step $((stopped + 1))/60" job.log || fail "it did not go on from step $stopped: $(cat job.log)"
[ "$(grep -c '^step 1/60' job.log)" = 1 ] || fail "it began anew: $(cat job.log)"
grep -q '2 ranks on 2 nodes' job.log || fail "expected 2 ranks on 2 nodes: $(head -n 3 job.log)"

# Cancelled: saved as well, and not queued again.
rm -f job.log
submit "$config" --run-dir run_cancelled "${slow[@]}" --set train.steps=4000
wait_for_steps run_cancelled 3
scancel "$job"
until_true "the job was cancelled" job_is CANCELLED "$job"
until_true "the checkpoint of a cancelled job" test -d run_cancelled/checkpoints
until_true "the nodes came free" nodes_are_idle
job_is CANCELLED "$job" || fail "a cancelled job went back to the queue: $(cat job.log)"

# Refused.
rm -f job.log
submit
until_true "a job without configuration failed" job_is FAILED "$job"
grep -q '^slurm.sbatch: no configuration; expected: sbatch' job.log || fail "$(cat job.log)"

end_all
if pgrep -af "$here|slurmstepd: \[$job" | grep -v pgrep; then fail "processes are left over"; fi
rm -rf "$here"
[ ! -e "$here" ] || fail "$here is left over"
