/* The route of one layer's rows: which row of which rank is computed where, and where it lies in
 * every buffer on the way. A pure function of the quota matrix that every rank holds and of this
 * rank's own choices; knows neither MPI nor devices.
 *
 * Order. A source sorts its rows by (target rank, expert, token); one block per target. A target
 * reads one block per source and sorts its rows by (instance, source, order of arrival), so that
 * the rows of an expert are contiguous for the grouped products:
 *
 *   source s:  | to 0: e0 e0 e3 | to 1: e5 | ...    target t:  | e0: from 0, 1, .. | e3: from 0 ..
 *
 * A block of c rows travels in one of two layouts, rank after rank without gaps:
 *   wide    c rows of D floats, then c floats, one a row (a weight, or its gradient): c (D + 1)
 *   narrow  c rows of D floats: c D */
#ifndef MT_MOE_ROUTE_H
#define MT_MOE_ROUTE_H

#include "base/memory.h"
#include "placement/placement.h"

#include <stdint.h>

struct mt_route {
    int64_t width;    /* D */
    int64_t n_choice; /* N*K: rows that start here */
    int64_t n_row;    /* S: rows computed here */
    int n_rank, n_group;
    int64_t *send_count; /* [R] rows that start here, by target */
    int64_t *recv_count; /* [R] rows computed here, by source */
    /* Offsets in floats, of the row or float of choice (n,k) in the send blocks. */
    int64_t *send_wide;   /* [N,K] row, wide */
    int64_t *send_weight; /* [N,K] its one float, wide */
    int64_t *send_narrow; /* [N,K] row, narrow */
    /* The same for row r of the instance-major order in the receive blocks. */
    int64_t *recv_wide;   /* [S] */
    int64_t *recv_weight; /* [S] */
    int64_t *recv_narrow; /* [S] */
    /* Instances on this rank, by expert: group g has rows group_offset[g] .. [g+1] - 1. */
    int *group_expert;     /* [n_group] */
    int64_t *group_offset; /* [n_group+1] */
};

struct mt_route_input {
    int rank;
    int64_t width; /* D */
    const struct mt_placement *placement;
    const int64_t *quota; /* [R, n_instance] rows of each source for each instance */
    const int32_t
        *expert; /* [n_choice] of this rank; as many of e as its quota for e's instances */
    int64_t n_choice;
};

/* Builds the route; everything is cut from the arena, `*out` too. A source's rows of one expert, in
 * token order, go to its instances in instance order, as many to each as its quota says. */
struct mt_route *mt_route_build(const struct mt_route_input *input, struct mt_arena *arena);

/* Bytes that build cuts at most, scratch included, for up to n_choice and n_row rows; false when
 * they do not fit int64_t. */
bool mt_route_bytes_max(int n_rank, int64_t n_expert, int64_t max_instance, int64_t n_choice,
                        int64_t n_row, int64_t *n_bytes);

#endif
