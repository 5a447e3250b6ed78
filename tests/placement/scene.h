/* Random machines, placements and counts for tests of planners: now and then uneven nodes, ranks
 * without rows, all rows to one expert, experts without any, counts beyond 2^31. */
#ifndef MT_TEST_PLACEMENT_SCENE_H
#define MT_TEST_PLACEMENT_SCENE_H

#include "placement/policy.h"

struct mt_scene {
    struct mt_cluster cluster;
    struct mt_placement placement;
    struct mt_arena scratch;
    int64_t *counts;         /* [R,E] */
    int64_t *total;          /* [E] */
    int64_t *instance_quota; /* [capacity] */
    int64_t *quota;          /* [R, capacity] */
};

/* Copies only where `copies_of_3` random draws out of 3 say so: 0 none, 3 everywhere. */
void mt_scene_make(struct mt_scene *scene, uint64_t seed, int max_rank, int max_expert,
                   int copies_of_3);
/* `n_rank` ranks in nodes of `per_node`, default owners, no counts, room for `slots` copies a
 * rank. */
void mt_scene_init(struct mt_scene *scene, int n_rank, int per_node, int n_expert, int slots);
/* What a policy sees of the scene in its second step: one step of history (the caller's), the
 * overlap that costs say, no counts. */
struct mt_policy_input mt_scene_input(const struct mt_scene *scene, int slots);
/* Instances of an expert beside its owner. */
int mt_scene_n_copy(const struct mt_placement *placement, int expert);
/* total from counts */
void mt_scene_sum(struct mt_scene *scene);
void mt_scene_clear(struct mt_scene *scene);

#endif
