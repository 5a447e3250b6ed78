/* Copies over the micro-batches of a step: late ones, kept ones, dropped and gathered again. */
#include "base/memory.h"
#include "base/random.h"
#include "store/experts.h"
#include "support/mpi_main.h"

#include <string.h>

enum { N_LAYER = 3, FIRST = 1, N_MICRO = 3, SLOTS_A_LAYER = 4, N_LARGE = 5 };

static struct mt_test_table small; /* experts in layers 1 and 2 */
static struct mt_test_table large; /* N_LARGE layers of larger ones */

/* How a step goes, and what it has led to so far: for every expert of a layer the sum over
 * micro-batches and instances, on every rank; and what this rank's copy has since it arrived. */
struct step {
    struct mt_test_world *world;
    uint64_t seed;
    bool rematerialize;
    struct mt_placement placement[N_LAYER];
    struct mt_placement kept[N_LAYER]; /* .owner = NULL: nothing */
    float copy_grad[N_LAYER][MT_TEST_N_EXPERT];
    float sum[N_LAYER][MT_TEST_N_EXPERT];
};

static uint64_t bits_of(const struct step *step, int micro, int layer, int what)
{
    return mt_random_u64(step->seed, (uint64_t)(micro * N_LAYER + layer), (uint64_t)what);
}

static const int *owners(const struct step *step, int layer)
{
    return mt_store_owners(step->world->store, layer);
}

static bool is_copy_here(const struct step *step, const struct mt_placement *placement, int layer,
                         int e)
{
    const int rank = step->world->comm.rank;
    return owners(step, layer)[e] != rank && mt_placement_find(placement, e, rank) >= 0;
}

static void check_here(const struct step *step, int layer)
{
    const struct mt_placement *placement = &step->placement[layer];
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        const struct mt_expert_copy *copy = mt_store_expert(step->world->store, layer, e);
        if (mt_placement_find(placement, e, step->world->comm.rank) < 0) {
            assert_null(copy);
            continue;
        }
        mt_test_check_copy(step->world, &small, layer, e, copy);
        if (is_copy_here(step, placement, layer, e)) {
            for (int64_t i = 0; i < MT_TEST_N_ELEMENT; ++i) {
                assert_true(copy->grad[i] == step->copy_grad[layer][e]);
            }
        }
    }
}

/* Late copies in one of the orders that are allowed. */
static void materialize_with_late(const struct step *step, int micro, int layer)
{
    struct mt_store *store = step->world->store;
    const struct mt_placement *placement = &step->placement[layer];
    mt_test_materialize(store, layer, placement, bits_of(step, micro, layer, 1) % 2 == 0);
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        const int at = mt_placement_find(placement, e, step->world->comm.rank);
        const bool is_late = at >= 0 && placement->is_late[at];
        assert_true((mt_store_expert(store, layer, e) != NULL) == (at >= 0 && !is_late));
    }
    MT_TEST_OK(mt_store_materialize_late_end(store, layer));
}

static void forward(struct step *step, int micro, int layer)
{
    struct mt_store *store = step->world->store;
    struct mt_placement *kept = &step->kept[layer];
    mt_test_random_placement(&step->placement[layer], owners(step, layer),
                             step->world->comm.topology.n_rank, bits_of(step, micro, layer, 0),
                             SLOTS_A_LAYER, kept->owner != NULL ? kept : NULL);
    materialize_with_late(step, micro, layer);
    check_here(step, layer);
    if (step->rematerialize) {
        mt_store_drop_copies(store, layer);
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            const bool is_kept = kept->owner != NULL && is_copy_here(step, kept, layer, e);
            const bool is_owned = owners(step, layer)[e] == step->world->comm.rank;
            assert_true((mt_store_expert(store, layer, e) != NULL) == (is_kept || is_owned));
        }
    }
}

static void add_gradients(struct step *step, int micro, int layer)
{
    const int rank = step->world->comm.rank;
    const struct mt_placement *placement = &step->placement[layer];
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            step->sum[layer][e] += mt_test_amount(micro, e, placement->rank[i]);
        }
        const struct mt_expert_copy *copy = mt_store_expert(step->world->store, layer, e);
        for (int64_t i = 0; copy != NULL && i < MT_TEST_N_ELEMENT; ++i) {
            copy->grad[i] += mt_test_amount(micro, e, rank);
        }
        step->copy_grad[layer][e] += copy != NULL ? mt_test_amount(micro, e, rank) : 0.0F;
    }
}

/* Keeps about half of the copies, none after the last micro-batch. */
static void choose_kept(struct step *step, int micro, int layer)
{
    struct mt_placement *kept = &step->kept[layer];
    const struct mt_placement *placement = &step->placement[layer];
    mt_placement_clear(kept);
    if (micro < N_MICRO - 1) {
        mt_test_keep_some(kept, placement, bits_of(step, micro, layer, 10));
    }
}

static void backward(struct step *step, int micro, int layer)
{
    struct mt_store *store = step->world->store;
    struct mt_placement *kept = &step->kept[layer];
    struct mt_placement *placement = &step->placement[layer];
    if (bits_of(step, micro, layer, 2) % 2 == 0 || step->rematerialize) {
        for (int i = 0; i < mt_placement_n_instance(placement); ++i) {
            placement->is_late[i] = false; /* by now nothing is */
        }
        MT_TEST_OK(mt_store_materialize_begin(store, layer, placement));
        MT_TEST_OK(mt_store_materialize_end(store, layer));
    }
    check_here(step, layer);
    add_gradients(step, micro, layer);
    choose_kept(step, micro, layer);
    MT_TEST_OK(mt_store_reduce_experts_begin(store, layer, kept->owner != NULL ? kept : NULL));
    MT_TEST_OK(mt_store_reduce_experts_end(store, layer));
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        const bool is_kept = kept->owner != NULL && is_copy_here(step, kept, layer, e);
        const bool is_owned = owners(step, layer)[e] == step->world->comm.rank;
        assert_true((mt_store_expert(store, layer, e) != NULL) == (is_kept || is_owned));
        step->copy_grad[layer][e] = is_kept ? step->copy_grad[layer][e] : 0.0F;
    }
    mt_placement_clear(placement);
}

static void run_step(struct mt_test_world *world, uint64_t seed, bool rematerialize)
{
    struct step step = {.world = world, .seed = seed, .rematerialize = rematerialize};
    mt_store_zero_grad(world->store);
    for (int micro = 0; micro < N_MICRO; ++micro) {
        for (int layer = FIRST; layer < N_LAYER; ++layer) {
            forward(&step, micro, layer);
        }
        for (int layer = N_LAYER - 1; layer >= FIRST; --layer) {
            backward(&step, micro, layer);
        }
    }
    for (int layer = FIRST; layer < N_LAYER; ++layer) {
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            const struct mt_expert_copy *home = mt_store_expert(world->store, layer, e);
            assert_true((home != NULL) == (owners(&step, layer)[e] == world->comm.rank));
            for (int64_t i = 0; home != NULL && i < MT_TEST_N_ELEMENT; ++i) {
                assert_true(home->grad[i] == step.sum[layer][e]);
            }
        }
    }
    mt_test_set_values(world->store); /* publishing requires that no copy is left */
}

static void run_steps(bool rematerialize)
{
    for (int turn = -1; turn < 2; ++turn) {
        const struct mt_test_world_options options = {.world = MPI_COMM_WORLD,
                                                      .training = true,
                                                      .n_slot = SLOTS_A_LAYER * (N_LAYER - FIRST),
                                                      .turn = turn};
        struct mt_test_world world;
        mt_test_world_open(&world, &small, &options);
        mt_test_set_values(world.store);
        for (uint64_t seed = 0; seed < 8; ++seed) {
            run_step(&world, seed, rematerialize);
        }
        mt_test_world_close(&world);
    }
}

static void kept_and_late_copies_give_the_sum_over_micro_batches(void **state)
{
    MT_UNUSED(state);
    run_steps(false);
}

static void so_do_copies_dropped_after_forward_and_gathered_again(void **state)
{
    MT_UNUSED(state);
    run_steps(true);
}

/* Everything on every rank, of both layers at once: the next layer's while this one's are used. */
static void copies_of_two_layers_are_held_at_once(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .n_slot = 2 * MT_TEST_N_EXPERT, .turn = -1};
    struct mt_test_world world;
    struct mt_placement all[N_LAYER];
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    for (int layer = FIRST; layer < N_LAYER; ++layer) {
        const int n_rank = world.comm.topology.n_rank;
        MT_TEST_OK(
            mt_placement_init(&all[layer], n_rank, MT_TEST_N_EXPERT, MT_TEST_N_EXPERT * n_rank));
        mt_placement_default_owners(&all[layer], layer);
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            for (int rank = 0; rank < n_rank; ++rank) {
                if (rank != all[layer].owner[e]) {
                    mt_placement_add(&all[layer], e, rank, false);
                }
            }
        }
        MT_TEST_OK(mt_store_materialize_begin(world.store, layer, &all[layer]));
    }
    for (int round = 0; round < 2; ++round) { /* the second gathers nothing: all are held */
        const int64_t sequence = world.comm.sequence;
        for (int layer = FIRST; layer < N_LAYER; ++layer) {
            MT_TEST_OK(mt_store_materialize_end(world.store, layer));
            for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
                mt_test_check_copy(&world, &small, layer, e,
                                   mt_store_expert(world.store, layer, e));
            }
            MT_TEST_OK(mt_store_materialize_begin(world.store, layer, &all[layer]));
        }
        assert_int_equal(world.comm.sequence, sequence);
    }
    for (int layer = FIRST; layer < N_LAYER; ++layer) {
        mt_store_drop_copies(world.store, layer);
        mt_placement_clear(&all[layer]);
    }
    mt_test_world_close(&world);
}

/* Every expert on every rank twice: used in backward, then only held, in the same slots. */
static void copies_that_no_backward_uses_add_nothing(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .n_slot = MT_TEST_N_EXPERT, .turn = -1};
    struct mt_test_world world;
    struct mt_placement all;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    const int n_rank = world.comm.topology.n_rank;
    MT_TEST_OK(mt_placement_init(&all, n_rank, MT_TEST_N_EXPERT, MT_TEST_N_EXPERT * n_rank));
    mt_placement_default_owners(&all, FIRST);
    for (int i = 0; i < MT_TEST_N_EXPERT * n_rank; ++i) {
        if (mt_placement_find(&all, i / n_rank, i % n_rank) < 0) {
            mt_placement_add(&all, i / n_rank, i % n_rank, false);
        }
    }
    mt_store_zero_grad(world.store);
    for (int round = 0; round < 2; ++round) {
        MT_TEST_OK(mt_store_materialize_begin(world.store, FIRST, &all));
        MT_TEST_OK(mt_store_materialize_end(world.store, FIRST));
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            mt_store_use_expert(world.store, FIRST, e, MT_PASS_FORWARD);
            if (round == 0) {
                mt_store_use_expert(world.store, FIRST, e, MT_PASS_BACKWARD)->grad[7] += 1.0F;
            }
        }
        MT_TEST_OK(mt_store_reduce_experts_begin(world.store, FIRST, NULL));
        MT_TEST_OK(mt_store_reduce_experts_end(world.store, FIRST));
    }
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        const struct mt_expert_copy *home = mt_store_expert(world.store, FIRST, e);
        assert_true(home == NULL || home->grad[7] == (float)n_rank);
        assert_true(home == NULL || home->grad[8] == 0.0F);
    }
    mt_placement_clear(&all);
    mt_test_world_close(&world);
}

/* Experts of 288 KiB, as many on rank 0 as it can own, copied everywhere: with 4 ranks and more
 * holders pass them on. */
static void run_relays(int ranks_per_node)
{
    enum { SIZE = 24576 }; /* of one matrix */
    const struct mt_test_world_options options = {.world = MPI_COMM_WORLD,
                                                  .training = true,
                                                  .n_slot = MT_TEST_N_EXPERT,
                                                  .turn = -1,
                                                  .ranks_per_node = ranks_per_node};
    struct mt_test_world world;
    struct mt_placement all;
    int owner[N_LARGE * MT_TEST_N_EXPERT];
    mt_test_world_open(&world, &large, &options);
    const int n_rank = world.comm.topology.n_rank;
    for (int i = 0; i < N_LARGE * MT_TEST_N_EXPERT; ++i) {
        owner[i] = i / mt_store_capacity(world.store);
    }
    int n_owned = 0; /* by rank 0 in layer 0 */
    while (n_owned < MT_TEST_N_EXPERT && owner[n_owned] == 0) {
        ++n_owned;
    }
    MT_TEST_OK(mt_store_move_experts(world.store, owner));
    mt_test_set_values(world.store);
    MT_TEST_OK(mt_placement_init(&all, n_rank, MT_TEST_N_EXPERT, MT_TEST_N_EXPERT * n_rank));
    memcpy(all.owner, owner, MT_TEST_N_EXPERT * sizeof(owner[0]));
    mt_placement_owners_only(&all);
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        for (int rank = 0; rank < n_rank; ++rank) {
            if (rank != owner[e]) {
                mt_placement_add(&all, e, rank, false);
            }
        }
    }
    for (int round = 0; round < 2; ++round) {
        mt_store_zero_grad(world.store);
        mt_comm_reset_traffic(&world.comm);
        MT_TEST_OK(mt_store_materialize_begin(world.store, 0, &all));
        MT_TEST_OK(mt_store_materialize_end(world.store, 0));
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            const struct mt_expert_copy *copy =
                mt_store_use_expert(world.store, 0, e, MT_PASS_BACKWARD);
            for (int64_t i = 0; i < 3 * SIZE; ++i) {
                assert_true(copy->value[i] == mt_test_payload(9, i / SIZE, e * SIZE + i % SIZE));
                copy->grad[i] += (float)(world.comm.rank + i % 7);
            }
        }
        MT_TEST_OK(mt_store_reduce_experts_begin(world.store, 0, NULL));
        MT_TEST_OK(mt_store_reduce_experts_end(world.store, 0));
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            const struct mt_expert_copy *home = mt_store_expert(world.store, 0, e);
            for (int64_t i = 0; home != NULL && i < 3 * SIZE; ++i) {
                const int64_t sum = n_rank * (n_rank - 1) / 2 + n_rank * (i % 7);
                assert_true(home->grad[i] == (float)sum);
            }
        }
        const int64_t alone = (int64_t)n_owned * (n_rank - 1) * 3 * SIZE * (int64_t)sizeof(float);
        assert_true(n_rank < 4 || world.comm.rank > 0 || world.comm.traffic[0].sent_bytes < alone);
    }
    mt_placement_clear(&all);
    mt_test_world_close(&world);
}

static void copies_that_travel_by_relays_have_the_owners_values(void **state)
{
    MT_UNUSED(state);
    run_relays(0);
    run_relays(2);
    run_relays(3);
}

/* One slot, taken by a copy on the last rank when a late one is to go there as well. */
static void late_copies_without_a_slot_are_refused_on_all_ranks_alike(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .n_slot = 1, .turn = -1};
    struct mt_test_world world;
    struct mt_placement placement;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    const int last = world.comm.topology.n_rank - 1;
    MT_TEST_OK(mt_placement_init(&placement, last + 1, MT_TEST_N_EXPERT, 2 * MT_TEST_N_EXPERT));
    memcpy(placement.owner, mt_store_owners(world.store, 1),
           MT_TEST_N_EXPERT * sizeof(*placement.owner));
    mt_placement_owners_only(&placement);
    int n_copy = 0;
    for (int e = 0; e < MT_TEST_N_EXPERT && n_copy < 2; ++e) {
        if (placement.owner[e] != last) {
            mt_placement_add(&placement, e, last, n_copy++ > 0);
        }
    }
    MT_TEST_OK(mt_store_materialize_begin(world.store, 1, &placement));
    if (n_copy == 2) {
        MT_TEST_FAILS(mt_store_materialize_late_begin(world.store, 1, &placement), MT_ERR_RESOURCE,
                      "1 slots wanted, 0 of 1 free");
    }
    MT_TEST_OK(mt_store_materialize_end(world.store, 1)); /* the first one comes all the same */
    for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
        const int at = mt_placement_find(&placement, e, world.comm.rank);
        const bool is_here = at >= 0 && !placement.is_late[at];
        assert_true((mt_store_expert(world.store, 1, e) != NULL) == is_here);
    }
    mt_store_drop_copies(world.store, 1);
    mt_test_set_values(world.store); /* no copy is left */
    mt_placement_clear(&placement);
    mt_test_world_close(&world);
}

/* The placements of all ranks are made before, the rest must not allocate. */
static void late_and_kept_copies_allocate_nothing(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .n_slot = 8, .turn = 1};
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    mt_test_steps_allocate_nothing(&world);
    mt_test_world_close(&world);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_and_late_copies_give_the_sum_over_micro_batches),
        cmocka_unit_test(so_do_copies_dropped_after_forward_and_gathered_again),
        cmocka_unit_test(copies_of_two_layers_are_held_at_once),
        cmocka_unit_test(copies_that_no_backward_uses_add_nothing),
        cmocka_unit_test(copies_that_travel_by_relays_have_the_owners_values),
        cmocka_unit_test(late_copies_without_a_slot_are_refused_on_all_ranks_alike),
        cmocka_unit_test(late_and_kept_copies_allocate_nothing),
    };
    mt_test_table_small(&small);
    mt_test_table_init(&large);
    for (int layer = 0; layer < N_LARGE; ++layer) {
        mt_test_table_layer(&large, MT_TEST_N_EXPERT, 128, 192);
    }
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
