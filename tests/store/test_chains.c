/* A hot expert that every rank wants, of 2.25 MiB: on three nodes it travels along a chain, out and
 * back, whatever the links are said to be. */
#include "base/memory.h"
#include "store/experts.h"
#include "support/mpi_main.h"

#include <math.h>
#include <string.h>

enum { N_EXPERT = 2, WIDTH = 384, HIDDEN = 512, MATRIX = WIDTH * HIDDEN, N_ELEMENT = 3 * MATRIX };
static struct mt_test_table hot;

/* What a rank's copy adds to element i in one micro-batch: sums of it depend on the order. */
static float gradient(int rank, int64_t i)
{
    return (float)(1 + i % 1021) / (float)(3 + 7 * rank);
}

/* Expert 0 everywhere. */
static void place_everywhere(struct mt_placement *placement, const int *owner, int n_rank)
{
    MT_TEST_OK(mt_placement_init(placement, n_rank, N_EXPERT, N_EXPERT * n_rank));
    memcpy(placement->owner, owner, N_EXPERT * sizeof(*owner));
    mt_placement_owners_only(placement);
    for (int rank = 0; rank < n_rank; ++rank) {
        if (rank != owner[0]) {
            mt_placement_add(placement, 0, rank, false);
        }
    }
}

/* By any rank. */
static bool is_sent(struct mt_comm *comm, const char *name)
{
    int64_t n_bytes = 0;
    for (int i = 0; i < comm->n_traffic; ++i) {
        n_bytes += strcmp(comm->traffic[i].name, name) == 0 ? comm->traffic[i].sent_bytes : 0;
    }
    MT_TEST_OK(mt_comm_sum_i64(comm, &n_bytes, 1));
    return n_bytes > 0;
}

static void check_values(const struct mt_expert_copy *copy)
{
    assert_non_null(copy);
    for (int64_t i = 0; i < N_ELEMENT; ++i) {
        assert_true(copy->value[i] == mt_test_payload(9, i / MATRIX, i % MATRIX));
    }
}

/* Out, gradients, back. */
static void run_step(struct mt_test_world *world, const struct mt_placement *placement)
{
    struct mt_store *store = world->store;
    const int64_t n_allocated = mt_memory_n_allocated();
    mt_store_zero_grad(store);
    mt_comm_reset_traffic(&world->comm);
    MT_TEST_OK(mt_store_materialize_begin(store, 0, placement));
    MT_TEST_OK(mt_store_materialize_end(store, 0));
    const struct mt_expert_copy *copy = mt_store_use_expert(store, 0, 0, MT_PASS_BACKWARD);
    check_values(copy);
    for (int64_t i = 0; i < N_ELEMENT; ++i) {
        copy->grad[i] += gradient(world->comm.rank, i);
    }
    MT_TEST_OK(mt_store_reduce_experts_begin(store, 0, NULL));
    MT_TEST_OK(mt_store_reduce_experts_end(store, 0));
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
}

/* `first` [N_ELEMENT]: the sums of the first run at the owner, which every other run repeats. */
static void check_sums(const struct mt_test_world *world, float *first, bool is_first)
{
    const struct mt_expert_copy *home = mt_store_expert(world->store, 0, 0);
    if (mt_store_owners(world->store, 0)[0] != world->comm.rank) {
        return;
    }
    for (int64_t i = 0; i < N_ELEMENT; ++i) {
        double sum = 0.0;
        for (int rank = 0; rank < world->comm.topology.n_rank; ++rank) {
            sum += (double)gradient(rank, i);
        }
        assert_true(fabs((double)home->grad[i] - sum) <= 1e-6 * sum);
        assert_true(is_first || home->grad[i] == first[i]);
        first[i] = home->grad[i];
    }
}

static void run_links(int ranks_per_node)
{
    static const struct mt_links links[] = {
        {.alpha_ps = {1000, 1000}, .kib_ps = {1000, 1000000}},            /* small pieces */
        {.alpha_ps = {1000, 30000000}, .kib_ps = {1000, 1000000}},        /* large ones */
        {.alpha_ps = {2000000, 50000000000}, .kib_ps = {250000, 20000}}}; /* messages are dear */
    const struct mt_test_world_options options = {.world = MPI_COMM_WORLD,
                                                  .training = true,
                                                  .n_slot = 1,
                                                  .turn = 0,
                                                  .ranks_per_node = ranks_per_node};
    struct mt_test_world world;
    struct mt_placement placement;
    float *first = NULL;
    mt_test_world_open(&world, &hot, &options);
    const bool has_chains = world.comm.topology.n_node >= 3;
    MT_TEST_OK(MT_ALLOCATE(first, N_ELEMENT, "test"));
    mt_test_set_values(world.store);
    place_everywhere(&placement, mt_store_owners(world.store, 0), world.comm.topology.n_rank);
    run_step(&world, &placement); /* nothing is known of links */
    check_sums(&world, first, true);
    assert_false(is_sent(&world.comm, "sparse_allgather_chain"));
    for (int i = 0; i < 3; ++i) {
        mt_store_set_links(world.store, &links[i]);
        run_step(&world, &placement);
        check_sums(&world, first, false);
        assert_true(is_sent(&world.comm, "sparse_allgather_chain") == (has_chains && i < 2));
        assert_true(is_sent(&world.comm, "sparse_reduce_chain") == has_chains);
    }
    mt_placement_clear(&placement);
    mt_memory_free(first);
    mt_test_world_close(&world);
}

static void links_change_the_way_of_a_hot_expert_and_no_bit(void **state)
{
    int n_rank = 0;
    MT_UNUSED(state);
    MPI_Comm_size(MPI_COMM_WORLD, &n_rank);
    run_links(0);
    run_links((n_rank + 2) / 3); /* three nodes, uneven ones where 3 is no divisor */
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_change_the_way_of_a_hot_expert_and_no_bit)};
    mt_test_table_init(&hot);
    mt_test_table_layer(&hot, N_EXPERT, WIDTH, HIDDEN);
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
