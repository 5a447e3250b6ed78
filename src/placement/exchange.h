/* Which all-to-all carries rows to experts and back: what each costs by alpha and beta of links,
 * and the one that costs least. Integers only, from what every rank holds, so that all choose alike
 * and a resumed run as the one before. The plans themselves are comm/'s; docs/exchange.md has
 * pictures and formulas. */
#ifndef MT_PLACEMENT_EXCHANGE_H
#define MT_PLACEMENT_EXCHANGE_H

#include "base/memory.h"
#include "placement/cluster.h"

/* The simpler first. */
enum mt_exchange_kind {
    MT_EXCHANGE_DIRECT,
    MT_EXCHANGE_TWO_LEVEL,
    MT_EXCHANGE_LEADER,
    MT_EXCHANGE_DEDUPLICATED,
    MT_N_EXCHANGE
};
const char *mt_exchange_name(enum mt_exchange_kind kind); /* as comm.all_to_all has it */

struct mt_exchange_rows {
    const int64_t *n_row; /* [R,R] of source s at target t */
    int64_t row_bytes;
    int64_t top_k; /* K: rows of a token */
};

/* One exchange, to the experts or back (is_back): rounds one after another, each as long as its
 * busiest port. Levels are ports of their own; so are ranks. The scratch is given back. */
int64_t mt_exchange_ps(const struct mt_cluster *cluster, enum mt_exchange_kind kind,
                       const struct mt_exchange_rows *rows, bool is_back, struct mt_arena *scratch);

/* There and back cost least; a later kind only when it is a twentieth cheaper than those before:
 * measured links are not more exact than that, and what is simpler has fewer rounds to be disturbed
 * in. sums_may_differ: also those count that add in another order. */
enum mt_exchange_kind mt_exchange_choose(const struct mt_cluster *cluster,
                                         const struct mt_exchange_rows *rows, bool sums_may_differ,
                                         struct mt_arena *scratch);
/* Bytes of scratch for either. */
int64_t mt_exchange_scratch_bytes(int n_rank);

/* How many tokens are expected among n of the n_all rows of a source, K rows a token, when rows are
 * drawn evenly: N (1 - (1 - n / n_all)^K) of its N = n_all / K tokens. */
int64_t mt_exchange_n_token(int64_t n, int64_t n_all, int64_t top_k);

#endif
