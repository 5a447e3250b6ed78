#!/usr/bin/env python3
"""Checks a trace of `moetrain report --trace` strictly: check_trace.py FILE RANKS [STEPS].

JSON without duplicates or NaN; every event of a known kind with exactly the keys of that kind; on
every track events that nest; every process and track named; every rank there; every rank with the
same steps."""
import collections
import gzip
import json
import sys

KEYS = {"M": {"ph", "pid", "tid", "name", "args"}, "X": {"ph", "pid", "tid", "ts", "dur", "name", "args"}}
SLACK = 0.0011  # us: begins and lengths are rounded to 1 ns, each for itself


def no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"a key twice: {keys}"
    return dict(pairs)


def load(path):
    opened = gzip.open(path, "rt", encoding="ascii") if path.endswith(".gz") else open(path, encoding="ascii")
    with opened as stream:
        return json.load(stream, object_pairs_hook=no_duplicates,
                         parse_constant=lambda word: sys.exit(f"{word} is no JSON"))


def check_nesting(track, events):
    around = []
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        assert event["ts"] >= -SLACK and event["dur"] >= 0, event
        while around and around[-1]["ts"] + around[-1]["dur"] <= event["ts"] + SLACK:
            around.pop()
        if around:
            assert event["ts"] + event["dur"] <= around[-1]["ts"] + around[-1]["dur"] + SLACK, \
                f"track {track}: {event} reaches out of {around[-1]}"
        around.append(event)
        assert len(around) < 32


def main(path, n_rank, n_step=None):
    trace = load(path)
    assert set(trace) == {"displayTimeUnit", "otherData", "traceEvents"}
    tracks, named, processes, steps = collections.defaultdict(list), set(), set(), {}
    for event in trace["traceEvents"]:
        missing = KEYS[event["ph"]] - set(event) - {"args", "tid"}
        assert not missing and not set(event) - KEYS[event["ph"]], event
        place = (event["pid"], event.get("tid", 0))
        if event["ph"] == "X":
            tracks[place].append(event)
            if event["name"].startswith("step "):
                steps.setdefault(event["pid"], []).append(event["name"])
        elif event["name"] == "thread_name":
            named.add(place)
        elif event["name"] == "process_name":
            processes.add(event["pid"])
    assert processes == set(range(n_rank)), f"processes {sorted(processes)}"
    assert set(tracks) <= named, f"tracks without a name: {set(tracks) - named}"
    assert len({tuple(s) for s in steps.values()}) == 1, f"ranks differ in steps: {steps}"
    assert n_step is None or len(steps[0]) == n_step, f"{len(steps[0])} steps, expected {n_step}"
    names = set()
    for track, events in tracks.items():
        check_nesting(track, events)
        names |= {e["name"].split(":")[0] for e in events}
    for wanted in ("attention", "moe.expert") + (("wait",) if n_rank > 1 else ()):
        assert wanted in names, f"no {wanted} among {sorted(names)}"
    print(f"{path}: {sum(map(len, tracks.values()))} events on {len(tracks)} tracks of {n_rank} ranks nest")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
