/* Which way copies of experts take, and what that takes on a cluster of clockwork. */
#include "support/test.h"

#include "base/memory.h"
#include "comm/clockwork.h"
#include "comm/sparse_auto.h"

#include <string.h>

enum { MAX_RANK = 64, MAX_CHUNK = 64, MAX_COPY = MAX_CHUNK * MAX_RANK };
static const int64_t US = 1000000;
static const int64_t MIB = 1 << 20;

/* Chunks held by everybody, whose owners are given; all chunks at the same place, which no clock
 * minds. */
static struct scene {
    int64_t bytes[MAX_CHUNK], holder_start[MAX_CHUNK + 1], offset[MAX_CHUNK];
    int owner[MAX_CHUNK], holder[MAX_COPY];
    struct mt_sparse sparse;
    struct mt_topology topology;
    struct clockwork clockwork;
    struct mt_sparse_auto *ways;
} scene;

static struct mt_plan plans[MAX_RANK];

static int make_plans(void **state)
{
    MT_UNUSED(state);
    for (int rank = 0; rank < MAX_RANK; ++rank) {
        MT_TEST_OK(mt_plan_init(&plans[rank], MT_CHAIN_OPS + 2 * (int64_t)MAX_COPY));
    }
    return 0;
}

static int clear_plans(void **state)
{
    MT_UNUSED(state);
    for (int rank = 0; rank < MAX_RANK; ++rank) {
        mt_plan_clear(&plans[rank]);
    }
    return 0;
}

/* Links of 1 Gbit/s of each rank, or of each node, of which its per_node ranks have measured their
 * shares when all send, and all of it when one does. */
static void set_own_links(int64_t alpha_ps, int per_node, bool is_link_own)
{
    scene.clockwork = (struct clockwork){.topology = &scene.topology,
                                         .inside_alpha_ps = 2 * US,
                                         .inside_byte_ps = 250,
                                         .between_alpha_ps = alpha_ps,
                                         .between_byte_ps = 8000,
                                         .is_link_own = is_link_own};
    const int n_sharing = is_link_own ? 1 : per_node;
    const struct mt_links links = {.alpha_ps = {scene.clockwork.inside_alpha_ps, alpha_ps},
                                   .kib_ps = {1024 * scene.clockwork.inside_byte_ps,
                                              1024 * scene.clockwork.between_byte_ps * n_sharing},
                                   .alone_kib_ps = 1024 * scene.clockwork.between_byte_ps};
    mt_sparse_auto_set_links(scene.ways, &links);
}

static void set_links(int64_t alpha_ps, int per_node)
{
    set_own_links(alpha_ps, per_node, false);
}

static void begin(int n_rank, const int *node, int per_node)
{
    const struct mt_sparse_limits limits = {
        .max_op = MT_CHAIN_OPS, .stage_bytes = 128 * MIB, .worth_bytes = MIB};
    memset(&scene, 0, sizeof(scene));
    if (node != NULL) {
        MT_TEST_OK(mt_topology_init_nodes(&scene.topology, n_rank, node));
    } else {
        MT_TEST_OK(mt_topology_init(&scene.topology, n_rank, per_node));
    }
    scene.sparse = (struct mt_sparse){.chunk_bytes = scene.bytes,
                                      .owner = scene.owner,
                                      .holder_start = scene.holder_start,
                                      .holder = scene.holder};
    MT_TEST_OK(mt_sparse_auto_create(&scene.topology, MAX_CHUNK, MAX_COPY, &limits, &scene.ways));
}

static void add_chunk(int owner, int64_t n_bytes)
{
    const int64_t chunk = scene.sparse.n_chunk++;
    int64_t n = scene.holder_start[chunk];
    scene.owner[chunk] = owner;
    scene.bytes[chunk] = n_bytes;
    for (int rank = 0; rank < scene.topology.n_rank; ++rank) {
        if (rank != owner) {
            scene.holder[n++] = rank;
        }
    }
    scene.holder_start[chunk + 1] = n;
}

static void end(void)
{
    mt_sparse_auto_destroy(scene.ways);
    mt_topology_clear(&scene.topology);
}

enum direction { GATHER, REDUCE };

static void plan_gather(struct mt_plan *plan, int rank, enum mt_sparse_way way,
                        struct mt_relay *relay, struct mt_chain *chain)
{
    const struct mt_sparse_choice choice = mt_sparse_choose_gather(scene.ways, &scene.sparse);
    if (way == MT_SPARSE_DIRECT) {
        mt_plan_sparse_allgather(plan, rank, &scene.sparse, scene.offset, scene.offset);
    } else if (way == MT_SPARSE_CHAIN && choice.piece_bytes > 0) {
        mt_plan_sparse_allgather_chain(plan, rank, &scene.sparse, chain, choice.piece_bytes,
                                       scene.offset, scene.offset);
    } else if (way == MT_N_SPARSE_WAY) {
        mt_plan_sparse_allgather_auto(plan, rank, &scene.sparse, scene.ways, scene.offset,
                                      scene.offset);
    } else {
        mt_plan_sparse_allgather_relay(plan, rank, &scene.sparse, relay, scene.offset,
                                       scene.offset);
    }
}

/* What the plans of a way take, MT_N_SPARSE_WAY: of the chosen one. */
static int64_t clock_ps(enum direction direction, enum mt_sparse_way way)
{
    const int64_t *const offset[2] = {scene.offset, scene.offset};
    const int n_rank = scene.topology.n_rank;
    struct mt_relay *relay = NULL;
    struct mt_chain *chain = NULL;
    MT_TEST_OK(mt_relay_create(&scene.topology, MAX_CHUNK, MAX_COPY, MIB, &relay));
    MT_TEST_OK(mt_chain_create(&scene.topology, MAX_CHUNK, MAX_COPY, &chain));
    for (int rank = 0; rank < n_rank; ++rank) {
        struct mt_plan *plan = &plans[rank];
        if (direction == GATHER) {
            plan_gather(plan, rank, way, relay, chain);
        } else if (way == MT_SPARSE_RELAY) {
            mt_plan_sparse_reduce_scatter_relay(plan, rank, &scene.sparse, relay, scene.offset,
                                                scene.offset, MT_ELEMENT_F32);
        } else {
            mt_plan_sparse_reduce_scatter_auto(plan, rank, &scene.sparse, scene.ways, offset,
                                               MT_ELEMENT_F32);
        }
    }
    const int64_t ps = clockwork_ps(&scene.clockwork, plans);
    mt_chain_destroy(chain);
    mt_relay_destroy(relay);
    return ps;
}

/* One expert of rank 0 to all and its gradients back, over what the links of the nodes allow. */
static void hot_expert(int64_t alpha_ps, int64_t n_bytes)
{
    const int per_node = scene.topology.n_rank / scene.topology.n_node;
    set_links(alpha_ps, per_node);
    scene.sparse.n_chunk = 0;
    add_chunk(0, n_bytes);
    assert_int_equal(mt_sparse_choose_gather(scene.ways, &scene.sparse).way, MT_SPARSE_CHAIN);
    assert_int_equal(mt_sparse_choose_reduce(scene.ways, &scene.sparse).way, MT_SPARSE_CHAIN);
    const int64_t bound_ps = alpha_ps + n_bytes * scene.clockwork.between_byte_ps;
    for (int direction = GATHER; direction <= REDUCE; ++direction) {
        const int64_t ps = clock_ps((enum direction)direction, MT_N_SPARSE_WAY);
        const int64_t relay_ps = clock_ps((enum direction)direction, MT_SPARSE_RELAY);
        print_message("%d nodes of %d, %lld MiB, alpha %lld us, %s: %.2f of the bound, relays "
                      "%.2f\n",
                      scene.topology.n_node, per_node, (long long)(n_bytes / MIB),
                      (long long)(alpha_ps / US), direction == GATHER ? "gather" : "reduce",
                      (double)ps / (double)bound_ps, (double)relay_ps / (double)bound_ps);
        assert_true(ps >= bound_ps && ps * 4 <= bound_ps * 5);
        assert_true(ps < relay_ps);
    }
}

static void a_hot_expert_reaches_all_and_comes_back_within_1_25_of_the_bound(void **state)
{
    MT_UNUSED(state);
    begin(8, NULL, 2);
    hot_expert(20 * US, 4 * MIB);
    hot_expert(200 * US, 16 * MIB);
    end();
    begin(64, NULL, 8);
    hot_expert(20 * US, 4 * MIB);
    hot_expert(200 * US, 16 * MIB);
    hot_expert(20 * US, 64 * MIB);
    end();
}

/* Every rank has a chunk for all others: chains of all owners at once keep every link busy, relays'
 * rounds do not; sums stay with relays, whose links carry as much. */
static void chunks_of_all_ranks_reach_all_within_1_25_of_the_bound(void **state)
{
    MT_UNUSED(state);
    begin(16, NULL, 4);
    set_links(20 * US, 4);
    for (int owner = 0; owner < 16; ++owner) {
        add_chunk(owner, 4 * MIB);
    }
    add_chunk(3, 4 * MIB); /* held by nobody */
    scene.holder_start[scene.sparse.n_chunk] = scene.holder_start[scene.sparse.n_chunk - 1];
    const int64_t bound_ps = 12 * 4 * MIB * scene.clockwork.between_byte_ps;
    const int64_t ps = clock_ps(GATHER, MT_N_SPARSE_WAY);
    print_message("16 ranks on 4 nodes, 4 MiB of each to all: %.2f of the bound, relays %.2f\n",
                  (double)ps / (double)bound_ps,
                  (double)clock_ps(GATHER, MT_SPARSE_RELAY) / (double)bound_ps);
    assert_true(ps >= bound_ps && ps * 4 <= bound_ps * 5);
    assert_int_equal(mt_sparse_choose_reduce(scene.ways, &scene.sparse).way, MT_SPARSE_RELAY);
    end();
}

/* On one node, on two for sums, for small chunks, and where nothing is known of links. */
static void there_are_no_chains_where_they_bring_nothing(void **state)
{
    MT_UNUSED(state);
    begin(8, NULL, 8);
    add_chunk(3, 64 * MIB);
    assert_int_equal(mt_sparse_choose_gather(scene.ways, &scene.sparse).way, MT_SPARSE_RELAY);
    set_links(20 * US, 8);
    assert_true(mt_sparse_choose_gather(scene.ways, &scene.sparse).way != MT_SPARSE_CHAIN);
    assert_int_equal(mt_sparse_choose_reduce(scene.ways, &scene.sparse).way, MT_SPARSE_RELAY);
    end();
    begin(8, NULL, 4);
    add_chunk(3, 64 * MIB);
    assert_int_equal(mt_sparse_choose_reduce(scene.ways, &scene.sparse).way, MT_SPARSE_RELAY);
    end();
    begin(64, NULL, 8);
    set_links(200 * US, 8);
    add_chunk(0, 4096);
    assert_int_equal(mt_sparse_choose_reduce(scene.ways, &scene.sparse).way, MT_SPARSE_RELAY);
    end();
}

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Few chunks of any owners, held by all, by some and by none. */
static void draw_chunks(uint64_t *random)
{
    const int n_rank = scene.topology.n_rank;
    const int64_t n_bytes = 4 * (1 + (int64_t)(draw(random) % (8u << 20)));
    scene.sparse.n_chunk = 0;
    for (int i = (int)(draw(random) % 5); i >= 0; --i) {
        const uint64_t density = 1 + draw(random) % 4;
        add_chunk((int)(draw(random) % (uint64_t)n_rank), n_bytes);
        int64_t *end_of = &scene.holder_start[scene.sparse.n_chunk];
        int64_t n = end_of[-1];
        for (int64_t at = n; at < *end_of; ++at) {
            if (draw(random) % density == 0) {
                scene.holder[n++] = scene.holder[at];
            }
        }
        *end_of = n;
    }
}

static void check_limits(const struct mt_sparse_limits *limits)
{
    const int64_t *const offset[2] = {scene.offset, scene.offset};
    struct mt_plan plan;
    MT_TEST_OK(mt_plan_init(&plan, MT_CHAIN_OPS + 2 * (int64_t)MAX_COPY));
    for (int rank = 0; rank < scene.topology.n_rank; ++rank) {
        mt_plan_sparse_allgather_auto(&plan, rank, &scene.sparse, scene.ways, scene.offset,
                                      scene.offset);
        assert_true(strcmp(plan.name, "sparse_allgather_chain") != 0 ||
                    plan.n_op <= limits->max_op);
        mt_plan_sparse_reduce_scatter_auto(&plan, rank, &scene.sparse, scene.ways, offset,
                                           MT_ELEMENT_F32);
        for (int64_t i = 0; i < plan.n_op && strcmp(plan.name, "sparse_reduce_chain") == 0; ++i) {
            const struct mt_op *op = &plan.op[i];
            assert_true(plan.n_op <= limits->max_op);
            assert_true(op->buffer != MT_BUFFER_STAGE ||
                        op->offset_bytes + op->n_bytes <= limits->stage_bytes);
        }
    }
    mt_plan_clear(&plan);
}

/* The choice for sums knows nothing of links; plans keep to their ops and their STAGE. */
static void no_sum_depends_on_links_and_no_plan_exceeds_its_limits(void **state)
{
    static const int shapes[][2] = {{1, 1}, {2, 1}, {3, 1}, {4, 2}, {8, 3}, {13, 4}, {24, 2}};
    uint64_t random = 5;
    int n_chain = 0;
    MT_UNUSED(state);
    for (int i = 0; i < 7 * 20; ++i) {
        begin(shapes[i % 7][0], NULL, shapes[i % 7][1]);
        draw_chunks(&random);
        const struct mt_sparse_limits tight = {.max_op = 200 << draw(&random) % 5,
                                               .stage_bytes = 2 * scene.bytes[0],
                                               .worth_bytes = MIB};
        mt_sparse_auto_destroy(scene.ways);
        MT_TEST_OK(
            mt_sparse_auto_create(&scene.topology, MAX_CHUNK, MAX_COPY, &tight, &scene.ways));
        const enum mt_sparse_way way = mt_sparse_choose_reduce(scene.ways, &scene.sparse).way;
        n_chain += way == MT_SPARSE_CHAIN ? 1 : 0;
        for (int64_t alpha_ps = 1; alpha_ps <= 1000 * US; alpha_ps *= 1000) {
            set_links(alpha_ps, shapes[i % 7][1]);
            assert_int_equal(mt_sparse_choose_reduce(scene.ways, &scene.sparse).way, way);
            check_limits(&tight);
        }
        end();
    }
    assert_true(n_chain > 10);
}

/* One expert or four of rank 0 for all, by the clock: a tenth, and with four 3 tenths. */
static void check_choice(int shape, bool is_link_own, int64_t alpha_ps, int64_t n_bytes)
{
    static const int uneven[7] = {9, 2, 2, 9, 2, 5, 2};
    static const int sizes[][2] = {{8, 2}, {16, 4}, {64, 8}, {12, 4}};
    const bool is_uneven = shape / 2 == 4;
    const int n_rank = is_uneven ? 7 : sizes[shape / 2][0];
    const int per_node = is_uneven ? 2 : sizes[shape / 2][1];
    begin(n_rank, is_uneven ? uneven : NULL, per_node);
    set_own_links(alpha_ps, per_node, is_link_own);
    for (int chunk = 0; chunk < (shape % 2 == 0 ? 1 : 4); ++chunk) {
        add_chunk(0, n_bytes);
    }
    const int64_t chosen_ps = clock_ps(GATHER, MT_N_SPARSE_WAY);
    for (int way = 0; way < MT_N_SPARSE_WAY; ++way) {
        const int64_t ps = clock_ps(GATHER, (enum mt_sparse_way)way);
        assert_true(chosen_ps * 10 <= ps * (shape % 2 == 0 ? 11 : 13));
    }
    end();
}

static void what_is_chosen_is_hardly_slower_than_the_best(void **state)
{
    enum { N_SHAPE = 10 };
    MT_UNUSED(state);
    for (int64_t n_bytes = 16384; n_bytes <= 16 * MIB; n_bytes *= 4) {
        for (int shape = 0; shape < N_SHAPE; ++shape) {
            for (int i = 0; i < 4; ++i) {
                check_choice(shape, i % 2 == 0, i / 2 == 0 ? 20 * US : 200 * US, n_bytes);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hot_expert_reaches_all_and_comes_back_within_1_25_of_the_bound),
        cmocka_unit_test(chunks_of_all_ranks_reach_all_within_1_25_of_the_bound),
        cmocka_unit_test(there_are_no_chains_where_they_bring_nothing),
        cmocka_unit_test(no_sum_depends_on_links_and_no_plan_exceeds_its_limits),
        cmocka_unit_test(what_is_chosen_is_hardly_slower_than_the_best),
    };
    return cmocka_run_group_tests(tests, make_plans, clear_plans);
}
