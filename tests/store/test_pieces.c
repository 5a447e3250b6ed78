/* Cut experts on real ranks: put together along any placement, gradients back to the pieces; late
 * copies, kept ones and those gathered again. */
#include "base/memory.h"
#include "base/random.h"
#include "store/experts.h"
#include "support/mpi_main.h"

#include <string.h>

enum { N_EXPERT = MT_TEST_N_EXPERT, MAX_LAYER = 3, N_MICRO = 3, SLOTS_A_LAYER = 4 };

static struct mt_test_table small; /* experts of 8 x 24 in layers 1 and 2 */
static struct mt_test_table thin;  /* of 1 x 2, in 4 rows: fewer than 8 ranks */

struct step {
    struct mt_test_world *world;
    const struct mt_test_table *table;
    uint64_t seed;
    bool rematerialize;
    struct mt_placement placement[MAX_LAYER];
    struct mt_placement kept[MAX_LAYER]; /* .owner = NULL: nothing */
    float copy_grad[MAX_LAYER][N_EXPERT];
    float sum[MAX_LAYER][N_EXPERT];
    int n_instance[MAX_LAYER][N_EXPERT]; /* over micro-batches */
};

static int gate_of(const struct mt_test_table *table, int layer)
{
    int gate = 0;
    while (gate < table->table.n_tensor && table->row[gate].layer != layer) {
        ++gate;
    }
    return gate < table->table.n_tensor ? gate : -1;
}

/* Elements of one matrix; 0: a layer without experts. */
static int64_t matrix_of(const struct mt_test_table *table, int layer)
{
    const int gate = gate_of(table, layer);
    return gate < 0 ? 0 : mt_tensor_row_elements(&table->row[gate]);
}

static uint64_t bits_of(const struct step *step, int micro, int layer, int what)
{
    return mt_random_u64(step->seed, (uint64_t)(micro * MAX_LAYER + layer), (uint64_t)what);
}

static void expect_copy(const struct step *step, int layer, int e)
{
    const int64_t matrix = matrix_of(step->table, layer);
    const int gate = gate_of(step->table, layer);
    const struct mt_expert_copy *copy = mt_store_expert(step->world->store, layer, e);
    assert_non_null(copy);
    mt_store_use_expert(step->world->store, layer, e, MT_PASS_BACKWARD);
    for (int64_t i = 0; i < MT_EXPERT_MATRICES * matrix; ++i) {
        assert_true(copy->value[i] ==
                    mt_test_payload(9, gate + i / matrix, e * matrix + i % matrix));
    }
    /* the same element everywhere, where i % 5 = 0 */
    assert_true(copy->grad[0] == step->copy_grad[layer][e]);
    assert_true(copy->grad[5] == step->copy_grad[layer][e]);
    if (step->table == &small) {
        mt_test_check_copy(step->world, &small, layer, e, copy);
    }
}

static void expect_here(const struct step *step, int layer, const struct mt_placement *placement)
{
    for (int e = 0; e < N_EXPERT; ++e) {
        const int rank = step->world->comm.rank;
        const int at = placement->owner == NULL ? -1 : mt_placement_find(placement, e, rank);
        if (at >= 0 && !placement->is_late[at]) {
            expect_copy(step, layer, e);
        } else {
            assert_null(mt_store_expert(step->world->store, layer, e)); /* homes hold nothing */
        }
    }
}

static void forget_late(struct mt_placement *placement)
{
    for (int i = 0; i < mt_placement_n_instance(placement); ++i) {
        placement->is_late[i] = false;
    }
}

static void forward(struct step *step, int micro, int layer)
{
    struct mt_store *store = step->world->store;
    struct mt_placement *kept = &step->kept[layer];
    struct mt_placement *placement = &step->placement[layer];
    mt_test_random_placement(placement, mt_store_owners(store, layer),
                             step->world->comm.topology.n_rank, bits_of(step, micro, layer, 0),
                             SLOTS_A_LAYER, kept->owner != NULL ? kept : NULL);
    mt_test_materialize(store, layer, placement, bits_of(step, micro, layer, 1) % 2 == 0);
    expect_here(step, layer, placement);
    MT_TEST_OK(mt_store_materialize_late_end(store, layer));
    forget_late(placement);
    expect_here(step, layer, placement);
    if (step->rematerialize) {
        mt_store_drop_copies(store, layer);
        expect_here(step, layer, kept);
    }
}

static void add_gradients(struct step *step, int micro, int layer)
{
    const struct mt_placement *placement = &step->placement[layer];
    const int rank = step->world->comm.rank;
    for (int e = 0; e < N_EXPERT; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            step->sum[layer][e] += mt_test_amount(micro, e, placement->rank[i]);
            ++step->n_instance[layer][e];
        }
        const struct mt_expert_copy *copy = mt_store_expert(step->world->store, layer, e);
        const int64_t n_element = MT_EXPERT_MATRICES * matrix_of(step->table, layer);
        for (int64_t i = 0; copy != NULL && i < n_element; ++i) {
            copy->grad[i] += mt_test_amount(micro, e, rank) + (float)(i % 5);
        }
        step->copy_grad[layer][e] += copy != NULL ? mt_test_amount(micro, e, rank) : 0.0F;
    }
}

/* The instances at home and about half of the others; nothing after the last micro-batch. */
static void choose_kept(struct step *step, int micro, int layer)
{
    struct mt_placement *kept = &step->kept[layer];
    const struct mt_placement *placement = &step->placement[layer];
    mt_placement_clear(kept);
    if (micro < N_MICRO - 1 && bits_of(step, micro, layer, 3) % 4 != 0) {
        mt_test_keep_some(kept, placement, bits_of(step, micro, layer, 10));
    }
}

static void backward(struct step *step, int micro, int layer)
{
    struct mt_store *store = step->world->store;
    struct mt_placement *kept = &step->kept[layer];
    struct mt_placement *placement = &step->placement[layer];
    MT_TEST_OK(mt_store_materialize_begin(store, layer, placement));
    MT_TEST_OK(mt_store_materialize_end(store, layer));
    expect_here(step, layer, placement);
    add_gradients(step, micro, layer);
    choose_kept(step, micro, layer);
    MT_TEST_OK(mt_store_reduce_experts_begin(store, layer, kept->owner != NULL ? kept : NULL));
    MT_TEST_OK(mt_store_reduce_experts_end(store, layer));
    for (int e = 0; e < N_EXPERT; ++e) {
        const bool is_kept =
            kept->owner != NULL && mt_placement_find(kept, e, step->world->comm.rank) >= 0;
        step->copy_grad[layer][e] = is_kept ? step->copy_grad[layer][e] : 0.0F;
    }
    expect_here(step, layer, kept);
    mt_placement_clear(placement);
}

static float summed(const struct step *step, int layer, int e, int64_t i)
{
    return step->sum[layer][e] + (float)(step->n_instance[layer][e] * (i % 5));
}

static void expect_part_grads(const struct step *step)
{
    for (int p = 0; p < mt_store_n_part(step->world->store); ++p) {
        const struct mt_part *part = mt_store_part(step->world->store, p);
        const struct mt_tensor *tensor = &step->table->row[part->tensor];
        if (tensor->kind != MT_TENSOR_EXPERT) {
            continue;
        }
        const int64_t matrix = mt_tensor_row_elements(tensor);
        const int64_t offset = (part->tensor - gate_of(step->table, tensor->layer)) * matrix;
        for (int64_t i = 0; i < part->n_element; ++i) {
            const int64_t index = part->first + i;
            assert_true(part->grad[i] == summed(step, tensor->layer, (int)(index / matrix),
                                                offset + index % matrix));
        }
    }
}

/* Payloads are integers: their squares' sums are exact in a double, whatever the pieces. */
static void expect_squares(const struct step *step)
{
    static double square[4096];
    struct mt_store *store = step->world->store;
    double got = 0.0;
    double want = 0.0;
    assert_true(mt_store_n_chunk(store) <= 4096);
    for (int b = 0; b < step->table->table.n_bucket; ++b) {
        MT_TEST_OK(mt_store_reduce_bucket_begin(store, b));
    }
    MT_TEST_OK(mt_store_reduce_finish(store));
    MT_TEST_OK(mt_store_grad_squares(store, square));
    MT_TEST_OK(mt_comm_sum_f64(&step->world->comm, square, mt_store_n_chunk(store)));
    for (int64_t chunk = 0; chunk < mt_store_n_chunk(store); ++chunk) {
        got += square[chunk];
    }
    for (int layer = 0; layer < step->world->n_layer; ++layer) {
        const int64_t n_element = MT_EXPERT_MATRICES * matrix_of(step->table, layer);
        for (int64_t i = 0; i < n_element * N_EXPERT; ++i) {
            const double grad = (double)summed(step, layer, (int)(i / n_element), i % n_element);
            want += grad * grad;
        }
    }
    assert_true(got == want);
}

static void run_step(struct mt_test_world *world, const struct mt_test_table *table, uint64_t seed,
                     bool rematerialize)
{
    struct step step = {
        .world = world, .table = table, .seed = seed, .rematerialize = rematerialize};
    mt_store_zero_grad(world->store);
    for (int micro = 0; micro < N_MICRO; ++micro) {
        for (int layer = 0; layer < world->n_layer; ++layer) {
            if (matrix_of(table, layer) > 0) {
                forward(&step, micro, layer);
            }
        }
        for (int layer = world->n_layer - 1; layer >= 0; --layer) {
            if (matrix_of(table, layer) > 0) {
                backward(&step, micro, layer);
            }
        }
    }
    expect_part_grads(&step);
    expect_squares(&step);
    mt_test_set_values(world->store); /* publishing requires that no copy is left */
}

static void run_steps(const struct mt_test_table *table, bool rematerialize)
{
    for (int turn = -1; turn < 2; ++turn) {
        const struct mt_test_world_options options = {.world = MPI_COMM_WORLD,
                                                      .training = true,
                                                      .is_cut = true,
                                                      .n_slot = (SLOTS_A_LAYER + N_EXPERT) *
                                                                table->table.n_layer,
                                                      .turn = turn};
        struct mt_test_world world;
        mt_test_world_open(&world, table, &options);
        mt_test_set_values(world.store);
        for (uint64_t seed = 0; seed < 6; ++seed) {
            run_step(&world, table, seed, rematerialize);
        }
        mt_test_world_close(&world);
    }
}

static void kept_and_late_copies_give_the_sum_over_micro_batches(void **state)
{
    MT_UNUSED(state);
    run_steps(&small, false);
    run_steps(&thin, false);
}

static void so_do_copies_dropped_after_forward_and_gathered_again(void **state)
{
    MT_UNUSED(state);
    run_steps(&small, true);
    run_steps(&thin, true);
}

/* Every element of every expert is in one part of one rank, which mt_store_owner names. */
static void parts_are_the_pieces_and_cover_every_expert(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_table *const tables[] = {&small, &thin};
    for (int t = 0; t < 2; ++t) {
        const struct mt_test_world_options options = {
            .world = MPI_COMM_WORLD, .training = false, .is_cut = true, .turn = -1};
        struct mt_test_world world;
        mt_test_world_open(&world, tables[t], &options);
        int64_t n_element = 0;
        for (int p = 0; p < mt_store_n_part(world.store); ++p) {
            const struct mt_part *part = mt_store_part(world.store, p);
            n_element += part->n_element;
            assert_true(part->n_element > 0 && part->exp_avg == NULL);
            for (int64_t i = 0; i < part->n_element; ++i) {
                assert_int_equal(mt_store_owner(world.store, part->tensor, part->first + i),
                                 world.comm.rank);
            }
        }
        MT_TEST_OK(mt_comm_sum_i64(&world.comm, &n_element, 1));
        for (int i = 0; i < tables[t]->table.n_tensor; ++i) {
            n_element -= mt_tensor_n_element(&tables[t]->row[i]);
        }
        assert_int_equal(n_element, 0);
        mt_test_world_close(&world);
    }
}

/* The same bits as with experts owned whole. */
static void initial_values_do_not_depend_on_cuts(void **state)
{
    MT_UNUSED(state);
    enum { N_ELEMENT = MT_TEST_N_ELEMENT };
    struct mt_test_world world[2];
    struct mt_placement all;
    for (int cut = 0; cut < 2; ++cut) {
        const struct mt_test_world_options options = {
            .world = MPI_COMM_WORLD, .is_cut = cut == 1, .n_slot = N_EXPERT, .turn = -1};
        mt_test_world_open(&world[cut], &small, &options);
        mt_store_init_values(world[cut].store, 17);
        MT_TEST_OK(mt_store_publish(world[cut].store));
    }
    const int n_rank = world[0].comm.topology.n_rank;
    MT_TEST_OK(mt_placement_init(&all, n_rank, N_EXPERT, N_EXPERT * n_rank));
    mt_placement_default_owners(&all, 2);
    for (int i = 0; i < N_EXPERT * n_rank; ++i) {
        if (mt_placement_find(&all, i / n_rank, i % n_rank) < 0) {
            mt_placement_add(&all, i / n_rank, i % n_rank, false);
        }
    }
    for (int cut = 0; cut < 2; ++cut) {
        MT_TEST_OK(mt_store_materialize_begin(world[cut].store, 2, &all));
        MT_TEST_OK(mt_store_materialize_end(world[cut].store, 2));
    }
    for (int e = 0; e < N_EXPERT; ++e) {
        const struct mt_expert_copy *whole = mt_store_expert(world[0].store, 2, e);
        const struct mt_expert_copy *cut = mt_store_expert(world[1].store, 2, e);
        assert_null(cut->grad);
        assert_memory_equal(whole->value, cut->value, N_ELEMENT * sizeof(float));
    }
    for (int cut = 0; cut < 2; ++cut) {
        mt_store_drop_copies(world[cut].store, 2);
        mt_test_world_close(&world[cut]);
    }
    mt_placement_clear(&all);
}

static void too_few_slots_are_refused_on_all_ranks(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .is_cut = true, .n_slot = 0, .turn = -1};
    struct mt_test_world world;
    struct mt_placement homes;
    mt_test_world_open(&world, &small, &options);
    mt_test_set_values(world.store);
    MT_TEST_OK(mt_placement_init(&homes, world.comm.topology.n_rank, N_EXPERT, N_EXPERT));
    mt_placement_default_owners(&homes, 1);
    MT_TEST_FAILS(mt_store_materialize_begin(world.store, 1, &homes), MT_ERR_RESOURCE,
                  "has no room for the experts placed there in layer 1");
    mt_placement_clear(&homes);
    mt_test_world_close(&world);
}

static void cut_experts_allocate_nothing_in_a_step(void **state)
{
    MT_UNUSED(state);
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .is_cut = true, .n_slot = 9, .turn = 1};
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
        cmocka_unit_test(parts_are_the_pieces_and_cover_every_expert),
        cmocka_unit_test(initial_values_do_not_depend_on_cuts),
        cmocka_unit_test(too_few_slots_are_refused_on_all_ranks),
        cmocka_unit_test(cut_experts_allocate_nothing_in_a_step),
    };
    mt_test_table_small(&small);
    mt_test_table_init(&thin);
    mt_test_table_dense(&thin, 0, 3, 2, false);
    mt_test_table_layer(&thin, N_EXPERT, 1, 2);
    mt_test_table_layer(&thin, N_EXPERT, 1, 2);
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
