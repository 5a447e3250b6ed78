#!/usr/bin/env bash
# Ranks that were started differently: the odd one is named before any work, with code 2.
. "$(dirname "$0")/refuse.sh"
rm -rf run ./*.toml
mixed() { timeout -k 5 60 mpirun "${mpirun_flags[@]}" "$@"; }
differ() { # TEXT MPIRUN'S ARGUMENTS
    expect 2 "$1" mixed "${@:2}"
    said_nothing_else "$@"
}
sed 's/^seed = 1/seed = 2/' "$config" >other.toml
train=("$MOETRAIN" "$config" --quiet --run-dir run)

differ 'configuration of rank 2 differs' -np 2 "${train[@]}" : -np 1 "$MOETRAIN" other.toml --quiet --run-dir run
differ 'configuration of rank 0 differs' -np 1 "${train[@]}" --set optimizer.lr=2e-3 : -np 2 "${train[@]}"
differ 'configuration of rank 1 differs' -np 1 "${train[@]}" : -np 1 "${train[@]}" --run-dir run2 : -np 1 "${train[@]}"
# One rank's mistake is that rank's message.
differ 'rank 1 \([^)]*\): .*unknown key "stepz"' -np 1 "${train[@]}" : -np 2 "${train[@]}" --set train.stepz=2
differ 'rank 2 \([^)]*\): .*nowhere.toml: No such file' -np 2 "${train[@]}" : -np 1 "$MOETRAIN" nowhere.toml --quiet
# Commands and options that lead to other collectives.
differ 'command line of rank 2 differs' -np 2 "${train[@]}" : -np 1 "$MOETRAIN" eval "$config"
differ 'command line of rank 1 differs' -np 1 "${train[@]}" : -np 1 "${train[@]}" --resume never : -np 1 "${train[@]}"
[ -z "$(find . -name 'run*')" ] || fail "ranks that differ made a run directory"
