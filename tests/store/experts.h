/* What the tests of experts share: payloads as values, random placements. */
#ifndef MT_TEST_STORE_EXPERTS_H
#define MT_TEST_STORE_EXPERTS_H

#include "store/world.h"

/* Of the experts of every table here: 3 matrices of 8 x 24. */
enum {
    MT_TEST_N_EXPERT = 5,
    MT_TEST_WIDTH = 8,
    MT_TEST_HIDDEN = 24,
    MT_TEST_N_ELEMENT = 3 * MT_TEST_WIDTH * MT_TEST_HIDDEN,
    MT_TEST_MAX_RANK = 64
};

/* Value of element i of [gate | up | down] of an expert: a payload of its logical tensor. */
float mt_test_expert_value(const struct mt_test_table *table, int layer, int expert, int64_t i);
/* Every owned value is that payload; published. */
void mt_test_set_values(struct mt_store *store);
/* Owners as given and, at random, copies elsewhere, some of them late: at most n_slot a rank. The
 * copies of `held` (or NULL) are among them, not late. Cleared by the caller. */
void mt_test_random_placement(struct mt_placement *placement, const int *owner, int n_rank,
                              uint64_t seed, int n_slot, const struct mt_placement *held);
/* kept: the owners of placement and, at random, about half of its other instances. Cleared by the
 * caller. */
void mt_test_keep_some(struct mt_placement *kept, const struct mt_placement *placement,
                       uint64_t seed);
/* All but late copies are there; those travel, begun before or after the others came. */
void mt_test_materialize(struct mt_store *store, int layer, const struct mt_placement *placement,
                         bool is_late_begun_early);
/* What an instance adds to every element of its gradient, beside an index's payload. */
float mt_test_amount(int micro, int expert, int rank);
/* A copy has its expert's values, and packs of them where it is used. */
void mt_test_check_copy(struct mt_test_world *world, const struct mt_test_table *table, int layer,
                        int expert, const struct mt_expert_copy *copy);

/* Three micro-batches of layer 1 with early, late and kept copies: counts allocations from when the
 * placement is made. */
void mt_test_steps_allocate_nothing(struct mt_test_world *world);

#endif
