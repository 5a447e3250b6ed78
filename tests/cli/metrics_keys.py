#!/usr/bin/env python3
"""Keys of metrics.jsonl, of runs of 3 steps on 2 ranks, evaluated at 2 and 3.

  metrics_keys.py types PLAIN PACED           keys that are always there, and their types
  metrics_keys.py documented SOURCE RUN...    docs/metrics.md has every key of the runs, and no other
"""
import json
import re
import sys

COUNTS = ["step", "tokens_seen", "dead_experts", "skipped", "memory_peak_bytes"]
NUMBERS = ["loss", "balance_loss", "z_loss", "grad_norm", "lr", "step_time_s", "tokens_per_s",
           "model_flops_per_s", "expert_load_max_over_mean", "rank_load_max_over_mean",
           "dropped_fraction", "exposed_comm_s"]
OBJECTS = {"phase_s": float, "phase_max_over_mean": float, "phase_wait_s": float, "bytes_sent": int}
OTHERS = ["mfu", "expert_load_max_over_mean_by_layer", "placement"]
DECISION = {"layer": int, "expert": int, "copies": int, "ranks": list, "late": bool, "rows": int,
            "saves_s": float, "costs_s": float}


def check_placement(placement):
    assert set(placement) == {"copies", "late_copies", "moves", "predicted_s", "ideal_s", "decisions"}
    assert 0 <= placement["late_copies"] <= placement["copies"] and placement["moves"] == 0
    assert 0 < placement["ideal_s"] <= placement["predicted_s"] * 1.000001
    for decision in placement["decisions"]:
        assert {key: type(value) for key, value in decision.items()} == DECISION, decision
        assert 1 <= len(decision["ranks"]) <= decision["copies"]


def check_run(line):
    run = line["run"]
    assert list(line) == ["run"]
    for key in ("name", "version", "revision", "start", "device"):
        assert isinstance(run[key], str) and run[key], key
    assert run["name"] == "tiny" and run["ranks"] == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run["start"]), run["start"]


def check_step(line, step, n_moe_layer):
    assert set(line) == {*COUNTS, *NUMBERS, *OBJECTS, *OTHERS}, sorted(line)
    for key in COUNTS:
        assert type(line[key]) is int and line[key] >= 0, key
    for key in NUMBERS:
        assert type(line[key]) is float and line[key] >= 0, key
    for key, kind in OBJECTS.items():
        assert line[key] and all(type(v) is kind for v in line[key].values()), key
    assert line["step"] == step and line["tokens_seen"] == step * 8 * 16
    assert line["memory_peak_bytes"] > 1 << 20 and line["step_time_s"] > 0
    by_layer = line["expert_load_max_over_mean_by_layer"]
    assert len(by_layer) == n_moe_layer and all(1 <= ratio <= 8 for ratio in by_layer)
    assert abs(sum(by_layer) / n_moe_layer - line["expert_load_max_over_mean"]) < 1e-9
    assert 1 <= line["rank_load_max_over_mean"] <= 2 and line["dropped_fraction"] == 0
    assert set(line["phase_s"]) == set(line["phase_max_over_mean"]) == set(line["phase_wait_s"])
    assert all(0 <= wait <= line["phase_s"][phase] for phase, wait in line["phase_wait_s"].items())
    assert sum(line["phase_wait_s"].values()) <= line["exposed_comm_s"] * 1.000001
    assert all(1 <= ratio <= 2.000001 for ratio in line["phase_max_over_mean"].values())
    assert sum(line["phase_s"].values()) <= line["step_time_s"] * 1.05, "phases exceed the step"
    # The whole step of 128 tokens, on the slowest rank.
    assert abs(line["tokens_per_s"] * line["step_time_s"] - 128) < 1e-6
    assert sum(line["bytes_sent"].values()) > 0
    check_placement(line["placement"])


def check(path, n_moe_layer, is_paced):
    with open(path) as file:
        rows = [json.loads(text) for text in file]
    check_run(rows[0])
    steps = [row for row in rows if "loss" in row]
    for step, line in enumerate(steps, 1):
        check_step(line, step, n_moe_layer)
        if is_paced:
            peak = 2 * 1e9  # two ranks of 1 GFLOP/s
            assert abs(line["mfu"] - line["model_flops_per_s"] / peak) < 1e-9 and 0 < line["mfu"] <= 1
        else:
            assert line["mfu"] is None
    evaluations = [row for row in rows if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [2, 3], evaluations
    for row in evaluations:
        assert type(row["eval_loss"]) is float and row["eval_tokens"] == 64 * 16 and row["eval_time_s"] > 0
    assert len(rows) == 1 + len(steps) + len(evaluations) and len(steps) == 3


def documented(source):
    """Keys by section of docs/metrics.md."""
    sections, name = {}, None
    with open(f"{source}/docs/metrics.md") as file:
        for text in file:
            if text.startswith("## "):
                name = text[3:].strip()
            elif text.startswith("| `"):
                assert "phase" in name.lower() or text.count("|") == 4, f"no unit: {text}"
                keys = re.findall(r"`([^`]+)`", text.split("|")[1])
                assert not sections.setdefault(name, set()) & set(keys), f"twice: {text}"
                sections[name] |= set(keys)
    return sections


def found(paths):
    """The same of what runs wrote."""
    keys = {name: set() for name in
            ("Run", "Step", "Evaluation", "Placement", "Decisions", "Shadow", "Checkpoints", "Phases")}
    for line in [json.loads(text) for path in paths for text in open(path)]:
        kind = "Run" if "run" in line else "Step" if "loss" in line else "Evaluation"
        placement = line.get("placement", {})
        keys[kind] |= set(line["run"] if kind == "Run" else line)
        keys["Placement"] |= set(placement)
        keys["Decisions"] |= {key for decision in placement.get("decisions", []) for key in decision}
        keys["Shadow"] |= {key for policy in placement.get("shadow", {}).values() for key in policy}
        keys["Checkpoints"] |= set(line.get("checkpoint_s", {}))
        keys["Phases"] |= set(line.get("phase_s", {}))
    return keys


def check_documented(source, *paths):
    with open(f"{source}/src/base/clock.h") as file:
        phases = set(re.findall(r'X\(MT_PHASE_\w+, "([^"]+)"', file.read()))
    wanted, got = documented(source), found(paths)
    assert wanted["Phases"] == phases, wanted["Phases"] ^ phases
    assert got.pop("Phases") <= wanted.pop("Phases")
    assert wanted.keys() == got.keys(), wanted.keys() ^ got.keys()
    for name, keys in got.items():
        assert keys == wanted[name], f"{name}: not documented {keys - wanted[name]}, not found {wanted[name] - keys}"


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "documented":
        check_documented(*arguments)
    else:
        check(arguments[0], 2, False)
        check(arguments[1], 2, True)
