/* Growing a flow: which replicas to add so that no rank has more than a limit.
 *
 * Rows leave the ranks above the limit, hottest expert first, for the ranks with most room: to
 * copies that are liked (because they are there already), then inside the node, then anywhere. Each
 * replica is made together with the rows it takes, so one trial is a walk down two sorted lists; a
 * search tries limits by bisection and keeps the one of least price. Internal to placement/. */
#ifndef MT_PLACEMENT_GROW_H
#define MT_PLACEMENT_GROW_H

#include "placement/flow.h"
#include "placement/ports.h"

struct mt_grow_rules {
    int slots;              /* copies that a rank may hold */
    int64_t min_row;        /* fewer rows do not earn a copy */
    int64_t tolerance_row;  /* limits closer than this are not told apart */
    bool is_node_only;      /* copies stay inside their owner's node */
    bool is_timed;          /* price is predicted time, else the largest load */
    bool is_late;           /* copies are exposed */
    bool is_patient;        /* late rows need not end before their rank's others could */
    bool is_resident_first; /* only a late copy's own rows wait for it */
    bool is_thorough;       /* also without small copies, which waste slots */
    int64_t port_ps;        /* that any link may be busy in a direction: what attention covers */
};

/* Beyond so many ranks planners search less: on 1024 a trial takes a tenth of a millisecond, and
 * settling a whole one. */
enum { MT_PLANNER_RANKS = 256 };
/* Planners predict whole placements only up to so many (rank, instance) pairs: 8 MiB of quotas. */
enum { MT_PLANNER_PAIRS = 1 << 20 };

/* The least rows that earn a copy: `most` where ranks have many, never more than a 64th of the mean
 * load (a little above the tolerances of 0.01, so that balance is not out of reach on small
 * shapes). */
int64_t mt_grow_min_row(int64_t most, int64_t n_row, int n_rank);

enum { MT_GROW_SOURCE = 1 << 20 }; /* units that are one source rank */

/* Where rows come from. Not known before the gate (counts NULL): then from all ranks alike. */
struct mt_grow_sources {
    const int64_t *counts; /* [R,E] rows of source r for expert e */
    int64_t *total;        /* [E] all sources */
    int64_t *token;        /* [R] all experts */
    int64_t *node;         /* [M,E] of a node's sources */
};
struct mt_grow_rank {
    int64_t n_row, n_late_row;
    int64_t n_in[MT_N_LEVEL]; /* of n_row: those that come from so far; may undershoot 0 */
    int64_t n_source;         /* ranks that they come from, at most, in units */
    int n_copy;               /* slots taken */
    int n_instance, n_late;   /* that have rows; late ones of them */
    int64_t arrival_ps;       /* of its last late copy, after the rows' dispatch */
    int64_t in_ps[MT_N_LEVEL], out_ps[MT_N_LEVEL]; /* of copies on its links */
    int64_t held_ps[MT_N_LEVEL]; /* of copies from before, both directions: they go back too */
};
struct mt_grow_expert {
    int n_network, n_node; /* copies that its owner hands on, by level */
    int first_move;        /* of this trial; -1: none */
};
struct mt_grow_move {
    int expert, rank; /* a new copy */
    int sender;       /* rank that it is made from */
    int from;         /* instance that gives up the rows */
    int next;         /* move of the same expert */
    enum mt_level level;
    int64_t n_row;
};

struct mt_grow {
    const struct mt_cluster *cluster;
    struct mt_flow *flow;
    const struct mt_placement *liked; /* copies to prefer; NULL: none */
    bool is_liked_here;               /* and they need not travel */
    const int *owner;                 /* [E] */
    struct mt_grow_sources sources;
    struct mt_grow_rules rules;
    int first_late; /* instances of the flow from here on are late */
    int64_t copy_ps[MT_N_LEVEL];
    int64_t limit, largest_row;            /* of the last trial */
    int64_t kirow_ps[MT_N_LEVEL];          /* of links: 1024 rows */
    int n_peer[MT_N_LEVEL];                /* of a usual rank */
    int64_t exchange_k;                    /* the cluster's exchange over straight, in 1/1024 */
    int64_t ragged_k;                      /* largest source over the mean, in 1/1024 */
    int64_t *node_token;                   /* [M] rows that a node's sources send */
    int64_t dispatch_ps;                   /* about what rows take on their way */
    int *order, *node_order;               /* [R] ascending load; the same node by node */
    int *start, *list;                     /* [R+1], [capacity]: instances by rank */
    bool *is_sorted;                       /* [R]: its list is by quota, descending */
    struct mt_grow_rank *rank, *rank_base; /* [R] after the trial; before it */
    struct mt_grow_expert *expert, *expert_base; /* [E] */
    int64_t *source;                             /* [E] sources of a row in units: 1 at most */
    int64_t *in_node;          /* [M] rows that instances of one expert there have */
    int64_t *left;             /* [capacity] rows that stay with each instance */
    struct mt_grow_move *move; /* [capacity] */
    int n_move;
    void *sort; /* [R] */
};

/* The flow's owners are those of `placement`, which stays the caller's. Cuts from the arena; the
 * caller sets rules and, if any, liked and sources. */
void mt_grow_init(struct mt_grow *grow, const struct mt_cluster *cluster, struct mt_flow *flow,
                  const struct mt_placement *placement, struct mt_arena *arena);
/* Late copies come on top of those that `placement` has: their gradients share the links. */
void mt_grow_hold(struct mt_grow *grow, const struct mt_placement *placement,
                  struct mt_arena *arena);
/* After that, and after the flow's quotas or instances changed. */
void mt_grow_reset(struct mt_grow *grow);
/* One trial; false: some rank stays above the limit. */
bool mt_grow_try(struct mt_grow *grow, int64_t limit);
/* Of the last trial: picoseconds of the layer, forward and backward, or its largest load. */
int64_t mt_grow_price(struct mt_grow *grow);
/* After mt_grow_reset: tries limits from `least` to `most`, the largest load now; ends with the
 * cheapest tried again (no moves if none is cheaper than that). Returns its price. */
int64_t mt_grow_search(struct mt_grow *grow, int64_t least, int64_t most);
/* About what rows take on their way to experts after the last trial. */
int64_t mt_grow_exchange_ps(const struct mt_grow *grow);
/* Is the price, a time, so near to what the last trial's copies would cost with rows and their
 * exchange spread evenly that no other plan can be much faster? */
bool mt_grow_is_even(const struct mt_grow *grow, int64_t price);
/* What late copies' gradients take beyond attention, after the last trial. */
int64_t mt_grow_excess_ps(const struct mt_grow *grow);
/* What links take, from the cluster's costs: of mt_grow_init. */
void mt_grow_set_links(struct mt_grow *grow);
/* After sources are set: what the cluster's exchange takes beside a straight one, of the rows as
 * they go to owners. */
void mt_grow_set_exchange(struct mt_grow *grow, struct mt_arena *arena);

/* ---- grow_rows.c: where rows come from ---- */
/* Sums of counts [R,E]; arrays from the arena. */
void mt_grow_count(struct mt_grow_sources *sources, const struct mt_cluster *cluster, int n_expert,
                   const int64_t *counts, struct mt_arena *arena);
/* Of mt_grow_reset: rank_base's n_in and n_source, from the flow's quotas. */
void mt_grow_list_rows(struct mt_grow *grow);
/* Adds (sign 1) or takes off (-1) n_row rows of an instance of the expert on the rank, beside which
 * other instances in its node have n_beside. */
void mt_grow_add_rows(const struct mt_grow *grow, int expert, int rank, int64_t n_row,
                      int64_t n_beside, int sign, struct mt_grow_rank *to);

/* The last trial's copies and quotas become the flow's; late ones are late there too. */
void mt_grow_apply(struct mt_grow *grow);

/* The flow's instances as a placement; those from index `first_late` on are late. */
void mt_grow_write(const struct mt_flow *flow, int first_late, struct mt_placement *placement);

#endif
