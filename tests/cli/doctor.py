"""doctor.py RANKS NODES [slow RANK] <JSON: what `moetrain doctor --json` says is whole and agrees with itself."""
import json
import sys

ranks, nodes = int(sys.argv[1]), int(sys.argv[2])
lines = sys.stdin.read().splitlines()
assert len(lines) == 1, lines
got = json.loads(lines[0])
assert got["ranks"] == ranks and got["nodes"] == nodes
assert [r["rank"] for r in got["by_rank"]] == list(range(ranks))
for rank in got["by_rank"]:
    assert rank["gflops"] > 0 and rank["gflops_again"] > 0 and rank["gflops_float32"] > 0 and rank["threads"] >= 1
    assert rank["memory_bytes"] > 0 and rank["versions"]["moetrain"] and rank["versions"]["MPI"]
    assert abs(rank["wall_clock_offset_s"]) < 60
sizes = [sum(r["node"] == n for r in got["by_rank"]) for n in range(nodes)]
links = got["links"]
assert links["node"]["pairs"] == sum(s * (s - 1) // 2 for s in sizes), links
assert (links["network"]["pairs"] > 0) == (nodes > 1), links
for level in links.values():
    assert (level["gbytes_per_s"] is None) == (level["pairs"] == 0)
assert got["n_findings"] == len(got["findings"])
for finding in got["findings"]:
    assert finding["n_ranks"] >= 1 and all(0 <= r < ranks for r in finding["ranks"])
    assert "expected" in finding["text"] and "; " in finding["text"], finding
if sys.argv[3:4] == ["slow"]:
    named = [f["ranks"] for f in got["findings"] if f["what"] == "products"]
    assert [int(sys.argv[4])] in named, got["findings"]
print(4 if got["findings"] else 0)
