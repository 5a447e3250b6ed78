#include "store/experts.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

#include <string.h>

float mt_test_expert_value(const struct mt_test_table *table, int layer, int expert, int64_t i)
{
    int gate = 0;
    while (table->row[gate].layer != layer) {
        ++gate;
    }
    const int64_t matrix = (int64_t)MT_TEST_WIDTH * MT_TEST_HIDDEN;
    return mt_test_payload(9, gate + i / matrix, expert * matrix + i % matrix);
}

void mt_test_set_values(struct mt_store *store)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int64_t i = 0; i < part->n_element; ++i) {
            part->value[i] = mt_test_payload(9, part->tensor, part->first + i);
        }
    }
    MT_TEST_OK(mt_store_publish(store));
}

static bool is_held(const struct mt_placement *held, int expert, int rank)
{
    return held != NULL && mt_placement_find(held, expert, rank) >= 0;
}

/* Held copies count first: they have their slots already. */
static void count_held(const struct mt_placement *held, int *n_copy)
{
    for (int e = 0; held != NULL && e < held->n_expert; ++e) {
        for (int i = held->instance_start[e]; i < held->instance_start[e + 1]; ++i) {
            n_copy[held->rank[i]] += held->rank[i] != held->owner[e] ? 1 : 0;
        }
    }
}

void mt_test_random_placement(struct mt_placement *placement, const int *owner, int n_rank,
                              uint64_t seed, int n_slot, const struct mt_placement *held)
{
    int n_copy[MT_TEST_MAX_RANK] = {0};
    int n = 0;
    MT_TEST_OK(mt_placement_init(placement, n_rank, MT_TEST_N_EXPERT, MT_TEST_N_EXPERT * n_rank));
    count_held(held, n_copy);
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        placement->owner[e] = owner[e];
        placement->instance_start[e] = n;
        for (int rank = 0; rank < n_rank; ++rank) {
            const uint64_t bits = mt_random_u64(seed, (uint64_t)e, (uint64_t)rank);
            const bool is_kept = rank == owner[e] || is_held(held, e, rank);
            const bool is_drawn = !is_kept && bits % 2 == 0 && n_copy[rank] < n_slot;
            n_copy[rank] += is_drawn ? 1 : 0;
            if (is_kept || is_drawn) {
                placement->is_late[n] = is_drawn && bits % 8 == 0;
                placement->rank[n++] = rank;
            }
        }
    }
    placement->instance_start[MT_TEST_N_EXPERT] = n;
    mt_placement_check(placement);
}

/* y = x W^T with a unit vector as x is a column of W, exactly. */
static void check_packs(struct mt_test_world *world, const struct mt_expert_copy *copy)
{
    float x[MT_TEST_HIDDEN] = {0.0F};
    float y[MT_TEST_HIDDEN];
    const int64_t matrix = (int64_t)MT_TEST_WIDTH * MT_TEST_HIDDEN;
    x[3] = 1.0F;
    mt_linear_forward(&world->device, y, x, &copy->up, 1);
    for (int64_t i = 0; i < MT_TEST_WIDTH; ++i) {
        assert_true(y[i] == copy->value[matrix + i * MT_TEST_HIDDEN + 3]);
    }
    mt_linear_forward(&world->device, y, x, &copy->down, 1);
    for (int64_t i = 0; i < MT_TEST_HIDDEN; ++i) {
        assert_true(y[i] == copy->value[2 * matrix + i * MT_TEST_WIDTH + 3]);
    }
}

void mt_test_keep_some(struct mt_placement *kept, const struct mt_placement *placement,
                       uint64_t seed)
{
    const int n_expert = placement->n_expert;
    MT_TEST_OK(
        mt_placement_init(kept, placement->n_rank, n_expert, mt_placement_n_instance(placement)));
    memcpy(kept->owner, placement->owner, (size_t)n_expert * sizeof(*kept->owner));
    mt_placement_owners_only(kept);
    for (int e = 0; e < n_expert; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            if (placement->rank[i] != kept->owner[e] &&
                mt_random_u64(seed, (uint64_t)i, 0) % 2 == 0) {
                mt_placement_add(kept, e, placement->rank[i], false);
            }
        }
    }
}

void mt_test_materialize(struct mt_store *store, int layer, const struct mt_placement *placement,
                         bool is_late_begun_early)
{
    MT_TEST_OK(mt_store_materialize_begin(store, layer, placement));
    if (is_late_begun_early) {
        MT_TEST_OK(mt_store_materialize_late_begin(store, layer, placement));
    }
    MT_TEST_OK(mt_store_materialize_end(store, layer));
    if (!is_late_begun_early) {
        MT_TEST_OK(mt_store_materialize_late_begin(store, layer, placement));
    }
}

float mt_test_amount(int micro, int expert, int rank)
{
    return (float)(1 + micro * 5 + expert * 3 + rank);
}

void mt_test_check_copy(struct mt_test_world *world, const struct mt_test_table *table, int layer,
                        int expert, const struct mt_expert_copy *copy)
{
    assert_non_null(copy);
    for (int64_t i = 0; i < MT_TEST_N_ELEMENT; ++i) {
        assert_true(copy->value[i] == mt_test_expert_value(table, layer, expert, i));
    }
    mt_store_use_expert(world->store, layer, expert, MT_PASS_FORWARD);
    mt_store_use_expert(world->store, layer, expert, MT_PASS_BACKWARD);
    check_packs(world, copy);
}

void mt_test_steps_allocate_nothing(struct mt_test_world *world)
{
    struct mt_placement placement;
    struct mt_store *store = world->store;
    mt_test_random_placement(&placement, mt_store_owners(store, 1), world->comm.topology.n_rank, 3,
                             4, NULL);
    const int64_t n_allocated = mt_memory_n_allocated();
    mt_store_zero_grad(store);
    for (int micro = 0; micro < 3; ++micro) {
        MT_TEST_OK(mt_store_materialize_begin(store, 1, &placement));
        MT_TEST_OK(mt_store_materialize_late_begin(store, 1, &placement));
        MT_TEST_OK(mt_store_materialize_end(store, 1));
        MT_TEST_OK(mt_store_materialize_late_end(store, 1));
        MT_TEST_OK(mt_store_reduce_experts_begin(store, 1, micro < 2 ? &placement : NULL));
        MT_TEST_OK(mt_store_reduce_experts_end(store, 1));
    }
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    mt_placement_clear(&placement);
}
