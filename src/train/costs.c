/* Where the costs of a run come from. */
#include "train/costs.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"

#include <math.h>
#include <string.h>

/* The state: what the costs were measured for, their times, then percents. */
enum { N_SETUP = MT_COSTS_STATE_EXCHANGE - MT_N_COSTS_FIELD };
/* What is taken from a file or the state, and put there. */
enum { N_VALUE = MT_N_COSTS_FIELD + MT_COSTS_PERCENTS };

/* value [N_VALUE] */
static void take_values(int64_t *value, struct mt_costs *costs)
{
    for (int i = 0; i < MT_N_COSTS_FIELD; i++) {
        value[i] = *mt_costs_value(costs, &mt_costs_fields[i]);
    }
    memcpy(value + MT_N_COSTS_FIELD, costs->exchange_percent, sizeof(costs->exchange_percent));
}

static void put_values(struct mt_costs *costs, const int64_t *value)
{
    for (int i = 0; i < MT_N_COSTS_FIELD; i++) {
        *mt_costs_value(costs, &mt_costs_fields[i]) = value[i];
    }
    memcpy(costs->exchange_percent, value + MT_N_COSTS_FIELD, sizeof(costs->exchange_percent));
}

static bool is_in_range(const int64_t *value)
{
    const int64_t *percent = value + MT_N_COSTS_FIELD;
    const int64_t least = percent[0] == 0 ? 0 : 1; /* all or none */
    const int64_t most = percent[0] == 0 ? 0 : MT_COSTS_MOST_PERCENT;
    for (int i = 0; i < MT_N_COSTS_FIELD; i++) {
        if (value[i] < 0 || value[i] > mt_costs_fields[i].most) {
            return false;
        }
    }
    for (int i = 0; i < MT_COSTS_PERCENTS; i++) {
        if (percent[i] < least || percent[i] > most) {
            return false;
        }
    }
    return true;
}

int64_t mt_costs_quantise(int64_t value)
{
    int64_t unit = 1;
    MT_ASSERT(value >= 0);
    while (value / unit >= 100) {
        unit *= 10;
    }
    const int64_t digits = value / unit + (value % unit >= (unit + 1) / 2 && unit > 1 ? 1 : 0);
    return digits * unit;
}

/* A rate in thousandths, so that it can be compared and kept as an integer. */
static int64_t thousandths(double rate)
{
    static const double MOST = 1e15;
    return llround(fmin(rate, MOST) * 1e3);
}

static void fill_setup(const struct mt_session *session, int64_t n_sequence, int64_t *setup)
{
    setup[0] = session->comm.topology.n_rank;
    /* the type above the nodes: zero in checkpoints made before there were two */
    setup[1] = session->comm.topology.n_node + ((int64_t)session->config->device.dtype << 32);
    setup[2] = n_sequence;
    setup[3] = thousandths(session->config->device.pace_gflops);
    setup[4] = thousandths(session->config->device.pace_gbytes_per_s);
}

/* Values of one rank become medians over all, quantised; the others' stay as they are. Every rank
 * gathers the same numbers, so all have the same result. */
static enum mt_status agree_on_compute(struct mt_comm *comm, struct mt_costs *costs)
{
    enum { N = 3 };
    const int n_rank = comm->topology.n_rank;
    int64_t *const value[N] = {&costs->row_ps, &costs->instance_ps, &costs->attention_ps};
    const int64_t mine[N] = {*value[0], *value[1], *value[2]};
    int64_t *all = NULL;
    MT_TRY(mt_job_agree(MT_ALLOCATE(all, 2 * (int64_t)N * n_rank, "costs of all ranks")));
    const enum mt_status status = mt_comm_gather_i64(comm, mine, N, all);
    int64_t *sorted = all + (int64_t)N * n_rank;
    for (int i = 0; i < N && status == MT_OK; i++) {
        for (int rank = 0; rank < n_rank; rank++) {
            sorted[rank] = all[rank * N + i];
        }
        *value[i] = mt_median_i64(sorted, n_rank);
    }
    mt_memory_free(all);
    return status;
}

enum mt_status mt_costs_measure(struct mt_session *session, int64_t n_sequence,
                                struct mt_costs *costs)
{
    *costs = (struct mt_costs){0};
    MT_TRY(mt_job_agree(mt_costs_measure_compute(session, n_sequence, costs)));
    MT_TRY(agree_on_compute(&session->comm, costs));
    MT_TRY(mt_job_agree(mt_costs_measure_links(&session->comm, costs)));
    for (int i = 0; i < MT_N_COSTS_FIELD; i++) {
        int64_t *value = mt_costs_value(costs, &mt_costs_fields[i]);
        *value = mt_min_i64(mt_costs_quantise(*value), mt_costs_fields[i].most);
    }
    return session->config->comm.all_to_all == MT_COMM_A2A_AUTO
               ? mt_costs_measure_exchanges(&session->comm, costs)
               : MT_OK;
}

/* Rank 0 reads; the others hear it. */
static enum mt_status read_file(struct mt_session *session, struct mt_costs *costs)
{
    int64_t value[N_VALUE] = {0};
    enum mt_status status = MT_OK;
    *costs = (struct mt_costs){0};
    if (session->comm.rank == 0) {
        status = mt_costs_read(session->config->placement.costs, costs);
    }
    MT_TRY(mt_job_agree(status));
    take_values(value, costs);
    MT_TRY(mt_comm_sum_i64(&session->comm, value, N_VALUE));
    put_values(costs, value);
    return MT_OK;
}

static enum mt_status keep_or_measure(struct mt_session *session, int64_t n_sequence,
                                      const int64_t *state, struct mt_costs *costs,
                                      enum mt_costs_origin *origin)
{
    int64_t setup[N_SETUP];
    fill_setup(session, n_sequence, setup);
    if (memcmp(state, setup, sizeof(setup)) == 0 && is_in_range(state + N_SETUP)) {
        *origin = MT_COSTS_CHECKPOINT;
        put_values(costs, state + N_SETUP);
        return MT_OK;
    }
    *origin = MT_COSTS_MEASURED;
    return mt_costs_measure(session, n_sequence, costs);
}

enum mt_status mt_costs_decide(struct mt_session *session, int64_t n_sequence, int64_t *state,
                               struct mt_costs *costs, enum mt_costs_origin *origin)
{
    *costs = (struct mt_costs){0};
    if (strcmp(session->config->placement.costs, "measured") == 0) {
        MT_TRY(keep_or_measure(session, n_sequence, state, costs, origin));
        fill_setup(session, n_sequence, state);
    } else {
        MT_TRY(read_file(session, costs));
        *origin = MT_COSTS_FILE;
        memset(state, 0, N_SETUP * sizeof(*state)); /* without the file measured again */
    }
    take_values(state + N_SETUP, costs);
    return MT_OK;
}
