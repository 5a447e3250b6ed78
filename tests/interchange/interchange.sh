#!/usr/bin/env bash
# moetrain import and export as users have them: a model is imported, trained further at once, exported and
# imported again; what is wrong with the command line ends with code 2, with the model with code 3; nothing is left
# behind by a refusal, and memory does not grow with the model.
. "$(dirname "$0")/../cli/refuse.sh"
rm -rf ./*
vectors=$MT_SOURCE/tests/interchange/vectors
missing=(--set optimizer.lr=1e-3 --set 'data.format="random"' --set train.steps=2 --set train.global_batch_size=4
    --set train.micro_batch_size=2 --set checkpoint.interval=2 "${costs[@]}" --quiet)

# Imported, trained on three ranks with nothing but what a model does not say, exported, and imported again.
expect 0 "" one import "$vectors/qwen2-moe" -o model
grep -q 'Qwen2-MoE of .*: 8816 parameters, 44 tensors (separate experts) in 1 file' out.txt || fail "$(cat out.txt)"
one verify model >out.txt || fail "the checkpoint does not verify: $?"
ranks 3 train model.toml --run-dir run --init-from model --set 'placement.policy="fsep"' "${missing[@]}" ||
    fail "training ended with $?"
expect 0 "" one export run/checkpoints/step-00000002 -o given --shard-size 9000 --layout grouped --dtype float16
[ "$(find given -name 'model-0000?-of-00003.safetensors' -size -11000c | wc -l)" = 3 ] || fail "$(ls -l given)"
expect 0 "" one import given -o again -c other.toml --dtype bfloat16
cmp <(sed '1,/^$/d' model.toml) <(sed '1,/^$/d; /^head_dim = 4$/d' other.toml) || fail "the model is another after export and import"

# A tokenizer goes along when it is one, and of the model.
tokenizer=$MT_SOURCE/tests/text/vectors/gpt2.json
ranks 1 "$config" --run-dir words --quiet --set model.vocab_size=500 --set train.steps=1 --set checkpoint.interval=1 ||
    fail "training ended with $?"
words=words/checkpoints/step-00000001
expect 0 "" one export $words -o told --tokenizer "$tokenizer"
cmp told/tokenizer.json "$tokenizer" || fail "the tokenizer differs"
refuse 3 'cannot open the tokenizer nowhere: No such file' export $words -o new --tokenizer nowhere
refuse 3 'the tokenizer words is a folder; a file was expected' export $words -o new --tokenizer words
refuse 3 'README.md is no tokenizer' export $words -o new --tokenizer "$MT_SOURCE/README.md"
refuse 2 'bytes is no file that could be given to others' export $words -o new --tokenizer bytes
refuse 2 'gpt2.json has ids up to 499, the model.s vocab_size is 64' export model -o new --tokenizer "$tokenizer"

# Experts that three ranks saved in pieces are exported as those of one shard.
expect 0 "" one checkpoint convert run/checkpoints/step-00000002 whole
expect 0 "" one export run/checkpoints/step-00000002 -o of-pieces
expect 0 "" one export whole -o of-whole
diff -r of-pieces of-whole || fail "the export of three shards differs from that of one"
! diff -q of-whole/model.safetensors "$vectors/qwen2-moe/model.safetensors" >diff.txt || fail "nothing was trained"

# The command line.
refuse 2 'import does not say where to; expected -o' import "$vectors/olmoe"
refuse 2 'model is there already' import "$vectors/olmoe" -o model
refuse 2 'other.toml is there already' import "$vectors/olmoe" -o new -c other.toml
refuse 2 '--family gpt: expected auto, mixtral, olmoe' import "$vectors/olmoe" -o new --family gpt
refuse 2 '--dtype float16: expected float32 or bfloat16' import "$vectors/olmoe" -o new --dtype float16
refuse 2 '--dtype int8: expected float32, bfloat16 or float16' export model -o new --dtype int8
refuse 2 '--layout flat: expected per-expert or grouped' export model -o new --layout flat
refuse 2 'shard-size 0 is not an integer of at least 1' export model -o new --shard-size 0
refuse 2 'Mixtral models cannot have .*; choose another --family' export model -o new --family mixtral
refuse 2 'given is there already' export model -o given

refuse 2 'no-such/x.toml cannot be written: No such file' import "$vectors/olmoe" -o new -c no-such/x.toml
for same in new ./new new/ "$PWD/new"; do
    refuse 2 '-c .*new/* is the checkpoint itself; a file beside it' import "$vectors/olmoe" -o new -c "$same"
done
# Places where nothing can be made are told before any work; a link that leads nowhere is there.
mkdir bad-config
ln -s nowhere dangling
refuse 2 'dangling is there already' export model -o dangling
refuse 2 'dangling is there already; a new file' import "$vectors/olmoe" -o new -c dangling
refuse 2 'cannot be the name of a new directory; 1 to 250 bytes' export model -o "$(printf 'x%.0s' $(seq 300))"
refuse 2 'cannot be the name of a new directory; 1 to 250 bytes' import "$vectors/olmoe" -o "$(printf 'x%.0s' $(seq 300))"
refuse 2 'the new checkpoint cannot be made in no-such: No such file.*make or permit it' \
    import "$vectors/olmoe" -o no-such/new

# A full disk ends with code 4; what a killed attempt left is no obstacle.
little() { (ulimit -f 30 && trap '' XFSZ && one "$@"); }
expect 4 'File too large' little import "$vectors/olmoe" -o new
[ ! -e new ] && [ ! -e new.toml ] || fail "left by an import that failed: $(ls -d new*)"
cp -r "$vectors/olmoe" $'odd\nhidden_size = 7'
expect 0 "" one import $'odd\nhidden_size = 7' -o odd
grep -q '^# The model of odd?hidden_size = 7 (OLMoE)' odd.toml || fail "a folder's name became a key: $(cat odd.toml)"
expect 4 'File too large' little export model -o new
mkdir -p .fresh.tmp/left
expect 0 "" one export model -o fresh
[ ! -e .fresh.tmp ] && [ ! -e fresh/left ] || fail "left over: $(ls -A . fresh)"

# The model.
refuse 3 'cannot open nowhere/config.json' import nowhere -o new
refuse 3 'manifest.json' export nowhere -o new
cp -r "$vectors/mixtral" bad
refuse 3 'model.layers.0.self_attn.q_norm.weight is missing; OLMoE models have it' \
    import bad -o new --family olmoe
sed -i 's/"intermediate_size": 12/"intermediate_size": 13/' bad/config.json
refuse 3 'experts.0.w1.weight has shape \[12, 16\]; \[13, 16\] was expected' import bad -o new
sed -i 's/"intermediate_size": 13/"intermediate_size": 12/; s/"num_hidden_layers": 2/"num_hidden_layers": 1/' bad/config.json
refuse 3 'model.layers.1.* is no tensor of Mixtral models with this config.json' import bad -o new
sed -i 's/"num_hidden_layers": 1/"num_hidden_layers": 3/' bad/config.json
refuse 3 'model.layers.2.input_layernorm.weight is missing' import bad -o new
cp "$vectors/mixtral/config.json" bad
truncate -s -1 bad/model.safetensors
refuse 3 'bytes that the file has was expected' import bad -o new
rm bad/model.safetensors
mkfifo bad/model.safetensors
refuse 3 'is not a regular file' import bad -o new
[ ! -e new ] && [ ! -e .new.tmp ] && [ ! -e new.toml ] || fail "a refusal left something: $(ls -A)"

python3 "$MT_SOURCE/tests/interchange/bounded_memory.py" "$MOETRAIN" || fail "memory: $?"
