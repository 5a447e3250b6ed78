#!/usr/bin/env python3
"""Ids of `moetrain data prepare` beside those of Hugging Face tokenizers and of SentencePiece, for random strings of
everything Unicode has, combined as no text combines it; the tokenizers are those of tests/text/vectors.

  tokenizers_compare.py MOETRAIN [STRINGS] [SEED]     30,000 strings and seed 77; results are in docs/data.md

Needs numpy and the packages of tokenizers_vectors.py.
"""
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import numpy
import sentencepiece
from tokenizers import Tokenizer

vectors = pathlib.Path(__file__).resolve().parents[1] / "text" / "vectors"
ODD = "\t\n\r\x0b\x0c\x00\x01\x1f\x7f\x85\xa0\u1680\u2003\u2028\u2029\u3000\ufeff\u200b\u200d\u0301\u0308\u0345\ufe0f"
WORDS = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<s>", "don't", "I'LL", "'S", "'ſ", "ﬁ", "12345", "٣½①", "  ",
         "\r\n", "\n\n\n", "İ", "ß", "K", "Å", "한국어", "👩‍👩‍👧", "🇩🇪", "e\u0301\u0323", "\u0344"]


def strings(n, seed):
    draw = random.Random(seed)
    plain = [chr(c) for c in range(0x20, 0x7f)] * 3 + list(ODD) * 4
    every = [chr(c) for c in range(0x80, 0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    for _ in range(n):
        kinds = draw.choices((plain, WORDS, every), (6, 2, 2), k=draw.randint(1, 40))
        yield "".join(draw.choice(kind) for kind in kinds)


def read_pair(prefix):
    index = pathlib.Path(f"{prefix}.idx").read_bytes()
    n = struct.unpack_from("<QBQQ", index, 9)[2]
    ids = numpy.fromfile(f"{prefix}.bin", "<u2")
    lengths = numpy.frombuffer(index, "<i4", n, 34)
    ends = numpy.cumsum(lengths)
    return [ids[end - length:end].tolist() for length, end in zip(lengths, ends)]


def encode(path, texts):
    if path.suffix == ".json":
        return [e.ids for e in Tokenizer.from_file(str(path)).encode_batch(texts, add_special_tokens=False)]
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.encode(text) for text in texts]


def main(moetrain, n=30000, seed=77):
    texts = list(strings(int(n), int(seed)))
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "odd.jsonl")
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for path in sorted(vectors.glob("*.json")) + sorted(vectors.glob("*.model")):
            if path.name == "expected.json":
                continue
            out = pathlib.Path(folder, path.stem)
            subprocess.run([moetrain, "data", "prepare", source, "-o", out, "--tokenizer", path, "--quiet"], check=True,
                           stdout=subprocess.DEVNULL)
            pairs = [(text, ids) for text, ids in zip(texts, encode(path, texts)) if ids]  # without any: left out
            ours = read_pair(out)
            assert len(ours) == len(pairs), (path.name, len(ours), len(pairs))
            other = [text for (text, ids), got in zip(pairs, ours) if got[:len(ids)] != ids or len(got) > len(ids) + 1]
            print(f"{path.name:20} {len(pairs)} strings, {len(other)} with other ids", *map(ascii, other[:3]))


main(*sys.argv[1:])
