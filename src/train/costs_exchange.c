/* What the ways of the token exchange take beside their price: each is run, there and back, on even
 * blocks and with a hot rank, for a few sizes. Links alone do not tell: on 8 hosts of 8 ranks that
 * share 2 cores leaders are 1.3 times as fast as two levels at 64 bytes a pair, for they send the
 * fewest messages, and two levels at 1 KiB; on 4 hosts of 2 at 1 Gbit/s 16 KiB a pair go straight
 * 1.3 times as fast, for a third of it passes at once (2026-11-23, docs/exchange.md).
 *
 * Ways take turns, so that what disturbs one disturbs all, and the lower quartile counts. All ranks
 * know all times, so they measure equally long and find the same. */
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "comm/trial.h"
#include "placement/exchange.h"
#include "train/costs.h"

#include <math.h>
#include <string.h>

_Static_assert((int)MT_TRIAL_DIRECT == (int)MT_EXCHANGE_DIRECT &&
                   (int)MT_TRIAL_TWO_LEVEL == (int)MT_EXCHANGE_TWO_LEVEL &&
                   (int)MT_TRIAL_LEADER == (int)MT_EXCHANGE_LEADER &&
                   (int)MT_N_TRIAL_WAY == (int)MT_N_EXCHANGE_TIMED &&
                   (int)MT_TRIAL_HOT_FACTOR == (int)MT_EXCHANGE_HOT_FACTOR,
               "what is timed is what is priced");

enum { MIN_ROUND = 3, MAX_ROUND = 25 };
/* Bytes of one block of every rank: with a hot rank it takes four times that, and a leader passes
 * on as much for each rank of its node. */
enum { MOST_BYTES = 1 << 20 };
/* A load has its rounds, and goes on to more until it has taken so long; none is begun that would
 * take the whole beyond so much. Both are reached only by slow links and by ranks that share cores:
 * 64 ranks on 2 cores, 1.5 s a load. */
static const double LOAD_S = 0.1;
static const double WHOLE_S = 6.0;

struct exchanges {
    struct mt_comm *comm;
    struct mt_cluster cluster; /* with the costs of links alone: prices */
    struct mt_arena scratch;
    int64_t *bytes; /* [R,R] */
    double *time_s; /* [R] */
    double spent_s;
    double slowness[MT_N_TRIAL_WAY]; /* measured over its price, the last time */
    int64_t (*percent)[MT_N_EXCHANGE_TIMED][MT_N_EXCHANGE_SIZE];
};

struct run {
    struct mt_trial trial;
    enum mt_trial_way way;
};

static enum mt_status run_way(void *context)
{
    struct run *run = context;
    return mt_trial_run(&run->trial, run->way);
}

/* There and back. */
static double price_s(struct exchanges *e, int way)
{
    static const double SECONDS_PER_PS = 1e-12;
    const struct mt_exchange_rows rows = {.n_row = e->bytes, .row_bytes = 1, .top_k = 1};
    return (double)mt_exchange_both_ps(&e->cluster, (enum mt_exchange_kind)way, &rows,
                                       &e->scratch) *
           SECONDS_PER_PS;
}

static void fill(struct exchanges *e, enum mt_exchange_load load, int64_t pair_bytes)
{
    const int n_rank = e->cluster.n_rank;
    if (load == MT_EXCHANGE_EVEN) {
        mt_trial_fill_even(n_rank, pair_bytes, e->bytes);
    } else {
        mt_trial_fill_hot(n_rank, pair_bytes, e->bytes);
    }
}

/* Will it be over in time, as far as one can tell? */
static bool is_worth_it(struct exchanges *e, int64_t pair_bytes)
{
    double round_s = 0.0;
    for (int way = 0; way < MT_N_TRIAL_WAY; ++way) {
        round_s += price_s(e, way) * e->slowness[way] * mt_trial_n_in_a_row(pair_bytes);
    }
    return e->cluster.n_rank * pair_bytes <= MOST_BYTES &&
           e->spent_s + MIN_ROUND * round_s <= WHOLE_S;
}

static enum mt_status time_round(struct exchanges *e, struct run *run, int n_run, int round,
                                 double (*time_s)[MAX_ROUND])
{
    for (int way = 0; way < MT_N_TRIAL_WAY; ++way) {
        struct mt_trial_sample sample;
        run->way = (enum mt_trial_way)way;
        MT_TRY(mt_trial_time(e->comm, run_way, run, n_run, e->time_s, &sample));
        time_s[way][round] = sample.slowest_s;
        e->spent_s += sample.slowest_s * n_run;
    }
    return MT_OK;
}

/* time_s [ways, MAX_ROUND]: of one run. *n_round: how many rounds there were. */
static enum mt_status time_rounds(struct exchanges *e, struct run *run, int n_run,
                                  double (*time_s)[MAX_ROUND], int *n_round)
{
    const double enough_s = e->spent_s + LOAD_S;
    bool is_done = false;
    for (*n_round = 0; *n_round < MAX_ROUND && !is_done; ++*n_round) {
        MT_TRY(time_round(e, run, n_run, *n_round, time_s));
        is_done = e->spent_s > WHOLE_S || (*n_round + 1 >= MIN_ROUND && e->spent_s > enough_s);
    }
    return MT_OK;
}

static int64_t percent_of(double measured_s, double priced_s)
{
    static const double WHOLE = 100.0;
    const double percent = round(measured_s / priced_s * WHOLE);
    return (int64_t)fmax(1.0, fmin(percent, (double)MT_COSTS_MOST_PERCENT));
}

/* First each way once, which does not count: pages and connections are new. */
static enum mt_status time_load(struct exchanges *e, enum mt_exchange_load load, int size)
{
    const int64_t pair_bytes = mt_exchange_timed_bytes(size);
    double time_s[MT_N_TRIAL_WAY][MAX_ROUND];
    struct run run = {.way = MT_TRIAL_DIRECT};
    int n_round = 0;
    enum mt_status status = mt_job_agree(mt_trial_init(&run.trial, e->comm, e->bytes));
    for (int way = 0; way < MT_N_TRIAL_WAY && status == MT_OK; ++way) {
        status = mt_trial_run(&run.trial, (enum mt_trial_way)way);
    }
    if (status == MT_OK) {
        status = time_rounds(e, &run, mt_trial_n_in_a_row(pair_bytes), time_s, &n_round);
    }
    mt_trial_clear(&run.trial);
    for (int way = 0; way < MT_N_TRIAL_WAY && status == MT_OK; ++way) {
        const double measured_s = mt_trial_typical(time_s[way], n_round);
        const double priced_s = price_s(e, way);
        e->slowness[way] = measured_s / priced_s;
        e->percent[load][way][size] = percent_of(measured_s, priced_s);
    }
    return status;
}

/* The smallest always: a load without any has no percents. Those that would take too long count as
 * the next smaller one. */
static enum mt_status time_or_copy(struct exchanges *e, enum mt_exchange_load load, int size)
{
    const int64_t pair_bytes = mt_exchange_timed_bytes(size);
    fill(e, load, pair_bytes);
    if (size == 0 || is_worth_it(e, pair_bytes)) {
        return time_load(e, load, size);
    }
    for (int way = 0; way < MT_N_TRIAL_WAY; ++way) {
        e->percent[load][way][size] = e->percent[load][way][size - 1];
    }
    return MT_OK;
}

static enum mt_status time_loads(struct exchanges *e)
{
    for (int size = 0; size < MT_N_EXCHANGE_SIZE; ++size) {
        MT_TRY(time_or_copy(e, MT_EXCHANGE_EVEN, size));
        MT_TRY(time_or_copy(e, MT_EXCHANGE_HOT, size));
    }
    return MT_OK;
}

static enum mt_status allocate(struct exchanges *e)
{
    const struct mt_topology *topology = &e->comm->topology;
    const int64_t n_rank = topology->n_rank;
    MT_TRY(mt_cluster_init(&e->cluster, topology->n_rank, topology->node));
    MT_TRY(mt_arena_init(&e->scratch, mt_exchange_scratch_bytes(topology->n_rank),
                         "timing exchanges"));
    MT_TRY(MT_ALLOCATE(e->bytes, n_rank * n_rank, "timing exchanges"));
    return MT_ALLOCATE(e->time_s, n_rank, "timing exchanges");
}

enum mt_status mt_costs_measure_exchanges(struct mt_comm *comm, struct mt_costs *costs)
{
    struct mt_costs found = *costs;
    memset(found.exchange_percent, 0, sizeof(found.exchange_percent));
    struct exchanges e = {.comm = comm, .percent = found.exchange_percent};
    if (comm->topology.n_node == 1 || comm->topology.n_rank > MT_EXCHANGE_RANKS) {
        return MT_OK;
    }
    enum mt_status status = mt_job_agree(allocate(&e));
    if (status == MT_OK) {
        e.cluster.costs = found;
        status = time_loads(&e);
    }
    *costs = status == MT_OK ? found : *costs;
    mt_memory_free(e.time_s);
    mt_memory_free(e.bytes);
    mt_arena_clear(&e.scratch);
    mt_cluster_clear(&e.cluster);
    return status;
}
