/* moetrain bench collectives: measures the links as training does, then the collectives. */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "comm/bench.h"
#include "placement/exchange.h"
#include "train/costs.h"

#include <inttypes.h>

_Static_assert((int)MT_BENCH_DIRECT == (int)MT_EXCHANGE_DIRECT &&
                   (int)MT_BENCH_TWO_LEVEL == (int)MT_EXCHANGE_TWO_LEVEL &&
                   (int)MT_BENCH_LEADER == (int)MT_EXCHANGE_LEADER &&
                   (int)MT_BENCH_DEDUPLICATED == (int)MT_EXCHANGE_DEDUPLICATED,
               "what is chosen is what is timed");

struct chooser {
    struct mt_cluster cluster;
    struct mt_arena scratch;
};

static enum mt_bench_way choose(void *context, const int64_t *n_row, int64_t row_bytes,
                                int64_t top_k, bool sums_may_differ)
{
    struct chooser *chooser = context;
    const struct mt_exchange_rows rows = {.n_row = n_row, .row_bytes = row_bytes, .top_k = top_k};
    return (enum mt_bench_way)mt_exchange_choose(&chooser->cluster, &rows, sums_may_differ,
                                                 &chooser->scratch);
}

/* Quantised as training has them. */
static enum mt_status measure(struct mt_comm *comm, struct mt_costs *costs)
{
    MT_TRY(mt_job_agree(mt_costs_measure_links(comm, costs)));
    for (int level = 0; level < MT_N_LEVEL; ++level) {
        costs->alpha_ps[level] = mt_costs_quantise(costs->alpha_ps[level]);
        costs->kib_ps[level] = mt_costs_quantise(costs->kib_ps[level]);
    }
    costs->alone_kib_ps = mt_costs_quantise(costs->alone_kib_ps);
    return mt_costs_measure_exchanges(comm, costs);
}

/* What the choice rests on. */
static void print_costs(const struct mt_costs *costs, int64_t alpha_us)
{
    (void)printf("links, all ranks together: a message %.4g us and %.4g us a KiB in a node, "
                 "%.4g and %.4g between nodes, %.4g alone%s\n",
                 (double)costs->alpha_ps[MT_LEVEL_NODE] * 1e-6,
                 (double)costs->kib_ps[MT_LEVEL_NODE] * 1e-6,
                 (double)costs->alpha_ps[MT_LEVEL_NETWORK] * 1e-6,
                 (double)costs->kib_ps[MT_LEVEL_NETWORK] * 1e-6, (double)costs->alone_kib_ps * 1e-6,
                 alpha_us > 0 ? " (rehearsal: late on purpose)" : "");
    for (int load = 0; load < MT_N_EXCHANGE_LOAD && mt_exchange_is_measured(costs); ++load) {
        (void)printf("exchanges took, in percents of their price by links, %s, from %" PRId64
                     " bytes a pair:",
                     mt_exchange_load_name((enum mt_exchange_load)load),
                     mt_exchange_timed_bytes(0));
        for (int way = 0; way < MT_N_EXCHANGE_TIMED; ++way) {
            (void)printf(" %s", mt_exchange_name((enum mt_exchange_kind)way));
            for (int size = 0; size < MT_N_EXCHANGE_SIZE; ++size) {
                (void)printf(" %" PRId64, costs->exchange_percent[load][way][size]);
            }
        }
        (void)printf("\n");
    }
}

static enum mt_status run(struct mt_comm *comm, struct chooser *chooser, int64_t alpha_us,
                          int64_t most_bytes, const char *only)
{
    const struct mt_topology *topology = &comm->topology;
    struct mt_costs *costs = &chooser->cluster.costs;
    MT_TRY(mt_job_agree(mt_cluster_init(&chooser->cluster, topology->n_rank, topology->node)));
    MT_TRY(mt_job_agree(
        mt_arena_init(&chooser->scratch, mt_exchange_scratch_bytes(topology->n_rank), "bench")));
    const int64_t start_ns = mt_clock_ns();
    MT_TRY(measure(comm, costs));
    const double measuring_s = (double)(mt_clock_ns() - start_ns) * 1e-9;
    const struct mt_bench_options options = {
        .most_bytes = most_bytes,
        .only = only,
        .links = {.alpha_ps = {costs->alpha_ps[MT_LEVEL_NODE], costs->alpha_ps[MT_LEVEL_NETWORK]},
                  .kib_ps = {costs->kib_ps[MT_LEVEL_NODE], costs->kib_ps[MT_LEVEL_NETWORK]},
                  .alone_kib_ps = costs->alone_kib_ps},
        .choose = choose,
        .context = chooser};
    if (comm->rank == 0) {
        print_costs(costs, alpha_us);
        (void)printf("measured in %.2g s\n", measuring_s);
    }
    return mt_bench_collectives(comm, &options, stdout);
}

enum mt_status mt_command_bench_collectives(const struct mt_arguments *arguments)
{
    enum { MOST_RANKS = 1 << 20 };
    struct mt_comm comm;
    struct chooser chooser = {0};
    int64_t per_node = 0;
    int64_t alpha_us = 0;
    int64_t most_bytes = 0;
    MT_TRY(mt_job_agree(mt_argument_integer(arguments, "--ranks-per-node", 0, 0, &per_node)));
    MT_TRY(mt_job_agree(mt_argument_integer(arguments, "--rehearse-alpha-us", 0, 0, &alpha_us)));
    MT_TRY(mt_job_agree(mt_argument_integer(arguments, "--most-bytes", 0, 0, &most_bytes)));
    per_node = per_node < MOST_RANKS ? per_node : MOST_RANKS;
    MT_TRY(mt_job_agree(mt_comm_init_mpi(&comm, mt_job_world(), (int)per_node)));
    enum mt_status status = mt_job_agree(mt_comm_rehearse(&comm, alpha_us));
    if (status == MT_OK) {
        status = run(&comm, &chooser, alpha_us, most_bytes, mt_argument(arguments, "--only"));
    }
    mt_arena_clear(&chooser.scratch);
    mt_cluster_clear(&chooser.cluster);
    mt_comm_clear(&comm);
    return status;
}
