/* Dense tensors on real ranks: initial values, gathering, reduction. */
#include "base/memory.h"
#include "base/random.h"
#include "store/world.h"
#include "support/compare.h"
#include "support/mpi_main.h"

static struct mt_test_table small;
static struct mt_test_table deep;

static const struct mt_test_world_options training = {
    .world = MPI_COMM_WORLD, .training = true, .n_slot = 0, .turn = -1};

static bool is_dense(const struct mt_test_table *table, int t)
{
    return table->row[t].kind == MT_TENSOR_DENSE;
}

/* Owners write payload(seed, tensor, index) and publish. */
static void set_values(struct mt_store *store, uint64_t seed)
{
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        for (int64_t i = 0; i < part->n_element; ++i) {
            part->value[i] = mt_test_payload(seed, part->tensor, part->first + i);
        }
    }
    MT_TEST_OK(mt_store_publish(store));
}

static void check_values(const struct mt_store *store, const struct mt_test_table *table,
                         uint64_t seed)
{
    for (int t = 0; t < table->table.n_tensor; ++t) {
        if (!is_dense(table, t)) {
            continue;
        }
        const float *value = mt_store_value(store, t);
        for (int64_t i = 0; i < mt_tensor_n_element(&table->row[t]); ++i) {
            assert_true(value[i] == mt_test_payload(seed, t, i));
        }
    }
}

/* The value that the model has by definition, whoever owns it. */
static float initial_value(const struct mt_tensor *tensor, uint64_t seed, int64_t index)
{
    if (tensor->init_std == 0.0F) {
        return tensor->starts_at_zero ? 0.0F : 1.0F;
    }
    float value = 0.0F;
    mt_random_fill_normal(seed, mt_random_stream(tensor->name), (uint64_t)index, 1,
                          tensor->init_std, &value);
    return value;
}

static void initial_values_do_not_depend_on_ranks(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &training);
    mt_store_init_values(world.store, 17);
    MT_TEST_OK(mt_store_publish(world.store));
    MT_TEST_OK(mt_store_use_all(world.store));
    for (int t = 0; t < small.table.n_tensor; ++t) {
        const int64_t n = is_dense(&small, t) ? mt_tensor_n_element(&small.row[t]) : 0;
        for (int64_t i = 0; i < n; ++i) {
            assert_true(mt_store_value(world.store, t)[i] == initial_value(&small.row[t], 17, i));
        }
    }
    for (int p = 0; p < mt_store_n_part(world.store); ++p) {
        const struct mt_part *part = mt_store_part(world.store, p);
        for (int64_t i = 0; i < part->n_element; i += 7) {
            assert_true(part->value[i] ==
                        initial_value(&small.row[part->tensor], 17, part->first + i));
        }
    }
    mt_test_world_close(&world);
}

/* Counted over all ranks, parts cover every tensor once; their owner is the one that has them. */
static void check_parts(const struct mt_test_world *world, int t, int64_t *n_owned)
{
    for (int p = 0; p < mt_store_n_part(world->store); ++p) {
        const struct mt_part *part = mt_store_part(world->store, p);
        if (part->tensor != t) {
            continue;
        }
        const int64_t row = mt_tensor_row_elements(&small.row[t]);
        assert_true(part->n_element > 0);
        assert_true(part->first % row == 0 && part->n_element % row == 0);
        const int64_t last = part->first + part->n_element - 1;
        assert_int_equal(mt_store_owner(world->store, t, part->first), world->comm.rank);
        assert_int_equal(mt_store_owner(world->store, t, last), world->comm.rank);
        *n_owned += part->n_element;
    }
}

static void parts_of_all_ranks_cover_every_tensor_once(void **state)
{
    MT_UNUSED(state);
    for (int turn = -1; turn < 3; ++turn) {
        struct mt_test_world world;
        struct mt_test_world_options options = training;
        options.turn = turn;
        mt_test_world_open(&world, &small, &options);
        for (int t = 0; t < small.table.n_tensor; ++t) {
            int64_t n_owned = 0;
            check_parts(&world, t, &n_owned);
            MT_TEST_OK(mt_comm_sum_i64(&world.comm, &n_owned, 1));
            assert_int_equal(n_owned, mt_tensor_n_element(&small.row[t]));
        }
        mt_test_world_close(&world);
    }
}

static void publishing_gives_all_ranks_the_owners_values(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &training);
    for (uint64_t step = 0; step < 3; ++step) {
        set_values(world.store, step);
        MT_TEST_OK(mt_store_use_all(world.store));
        check_values(world.store, &small, step);
    }
    mt_test_world_close(&world);
}

static void values_replaced_before_their_use_are_gathered_again(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &training);
    set_values(world.store, 1);
    set_values(world.store, 2);
    MT_TEST_OK(mt_store_use_all(world.store));
    check_values(world.store, &small, 2);
    set_values(world.store, 3); /* left in flight: destroying waits for it */
    mt_test_world_close(&world);
}

/* y = x W^T with a unit vector as x is a column of W, exactly. */
static void used_buckets_have_packed_weights(void **state)
{
    MT_UNUSED(state);
    const int tensor = 3; /* [24, 24] */
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &training);
    set_values(world.store, 5);
    MT_TEST_OK(mt_store_use_bucket(world.store, small.row[tensor].bucket));
    const struct mt_weight *weight = mt_store_weight(world.store, tensor);
    float x[24] = {0.0F};
    float y[24];
    x[7] = 1.0F;
    mt_linear_forward(&world.device, y, x, weight, 1);
    for (int64_t i = 0; i < 24; ++i) {
        assert_true(y[i] == mt_test_payload(5, tensor, i * 24 + 7));
    }
    mt_linear_backward_input(&world.device, y, x, weight, 1, false);
    for (int64_t i = 0; i < 24; ++i) {
        assert_true(y[i] == mt_test_payload(5, tensor, (int64_t)7 * 24 + i));
    }
    mt_test_world_close(&world);
}

/* Gradient of rank r: payload(seed, tensor, index) + r. */
static void set_grads(const struct mt_test_world *world, const struct mt_test_table *table,
                      uint64_t seed)
{
    mt_store_zero_grad(world->store);
    for (int t = 0; t < table->table.n_tensor; ++t) {
        const int64_t n = is_dense(table, t) ? mt_tensor_n_element(&table->row[t]) : 0;
        for (int64_t i = 0; i < n; ++i) {
            float *grad = mt_store_grad(world->store, t);
            assert_true(grad[i] == 0.0F);
            grad[i] = mt_test_payload(seed, t, i) + (float)world->comm.rank;
        }
    }
}

static void check_reduced(const struct mt_test_world *world, uint64_t seed)
{
    const int n_rank = world->comm.topology.n_rank;
    const int rank_sum = n_rank * (n_rank - 1) / 2;
    for (int p = 0; p < mt_store_n_part(world->store); ++p) {
        const struct mt_part *part = mt_store_part(world->store, p);
        if (mt_store_table(world->store)->tensor[part->tensor].kind == MT_TENSOR_EXPERT) {
            continue;
        }
        for (int64_t i = 0; i < part->n_element; ++i) {
            const float one = mt_test_payload(seed, part->tensor, part->first + i);
            assert_true(part->grad[i] == (float)n_rank * one + (float)rank_sum);
        }
    }
}

static void reducing_adds_the_gradients_of_all_ranks(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &training);
    for (uint64_t step = 0; step < 3; ++step) {
        set_grads(&world, &small, step);
        MT_TEST_OK(mt_store_reduce_bucket_begin(world.store, 3));
        MT_TEST_OK(mt_store_reduce_bucket_begin(world.store, 1));
        MT_TEST_OK(mt_store_reduce_finish(world.store));
        check_reduced(&world, step);
    }
    mt_test_world_close(&world);
}

/* 70 buckets: more than any kind of lanes, and than the transfers that comm runs at a time. */
static void more_buckets_than_lanes_are_all_moved(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    mt_test_world_open(&world, &deep, &training);
    for (uint64_t step = 0; step < 2; ++step) {
        set_values(world.store, step);
        if (step == 1) {
            MT_TEST_OK(mt_store_use_bucket(world.store, 66)); /* the head first */
        }
        MT_TEST_OK(mt_store_use_all(world.store));
        check_values(world.store, &deep, step);
        set_grads(&world, &deep, step);
        for (int b = deep.table.n_bucket - 1; b >= 20; --b) {
            MT_TEST_OK(mt_store_reduce_bucket_begin(world.store, b));
        }
        MT_TEST_OK(mt_store_reduce_finish(world.store));
        check_reduced(&world, step);
    }
    mt_test_world_close(&world);
}

static void a_step_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    mt_test_world_open(&world, &small, &training);
    set_values(world.store, 1);
    const int64_t n_allocated = mt_memory_n_allocated();
    MT_TEST_OK(mt_store_use_all(world.store));
    set_grads(&world, &small, 1);
    MT_TEST_OK(mt_store_reduce_finish(world.store));
    set_values(world.store, 2);
    MT_TEST_OK(mt_store_use_all(world.store));
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    mt_test_world_close(&world);
}

static void a_store_for_inference_has_values_only(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    struct mt_test_world_options options = training;
    options.training = false;
    options.n_slot = 1;
    mt_test_world_open(&world, &small, &options);
    set_values(world.store, 4);
    MT_TEST_OK(mt_store_use_all(world.store));
    check_values(world.store, &small, 4);
    for (int p = 0; p < mt_store_n_part(world.store); ++p) {
        assert_null(mt_store_part(world.store, p)->grad);
        assert_null(mt_store_part(world.store, p)->exp_avg);
    }
    assert_null(mt_store_weight(world.store, 3)->backward_pack);
    mt_test_world_close(&world);
}

/* What create holds is what was planned, and little beside it: lists of owners, plans, parts. */
static void planned_bytes_are_allocated(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    struct mt_test_world_options options = training;
    options.n_slot = 2;
    mt_test_world_open(&world, &small, &options);
    const struct mt_store_options store_options = {
        .training = true, .n_slot = 2, .ownership = world.ownership};
    struct mt_store_bytes b;
    MT_TEST_OK(mt_store_plan_bytes(&world.device, &small.table, &store_options,
                                   world.comm.topology.n_rank, &b));
    const int64_t planned = b.dense_value + b.dense_grad + b.dense_pack + b.expert_value +
                            b.expert_grad + b.expert_pack + b.slots + b.optimizer + b.staging;
    int64_t held[64];
    const int64_t with_store = mt_memory_reserved_bytes();
    mt_store_destroy(world.store);
    world.store = NULL;
    const int64_t mine = with_store - mt_memory_reserved_bytes();
    MT_TEST_OK(mt_comm_gather_i64(&world.comm, &mine, 1, held));
    int64_t largest = 0;
    for (int rank = 0; rank < world.comm.topology.n_rank; ++rank) {
        largest = held[rank] > largest ? held[rank] : largest;
    }
    assert_true(largest >= planned && largest < planned + (int64_t)64 * 1024);
    mt_test_world_close(&world);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initial_values_do_not_depend_on_ranks),
        cmocka_unit_test(parts_of_all_ranks_cover_every_tensor_once),
        cmocka_unit_test(publishing_gives_all_ranks_the_owners_values),
        cmocka_unit_test(values_replaced_before_their_use_are_gathered_again),
        cmocka_unit_test(used_buckets_have_packed_weights),
        cmocka_unit_test(reducing_adds_the_gradients_of_all_ranks),
        cmocka_unit_test(more_buckets_than_lanes_are_all_moved),
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(a_store_for_inference_has_values_only),
        cmocka_unit_test(planned_bytes_are_allocated),
    };
    mt_test_table_small(&small);
    mt_test_table_init(&deep);
    for (int b = 0; b < 70; ++b) {
        mt_test_table_dense(&deep, b, 3 + b, 11, b % 2 == 0);
        mt_test_table_dense(&deep, b, 5, 0, false);
    }
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
