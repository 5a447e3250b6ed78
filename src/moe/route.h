/* The route of one layer's rows: which row of which rank is computed where, and where it lies in
 * every buffer on the way. A pure function of the quota matrix that every rank holds and of this
 * rank's own choices; knows neither MPI nor devices.
 *
 * Order. The rows that a rank computes stand by (resident instances before late ones, expert,
 * source, order at the source), so that the rows of an expert are contiguous for the grouped
 * products and those of copies that are still travelling come last. They are computed in slices of
 * at most W rows, the same slices in every rank's eyes: memory for rows is bounded whatever the
 * routing is. A source sorts the rows that start there by (slice, target, order at the target):
 * one block per slice and target; a target reads one block per slice and source:
 *
 *   source s:  | slice 0: to 0: e0 e0 e3 | to 1: e5 | slice 1: to 0: e3 | ...
 *   target t:  | slice 0: e0: from 0, 1, .. | e3: from 0 ..      | slice 1: e3: from 1 .. | ...
 *
 * Rows that are computed where they start do not travel when there is one slice, as there is unless
 * a rank has more than W rows: they are read where they lie, and their results stand by row behind
 * `near`, at own_offset. With several slices they travel like the others, to their own rank.
 *
 * A block of c rows travels in one of two layouts, rank after rank without gaps:
 *   wide    c rows of D floats, then c floats, one a row (a weight, or its gradient): c (D + 1)
 *   narrow  c rows of D floats: c D */
#ifndef MT_MOE_ROUTE_H
#define MT_MOE_ROUTE_H

#include "base/memory.h"
#include "placement/placement.h"

#include <stdint.h>

struct mt_transfer;

struct mt_route {
    int64_t width;      /* D */
    int64_t n_choice;   /* N*K: rows that start here */
    int64_t n_row;      /* S: rows computed here, in all slices */
    int64_t slice_rows; /* W */
    int n_rank, rank;
    int n_slice;         /* of the rank that computes most: the same everywhere; >= 1 */
    int64_t *send_count; /* [n_slice, R] rows that travel from here, by slice and target */
    int64_t *recv_count; /* [n_slice, R] rows that travel to here, by slice and source */
    int64_t *send_start; /* [n_slice+1] rows that travel from here in earlier slices */
    bool keeps_own;      /* rows from here to here do not travel: one slice */
    int64_t own_offset, own_weight_offset; /* as in the input */
    /* Offsets in floats, of the row or float of choice (n,k) in the send blocks; of a row that does
     * not travel, row r here: own_offset + r D and own_weight_offset + r. */
    int64_t *send_wide;   /* [N,K] row, wide */
    int64_t *send_weight; /* [N,K] its one float, wide */
    int64_t *send_narrow; /* [N,K] row, narrow */
    /* Instances on this rank: group g has rows group_offset[g] .. [g+1] - 1 of all slices. */
    int n_group, n_resident;      /* groups from n_resident on are late */
    int *group_expert;            /* [n_group] */
    int64_t *group_offset;        /* [n_group+1] */
    int64_t *group_from;          /* [n_group, R] rows by source */
    struct mt_transfer *transfer; /* how its rows travel: set by mt_carrier_choose */
};

struct mt_route_input {
    int rank;
    int64_t width;      /* D */
    int64_t slice_rows; /* W >= 1 */
    /* In floats, from `near` to arrays behind it: [W,D] and [W] by row computed here. */
    int64_t own_offset, own_weight_offset;
    const struct mt_placement *placement;
    const int64_t *quota; /* [R, n_instance] rows of each source for each instance */
    const int32_t
        *expert; /* [n_choice] of this rank; as many of e as its quota for e's instances */
    int64_t n_choice;
};

/* Builds the route; everything is cut from the arena, `*out` too. A source's rows of one expert, in
 * token order, go to its instances in instance order, as many to each as its quota says. */
struct mt_route *mt_route_build(const struct mt_route_input *input, struct mt_arena *arena);

/* The rows of one slice here: their offsets in the receive blocks of that slice (-1: the row did
 * not travel), and its groups. */
struct mt_arrivals {
    int64_t n_row;        /* <= W */
    int64_t *wide;        /* [W] row r of the slice, wide */
    int64_t *weight;      /* [W] its one float, wide */
    int64_t *narrow;      /* [W] narrow */
    int first_group;      /* of the route's groups */
    int n_group;          /* that have rows in this slice, or lie between such */
    int n_resident;       /* of them; the late ones follow */
    int64_t *group_start; /* [n_group+1] rows of the slice */
    int64_t *taken;       /* [R] scratch */
};
/* Caller's arrays: wide, weight, narrow [W], group_start [E+1], taken [R]. */
void mt_route_arrivals(const struct mt_route *route, int slice, struct mt_arrivals *arrivals);

/* When the route keeps its own rows: choice [n_row] = the (n,k) that row r here comes from, or -1.
 */
void mt_route_own_choices(const struct mt_route *route, int64_t *choice);

/* Bytes that build cuts at most, scratch included, for up to n_choice rows from here and n_row rows
 * to one rank; false when they do not fit int64_t. */
struct mt_route_size {
    int n_rank;
    int64_t n_expert, max_instance, n_choice, n_row, slice_rows;
};
bool mt_route_bytes_max(const struct mt_route_size *size, int64_t *n_bytes);

#endif
