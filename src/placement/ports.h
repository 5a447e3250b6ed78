/* What copies and rows take on the links: for every rank and level the time that its port sends and
 * receives. Levels are links of their own (NVLink beside the network card), and a link carries both
 * directions at once, so what counts is the busiest (rank, level, direction). Internal to
 * placement/. */
#ifndef MT_PLACEMENT_PORTS_H
#define MT_PLACEMENT_PORTS_H

#include "placement/placement.h"

struct mt_port {
    int64_t in_ps[MT_N_LEVEL], out_ps[MT_N_LEVEL]; /* of MT_LEVEL_RANK: 0 */
};

/* Who hands a copy of an expert to whom. A node receives it over the network once, from the owner's
 * tree; its other ranks take it from the one that has it. A sender of n copies spreads them as a
 * binomial tree: ceil(log2(n + 1)) rounds of its own. */
struct mt_spread {
    const struct mt_cluster *cluster;
    const struct mt_placement *there; /* copies that need not travel; NULL: none. Late ones of it
                                         do not count. Set by the caller after init */
    int64_t copy_ps[MT_N_LEVEL];      /* one expert on its way */
    int *source;                      /* [M] who has the current expert in the node; -1: nobody */
    int *n_child;                     /* [M] that it hands it to */
    int64_t *ready_ps; /* [M] when a late copy is at its source; -1: before the gate */
};

enum mt_spread_set { MT_SPREAD_EARLY, MT_SPREAD_LATE, MT_SPREAD_ALL };

void mt_spread_init(struct mt_spread *spread, const struct mt_cluster *cluster,
                    struct mt_arena *arena);
/* Adds the copies of that kind to port [R]; those at home when the late ones travel (owners, early
 * copies) are sources for their node. Returns how many. */
int64_t mt_spread_copies(struct mt_spread *spread, const struct mt_placement *placement,
                         enum mt_spread_set set, struct mt_port *port);
/* When the last late copy of each rank is there: arrival_ps [R] after the end of the dispatch,
 * which took dispatch_ps; port: of the late copies. What comes over the network waits for the
 * dispatch, what stays inside a node does not. */
void mt_spread_arrivals(struct mt_spread *spread, const struct mt_placement *placement,
                        const struct mt_port *port, int64_t dispatch_ps, int64_t *arrival_ps);

/* The busiest direction of any link, [n] ports. */
int64_t mt_port_busiest(const struct mt_port *port, int n);
/* ceil(log2(n + 1)) */
static inline int mt_spread_rounds(int n)
{
    return n <= 0 ? 0 : 32 - __builtin_clz((unsigned)n);
}

#endif
