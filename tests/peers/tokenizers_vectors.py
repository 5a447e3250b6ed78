#!/usr/bin/env python3
"""Tokenizers of the field's kinds, trained on nothing much, and the ids that Hugging Face tokenizers and
SentencePiece give for awkward strings: what tests/text/test_tokenizer.c compares with.

  python3 tests/peers/tokenizers_vectors.py        writes tests/text/vectors/

Needs the packages tokenizers and sentencepiece, in an environment outside the repository. Made with
tokenizers 0.23.3 and sentencepiece 0.2.3.
"""
import io
import json
import pathlib
import random

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

root = pathlib.Path(__file__).resolve().parents[2]
folder = root / "tests" / "text" / "vectors"
folder.mkdir(exist_ok=True)
corpus = (root / "docs" / "architecture.md").read_text().split("\n") + 20 * [
    "naïve café ﬁancée 東京 タワー 12345 don't we'll I'M  \t\n  x", "été e\u0301té", "🙂🙃 👩‍👩‍👧",
    "مرحبا بالعالم", "हिन्दी"]
# Llama 3's and Qwen's words: letters with one other sign before, digits in threes or alone, line ends.
words = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(space=False, regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=regex)


def by_words(expression):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(expression), "isolated"), byte_level(regex=False)])


def make(name, splitting, normalizer=None, ignore_merges=False, added=()):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = splitting
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=500, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>"]))
    tokenizer.add_tokens(list(added))
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=True, separators=(",", ":"))
    (folder / f"{name}.json").write_text(text + "\n")
    return tokenizer


def verbatim(text, **options):
    return AddedToken(text, normalized=False, **options)


made = {
    "gpt2.json": make("gpt2", byte_level()),
    "olmoe.json": make("olmoe", byte_level(), normalizers.NFC(),
                       added=[verbatim("   "), verbatim("|||IP_ADDRESS|||")]),
    "space.json": make("space", byte_level(space=True)),
    "llama3.json": make("llama3", by_words(words), ignore_merges=True),
    "qwen.json": make("qwen", by_words(words.replace("{1,3}", "")), normalizers.NFC(),
                      added=[verbatim("<tool>", lstrip=True, rstrip=True)]),
    "digits.json": make("digits", pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level()])),
}
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([line for line in corpus if line]), model_writer=model, vocab_size=450,
    model_type="bpe", byte_fallback=True, normalization_rule_name="identity", minloglevel=2, num_threads=1)
(folder / "sentencepiece.model").write_bytes(model.getvalue())
pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

strings = [
    "", "a", " a", "  a   b \n\n c", "don't I'll we've IT'S", "12345 6 789", "naïve café e\u0301 \u1e9b\u0323",
    "東京タワー", "🙂👩‍👩‍👧🙃", "<|endoftext|>x<|im_start|> y", "a<|endoftext|", "\0nul\0", "tab\tnew\r\nline\r",
    "\u00a0nbsp\u2003em\u2028ls\u0085nel", "مرحبا بالعالم 123", "हिन्दी क्षि", "x" * 300, "ab" * 200,
    " " * 100 + "z", "   |||IP_ADDRESS|||   q", "a <tool>  b<tool>c", "\u2019s don\u2019t", "<<<||>>>",
    "a\u0301" * 20]
random.seed(1)
parts = ["a", "B", " ", "  ", "\n", "1", "é", "e\u0301", "東", "🙂", "'s", "'", "<|endoftext|>", "<", "|", ".",
         "-", "\t", "\u00a0", "ß", "İ", "ǆ", "\u093c", "<tool>", "   "]
strings += ["".join(random.choices(parts, k=random.randint(1, 50))) for _ in range(60)]

ids = {name: [t.encode(s, add_special_tokens=False).ids for s in strings] for name, t in made.items()}
text = {name: [t.decode(i, skip_special_tokens=True) for i in ids[name]] for name, t in made.items()}
ids["sentencepiece.model"] = [pieces.encode(s) for s in strings]
text["sentencepiece.model"] = [pieces.decode(i) for i in ids["sentencepiece.model"]]
(folder / "expected.json").write_text(json.dumps(
    {"strings": strings, "ids": ids, "text": text}, ensure_ascii=True, separators=(",", ":")) + "\n")
