/* Which way a sparse distribution takes: from its owners alone, by relays, or along chains. The
 * same on every rank: from the distribution, the topology and, for the gather, costs of links that
 * are the same on every rank. */
#ifndef MT_COMM_SPARSE_AUTO_H
#define MT_COMM_SPARSE_AUTO_H

#include "comm/collectives.h"

/* What messages take: mt_ps_carry of alpha_ps and kib_ps, a rank's when all send at once. Between
 * nodes, alone_kib_ps: of a rank while the others of its node are silent; 0: not known, then as
 * with them. */
enum mt_link { MT_LINK_INSIDE, MT_LINK_BETWEEN, MT_N_LINK };
struct mt_links {
    int64_t alpha_ps[MT_N_LINK], kib_ps[MT_N_LINK];
    int64_t alone_kib_ps;
};

enum mt_sparse_way { MT_SPARSE_DIRECT, MT_SPARSE_RELAY, MT_SPARSE_CHAIN, MT_N_SPARSE_WAY };

struct mt_sparse_choice {
    enum mt_sparse_way way;
    int64_t piece_bytes; /* of chains; 0: none that stays within the limits */
};

/* The same on every rank. Chains keep to them; the others' plans need what their headers say. */
struct mt_sparse_limits {
    int64_t max_op;      /* of a chain's plan */
    int64_t stage_bytes; /* of a chain's reduction */
    int64_t worth_bytes; /* mt_relay_create */
};

/* As max_op: 64 pieces of one chunk for 8 ranks on each of 8 nodes are 1200 at its owner. Of a plan
 * and its executor 270 KiB. */
enum { MT_CHAIN_OPS = 4096 };

struct mt_sparse_auto;

/* For distributions of at most max_chunk chunks with max_copy copies over `topology`, which must
 * outlive it. Nothing is known of links at first: then gathers go by relays, whose own rule says
 * when owners send everything themselves. */
enum mt_status mt_sparse_auto_create(const struct mt_topology *topology, int64_t max_chunk,
                                     int64_t max_copy, const struct mt_sparse_limits *limits,
                                     struct mt_sparse_auto **out);
void mt_sparse_auto_destroy(struct mt_sparse_auto *ways); /* NULL allowed */
void mt_sparse_auto_set_links(struct mt_sparse_auto *ways, const struct mt_links *links);

/* The gather by what it takes. The reduction by bytes alone, since its sums have the order of its
 * way: no bit may depend on what was measured. */
struct mt_sparse_choice mt_sparse_choose_gather(struct mt_sparse_auto *ways,
                                                const struct mt_sparse *sparse);
struct mt_sparse_choice mt_sparse_choose_reduce(struct mt_sparse_auto *ways,
                                                const struct mt_sparse *sparse);
/* What that way takes, as it is priced: the busiest port of each round. Chains: with the choice's
 * pieces. */
int64_t mt_sparse_way_ps(struct mt_sparse_auto *ways, const struct mt_sparse *sparse,
                         const struct mt_sparse_choice *choice);

/* The plans of the way that is chosen; buffers and offsets as for any of them. */
void mt_plan_sparse_allgather_auto(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                   struct mt_sparse_auto *ways, const int64_t *home_offset,
                                   const int64_t *copy_offset);
void mt_plan_sparse_reduce_scatter_auto(struct mt_plan *plan, int rank,
                                        const struct mt_sparse *sparse, struct mt_sparse_auto *ways,
                                        const int64_t *const offset[2], enum mt_element element);

#endif
