#!/usr/bin/env bash
# Commands, options and what they print; everything mistyped is refused with code 2.
. "$(dirname "$0")/refuse.sh"
rm -rf ./*.toml never

# Words that mean nothing.
refuse 2 'trian is neither a command nor a file.*nearest command is train' trian "$config"
refuse 2 'reprot is neither.*nearest command is report' reprot
refuse 2 'nowhere.toml: No such file' nowhere.toml
refuse 2 'unknown option --bogus of moetrain train.*train --help' train "$config" --bogus
refuse 2 'unknown option --seed of moetrain plan' plan "$config" --seed 1
refuse 2 'one argument too many: extra' "$config" extra
refuse 2 'an argument is missing.*\[train\] CONFIG' train
refuse 2 'an argument is missing.*inspect CHECKPOINT' inspect
refuse 2 'an argument is missing.*bench' bench
refuse 2 'nothing is no benchmark' bench nothing
refuse 2 '--run-dir has no value; expected --run-dir DIR' "$config" --run-dir
refuse 2 '--set has no value' "$config" --set
refuse 2 '--quiet takes no value' "$config" --quiet=yes
refuse 2 '--ranks 0 is not an integer of at least 1' plan "$config" --ranks 0
refuse 2 '--ranks 2.5 is not an integer' plan "$config" --ranks 2.5
refuse 2 '--ranks 99999999999999999999 is not' plan "$config" --ranks=99999999999999999999
refuse 2 '2 ranks on 3 nodes' plan "$config" --ranks 2 --nodes 3
refuse 2 '--prompt is missing' generate --checkpoint never
refuse 2 '--checkpoint is missing' generate --prompt x
refuse 2 '--checkpoint and --prompt are missing' generate
refuse 2 'the prompt is empty' generate --checkpoint never --prompt ''
refuse 2 '--temperature hot is not a number' generate --checkpoint never --prompt x --temperature hot
refuse 2 '--temperature nan is not a number' generate --checkpoint never --prompt x --temperature nan
refuse 2 '--tokens -1 is not an integer of at least 0' generate --checkpoint never --prompt x --tokens -1
refuse 2 '--tokens 9223372036854775807 is too many' generate --checkpoint never --prompt x \
    --tokens 9223372036854775807
refuse 2 '--sequences 0 asks for more random data' eval "$config" --sequences 0
expect 2 'unknown option --bogus' ranks 3 "$config" --bogus
said_nothing_else

# Missing and unknown names.
refuse 3 'nowhere' report nowhere
refuse 2 'an argument is missing' report
refuse 2 'an argument is missing; expected: moetrain checkpoint convert CHECKPOINT NEW' checkpoint convert
refuse 2 'moetrain data prepare needs -o' data prepare text
refuse 2 'bench policies needs a configuration' bench policies
refuse 2 'skews : expected up to' bench policies "$MT_SOURCE/configs/bench-policies.toml" --skews ''
refuse 3 'nowhere.csv' bench checkpoint "$config" --set 'moe.routing="replay"' --set 'moe.trace="nowhere.csv"'
MT_ISA=avx1024 refuse 2 'MT_ISA = "avx1024" names no instructions' bench step "$config" --steps 1
MT_ISA=avx1024 refuse 2 'MT_ISA = "avx1024" names no instructions' bench kernels --only swiglu
MT_ISA=avx1024 refuse 2 'MT_ISA = "avx1024" names no instructions' plan "$config"
refuse 2 'device.threads = 513 is out of range' "$config" --set device.threads=513
refuse 2 '"nope" is no policy' bench policies "$MT_SOURCE/configs/bench-policies.toml" \
    --policies ep,nope

# Questions are answered on standard output, with code 0.
expect 0 "" one
grep -q '^usage: ' out.txt || fail "no usage"
for command in train eval generate inspect verify plan bench report doctor checkpoint data import export upcycle; do
    expect 0 "" one --help
    grep -q "^  $command " out.txt || fail "--help does not list $command"
    expect 0 "" one "$command" --help
    grep -qE "^usage: moetrain \[?$command" out.txt || fail "$command --help: $(head -1 out.txt)"
done
expect 0 "" one train --help
for word in --set --run-dir --quiet --check-config --resume --init-from hidden_size load_window; do
    grep -q -- "$word" out.txt || fail "train --help lacks $word"
done
expect 0 "" one --version
for word in '^moetrain [0-9.]+ ' 'built with ' 'Open MPI v' 'HDF5 ' 'oneDNN ' 'Jansson ' 'xxHash '; do
    grep -qE "$word" out.txt || fail "--version lacks $word"
done
expect 0 "" ranks 3 --version
[ "$(grep -c '^moetrain ' out.txt)" = 1 ] || fail "--version on 3 ranks: $(cat out.txt)"
expect 0 "" one --man
cp out.txt moetrain.1
if command -v groff >/dev/null; then
    [ -z "$(groff -man -Tascii -ww -z moetrain.1 2>&1)" ] || fail "$(groff -man -Tascii -ww -z moetrain.1 2>&1)"
fi
for section in NAME SYNOPSIS COMMANDS CONFIGURATION 'EXIT STATUS'; do
    grep -q "^.SH $section" moetrain.1 || fail "the man page lacks $section"
done

# The resolved configuration is a configuration that resolves to itself.
for file in "$MT_SOURCE"/configs/*.toml; do
    expect 0 "" one "$file" --check-config --set 'device.slowdown={ 1 = 2.5 }' --run-dir never
    cp out.txt resolved.toml
    expect 0 "" one resolved.toml --check-config
    cmp -s out.txt resolved.toml || fail "$file: $(diff out.txt resolved.toml | head -5)"
done
expect 0 "" ranks 3 "$config" --check-config --run-dir never
[ "$(grep -c '^\[run\]' out.txt)" = 1 ] || fail "--check-config on 3 ranks printed $(wc -l <out.txt) lines"
[ ! -e never ] || fail "--check-config made a run directory"

# The plan of bench-cpu counts 28.75 MFLOP per token within 0.1 %.
expect 0 "" one plan "$MT_SOURCE/configs/bench-cpu.toml" --ranks 4 --nodes 2
flops=$(awk '/training FLOPs per token/ { print $NF }' out.txt)
((flops >= 28721250 && flops <= 28778750)) || fail "FLOPs per token: $flops"
# Below mpirun rank 0 makes it alone, as it does every command of one process.
expect 0 "" ranks 3 plan "$config" --ranks 3
[ "$(grep -c '^  parameters, total' out.txt)" = 1 ] || fail "plan on 3 ranks: $(cat out.txt)"
refuse_everywhere 2 'device.slowdown names rank 3; this run has ranks 0 to' "$config" --run-dir never \
    --set 'device.slowdown={ 0 = 2.0, 3 = 2.0 }'
expect 2 'train.steps = -1 is out of range' ranks 3 plan "$config" --set train.steps=-1
