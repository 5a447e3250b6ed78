/* The machine as planners see it: ranks in nodes, links, and how long things take.
 *
 * Integers only, quantised once and the same on every rank: a plan made from them is the same
 * everywhere and after resuming. Times are picoseconds, so that a row of a small expert (tens of
 * nanoseconds) keeps three digits while 2^63 is 106 days. */
#ifndef MT_PLACEMENT_CLUSTER_H
#define MT_PLACEMENT_CLUSTER_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* How far apart two ranks are. */
enum mt_level { MT_LEVEL_RANK, MT_LEVEL_NODE, MT_LEVEL_NETWORK, MT_N_LEVEL };

/* Ways of the token exchange (placement/exchange.h), the simpler first. */
enum mt_exchange_kind {
    MT_EXCHANGE_DIRECT,
    MT_EXCHANGE_TWO_LEVEL,
    MT_EXCHANGE_LEADER,
    MT_EXCHANGE_DEDUPLICATED,
    MT_N_EXCHANGE
};
/* Loads on which they are timed: equal blocks; blocks of HOT_FACTOR times the size for rank 0.
 * Sizes are mt_exchange_timed_bytes. */
enum mt_exchange_load { MT_EXCHANGE_EVEN, MT_EXCHANGE_HOT, MT_N_EXCHANGE_LOAD };
enum { MT_EXCHANGE_HOT_FACTOR = 4 };
enum { MT_N_EXCHANGE_TIMED = MT_EXCHANGE_DEDUPLICATED, MT_N_EXCHANGE_SIZE = 4 };

/* Measured once, quantised, broadcast, kept (train/costs.h), or read from a file. All >= 0. */
struct mt_costs {
    int64_t row_ps;       /* one row through one expert, forward; backward takes twice that */
    int64_t instance_ps;  /* what an instance costs beside its rows, forward: packing, launches */
    int64_t attention_ps; /* what a layer of a micro-batch computes before its gate, forward: the
                             time under which copies travel unseen; backward twice that */
    int64_t alpha_ps[MT_N_LEVEL]; /* per message; [MT_LEVEL_RANK] is 0 */
    int64_t kib_ps[MT_N_LEVEL];   /* per 1024 bytes that one rank sends (or receives) when all do */
    int64_t alone_kib_ps; /* between nodes, when no other rank of its node does; 0: not known, then
                             it is as when all do */
    /* What an exchange took, there and back, in whole percents of its price by the above; the
     * deduplicated one has those of two levels. All 0: not measured. */
    int64_t exchange_percent[MT_N_EXCHANGE_LOAD][MT_N_EXCHANGE_TIMED][MT_N_EXCHANGE_SIZE];
};

/* Invariants: node[] is ascending in each node's lowest rank, as mt_topology numbers them; members
 * of a node are in rank order; nodes may be uneven. */
struct mt_cluster {
    int n_rank, n_node;
    int *node;       /* [R] */
    int *node_start; /* [M+1] into member */
    int *member;     /* [R] ranks by node */
    struct mt_costs costs;
    int64_t row_bytes;    /* that one row takes on its way to an expert, and as many back */
    int64_t expert_bytes; /* values of one expert; its gradient has as many */
    /* How rows travel: mt_exchange_describe. Zeros: straight, and nobody computes meanwhile. */
    enum mt_exchange_kind exchange;
    bool chooses_exchange; /* the cheapest instead */
    bool sums_may_differ;  /* also among those that add in another order */
    bool is_halved;        /* rows of half a micro-batch travel while the other half computes */
    int64_t top_k;         /* rows of a token */
    int64_t slice_rows;    /* that a rank keeps for backward, which computes gate and up of those
                             beyond again; 0: keeps all */
};

/* node [n_rank], numbered from 0 without gaps; costs and sizes are zero: set by the caller. */
enum mt_status mt_cluster_init(struct mt_cluster *cluster, int n_rank, const int *node);
void mt_cluster_clear(struct mt_cluster *cluster);

static inline enum mt_level mt_cluster_level(const struct mt_cluster *cluster, int from, int to)
{
    if (from == to) {
        return MT_LEVEL_RANK;
    }
    return cluster->node[from] == cluster->node[to] ? MT_LEVEL_NODE : MT_LEVEL_NETWORK;
}

/* Per 1024 bytes between nodes: of a rank while the others of its node are silent; of the links of
 * `node`, all its ranks together. */
static inline int64_t mt_cluster_alone_kib_ps(const struct mt_cluster *cluster)
{
    const struct mt_costs *costs = &cluster->costs;
    return costs->alone_kib_ps > 0 ? costs->alone_kib_ps : costs->kib_ps[MT_LEVEL_NETWORK];
}
int64_t mt_cluster_link_kib_ps(const struct mt_cluster *cluster, int node);

/* alpha + bytes beta of one message at that level */
int64_t mt_costs_message_ps(const struct mt_costs *costs, enum mt_level level, int64_t n_bytes);

#endif
