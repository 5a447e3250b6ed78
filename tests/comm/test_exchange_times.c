/* What the all-to-alls take on a cluster of clockwork: who wins where, and whether the choice from
 * costs is that of the clock. */
#include "support/test.h"

#include "base/memory.h"
#include "comm/clockwork.h"
#include "comm/trial.h"
#include "placement/exchange.h"

enum { MAX_RANK = 64, N_WAY = 3 }; /* direct, two-level, leader, as mt_exchange_kind has them */
_Static_assert((int)N_WAY == (int)MT_EXCHANGE_DEDUPLICATED, "the exact ones come first");

/* Nodes on links of 1 Gbit/s and 200 us, shared memory of 4 GB/s and 2 us. */
static struct clockwork gigabit(const struct mt_topology *topology)
{
    return (struct clockwork){.topology = topology,
                              .inside_alpha_ps = 2000000,
                              .inside_byte_ps = 250,
                              .between_alpha_ps = 200000000,
                              .between_byte_ps = 8000};
}

/* Blocks of pair_bytes; hot: four times as large for rank 0. */
static void fill(int64_t *bytes, int n_rank, int64_t pair_bytes, bool is_hot)
{
    for (int i = 0; i < n_rank * n_rank; ++i) {
        bytes[i] = is_hot && i % n_rank == 0 ? 4 * pair_bytes : pair_bytes;
    }
}

static int64_t time_way(const struct clockwork *clockwork, enum mt_exchange_kind kind,
                        const int64_t *bytes)
{
    const struct mt_topology *topology = clockwork->topology;
    struct mt_plan plans[MAX_RANK];
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        int64_t received[MAX_RANK];
        for (int64_t peer = 0; peer < topology->n_rank; ++peer) {
            received[peer] = bytes[peer * topology->n_rank + rank];
        }
        struct mt_plan *plan = &plans[rank];
        if (kind == MT_EXCHANGE_DIRECT) {
            MT_TEST_OK(mt_plan_init(plan, mt_plan_alltoallv_direct_max_op(topology->n_rank)));
            mt_plan_alltoallv_direct(plan, topology, rank, bytes + (int64_t)rank * topology->n_rank,
                                     received);
        } else if (kind == MT_EXCHANGE_TWO_LEVEL) {
            MT_TEST_OK(mt_plan_init(plan, mt_plan_alltoallv_two_level_max_op(topology, rank)));
            mt_plan_alltoallv_two_level(plan, topology, rank, bytes);
        } else {
            MT_TEST_OK(mt_plan_init(plan, mt_plan_alltoallv_leader_max_op(topology, rank)));
            mt_plan_alltoallv_leader(plan, topology, rank, bytes);
        }
    }
    const int64_t ps = clockwork_ps(clockwork, plans);
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        mt_plan_clear(&plans[rank]);
    }
    return ps;
}

static void two_levels_take_two_thirds_of_direct_up_to_1_kib_on_8_by_8(void **state)
{
    static int64_t bytes[MAX_RANK * MAX_RANK];
    MT_UNUSED(state);
    struct mt_topology topology;
    MT_TEST_OK(mt_topology_init(&topology, 64, 8));
    const struct clockwork clockwork = gigabit(&topology);
    for (int64_t pair_bytes = 4; pair_bytes <= 1024; pair_bytes *= 2) {
        fill(bytes, 64, pair_bytes, false);
        const int64_t direct = time_way(&clockwork, MT_EXCHANGE_DIRECT, bytes);
        const int64_t two = time_way(&clockwork, MT_EXCHANGE_TWO_LEVEL, bytes);
        assert_true(2 * direct >= 3 * two);
    }
    mt_topology_clear(&topology);
}

/* Costs as ping-pong measures them: of all ranks at once, whose nodes usually have n_usual, and of
 * one rank a node. */
static struct mt_costs measured(const struct clockwork *clockwork, int n_usual)
{
    const int64_t kib_ps = 1024 * clockwork->between_byte_ps;
    return (struct mt_costs){
        .alpha_ps = {0, clockwork->inside_alpha_ps, clockwork->between_alpha_ps},
        .kib_ps = {0, 1024 * clockwork->inside_byte_ps,
                   clockwork->is_link_own ? kib_ps : kib_ps * n_usual},
        .alone_kib_ps = kib_ps};
}

/* There and back, as the choice is for both. */
static int64_t time_both(const struct clockwork *clockwork, enum mt_exchange_kind kind,
                         const int64_t *bytes)
{
    static int64_t back[MAX_RANK * MAX_RANK];
    const int n_rank = clockwork->topology->n_rank;
    for (int i = 0; i < n_rank * n_rank; ++i) {
        back[i] = bytes[i % n_rank * n_rank + i / n_rank];
    }
    return time_way(clockwork, kind, bytes) + time_way(clockwork, kind, back);
}

/* How much longer than the best takes what is chosen, in thousandths. */
static int64_t loss_of_choice(const struct clockwork *clockwork, const struct mt_cluster *cluster,
                              struct mt_arena *scratch, int64_t pair_bytes, bool is_hot)
{
    static int64_t bytes[MAX_RANK * MAX_RANK];
    int64_t ps[N_WAY];
    int64_t best = INT64_MAX;
    const struct mt_exchange_rows rows = {.n_row = bytes, .row_bytes = 1, .top_k = 1};
    fill(bytes, cluster->n_rank, pair_bytes, is_hot);
    for (int kind = 0; kind < N_WAY; ++kind) {
        ps[kind] = time_both(clockwork, (enum mt_exchange_kind)kind, bytes);
        best = ps[kind] < best ? ps[kind] : best;
    }
    const enum mt_exchange_kind chosen = mt_exchange_choose(cluster, &rows, false, scratch);
    const int64_t loss = (ps[chosen] - best) * 1000 / best;
    if (loss > 100) {
        print_message("%lld bytes%s: direct %.1f us, two-level %.1f, leader %.1f: %s\n",
                      (long long)pair_bytes, is_hot ? ", one rank hot" : "", (double)ps[0] * 1e-6,
                      (double)ps[1] * 1e-6, (double)ps[2] * 1e-6, mt_exchange_name(chosen));
    }
    return loss;
}

/* Even blocks and a hot rank, of all sizes. */
static int64_t worst_loss(const struct clockwork *clockwork, const struct mt_cluster *cluster,
                          struct mt_arena *scratch)
{
    int64_t worst = 0;
    for (int64_t pair_bytes = 64; pair_bytes <= 1 << 18; pair_bytes *= 4) {
        for (int is_hot = 0; is_hot <= 1; ++is_hot) {
            const int64_t loss =
                loss_of_choice(clockwork, cluster, scratch, pair_bytes, is_hot != 0);
            worst = loss > worst ? loss : worst;
        }
    }
    return worst;
}

/* What training does with costs of links (train/costs_exchange.c), by the clock. */
static void time_exchanges(const struct clockwork *clockwork, struct mt_cluster *cluster,
                           struct mt_arena *scratch)
{
    static int64_t bytes[MAX_RANK * MAX_RANK];
    const struct mt_exchange_rows rows = {.n_row = bytes, .row_bytes = 1, .top_k = 1};
    struct mt_costs costs = cluster->costs;
    for (int load = 0; load < MT_N_EXCHANGE_LOAD; ++load) {
        for (int size = 0; size < MT_N_EXCHANGE_SIZE; ++size) {
            (load == MT_EXCHANGE_HOT ? mt_trial_fill_hot : mt_trial_fill_even)(
                cluster->n_rank, mt_exchange_timed_bytes(size), bytes);
            for (int way = 0; way < N_WAY; ++way) {
                const enum mt_exchange_kind kind = (enum mt_exchange_kind)way;
                const int64_t priced_ps = mt_exchange_both_ps(cluster, kind, &rows, scratch);
                costs.exchange_percent[load][way][size] =
                    (100 * time_both(clockwork, kind, bytes) + priced_ps / 2) / priced_ps;
            }
        }
    }
    cluster->costs = costs;
}

/* nodes: ranks in each, up to a zero. */
static void check_choice(const int *nodes, int64_t alpha_ps, bool is_link_own)
{
    struct mt_topology topology;
    struct mt_cluster cluster;
    struct mt_arena scratch;
    int node[MAX_RANK];
    int n_rank = 0;
    for (int at = 0; nodes[at] > 0; ++at) {
        for (int i = 0; i < nodes[at]; ++i) {
            node[n_rank++] = at;
        }
    }
    MT_TEST_OK(mt_topology_init_nodes(&topology, n_rank, node));
    MT_TEST_OK(mt_cluster_init(&cluster, n_rank, node));
    MT_TEST_OK(mt_arena_init(&scratch, mt_exchange_scratch_bytes(n_rank), "test"));
    struct clockwork clockwork = gigabit(&topology);
    clockwork.between_alpha_ps = alpha_ps;
    clockwork.is_link_own = is_link_own;
    cluster.costs = measured(&clockwork, nodes[0]);
    const int64_t worst = worst_loss(&clockwork, &cluster, &scratch);
    print_message("%d ranks on %d nodes, a link a %s, alpha %lld us: within %.2f of the best\n",
                  n_rank, topology.n_node, is_link_own ? "rank" : "node",
                  (long long)(alpha_ps / 1000000), 1.0 + (double)worst / 1000.0);
    assert_true(worst <= 100);
    mt_arena_clear(&scratch);
    mt_cluster_clear(&cluster);
    mt_topology_clear(&topology);
}

/* Also where the ranks of a node share one link, which costs tell by what one rank takes alone. */
static void the_choice_is_within_a_tenth_of_the_best(void **state)
{
    enum { MAX_NODE = 9, N_SHAPE = 5, N_ALPHA = 5 };
    static const int nodes[N_SHAPE][MAX_NODE] = {
        {2, 2, 2, 2}, {4, 4, 4, 4}, {8, 8, 8, 8, 8, 8, 8, 8}, {2, 2, 1, 2}, {4, 3, 4, 4, 1}};
    static const int64_t alpha_ps[N_ALPHA] = {5000000, 20000000, 50000000, 200000000, 1000000000};
    MT_UNUSED(state);
    for (int shape = 0; shape < N_SHAPE; ++shape) {
        for (int i = 0; i < N_ALPHA; ++i) {
            check_choice(nodes[shape], alpha_ps[i], false);
            check_choice(nodes[shape], alpha_ps[i], true);
        }
    }
}

/* Links that are as they were measured, and one core for all ranks, of which nobody told the price
 * by links: it misses by more than half, and by what exchanges took the choice is right. */
static void what_exchanges_took_tells_of_a_core_that_all_ranks_share(void **state)
{
    enum { N_TURN = 3, MOST = 100, PLAIN = 500 };
    static const int64_t turn_ps[N_TURN] = {2000000, 10000000, 50000000};
    MT_UNUSED(state);
    struct mt_topology topology;
    struct mt_cluster cluster;
    struct mt_arena scratch;
    int64_t worst_plain = 0;
    MT_TEST_OK(mt_topology_init(&topology, 32, 4));
    MT_TEST_OK(mt_cluster_init(&cluster, 32, topology.node));
    MT_TEST_OK(mt_arena_init(&scratch, mt_exchange_scratch_bytes(32), "test"));
    for (int i = 0; i < N_TURN; ++i) {
        struct clockwork clockwork = gigabit(&topology);
        clockwork.between_alpha_ps = 20000000;
        clockwork.turn_ps = turn_ps[i];
        cluster.costs = measured(&clockwork, 4);
        const int64_t plain = worst_loss(&clockwork, &cluster, &scratch);
        time_exchanges(&clockwork, &cluster, &scratch);
        const int64_t timed = worst_loss(&clockwork, &cluster, &scratch);
        print_message("a message takes %lld us of the core: %.2f of the best by links, %.2f by "
                      "what exchanges took\n",
                      (long long)(turn_ps[i] / 1000000), 1.0 + (double)plain / 1000.0,
                      1.0 + (double)timed / 1000.0);
        assert_true(timed <= MOST);
        worst_plain = plain > worst_plain ? plain : worst_plain;
    }
    assert_true(worst_plain > PLAIN);
    mt_arena_clear(&scratch);
    mt_cluster_clear(&cluster);
    mt_topology_clear(&topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_levels_take_two_thirds_of_direct_up_to_1_kib_on_8_by_8),
        cmocka_unit_test(the_choice_is_within_a_tenth_of_the_best),
        cmocka_unit_test(what_exchanges_took_tells_of_a_core_that_all_ranks_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
