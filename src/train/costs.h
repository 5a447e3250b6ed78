/* The costs that plans are made from: decided once when training starts, the same on every rank,
 * kept in the run directory (costs.json) and in checkpoints (state array "costs").
 *
 * Costs measured per rank would make plans differ between ranks, and costs measured per start would
 * make a resumed run plan otherwise than the uninterrupted one. Where they come from, first found:
 *
 *   placement.costs = FILE    what the user says
 *   the checkpoint            if measured for the same ranks, nodes, micro-batch and pacing
 *   measurement               also when a costs.json of an earlier start lies there: a run that
 *                             starts again from step 1 owes it nothing, and the machine may have
 *                             changed; placement.costs = "<run>/costs.json" repeats it
 */
#ifndef MT_TRAIN_COSTS_H
#define MT_TRAIN_COSTS_H

#include "placement/cluster.h"
#include "train/session.h"

/* ---- costs.c ---- */

/* The costs as a checkpoint keeps them, with what they were measured for: all zeros, none. Then, in
 * arrays of their own, what checkpoints from before it do not have and is 0 then: alone_kib_ps, and
 * the percents of exchanges. */
enum {
    MT_COSTS_PERCENTS = MT_N_EXCHANGE_LOAD * MT_N_EXCHANGE_TIMED * MT_N_EXCHANGE_SIZE,
    MT_COSTS_STATE_ALONE = 12,
    MT_COSTS_STATE_EXCHANGE = MT_COSTS_STATE_ALONE + 1,
    MT_COSTS_STATE = MT_COSTS_STATE_EXCHANGE + MT_COSTS_PERCENTS
};

enum mt_costs_origin { MT_COSTS_FILE, MT_COSTS_CHECKPOINT, MT_COSTS_MEASURED };

/* Collective, agreed. state [MT_COSTS_STATE]: what a checkpoint had, on return what the next one
 * keeps. n_sequence: sequences of a micro-batch, the largest rank's, the same on every rank. */
enum mt_status mt_costs_decide(struct mt_session *session, int64_t n_sequence, int64_t *state,
                               struct mt_costs *costs, enum mt_costs_origin *origin);

/* Collective, agreed; about 50 ms on 2 ranks. Every rank measures at the same time as the others,
 * for so they work in a step; medians over ranks, quantised. Exchanges are timed where
 * comm.all_to_all = "auto" has a choice. */
enum mt_status mt_costs_measure(struct mt_session *session, int64_t n_sequence,
                                struct mt_costs *costs);

/* Two significant decimal digits: measurements of one machine differ by 5 to 10 % from start to
 * start, so a third digit would be noise - and plans of two runs that could agree would differ for
 * it. value >= 0. */
int64_t mt_costs_quantise(int64_t value);

/* ---- costs_file.c ---- */

/* The times of a costs file, in the order in which they are written and kept. */
struct mt_costs_field {
    const char *level; /* object that holds the key; NULL: the root */
    const char *name;
    size_t offset; /* in struct mt_costs */
    int64_t most;
    bool is_optional; /* 0 where a file does not have it */
};
enum { MT_N_COSTS_FIELD = 8 };
extern const struct mt_costs_field mt_costs_fields[MT_N_COSTS_FIELD];

static inline int64_t *mt_costs_value(struct mt_costs *costs, const struct mt_costs_field *field)
{
    return (int64_t *)((char *)costs + field->offset);
}

/* Percents are whole and from 1 to this, all of them or none (then 0). */
enum { MT_COSTS_MOST_PERCENT = 10000 };

/* Strict: MT_ERR_INPUT naming the file, the key and what was expected. */
enum mt_status mt_costs_read(const char *path, struct mt_costs *costs);
/* Replaces folder/costs.json whole. origin: a line for people. MT_ERR_RESOURCE when the disk
 * refuses. */
enum mt_status mt_costs_write(const char *folder, const struct mt_costs *costs, const char *origin);

/* ---- costs_compute.c, costs_links.c, costs_exchange.c ---- */

/* This rank's row_ps, instance_ps, attention_ps at the shapes of the run: modelled exactly where
 * the device is paced, else the least of a few measurements. A slowdown is left out: plans are made
 * for equal devices. Models with MoE layers only. */
enum mt_status mt_costs_measure_compute(const struct mt_session *session, int64_t n_sequence,
                                        struct mt_costs *costs);

/* Collective: alpha_ps, kib_ps and alone_kib_ps, medians over the ranks, not yet quantised; the
 * same on every rank. All pairs of partners are at it together, as ranks are in an exchange; then,
 * between nodes, the first rank of each node only. A level that this cluster lacks is a copy of the
 * other; one rank alone measures messages to itself. */
enum mt_status mt_costs_measure_links(struct mt_comm *comm, struct mt_costs *costs);
/* Collective, agreed, the same on every rank: exchange_percent of these costs, which are quantised.
 * Memory is given back. Leaves them alone on one node and beyond MT_EXCHANGE_RANKS. */
enum mt_status mt_costs_measure_exchanges(struct mt_comm *comm, struct mt_costs *costs);
/* A link from what messages of MT_PING_SMALL_BYTES, MT_PING_LARGE_BYTES and MT_PING_LONG_BYTES
 * take: bytes what the last takes beyond the one before it. At least an eighth of what that takes
 * is its bytes' time, however near to each other they were measured. */
void mt_costs_fit_link(int64_t small_ps, int64_t large_ps, int64_t long_ps, int64_t *alpha_ps,
                       int64_t *kib_ps);

/* What a rank can take alone is not less than its share when all ranks of a node send, n_member at
 * most, and not more than all of them: what was measured, kept within that. */
int64_t mt_costs_fit_alone(int64_t alone_kib_ps, int64_t kib_ps, int64_t n_member);

/* Who `rank` measures with at that level, NODE or NETWORK; -1: nobody. Mutual. */
int mt_costs_partner(const struct mt_topology *topology, int rank, enum mt_level level);

#endif
