/* Measuring on real ranks: the same numbers everywhere, sane ones, and when they are kept. */
#include "base/job.h"
#include "base/memory.h"
#include "config/load.h"
#include "placement/exchange.h"
#include "support/mpi_main.h"
#include "train/costs.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 32, INNER = 48 };

static const char config_text[] =
    "[model]\nhidden_size = 32\nnum_layers = 1\nnum_attention_heads = 4\nmax_seq_len = 16\n"
    "[moe]\nnum_experts = 8\ntop_k = 2\nexpert_intermediate_size = 48\n"
    "[optimizer]\nlr = 1e-3\n[data]\nformat = \"random\"\n"
    "[train]\nsteps = 2\nglobal_batch_size = 8\nmicro_batch_size = 2\n";

struct world {
    struct mt_config *config;
    struct mt_session session;
};

static void open_world(struct world *world, const char *override)
{
    MT_TEST_OK(MT_ALLOCATE(world->config, 1, "test"));
    MT_TEST_OK(mt_config_parse(config_text, "x.toml", ".", override != NULL ? 1 : 0, &override,
                               NULL, world->config));
    MT_TEST_OK(mt_session_open(&world->session, world->config, true, 2));
}

static void close_world(struct world *world)
{
    mt_session_close(&world->session);
    mt_memory_free(world->config);
    mt_kernel_clear();
}

static void expect_same_everywhere(struct world *world, const struct mt_costs *costs)
{
    enum { N = (int)(sizeof(*costs) / sizeof(int64_t)) };
    const int n_rank = mt_job_size();
    int64_t *all = NULL;
    MT_TEST_OK(MT_ALLOCATE(all, (int64_t)N * n_rank, "test"));
    MT_TEST_OK(mt_comm_gather_i64(&world->session.comm, (const int64_t *)costs, N, all));
    for (int rank = 1; rank < n_rank; rank++) {
        assert_memory_equal(all, all + (int64_t)rank * N, sizeof(*costs));
    }
    mt_memory_free(all);
}

static void expect_sane(const struct mt_costs *costs)
{
    const int64_t value[] = {costs->row_ps,
                             costs->instance_ps,
                             costs->attention_ps,
                             costs->alpha_ps[MT_LEVEL_NODE],
                             costs->kib_ps[MT_LEVEL_NODE],
                             costs->alpha_ps[MT_LEVEL_NETWORK],
                             costs->kib_ps[MT_LEVEL_NETWORK],
                             costs->alone_kib_ps};
    for (size_t i = 0; i < sizeof(value) / sizeof(value[0]); i++) {
        assert_true(value[i] > 0);
        assert_int_equal(mt_costs_quantise(value[i]), value[i]);
    }
    assert_int_equal(costs->alpha_ps[MT_LEVEL_RANK], 0);
    assert_true(costs->alone_kib_ps <= costs->kib_ps[MT_LEVEL_NETWORK]);
}

static void measured_costs_are_sane_and_the_same_on_all_ranks(void **state)
{
    static const char *const nodes[] = {NULL, "comm.ranks_per_node=1", "comm.ranks_per_node=2",
                                        "comm.ranks_per_node=5"};
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
        struct world world;
        struct mt_costs costs;
        open_world(&world, nodes[i]);
        MT_TEST_OK(mt_costs_measure(&world.session, 2, &costs));
        expect_same_everywhere(&world, &costs);
        expect_sane(&costs);
        assert_int_equal(mt_exchange_is_measured(&costs), world.session.comm.topology.n_node > 1);
        if (world.session.comm.topology.n_node == 1 ||
            world.session.comm.topology.n_node == mt_job_size()) {
            assert_int_equal(costs.alpha_ps[MT_LEVEL_NODE], costs.alpha_ps[MT_LEVEL_NETWORK]);
            assert_int_equal(costs.kib_ps[MT_LEVEL_NODE], costs.kib_ps[MT_LEVEL_NETWORK]);
        }
        close_world(&world);
    }
}

static void a_paced_device_costs_exactly_what_it_imitates(void **state)
{
    static const char *const slow[] = {"device={pace_gflops=0.5}",
                                       "device={pace_gflops=0.5, slowdown={0=3.0}}"};
    MT_UNUSED(state);
    for (int i = 0; i < 2; i++) { /* a slowdown is not part of the costs */
        struct world world;
        struct mt_costs costs;
        open_world(&world, slow[i]);
        MT_TEST_OK(mt_costs_measure(&world.session, 2, &costs));
        const int64_t row_flops = 3 * 2 * WIDTH * INNER; /* as mt_expert_forward counts */
        assert_int_equal(costs.row_ps, mt_costs_quantise(row_flops * 2000));
        assert_int_equal(costs.instance_ps, 0); /* packing computes nothing */
        assert_true(costs.attention_ps > 2 * costs.row_ps);
        const int64_t two = costs.attention_ps;
        MT_TEST_OK(mt_costs_measure(&world.session, 4, &costs));
        assert_true(costs.attention_ps >= two + two / 2); /* four sequences instead of two */
        close_world(&world);
    }
}

static void a_device_that_is_paced_to_a_standstill_has_costs(void **state)
{
    struct world world;
    struct mt_costs costs;
    MT_UNUSED(state);
    open_world(&world, "device={pace_gflops=1e-300, pace_gbytes_per_s=1e-300}");
    MT_TEST_OK(mt_costs_measure(&world.session, 2, &costs));
    assert_in_range(costs.row_ps, 1, mt_costs_fields[0].most);
    assert_int_equal(costs.instance_ps, mt_costs_fields[1].most);
    assert_int_equal(costs.attention_ps, mt_costs_fields[2].most);
    close_world(&world);
}

static void bandwidth_makes_instances_cost_something(void **state)
{
    struct world world;
    struct mt_costs costs;
    MT_UNUSED(state);
    open_world(&world, "device={pace_gbytes_per_s=1.0}");
    MT_TEST_OK(mt_costs_measure(&world.session, 2, &costs));
    /* Packing reads and writes three matrices twice, and the first row reads them once. */
    const int64_t matrix_bytes = 4 * WIDTH * INNER;
    assert_true(costs.instance_ps >= 3 * 5 * matrix_bytes * 1000 * 9 / 10);
    close_world(&world);
}

static void costs_are_kept_as_long_as_the_run_is_the_same(void **state)
{
    struct world world;
    struct mt_costs first;
    struct mt_costs again;
    enum mt_costs_origin origin = MT_COSTS_FILE;
    int64_t kept[MT_COSTS_STATE] = {0};
    MT_UNUSED(state);
    open_world(&world, NULL);
    MT_TEST_OK(mt_costs_decide(&world.session, 2, kept, &first, &origin));
    assert_int_equal(origin, MT_COSTS_MEASURED);
    /* Numbers that no measurement gives, so that one would be seen. */
    enum { FIRST = MT_COSTS_STATE_EXCHANGE - MT_N_COSTS_FIELD };
    for (int i = FIRST; i < MT_COSTS_STATE; i++) {
        kept[i] = i < MT_COSTS_STATE_EXCHANGE ? 1234567 + i : 7 + i;
    }
    MT_TEST_OK(mt_costs_decide(&world.session, 2, kept, &again, &origin));
    assert_int_equal(origin, MT_COSTS_CHECKPOINT);
    assert_int_equal(again.row_ps, 1234567 + FIRST);
    assert_int_equal(again.kib_ps[MT_LEVEL_NETWORK], 1234567 + MT_COSTS_STATE_ALONE - 1);
    assert_int_equal(again.alone_kib_ps, 1234567 + MT_COSTS_STATE_ALONE);
    assert_int_equal(again.exchange_percent[0][0][0], 7 + MT_COSTS_STATE_EXCHANGE);
    assert_int_equal(
        again.exchange_percent[MT_EXCHANGE_HOT][MT_EXCHANGE_LEADER][MT_N_EXCHANGE_SIZE - 1],
        7 + MT_COSTS_STATE - 1);
    assert_int_equal(kept[MT_COSTS_STATE - 1], 7 + MT_COSTS_STATE - 1);
    /* a checkpoint from before there were these */
    memset(kept + MT_COSTS_STATE_ALONE, 0, (1 + MT_COSTS_PERCENTS) * sizeof(*kept));
    MT_TEST_OK(mt_costs_decide(&world.session, 2, kept, &again, &origin));
    assert_int_equal(origin, MT_COSTS_CHECKPOINT);
    assert_int_equal(again.alone_kib_ps, 0);
    assert_false(mt_exchange_is_measured(&again));
    MT_TEST_OK(mt_costs_decide(&world.session, 3, kept, &again, &origin)); /* larger micro-batch */
    assert_int_equal(origin, MT_COSTS_MEASURED);
    for (int bad = 0; bad <= 1; bad++) { /* what no program has written */
        kept[bad == 0 ? MT_COSTS_STATE_ALONE : MT_COSTS_STATE - 1] = -5;
        MT_TEST_OK(mt_costs_decide(&world.session, 3, kept, &again, &origin));
        assert_int_equal(origin, MT_COSTS_MEASURED);
    }
    kept[0]++; /* other ranks */
    MT_TEST_OK(mt_costs_decide(&world.session, 3, kept, &again, &origin));
    assert_int_equal(origin, MT_COSTS_MEASURED);
    assert_int_equal(kept[0], mt_job_size());
    close_world(&world);
}

/* Of one way there is nothing to learn; and what exchanges took is sane. */
static void exchanges_are_timed_where_there_is_a_choice(void **state)
{
    static const char *const to_all[] = {"comm={all_to_all=\"direct\", ranks_per_node=1}",
                                         "comm={all_to_all=\"auto\", ranks_per_node=1}"};
    MT_UNUSED(state);
    for (int is_auto = 0; is_auto <= 1; is_auto++) {
        struct world world;
        struct mt_costs costs;
        open_world(&world, to_all[is_auto]);
        const int64_t n_live = mt_memory_n_live();
        MT_TEST_OK(mt_costs_measure(&world.session, 2, &costs));
        assert_int_equal(mt_memory_n_live(), n_live);
        const int64_t *percent = &costs.exchange_percent[0][0][0];
        for (int i = 0; i < MT_COSTS_PERCENTS; i++) {
            const bool is_timed = is_auto == 1 && mt_job_size() > 1;
            assert_in_range(percent[i], is_timed ? 1 : 0, is_timed ? MT_COSTS_MOST_PERCENT : 0);
        }
        expect_same_everywhere(&world, &costs);
        close_world(&world);
    }
}

static void measuring_leaves_nothing_begun_and_nothing_allocated(void **state)
{
    struct world world;
    struct mt_costs costs;
    MT_UNUSED(state);
    open_world(&world, "device={slowdown={1=2.0}}");
    const int64_t n_live = mt_memory_n_live();
    MT_TEST_OK(mt_costs_measure(&world.session, 2, &costs));
    assert_int_equal(mt_memory_n_live(), n_live);
    assert_int_equal(world.session.comm.n_active, 0);
    assert_int_equal(world.session.device.pace_debt_ns, 0);
    close_world(&world);
}

static void the_device_of_a_session_advances_what_the_session_began(void **state)
{
    struct world world;
    struct mt_plan plan;
    struct mt_exec *exec = NULL;
    int64_t *block_bytes = NULL;
    char *buffer = NULL;
    bool done = false;
    enum { BLOCK = 1 << 20 };
    const int n_rank = mt_job_size();
    MT_UNUSED(state);
    open_world(&world, NULL);
    struct mt_comm *comm = &world.session.comm;
    MT_TEST_OK(MT_ALLOCATE(block_bytes, n_rank, "test"));
    MT_TEST_OK(MT_ALLOCATE(buffer, (int64_t)BLOCK * (n_rank + 1), "test"));
    for (int rank = 0; rank < n_rank; rank++) {
        block_bytes[rank] = BLOCK;
    }
    memset(buffer, 1 + comm->rank, BLOCK);
    MT_TEST_OK(mt_plan_init(&plan, mt_plan_allgatherv_max_op(n_rank)));
    MT_TEST_OK(mt_exec_create(comm, plan.max_op, &exec));
    mt_plan_allgatherv(&plan, &comm->topology, comm->rank, block_bytes);
    MT_TEST_OK(mt_exec_begin(exec, &plan, (void *[]){buffer, buffer + BLOCK, NULL}));
    while (world.session.device.idle(world.session.device.idle_context)) {
        (void)sched_yield();
    }
    const struct mt_transport_verbs *verbs = comm->transport->verbs;
    comm->transport->verbs = NULL; /* nothing may be left to do */
    MT_TEST_OK(mt_exec_poll(exec, &done));
    assert_true(done);
    comm->transport->verbs = verbs;
    MT_TEST_OK(mt_exec_end(exec));
    for (int rank = 0; rank < n_rank; rank++) {
        assert_int_equal(buffer[(int64_t)BLOCK * (rank + 2) - 1], 1 + rank);
    }
    mt_exec_destroy(exec);
    mt_plan_clear(&plan);
    mt_memory_free(buffer);
    mt_memory_free(block_bytes);
    close_world(&world);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(measured_costs_are_sane_and_the_same_on_all_ranks),
    cmocka_unit_test(a_paced_device_costs_exactly_what_it_imitates),
    cmocka_unit_test(a_device_that_is_paced_to_a_standstill_has_costs),
    cmocka_unit_test(bandwidth_makes_instances_cost_something),
    cmocka_unit_test(costs_are_kept_as_long_as_the_run_is_the_same),
    cmocka_unit_test(exchanges_are_timed_where_there_is_a_choice),
    cmocka_unit_test(measuring_leaves_nothing_begun_and_nothing_allocated),
    cmocka_unit_test(the_device_of_a_session_advances_what_the_session_began),
};

MT_TEST_MPI_MAIN(tests)
