/* Ownership moves on real ranks: everything that an owner has goes along, nothing else changes. */
#include "base/memory.h"
#include "store/experts.h"
#include "support/mpi_main.h"

enum { MAX_LAYER = 16, MAX_PAIR = MAX_LAYER * MT_TEST_N_EXPERT };

static struct mt_test_table small; /* experts in layers 1 and 2 */
static struct mt_test_table deep;

static void open(struct mt_test_world *world, const struct mt_test_table *table, int n_slot)
{
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .n_slot = n_slot, .turn = -1};
    mt_test_world_open(world, table, &options);
}

/* Payloads as values and moments, of (what, tensor, index); gradients that must not survive. */
static void fill(struct mt_store *store)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int64_t i = 0; i < part->n_element; ++i) {
            part->value[i] = mt_test_payload(9, part->tensor, part->first + i);
            part->exp_avg[i] = mt_test_payload(10, part->tensor, part->first + i);
            part->exp_avg_sq[i] = mt_test_payload(11, part->tensor, part->first + i);
            part->grad[i] = 77.0F;
        }
    }
}

/* The parts are those of `owner`, sorted, and have what fill gave. */
static void check_parts(const struct mt_test_world *world, const struct mt_test_table *table,
                        const int *owner)
{
    struct mt_store *store = world->store;
    int n_expert_part = 0;
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        const struct mt_tensor *tensor = &table->row[part->tensor];
        const bool is_expert = tensor->kind == MT_TENSOR_EXPERT;
        for (int64_t i = 0; i < part->n_element; ++i) {
            assert_true(part->value[i] == mt_test_payload(9, part->tensor, part->first + i));
            assert_true(part->exp_avg[i] == mt_test_payload(10, part->tensor, part->first + i));
            assert_true(part->exp_avg_sq[i] == mt_test_payload(11, part->tensor, part->first + i));
            assert_true(!is_expert || part->grad[i] == 0.0F);
        }
        const struct mt_part *last = p > 0 ? mt_store_part(store, p - 1) : NULL;
        assert_true(last == NULL || last->tensor < part->tensor ||
                    (last->tensor == part->tensor && last->first < part->first));
        assert_int_equal(mt_store_owner(store, part->tensor, part->first), world->comm.rank);
        if (is_expert) {
            const int64_t e = part->first / mt_tensor_row_elements(tensor);
            assert_int_equal(owner[tensor->layer * MT_TEST_N_EXPERT + e], world->comm.rank);
            ++n_expert_part;
        }
    }
    for (int layer = 0; layer < world->n_layer; ++layer) {
        for (int e = 0; mt_store_owners(store, layer) != NULL && e < MT_TEST_N_EXPERT; ++e) {
            assert_int_equal(mt_store_owners(store, layer)[e], owner[layer * MT_TEST_N_EXPERT + e]);
            const bool is_mine = owner[layer * MT_TEST_N_EXPERT + e] == world->comm.rank;
            assert_true((mt_store_expert(store, layer, e) != NULL) == is_mine);
            n_expert_part -= is_mine ? MT_EXPERT_MATRICES : 0;
        }
    }
    assert_int_equal(n_expert_part, 0);
}

static void move_and_check(const struct mt_test_table *table)
{
    struct mt_test_world world;
    int owner[MAX_PAIR];
    open(&world, table, 0);
    fill(world.store);
    for (uint64_t seed = 0; seed < 10; ++seed) {
        mt_test_random_owners(&world, seed, owner);
        const int64_t n_allocated = mt_memory_n_allocated();
        MT_TEST_OK(mt_store_move_experts(world.store, owner));
        assert_int_equal(mt_memory_n_allocated(), n_allocated);
        check_parts(&world, table, owner);
        MT_TEST_OK(mt_store_publish(world.store));
    }
    mt_test_world_close(&world);
}

static void values_and_moments_move_to_their_new_owners(void **state)
{
    MT_UNUSED(state);
    move_and_check(&small);
    move_and_check(&deep);
}

/* One rank owns as much as it can and gives it all away again, to and fro. */
static void full_ranks_swap_all_they_own(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    int owner[MAX_PAIR];
    open(&world, &deep, 0);
    const int n_rank = world.comm.topology.n_rank;
    fill(world.store);
    for (int turn = 0; turn < n_rank + 1; ++turn) {
        for (int i = 0; i < world.n_layer * MT_TEST_N_EXPERT; ++i) {
            owner[i] = (i / mt_store_capacity(world.store) + turn) % n_rank;
        }
        MT_TEST_OK(mt_store_move_experts(world.store, owner));
        check_parts(&world, &deep, owner);
        const int64_t sequence = world.comm.sequence;
        MT_TEST_OK(mt_store_move_experts(world.store, owner)); /* they are there already */
        assert_int_equal(world.comm.sequence, sequence);
    }
    mt_test_world_close(&world);
}

/* Copies come from the new owners, and gradients go there. */
static void copies_follow_the_new_owners(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    struct mt_placement placement;
    int owner[MAX_PAIR];
    open(&world, &small, 4);
    mt_test_set_values(world.store);
    for (uint64_t seed = 0; seed < 5; ++seed) {
        mt_test_random_owners(&world, seed, owner);
        MT_TEST_OK(mt_store_move_experts(world.store, owner));
        MT_TEST_OK(mt_store_publish(world.store));
        mt_store_zero_grad(world.store);
        mt_test_random_placement(&placement, mt_store_owners(world.store, 2),
                                 world.comm.topology.n_rank, seed, 4, NULL);
        MT_TEST_OK(mt_store_materialize_begin(world.store, 2, &placement));
        MT_TEST_OK(mt_store_materialize_late_begin(world.store, 2, &placement));
        MT_TEST_OK(mt_store_materialize_end(world.store, 2));
        MT_TEST_OK(mt_store_materialize_late_end(world.store, 2));
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            const struct mt_expert_copy *copy = mt_store_expert(world.store, 2, e);
            if (mt_placement_find(&placement, e, world.comm.rank) >= 0) {
                mt_test_check_copy(&world, &small, 2, e, copy);
                copy->grad[5] = 1.0F;
            }
        }
        MT_TEST_OK(mt_store_reduce_experts_begin(world.store, 2, NULL));
        MT_TEST_OK(mt_store_reduce_experts_end(world.store, 2));
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            const struct mt_expert_copy *home = mt_store_expert(world.store, 2, e);
            const int n_instance = placement.instance_start[e + 1] - placement.instance_start[e];
            assert_true(home == NULL || home->grad[5] == (float)n_instance);
        }
        mt_placement_clear(&placement);
    }
    mt_test_world_close(&world);
}

static void capacity_is_an_equal_share_or_what_is_owned(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    open(&world, &deep, 0);
    const int n_rank = world.comm.topology.n_rank;
    const int n_pair = world.n_layer * MT_TEST_N_EXPERT;
    assert_int_equal(mt_store_capacity(world.store), (n_pair + n_rank - 1) / n_rank);
    mt_test_world_close(&world);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .turn = 0};
    mt_test_world_open(&world, &deep, &options);
    int n_owned[MT_TEST_MAX_RANK] = {0};
    int most = 0;
    for (int layer = 0; layer < world.n_layer; ++layer) {
        for (int e = 0; e < MT_TEST_N_EXPERT; ++e) {
            const int n = ++n_owned[mt_store_owners(world.store, layer)[e]];
            most = n > most ? n : most;
        }
    }
    assert_int_equal(mt_store_capacity(world.store), most);
    mt_test_world_close(&world);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_moments_move_to_their_new_owners),
        cmocka_unit_test(full_ranks_swap_all_they_own),
        cmocka_unit_test(copies_follow_the_new_owners),
        cmocka_unit_test(capacity_is_an_equal_share_or_what_is_owned),
    };
    mt_test_table_small(&small);
    mt_test_table_init(&deep);
    for (int layer = 0; layer < 9; ++layer) {
        mt_test_table_layer(&deep, MT_TEST_N_EXPERT, MT_TEST_WIDTH, MT_TEST_HIDDEN);
    }
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
