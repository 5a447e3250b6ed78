"""What upcycled tensors are, next to those of the dense models: upcycled.py DENSE1 DENSE2 FOLDER, where FOLDER has the
checkpoints that upcycle.sh made."""
import math
import sys

import h5py
import numpy as np

MATRICES = ("gate_proj", "up_proj", "down_proj")
INNER, LAYERS, EXPERTS = 48, 2, 4


def read(path):
    tensors = {}
    with h5py.File(f"{path}/index.h5") as file:
        file["model"].visititems(lambda name, item: tensors.update({name: item[()]})
                                 if isinstance(item, h5py.Dataset) else None)
    return tensors


def is_expert(name):
    return "/moe/" in name


def mlp(dense, layer):
    return [dense[f"layers/{layer}/mlp/{matrix}"] for matrix in MATRICES]


def experts(model, layer):
    return [model[f"layers/{layer}/moe/experts/{matrix}"] for matrix in MATRICES]


def check_rest(model, dense, factor):
    """All but experts and routers: the mean of the dense models' tensors, which are float32."""
    names = {name for name in dense[0] if "/mlp/" not in name}
    assert names == {name for name in model if not is_expert(name)}
    for name in names:
        mean = np.mean([d[name].astype(np.float64) for d in dense], axis=0).astype(np.float32)
        assert np.array_equal(model[name], mean), name
    for layer in range(LAYERS):
        router = model[f"layers/{layer}/moe/router"]
        assert router.shape == (EXPERTS * factor, 32) and 0.01 < router.std() < 0.03
        groups = router.reshape(EXPERTS, factor, 32)
        assert (groups == groups[:, :1]).all() and not (groups[0] == groups[1]).any()


def check_copies(model, dense):
    check_rest(model, dense, 1)
    for layer in range(LAYERS):
        for e in range(EXPERTS):
            for made, origin in zip(experts(model, layer), mlp(dense[e % len(dense)], layer)):
                assert np.array_equal(made[e], origin)


def check_noise(model, dense, part):
    check_rest(model, [dense], 1)
    for layer in range(LAYERS):
        for made, origin in zip(experts(model, layer), mlp(dense, layer)):
            noise = (made - origin) / (part * origin.std())
            assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05, (noise.mean(), noise.std())
            assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def check_drop(model, dense, ratio):
    check_rest(model, [dense], 1)
    seen = set()
    for layer in range(LAYERS):
        for e in range(EXPERTS):
            gate, up, down = (made[e] != origin for made, origin in zip(experts(model, layer), mlp(dense, layer)))
            dropped = gate.any(axis=1)
            assert dropped.sum() == math.floor(ratio * INNER), dropped.sum()
            for changed in (gate, up, down.T):
                assert (changed.any(axis=1) == dropped).all() and changed[dropped].mean() > 0.999
            seen.add(tuple(dropped))
            for made, origin in zip(experts(model, layer), mlp(dense, layer)):
                new, old = (m.T[dropped] if m.shape[0] != INNER else m[dropped] for m in (made[e], origin))
                error = old.std() / math.sqrt(old.size)
                assert abs(new.mean() - old.mean()) < 5 * error and abs(new.std() / old.std() - 1) < 0.15
    assert len(seen) == LAYERS * EXPERTS


def check_split(model, dense, granularity):
    check_rest(model, [dense], granularity)
    width, scale = INNER // granularity, math.sqrt(granularity)
    for layer in range(LAYERS):
        gate, up, down = mlp(dense, layer)
        for e in range(EXPERTS * granularity):
            rows = slice(e % granularity * width, (e % granularity + 1) * width)
            made = [m[e] for m in experts(model, layer)]
            assert np.array_equal(made[0], gate[rows])
            assert np.allclose(made[1], up[rows] * scale, rtol=1e-6, atol=0)
            assert np.allclose(made[2], down[:, rows] * scale, rtol=1e-6, atol=0)


one, two = read(sys.argv[1]), read(sys.argv[2])
folder = sys.argv[3]
check_copies(read(f"{folder}/copy"), [one])
check_copies(read(f"{folder}/several"), [one, two])
check_noise(read(f"{folder}/noise"), one, 0.3)
check_drop(read(f"{folder}/drop"), one, 0.3)
check_split(read(f"{folder}/split-2"), one, 2)
check_split(read(f"{folder}/split-3"), one, 3)
