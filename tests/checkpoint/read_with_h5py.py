#!/usr/bin/env python3
"""read_with_h5py.py CHECKPOINT: h5py reads every tensor of the index, at its full shape, as what the
manifest says of the shards; and without any one shard its rows, and no others, are NaN.

Written from docs/checkpoint.md alone, as another program would be."""
import json
import os
import pathlib
import sys

import h5py
import numpy


def rows(tensor, values):
    """The tensor as the rows that its pieces count: of the first dimension, or of two together."""
    shape = values.shape
    return values.reshape((shape[0] * shape[1],) + shape[2:]) if tensor.get("row_dims", 1) == 2 else values


def read_index(folder, manifest):
    """Name -> values, every dataset below /model and /optimizer."""
    found = {}
    with h5py.File(folder / "index.h5", "r") as file:
        file.visititems(lambda name, item: found.update({"/" + name: item[...]})
                        if isinstance(item, h5py.Dataset) and not name.startswith("state/") else None)
        assert file.attrs["step"] == manifest["step"] and file.attrs["world_size"] == manifest["world_size"]
        assert file.attrs["config"] in (manifest["config"], manifest["config"].encode())
    names = {tensor["name"] for tensor in manifest["tensors"]}
    assert set(found) == names, set(found) ^ names
    return found


def check_shards(folder, manifest, values):
    """Each piece lies in its shard's dataset of that name, the pieces of a shard one behind another."""
    files = [h5py.File(folder / entry["name"], "r") for entry in manifest["files"][1:]]
    for tensor in manifest["tensors"]:
        whole = values[tensor["name"]]
        assert whole.dtype == numpy.float32 and list(whole.shape) == tensor["shape"], tensor["name"]
        used = [0] * len(files)
        for piece in tensor["pieces"]:
            first, n, shard = piece["first_row"], piece["rows"], piece["shard"]
            part = files[shard][tensor["name"]][used[shard]:used[shard] + n]
            assert numpy.array_equal(rows(tensor, whole)[first:first + n], part), (tensor["name"], piece)
            used[shard] += n
        for shard, n in enumerate(used):
            assert (tensor["name"] in files[shard]) == (n > 0), (tensor["name"], shard)


def check_turns(folder, manifest, values):
    """Where experts were saved in turn, each is the one of its part's step. Returns how many are older."""
    older = 0
    for tensor in manifest["tensors"]:
        if "part_of_expert_0" not in tensor:
            continue
        for expert, matrix in enumerate(values[tensor["name"]]):
            step = manifest["experts"]["step"][(tensor["part_of_expert_0"] + expert) % manifest["experts"]["parts"]]
            then = folder.parent / f"step-{step:08d}" / "index.h5"
            older += step < manifest["step"]
            if then.exists():
                with h5py.File(then, "r") as file:
                    assert numpy.array_equal(file[tensor["name"]][expert], matrix), (tensor["name"], expert)
    return older


def check_without(folder, manifest, values, shard):
    name = folder / manifest["files"][1 + shard]["name"]
    os.rename(name, f"{name}.away")
    try:
        damaged = read_index(folder, manifest)
    finally:
        os.rename(f"{name}.away", name)
    for tensor in manifest["tensors"]:
        want = rows(tensor, values[tensor["name"]].copy())
        for piece in tensor["pieces"]:
            if piece["shard"] == shard:
                want[piece["first_row"]:piece["first_row"] + piece["rows"]] = numpy.nan
        got = rows(tensor, damaged[tensor["name"]])
        assert numpy.array_equal(got, want, equal_nan=True), (tensor["name"], shard)


def main():
    folder = pathlib.Path(sys.argv[1])
    manifest = json.loads((folder / "manifest.json").read_text())
    values = read_index(folder, manifest)
    check_shards(folder, manifest, values)
    n_shard = len(manifest["files"]) - 1
    for shard in range(n_shard):
        check_without(folder, manifest, values, shard)
    print(f"h5py {h5py.__version__} read {len(values)} tensors of {folder}, whole and without each of "
          f"{n_shard} shards; {check_turns(folder, manifest, values)} experts are of earlier steps")


if __name__ == "__main__":
    main()
