/* The graph of a replay, between the file that builds it and the one that plays it. */
#ifndef MT_PROFILE_REPLAY_INTERNAL_H
#define MT_PROFILE_REPLAY_INTERNAL_H

#include "profile/replay.h"

/* Work without a pause. */
struct mt_piece {
    int step; /* into profile->step */
    int phase, layer;
    int64_t ns;
};

enum mt_node_kind { MT_NODE_POST, MT_NODE_WAIT, MT_NODE_END };

/* A moment of one rank, after the pieces of work that lead to it. */
struct mt_node {
    enum mt_node_kind kind;
    int collective; /* index into the segment's; -1: end of the steps */
    int64_t first_piece, end_piece;
    int64_t come_ns, go_ns; /* of the latest run: work done; wait over */
    int source;             /* whose arrival ended the wait; -1: it was over before */
};

/* One collective on one rank. */
struct mt_part {
    bool is_there;
    int phase, layer;
    uint64_t needed;           /* ranks up to 64 whose arrival it needs; above: everybody's */
    int64_t begin_ns, done_ns; /* measured */
    int64_t transfer_ns;       /* measured: from the last needed arrival until done */
    int64_t other_ns;          /* the same of other steps */
    int last_peer;             /* whose messages were there last; -1: unknown */
    int64_t last_ns;           /* of the transfer: that they alone were missing */
    int64_t post_node;
    int64_t posted_ns; /* of the latest run; -1: not yet */
};

/* Steps that follow one another. */
struct mt_segment {
    int first_step, n_step; /* into profile->step */
    int64_t base_ns;        /* the first rank's begin: 0 of what is played */
    int64_t begin_ns;       /* the last rank's */
    int64_t measured_ns;
    int n_collective;
    struct mt_part *part;  /* [n_collective, R] */
    int64_t *first_node;   /* [R + 1] into node */
    struct mt_node *node;  /* by rank, then time */
    struct mt_piece *work; /* by node */
};

struct mt_replay {
    const struct mt_profile *profile;
    int n_rank, n_step;
    int begin_step, end_step; /* into profile->step: what may be replayed */
    int n_segment;
    struct mt_segment *segment;
    double *slowness; /* [R, MT_N_PHASE + 1] */
    double *row_ns;   /* [R] time of one more row of an expert layer, forward and backward */
    int64_t *next;    /* [R] node to be played */
    int64_t *now_ns;  /* [R] */
    double *scratch;  /* [R] */
};

/* Everything of the segment that is measured; first_step and n_step are given. */
enum mt_status mt_segment_build(const struct mt_profile *profile, struct mt_segment *segment);
void mt_segment_clear(struct mt_segment *segment);

/* Its collectives: n_collective and part. *first: number of the first of them. */
enum mt_status mt_segment_join(const struct mt_profile *profile, struct mt_segment *segment,
                               int64_t *first);

/* slowness and row_ns, from what the replayed steps took. */
enum mt_status mt_replay_compare_ranks(struct mt_replay *replay);

static inline struct mt_part *mt_segment_part(const struct mt_segment *segment, int n_rank,
                                              int collective, int rank)
{
    return &segment->part[(int64_t)collective * n_rank + rank];
}

/* Where a rank begins, on the clock of what is played. */
static inline int64_t mt_segment_start_ns(const struct mt_replay *replay,
                                          const struct mt_segment *segment, int rank)
{
    return mt_profile_step(replay->profile, segment->first_step, rank)->begin_ns - segment->base_ns;
}

#endif
