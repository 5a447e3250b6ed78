/* Which all-to-all carries rows to experts and back: what each costs by alpha and beta of links,
 * and the one that costs least. Integers only, from what every rank holds, so that all choose alike
 * and a resumed run as the one before. The plans themselves are comm/'s; docs/exchange.md has
 * pictures and formulas. */
#ifndef MT_PLACEMENT_EXCHANGE_H
#define MT_PLACEMENT_EXCHANGE_H

#include "base/memory.h"
#include "config/config.h"
#include "placement/cluster.h"

const char *mt_exchange_name(enum mt_exchange_kind kind);      /* as comm.all_to_all has it */
const char *mt_exchange_load_name(enum mt_exchange_load load); /* as costs.json has it */

struct mt_exchange_rows {
    const int64_t *n_row; /* [R,R] of source s at target t */
    int64_t row_bytes;
    int64_t top_k; /* K: rows of a token */
};

/* ---- exchange_price.c ---- */

/* One exchange, to the experts or back (is_back), by alpha and beta of links: rounds one after
 * another, each as long as its busiest port. Levels are ports of their own; so are ranks. The
 * scratch is given back. */
int64_t mt_exchange_ps(const struct mt_cluster *cluster, enum mt_exchange_kind kind,
                       const struct mt_exchange_rows *rows, bool is_back, struct mt_arena *scratch);
/* Bytes of scratch for any function of this file. */
int64_t mt_exchange_scratch_bytes(int n_rank);
/* How many tokens are expected among n of the n_all rows of a source, K rows a token, when rows are
 * drawn evenly: N (1 - (1 - n / n_all)^K) of its N = n_all / K tokens. */
int64_t mt_exchange_n_token(int64_t n, int64_t n_all, int64_t top_k);

/* ---- exchange_measured.c: links do not tell when a process gets its turn, nor what passes at once
 * before a link's rate holds. The price has the shape, what real exchanges took the level. ---- */

bool mt_exchange_is_measured(const struct mt_costs *costs);
/* Bytes of a block, on average, of the load that was timed at `size` in [0, MT_N_EXCHANGE_SIZE). */
int64_t mt_exchange_timed_bytes(int size);
/* The percents of the timed load that these rows are like: between sizes by the logarithm of what
 * crosses between two ranks of different nodes, and between even and hot by how much more crosses
 * at the busiest rank than at the mean one. 100 where nothing was measured. */
int64_t mt_exchange_percent(const struct mt_cluster *cluster, enum mt_exchange_kind kind,
                            const struct mt_exchange_rows *rows);
/* There and back, as measured. */
int64_t mt_exchange_both_ps(const struct mt_cluster *cluster, enum mt_exchange_kind kind,
                            const struct mt_exchange_rows *rows, struct mt_arena *scratch);

/* ---- exchange.c ---- */

/* There and back cost least; a later kind only when it is cheaper than those before: by a sixteenth
 * where links are all that is known, which are not measured more exactly, and what is simpler has
 * fewer rounds to be disturbed in; by a 64th where exchanges were timed, rounds and disturbances
 * included. sums_may_differ: also those count that add in another order. */
enum mt_exchange_kind mt_exchange_choose(const struct mt_cluster *cluster,
                                         const struct mt_exchange_rows *rows, bool sums_may_differ,
                                         struct mt_arena *scratch);
/* What the configuration lets the cluster's rows do, but for is_halved. One node: go straight. */
void mt_exchange_describe(struct mt_cluster *cluster, const struct mt_config *config);
/* Beyond so many ranks plans price rows as if they went straight: a price by rounds looks at every
 * pair of ranks. */
enum { MT_EXCHANGE_RANKS = 256 };
bool mt_exchange_is_direct(const struct mt_cluster *cluster);
/* One way, the mean of there and back, of the cluster's exchange, as measured: n_row [R,R]. */
int64_t mt_exchange_way_ps(const struct mt_cluster *cluster, const int64_t *n_row,
                           struct mt_arena *scratch);
/* What a layer's four ways add to its time when each takes way_ps and its experts experts_ps in
 * forward, twice that in backward. In halves, half of a pass's rows travel under attention and half
 * under experts (docs/decisions/0012-halves.md). */
int64_t mt_exchange_exposed_ps(const struct mt_cluster *cluster, int64_t way_ps,
                               int64_t experts_ps);

#endif
