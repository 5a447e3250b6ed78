/* Experts on real ranks: copies along any placement, gradients back to owners. */
#include "base/memory.h"
#include "store/experts.h"
#include "support/mpi_main.h"

enum { N_EXPERT = MT_TEST_N_EXPERT, N_ELEMENT = MT_TEST_N_ELEMENT };

static struct mt_test_table small; /* experts in layers 1 and 2 */
static struct mt_test_table deep;  /* 9 layers of experts: more than there are lanes */

static struct mt_test_world_options with_slots(int n_slot, int turn)
{
    return (struct mt_test_world_options){
        .world = MPI_COMM_WORLD, .training = true, .n_slot = n_slot, .turn = turn};
}

/* Nothing late, nothing held yet. */
static void random_placement(struct mt_placement *placement, const struct mt_placement *ownership,
                             uint64_t seed, int n_slot)
{
    mt_test_random_placement(placement, ownership->owner, ownership->n_rank, seed, n_slot, NULL);
    for (int i = 0; i < mt_placement_n_instance(placement); ++i) {
        placement->is_late[i] = false;
    }
}

static bool is_placed(const struct mt_placement *placement, int expert, int rank)
{
    return mt_placement_find(placement, expert, rank) >= 0;
}

static void check_copies(struct mt_test_world *world, const struct mt_test_table *table, int layer,
                         const struct mt_placement *placement)
{
    for (int e = 0; e < placement->n_expert; ++e) {
        const struct mt_expert_copy *copy = mt_store_expert(world->store, layer, e);
        if (!is_placed(placement, e, world->comm.rank)) {
            assert_null(copy);
            continue;
        }
        mt_test_check_copy(world, table, layer, e, copy);
        for (int64_t i = 0; i < N_ELEMENT; ++i) {
            assert_true(copy->grad[i] == 0.0F);
        }
    }
}

/* Gradient of the instance on rank r: payload(layer, expert, index) + r. */
static float gradient(int layer, int expert, int64_t i, int rank)
{
    return mt_test_payload((uint64_t)layer, expert, i) + (float)rank;
}

static void set_grads(struct mt_test_world *world, int layer)
{
    for (int e = 0; e < N_EXPERT; ++e) {
        const struct mt_expert_copy *copy = mt_store_expert(world->store, layer, e);
        for (int64_t i = 0; copy != NULL && i < N_ELEMENT; ++i) {
            copy->grad[i] += gradient(layer, e, i, world->comm.rank);
        }
    }
}

static void check_reduced(const struct mt_test_world *world, int layer,
                          const struct mt_placement *placement)
{
    for (int e = 0; e < placement->n_expert; ++e) {
        if (placement->owner[e] != world->comm.rank) {
            assert_null(mt_store_expert(world->store, layer, e));
            continue;
        }
        for (int64_t i = 0; i < N_ELEMENT; ++i) {
            float sum = 0.0F;
            for (int at = placement->instance_start[e]; at < placement->instance_start[e + 1];
                 ++at) {
                sum += gradient(layer, e, i, placement->rank[at]);
            }
            assert_true(mt_store_expert(world->store, layer, e)->grad[i] == sum);
        }
    }
}

/* Layers first .. n_layer - 1 all in flight together; 4 slots a layer. */
static void run_step(struct mt_test_world *world, const struct mt_test_table *table, int first,
                     uint64_t seed)
{
    static struct mt_placement placement[16];
    mt_store_zero_grad(world->store);
    for (int layer = first; layer < world->n_layer; ++layer) {
        random_placement(&placement[layer], &world->ownership[layer], seed + (uint64_t)layer, 4);
        MT_TEST_OK(mt_store_materialize_begin(world->store, layer, &placement[layer]));
    }
    for (int layer = first; layer < world->n_layer; ++layer) {
        MT_TEST_OK(mt_store_materialize_end(world->store, layer));
        check_copies(world, table, layer, &placement[layer]);
        set_grads(world, layer);
    }
    for (int layer = world->n_layer - 1; layer >= first; --layer) {
        MT_TEST_OK(mt_store_reduce_experts_begin(world->store, layer, NULL));
    }
    for (int layer = world->n_layer - 1; layer >= first; --layer) {
        MT_TEST_OK(mt_store_reduce_experts_end(world->store, layer));
        check_reduced(world, layer, &placement[layer]);
        mt_placement_clear(&placement[layer]);
    }
}

static void any_placement_is_materialised_and_reduced(void **state)
{
    MT_UNUSED(state);
    for (int turn = -1; turn < 2; ++turn) {
        const struct mt_test_world_options options = with_slots(8, turn);
        struct mt_test_world world;
        mt_test_world_open(&world, &small, &options);
        mt_test_set_values(world.store);
        for (uint64_t seed = 0; seed < 6; ++seed) {
            run_step(&world, &small, 1, 100 * seed);
        }
        mt_test_world_close(&world);
    }
}

static void more_layers_than_lanes_are_in_flight_together(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = with_slots(36, 0);
    struct mt_test_world world;
    mt_test_world_open(&world, &deep, &options);
    mt_test_set_values(world.store);
    run_step(&world, &deep, 0, 1);
    run_step(&world, &deep, 0, 2);
    mt_test_world_close(&world);
}

static void copies_everywhere_are_summed_over_all_ranks(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = with_slots(N_EXPERT, -1);
    struct mt_test_world world;
    struct mt_placement all;
    mt_test_world_open(&world, &small, &options);
    const int n_rank = world.comm.topology.n_rank;
    mt_test_set_values(world.store);
    mt_store_zero_grad(world.store);
    MT_TEST_OK(mt_placement_init(&all, n_rank, N_EXPERT, N_EXPERT * n_rank));
    for (int e = 0; e < N_EXPERT; ++e) {
        all.owner[e] = world.ownership[2].owner[e];
        all.instance_start[e + 1] = (e + 1) * n_rank;
        for (int rank = 0; rank < n_rank; ++rank) {
            all.rank[e * n_rank + rank] = rank;
        }
    }
    MT_TEST_OK(mt_store_materialize_begin(world.store, 2, &all));
    MT_TEST_OK(mt_store_materialize_end(world.store, 2));
    check_copies(&world, &small, 2, &all);
    set_grads(&world, 2);
    MT_TEST_OK(mt_store_reduce_experts_begin(world.store, 2, NULL));
    MT_TEST_OK(mt_store_reduce_experts_end(world.store, 2));
    check_reduced(&world, 2, &all);
    mt_placement_clear(&all);
    mt_test_world_close(&world);
}

static void owners_only_moves_nothing(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = with_slots(0, -1);
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    MT_TEST_OK(mt_store_use_all(world.store));
    mt_store_zero_grad(world.store);
    const int64_t sequence = world.comm.sequence;
    MT_TEST_OK(mt_store_materialize_begin(world.store, 1, &world.ownership[1]));
    MT_TEST_OK(mt_store_materialize_end(world.store, 1));
    check_copies(&world, &small, 1, &world.ownership[1]);
    set_grads(&world, 1);
    MT_TEST_OK(mt_store_reduce_experts_begin(world.store, 1, NULL));
    MT_TEST_OK(mt_store_reduce_experts_end(world.store, 1));
    check_reduced(&world, 1, &world.ownership[1]);
    assert_int_equal(world.comm.sequence, sequence);
    mt_test_world_close(&world);
}

static void dropped_copies_free_their_slots(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = with_slots(4, -1);
    struct mt_test_world world;
    struct mt_placement placement;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    mt_store_drop_copies(world.store, 1); /* none yet: nothing to do */
    for (uint64_t seed = 0; seed < 5; ++seed) {
        for (int layer = 1; layer < 3; ++layer) {
            random_placement(&placement, &world.ownership[layer], seed, 4);
            MT_TEST_OK(mt_store_materialize_begin(world.store, layer, &placement));
            MT_TEST_OK(mt_store_materialize_end(world.store, layer));
            mt_store_drop_copies(world.store, layer);
            assert_true(mt_store_expert(world.store, layer, 0) == NULL ||
                        placement.owner[0] == world.comm.rank);
            mt_placement_clear(&placement);
        }
    }
    mt_test_set_values(world.store); /* publishing requires that no copy is left */
    mt_test_world_close(&world);
}

static void too_few_slots_are_refused_on_all_ranks_alike(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = with_slots(1, -1);
    struct mt_test_world world;
    struct mt_placement hot;
    mt_test_world_open(&world, &small, &options);
    const int n_rank = world.comm.topology.n_rank;
    mt_test_set_values(world.store);
    mt_store_zero_grad(world.store);
    /* all experts on the last rank */
    MT_TEST_OK(mt_placement_init(&hot, n_rank, N_EXPERT, N_EXPERT * 2));
    int n = 0;
    for (int e = 0; e < N_EXPERT; ++e) {
        hot.owner[e] = world.ownership[1].owner[e];
        hot.instance_start[e] = n;
        hot.rank[n++] = hot.owner[e];
        if (hot.owner[e] != n_rank - 1) {
            hot.rank[n++] = n_rank - 1;
        }
    }
    hot.instance_start[N_EXPERT] = n;
    if (n - N_EXPERT > 1) {
        MT_TEST_FAILS(mt_store_materialize_begin(world.store, 1, &hot), MT_ERR_RESOURCE,
                      "slots wanted, 1 of 1 free");
    }
    mt_placement_clear(&hot);
    /* what was refused left nothing behind */
    random_placement(&hot, &world.ownership[1], 3, 1);
    MT_TEST_OK(mt_store_materialize_begin(world.store, 1, &hot));
    MT_TEST_OK(mt_store_materialize_end(world.store, 1));
    check_copies(&world, &small, 1, &hot);
    mt_store_drop_copies(world.store, 1);
    mt_placement_clear(&hot);
    mt_test_world_close(&world);
}

static void slots_of_other_layers_count(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = with_slots(1, -1);
    struct mt_test_world world;
    struct mt_placement first;
    struct mt_placement second;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    random_placement(&first, &world.ownership[1], 5, 1);
    random_placement(&second, &world.ownership[2], 5, 1);
    const bool clash = mt_placement_n_instance(&second) > N_EXPERT &&
                       mt_placement_n_instance(&first) == N_EXPERT + world.comm.topology.n_rank;
    MT_TEST_OK(mt_store_materialize_begin(world.store, 1, &first));
    if (clash) {
        MT_TEST_FAILS(mt_store_materialize_begin(world.store, 2, &second), MT_ERR_RESOURCE,
                      "1 slots wanted, 0 of 1 free");
    }
    MT_TEST_OK(mt_store_materialize_end(world.store, 1));
    mt_store_drop_copies(world.store, 1);
    MT_TEST_OK(mt_store_materialize_begin(world.store, 2, &second));
    MT_TEST_OK(mt_store_materialize_end(world.store, 2));
    mt_store_drop_copies(world.store, 2);
    mt_placement_clear(&first);
    mt_placement_clear(&second);
    mt_test_world_close(&world);
}

static void materialising_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = with_slots(8, 1);
    struct mt_test_world world;
    struct mt_placement placement;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    random_placement(&placement, &world.ownership[2], 1, 4);
    const int64_t n_allocated = mt_memory_n_allocated();
    mt_store_zero_grad(world.store);
    MT_TEST_OK(mt_store_materialize_begin(world.store, 2, &placement));
    MT_TEST_OK(mt_store_materialize_end(world.store, 2));
    MT_TEST_OK(mt_store_reduce_experts_begin(world.store, 2, NULL));
    MT_TEST_OK(mt_store_reduce_experts_end(world.store, 2));
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    mt_placement_clear(&placement);
    mt_test_world_close(&world);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_placement_is_materialised_and_reduced),
        cmocka_unit_test(more_layers_than_lanes_are_in_flight_together),
        cmocka_unit_test(copies_everywhere_are_summed_over_all_ranks),
        cmocka_unit_test(owners_only_moves_nothing),
        cmocka_unit_test(dropped_copies_free_their_slots),
        cmocka_unit_test(too_few_slots_are_refused_on_all_ranks_alike),
        cmocka_unit_test(slots_of_other_layers_count),
        cmocka_unit_test(materialising_allocates_nothing),
    };
    mt_test_table_small(&small);
    mt_test_table_init(&deep);
    for (int layer = 0; layer < 9; ++layer) {
        mt_test_table_layer(&deep, N_EXPERT, MT_TEST_WIDTH, MT_TEST_HIDDEN);
    }
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
