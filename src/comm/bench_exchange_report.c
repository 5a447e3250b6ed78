/* What the all-to-alls took, beside what links allow and beside what `auto` takes. */
#include "base/size.h"
#include "comm/bench_exchange.h"

#include <inttypes.h>

static const char *const workload_names[MT_N_BENCH_LOAD] = {"even", "hot", "rows"};

const char *mt_bench_way_name(int way)
{
    static const char *const names[MT_N_BENCH_WAY] = {"direct", "hierarchical", "leader",
                                                      "deduplicated", "MPI_Alltoallv"};
    return names[way];
}

bool mt_bench_is_way(const struct mt_bench_exchange *bench, int way)
{
    return way != MT_BENCH_DEDUPLICATED || bench->workload == MT_BENCH_ROWS;
}

/* Bytes of a way there that leave this rank's node. */
static int64_t crossing_bytes(const struct mt_bench_exchange *bench, enum mt_bench_way way)
{
    const struct mt_plan *plan =
        way == MT_BENCH_DEDUPLICATED
            ? &bench->deduplicated[0]
            : &bench->trial.plan[0][way == MT_BENCH_MPI ? MT_BENCH_DIRECT : way];
    const int *node = bench->comm->topology.node;
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < plan->n_op; ++i) {
        const struct mt_op *op = &plan->op[i];
        n_bytes += op->kind == MT_OP_SEND && node[op->peer] != node[bench->rank] ? op->n_bytes : 0;
    }
    return n_bytes;
}

/* Bytes that a rank sends to ranks of its node, or to those of others; or gets from them. */
static int64_t bytes_at(const struct mt_bench_exchange *bench, int rank, bool is_inside,
                        bool is_sent)
{
    const int *node = bench->comm->topology.node;
    const int64_t n_rank = bench->n_rank;
    int64_t n_bytes = 0;
    for (int64_t peer = 0; peer < n_rank; ++peer) {
        const int64_t block = bench->bytes[is_sent ? rank * n_rank + peer : peer * n_rank + rank];
        n_bytes += peer != rank && (node[peer] == node[rank]) == is_inside ? block : 0;
    }
    return n_bytes;
}

/* What the links allow for blocks that go straight, the busiest node and rank. */
static double bound_s(const struct mt_bench_exchange *bench)
{
    const struct mt_topology *topology = &bench->comm->topology;
    double most = 0.0;
    for (int i = 0; i < 2 * topology->n_node; ++i) {
        const int node = i / 2;
        const bool is_sent = i % 2 == 0;
        int64_t crossing = 0;
        int64_t inside = 0;
        for (int m = topology->node_start[node]; m < topology->node_start[node + 1]; ++m) {
            const int rank = topology->member[m];
            crossing += bytes_at(bench, rank, false, is_sent);
            inside = mt_max_i64(inside, bytes_at(bench, rank, true, is_sent));
        }
        const double bound = mt_bench_bound_s(bench->options, crossing,
                                              mt_topology_node_size(topology, node), inside);
        most = bound > most ? bound : most;
    }
    return most;
}

static void print_auto(const struct mt_bench_exchange *bench, const struct mt_trial_sample *typical,
                       FILE *out)
{
    const bool is_rows = bench->workload == MT_BENCH_ROWS;
    for (int sums_may_differ = 0; sums_may_differ <= (is_rows ? 1 : 0); ++sums_may_differ) {
        const enum mt_bench_way way =
            bench->options->choose(bench->options->context, is_rows ? bench->n_row : bench->bytes,
                                   is_rows ? MT_BENCH_ROW_BYTES + 4 : 1,
                                   is_rows ? MT_BENCH_TOP_K : 1, sums_may_differ != 0);
        double best = typical[MT_BENCH_DIRECT].slowest_s;
        for (int other = 0; other < MT_BENCH_DEDUPLICATED + sums_may_differ; ++other) {
            best = typical[other].slowest_s < best ? typical[other].slowest_s : best;
        }
        (void)fprintf(out, "%-14s %-5s %10" PRId64 " %12.1f  %s, %.2f of the best%s\n", "auto",
                      workload_names[bench->workload], bench->pair_bytes,
                      typical[way].slowest_s * 1e6, mt_bench_way_name((int)way),
                      typical[way].slowest_s / best, sums_may_differ ? " (sums may differ)" : "");
    }
}

enum mt_status mt_bench_exchange_report(struct mt_bench_exchange *bench,
                                        struct mt_trial_sample (*sample)[MT_BENCH_MOST_REPEAT],
                                        int n_sample, FILE *out)
{
    struct mt_trial_sample typical[MT_N_BENCH_WAY] = {{0.0, 0.0}};
    const double bound = bound_s(bench);
    const double mean_bytes = (double)bench->pair_bytes * (double)bench->n_rank;
    for (int way = 0; way < MT_N_BENCH_WAY; ++way) {
        int64_t most = 0;
        int64_t crossing = 0;
        if (!mt_bench_is_way(bench, way)) {
            continue;
        }
        typical[way] = mt_bench_typical(sample[way], n_sample);
        MT_TRY(mt_bench_most(bench->comm, crossing_bytes(bench, (enum mt_bench_way)way),
                             bench->time_s, &most, &crossing));
        if (bench->rank != 0) {
            continue;
        }
        (void)fprintf(out, "%-14s %-5s %10" PRId64 " %12.1f %12.1f %10.3f %14" PRId64,
                      mt_bench_way_name(way), workload_names[bench->workload], bench->pair_bytes,
                      typical[way].slowest_s * 1e6, typical[way].busy_s * 1e6,
                      mean_bytes / typical[way].slowest_s * 1e-9, crossing);
        (void)(bound > 0.0 ? fprintf(out, " %8.2f\n", typical[way].slowest_s / bound)
                           : fputc('\n', out));
    }
    if (bench->rank == 0 && bench->options->choose != NULL) {
        print_auto(bench, typical, out);
        (void)fflush(out);
    }
    return MT_OK;
}
