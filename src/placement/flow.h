/* The flow of one layer's rows, expert -> rank along instances: what planners grow and settle.
 *
 * Beside a placement, which lists instances in order, this form takes another instance in O(1) and
 * keeps the quotas found so far, so that a planner settles after each replica in a few steps.
 * Internal to placement/: settle.c and the planners on exact counts. */
#ifndef MT_PLACEMENT_FLOW_H
#define MT_PLACEMENT_FLOW_H

#include "placement/placement.h"

/* Invariants: an expert's quotas sum to its total once mt_flow_start ran; load[r] is the sum of
 * quotas on r; only instances of experts that have several are in of_rank's lists: the others' rows
 * have no choice. Lists end with -1. */
struct mt_flow {
    int n_rank, n_expert, n_instance, capacity;
    int64_t n_row;        /* all experts' */
    const int64_t *total; /* [E] the caller's */
    int64_t *load;        /* [R] */
    int *of_expert;       /* [E] first instance */
    int *of_rank;         /* [R] first instance that has a choice */
    struct mt_flow_instance {
        int expert, rank;
        int next_of_expert, next_of_rank;
        bool is_late; /* takes only rows that the others cannot */
        int64_t quota;
    } * instance; /* [capacity] */
    /* of the search: */
    int stamp;
    int *seen_rank, *seen_expert; /* [R], [E]: stamp of the last search that came there */
    int *queue;                   /* [R] */
    int *from, *to;               /* [R]: rows come to a rank through its `to` out of `from` */
    int n_queue;
};

/* Cuts its arrays from the arena; instances as in `placement`, room for `capacity`. No quotas yet:
 * total [E] stays the caller's and is kept. */
void mt_flow_init(struct mt_flow *flow, const struct mt_placement *placement, int capacity,
                  const int64_t *total, struct mt_arena *arena);
/* Other rows on the same instances. */
void mt_flow_set_total(struct mt_flow *flow, const int64_t *total);
/* First quotas: each expert's rows level the ranks that hold it, late instances left out: their
 * rows would wait for the copy, so draining gives them what the others cannot take. */
void mt_flow_start(struct mt_flow *flow);
/* Another instance, which is not there yet; its quota is 0. Returns its index. */
int mt_flow_add(struct mt_flow *flow, int expert, int rank);
/* Moves rows until no rank holds more than `limit`, or none of those that do can pass any on. False
 * in the latter case: then ranks for which mt_flow_is_stuck is true form a set whose rows all must
 * stay in it, each of them holds at least `limit`, and one more. */
bool mt_flow_drain(struct mt_flow *flow, int64_t limit);
static inline bool mt_flow_is_stuck(const struct mt_flow *flow, int rank)
{
    return flow->seen_rank[rank] == flow->stamp;
}
/* The least possible largest load, exactly; the quotas reach it. */
int64_t mt_flow_settle(struct mt_flow *flow);
/* Instance of the expert on the rank, or -1. */
int mt_flow_find(const struct mt_flow *flow, int expert, int rank);

#endif
