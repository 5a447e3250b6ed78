#!/usr/bin/env python3
"""libmtplace from Python, through ctypes: the same study as example.c, and where copies go.

    python3 example.py [path of libmtplace.so]
"""
import ctypes
import sys

RANKS, EXPERTS, STEPS = 8, 16, 6
API_VERSION = 1
MACHINE = {  # an H100-class device and an expert of 4096 x 2048: picoseconds and bytes
    "row_ps": 127000, "instance_ps": 8000000, "attention_ps": 1500000000,
    "node_alpha_ps": 3000000, "node_kib_ps": 2276,
    "network_alpha_ps": 8000000, "network_kib_ps": 20480,
    "row_bytes": 8192, "expert_bytes": 50331648,
}


class Prediction(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in
                ("total_ps", "compute_ps", "exchange_ps", "copies_ps", "ideal_ps", "n_copy", "n_late")]


def load(path):
    library = ctypes.CDLL(path)
    handle, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    for name, result, arguments in (
            ("mtplace_api_version", ctypes.c_int, []),
            ("mtplace_error", ctypes.c_char_p, []),
            ("mtplace_n_policy", ctypes.c_int, []),
            ("mtplace_policy_name", ctypes.c_char_p, [ctypes.c_int]),
            ("mtplace_create", ctypes.c_int, [ctypes.c_char_p, i32, i32, i32, ctypes.POINTER(handle)]),
            ("mtplace_destroy", None, [handle]),
            ("mtplace_set", ctypes.c_int, [handle, ctypes.c_char_p, i64]),
            ("mtplace_set_nodes", ctypes.c_int, [handle, ctypes.POINTER(i32)]),
            ("mtplace_plan_before", ctypes.c_int, [handle, i32]),
            ("mtplace_plan_after", ctypes.c_int, [handle, i32, ctypes.POINTER(i64)]),
            ("mtplace_end_step", ctypes.c_int, [handle]),
            ("mtplace_n_instance", i64, [handle]),
            ("mtplace_get_placement", ctypes.c_int,
             [handle, ctypes.POINTER(i32), ctypes.POINTER(i32), ctypes.POINTER(ctypes.c_uint8)]),
            ("mtplace_get_quota", ctypes.c_int, [handle, ctypes.POINTER(i64)]),
            ("mtplace_predict", ctypes.c_int, [handle, ctypes.POINTER(Prediction), ctypes.c_size_t])):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    if library.mtplace_api_version() != API_VERSION:
        sys.exit("this libmtplace has another interface")
    return library


def check(library, code):
    if code != 0:
        sys.exit("mtplace: " + library.mtplace_error().decode())


def make_counts(step):
    """Rows of rank r for expert e: expert 3 takes a third of all, and drifts."""
    return (ctypes.c_int64 * (RANKS * EXPERTS))(*(
        200 + 13 * ((r + e + step) % 5) + (1500 + 100 * step if e == 3 else 0)
        for r in range(RANKS) for e in range(EXPERTS)))


def study(library, policy):
    planner, prediction = ctypes.c_void_p(), Prediction()
    check(library, library.mtplace_create(policy, RANKS, 1, EXPERTS, ctypes.byref(planner)))
    check(library, library.mtplace_set_nodes(planner, (ctypes.c_int32 * RANKS)(0, 0, 0, 0, 1, 1, 1, 1)))
    for name, value in MACHINE.items():
        check(library, library.mtplace_set(planner, name.encode(), value))
    for step in range(STEPS):
        check(library, library.mtplace_plan_before(planner, 0))
        check(library, library.mtplace_plan_after(planner, 0, make_counts(step)))
        check(library, library.mtplace_predict(planner, ctypes.byref(prediction), ctypes.sizeof(prediction)))
        n = library.mtplace_n_instance(planner)
        expert, rank = (ctypes.c_int32 * n)(), (ctypes.c_int32 * n)()
        late, quota = (ctypes.c_uint8 * n)(), (ctypes.c_int64 * (RANKS * n))()
        check(library, library.mtplace_get_placement(planner, expert, rank, late))
        check(library, library.mtplace_get_quota(planner, quota))
        check(library, library.mtplace_end_step(planner))
    assert sum(quota) == sum(make_counts(STEPS - 1)), "every row is computed once"
    print("%-12s %10d us, ideal %10d us, %3d copies, %2d late" % (
        policy.decode(), prediction.total_ps // 10**6, prediction.ideal_ps // 10**6,
        prediction.n_copy, prediction.n_late))
    where = [rank[i] for i in range(n) if expert[i] == 3]
    print(f"{policy.decode()}: expert 3 on ranks {where}", file=sys.stderr)
    library.mtplace_destroy(planner)


def main():
    library = load(sys.argv[1] if len(sys.argv) > 1 else "libmtplace.so.1")
    for index in range(library.mtplace_n_policy()):
        study(library, library.mtplace_policy_name(index))


if __name__ == "__main__":
    main()
