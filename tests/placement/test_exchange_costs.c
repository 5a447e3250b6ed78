/* What all-to-alls cost, by hand, and which one is chosen. */
#include "support/test.h"

#include "base/size.h"
#include "placement/exchange.h"

#include <string.h>

enum { MAX_RANK = 64 };

struct machine {
    struct mt_cluster cluster;
    struct mt_arena scratch;
    int64_t n_row[MAX_RANK * MAX_RANK];
};

static void make(struct machine *machine, int n_rank, const int *node)
{
    MT_TEST_OK(mt_cluster_init(&machine->cluster, n_rank, node));
    MT_TEST_OK(mt_arena_init(&machine->scratch, mt_exchange_scratch_bytes(n_rank), "test"));
    memset(machine->n_row, 0, sizeof(machine->n_row));
}

static void make_even(struct machine *machine, int n_rank, int per_node, int64_t pair_rows)
{
    int node[MAX_RANK];
    for (int rank = 0; rank < n_rank; ++rank) {
        node[rank] = rank / per_node;
    }
    make(machine, n_rank, node);
    for (int i = 0; i < n_rank * n_rank; ++i) {
        machine->n_row[i] = pair_rows;
    }
}

static void clear(struct machine *machine)
{
    mt_cluster_clear(&machine->cluster);
    mt_arena_clear(&machine->scratch);
}

static int64_t price(struct machine *machine, enum mt_exchange_kind kind, int64_t row_bytes,
                     bool is_back)
{
    const struct mt_exchange_rows rows = {
        .n_row = machine->n_row, .row_bytes = row_bytes, .top_k = 2};
    const int64_t ps = mt_exchange_ps(&machine->cluster, kind, &rows, is_back, &machine->scratch);
    assert_int_equal(mt_arena_mark(&machine->scratch), 0);
    return ps;
}

static enum mt_exchange_kind choose(struct machine *machine, int64_t row_bytes,
                                    bool sums_may_differ)
{
    const struct mt_exchange_rows rows = {
        .n_row = machine->n_row, .row_bytes = row_bytes, .top_k = 8};
    return mt_exchange_choose(&machine->cluster, &rows, sums_may_differ, &machine->scratch);
}

/* A message inside a node 7 + 1 per KiB, between nodes 20 + 4 per KiB. */
static const struct mt_costs costs = {.alpha_ps = {0, 7, 20}, .kib_ps = {0, 1, 4}};

/* 2 nodes of 2, rows of 1 KiB, 3 rows a pair. */
static void costs_are_those_of_the_formulas(void **state)
{
    MT_UNUSED(state);
    struct machine machine;
    make_even(&machine, 4, 2, 3);
    machine.cluster.costs = costs;
    for (int back = 0; back <= 1; ++back) {
        /* two messages of 3 rows between nodes: the second comes in under the first's alpha */
        assert_int_equal(price(&machine, MT_EXCHANGE_DIRECT, 1024, back), 2 * 20 + 3 * 4);
        /* 3 rows handed over; one message of 6 rows */
        assert_int_equal(price(&machine, MT_EXCHANGE_TWO_LEVEL, 1024, back), 7 + 3 + 20 + 6 * 4);
        /* 6 rows to the leader beside 3 that are for it; 12 rows; 6 rows from the leader */
        assert_int_equal(price(&machine, MT_EXCHANGE_LEADER, 1024, back),
                         2 * 7 + 9 / 2 + 20 + 12 * 4 + 7 + 6);
        /* 6 of a source's 12 rows, 2 a token: 6 (1 - 1/4) = 4.5 of its 6 tokens; then 3 rows from
         * the worker and 3 straight ones leave by the same port */
        assert_int_equal(price(&machine, MT_EXCHANGE_DEDUPLICATED, 1024, back),
                         20 + 5 * 4 + 2 * 7 + 3);
    }
    clear(&machine);
}

/* The same machine where a rank has twice the rate when its node's other is silent: they share one
 * link. Rank 2 is the only one that receives; then rank 3 does as well. */
static void a_shared_link_costs_one_rank_less_than_two(void **state)
{
    MT_UNUSED(state);
    struct machine machine;
    make_even(&machine, 4, 2, 0);
    machine.cluster.costs = costs;
    machine.n_row[0 * 4 + 2] = 3;
    machine.n_row[1 * 4 + 2] = 3;
    assert_int_equal(price(&machine, MT_EXCHANGE_DIRECT, 1024, false), 2 * 20 + 3 * 4);
    machine.cluster.costs.alone_kib_ps = 2;
    assert_int_equal(price(&machine, MT_EXCHANGE_DIRECT, 1024, false), 2 * 20 + 3 * 2);
    machine.n_row[0 * 4 + 3] = 3;
    machine.n_row[1 * 4 + 3] = 3;
    /* a message of the other comes between */
    assert_int_equal(price(&machine, MT_EXCHANGE_DIRECT, 1024, false), 2 * 20 + 3 * 2 + 3 * 2);
    /* beyond alphas the link decides, whoever it serves */
    assert_int_equal(price(&machine, MT_EXCHANGE_DIRECT, 1 << 20, false), 20 + 12 * 1024 * 2);
    clear(&machine);
}

static void nothing_to_send_costs_nothing(void **state)
{
    MT_UNUSED(state);
    struct machine machine;
    make_even(&machine, 8, 3, 0);
    machine.cluster.costs = costs;
    for (int kind = 0; kind < MT_N_EXCHANGE; ++kind) {
        assert_int_equal(price(&machine, (enum mt_exchange_kind)kind, 1024, false), 0);
    }
    assert_int_equal(choose(&machine, 1024, true), MT_EXCHANGE_DIRECT);
    clear(&machine);
}

/* A link of 1 Gbit/s and 50 us, shared memory of 4 GB/s and 2 us. */
static void small_messages_go_by_two_levels_and_large_ones_straight(void **state)
{
    MT_UNUSED(state);
    struct machine machine;
    make_even(&machine, 64, 8, 1);
    machine.cluster.costs =
        (struct mt_costs){.alpha_ps = {0, 2000000, 50000000}, .kib_ps = {0, 250000, 8192000}};
    assert_int_equal(choose(&machine, 64, false), MT_EXCHANGE_TWO_LEVEL);
    assert_int_equal(choose(&machine, 1024, false), MT_EXCHANGE_TWO_LEVEL);
    assert_int_equal(choose(&machine, 1 << 20, false), MT_EXCHANGE_DIRECT);
    const int64_t direct = price(&machine, MT_EXCHANGE_DIRECT, 1024, false);
    assert_true(2 * direct >= 3 * price(&machine, MT_EXCHANGE_TWO_LEVEL, 1024, false));
    clear(&machine);
}

static void deduplication_is_chosen_only_where_sums_may_differ(void **state)
{
    MT_UNUSED(state);
    struct machine machine;
    make_even(&machine, 16, 4, 64);
    machine.cluster.costs =
        (struct mt_costs){.alpha_ps = {0, 2000000, 50000000}, .kib_ps = {0, 250000, 8192000}};
    assert_int_equal(choose(&machine, 4096, true), MT_EXCHANGE_DEDUPLICATED);
    assert_true(choose(&machine, 4096, false) != MT_EXCHANGE_DEDUPLICATED);
    clear(&machine);
}

static void one_node_goes_straight(void **state)
{
    MT_UNUSED(state);
    struct machine machine;
    make_even(&machine, 8, 8, 4);
    machine.cluster.costs = costs;
    assert_int_equal(choose(&machine, 4, true), MT_EXCHANGE_DIRECT);
    clear(&machine);
}

/* Uneven nodes in any numbering: the price is defined, and never below what must cross. */
static void uneven_nodes_have_a_price(void **state)
{
    static const int node[7] = {0, 1, 1, 0, 1, 2, 1};
    MT_UNUSED(state);
    struct machine machine;
    make(&machine, 7, node);
    machine.cluster.costs = costs;
    for (int i = 0; i < 49; ++i) {
        machine.n_row[i] = i * 5 % 11;
    }
    for (int back = 0; back <= 1; ++back) {
        const int64_t direct = price(&machine, MT_EXCHANGE_DIRECT, 1024, back);
        for (int kind = MT_EXCHANGE_TWO_LEVEL; kind <= MT_EXCHANGE_LEADER; ++kind) {
            assert_true(price(&machine, (enum mt_exchange_kind)kind, 1024, back) > 0);
        }
        assert_true(direct > 0);
    }
    clear(&machine);
}

static void expected_tokens_lie_between_all_alike_and_all_different(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(mt_exchange_n_token(0, 0, 8), 0);
    assert_int_equal(mt_exchange_n_token(0, 80, 8), 0);
    assert_int_equal(mt_exchange_n_token(80, 80, 8), 10); /* all rows: all tokens */
    assert_int_equal(mt_exchange_n_token(5, 100, 1), 5);  /* one row a token */
    for (int64_t n = 1; n <= 8000; n += 13) {
        const int64_t n_token = mt_exchange_n_token(n, 8000, 8);
        assert_true(n_token * 8 >= n && n_token <= n && n_token <= 1000);
    }
    /* a quarter of the rows at 8 a token: 1 - .75^8 = .9 of 1000 */
    const int64_t quarter = mt_exchange_n_token(2000, 8000, 8);
    assert_true(quarter >= 899 && quarter <= 902);
}

static int64_t percent(const struct machine *machine, enum mt_exchange_kind kind)
{
    const struct mt_exchange_rows rows = {.n_row = machine->n_row, .row_bytes = 1, .top_k = 1};
    return mt_exchange_percent(&machine->cluster, kind, &rows);
}

/* 4 ranks: `hot` bytes of every other one to rank 0, `cold` between all others. */
static void fill(struct machine *machine, int64_t hot, int64_t cold)
{
    for (int i = 0; i < 4 * 4; ++i) {
        machine->n_row[i] = i % 4 == 0 ? hot : cold;
    }
}

static void percents_lie_between_those_of_the_loads_that_were_timed(void **state)
{
    MT_UNUSED(state);
    static const struct mt_costs measured = {
        .exchange_percent = {{{100, 200, 300, 400}, {110, 210, 310, 410}, {120, 220, 320, 420}},
                             {{500, 600, 700, 800}, {510, 610, 710, 810}, {520, 620, 720, 820}}}};
    static const struct {
        int64_t hot, cold, percent;
    } cases[] = {{0, 0, 100},
                 {8, 8, 100},
                 {64, 64, 100},
                 {256, 256, 150},
                 {1024, 1024, 200},
                 {2048, 2048, 250},
                 {1 << 20, 1 << 20, 400},
                 {64, 0, 500},
                 {1024, 0, 600},
                 {1 << 20, 0, 800}, /* all to rank 0, four times the mean */
                 /* 2.5 times the mean is half as hot; between nodes 64 and 256 bytes a pair */
                 {160, 32, 300},
                 {640, 128, 350}};
    struct machine machine;
    make_even(&machine, 4, 2, 0);
    assert_int_equal(percent(&machine, MT_EXCHANGE_LEADER), 100); /* nothing was measured */
    machine.cluster.costs = measured;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        fill(&machine, cases[i].hot, cases[i].cold);
        assert_int_equal(percent(&machine, MT_EXCHANGE_DIRECT), cases[i].percent);
        assert_int_equal(percent(&machine, MT_EXCHANGE_TWO_LEVEL), cases[i].percent + 10);
        assert_int_equal(percent(&machine, MT_EXCHANGE_DEDUPLICATED), cases[i].percent + 10);
        assert_int_equal(percent(&machine, MT_EXCHANGE_LEADER), cases[i].percent + 20);
    }
    clear(&machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_those_of_the_formulas),
        cmocka_unit_test(a_shared_link_costs_one_rank_less_than_two),
        cmocka_unit_test(nothing_to_send_costs_nothing),
        cmocka_unit_test(small_messages_go_by_two_levels_and_large_ones_straight),
        cmocka_unit_test(deduplication_is_chosen_only_where_sums_may_differ),
        cmocka_unit_test(one_node_goes_straight),
        cmocka_unit_test(uneven_nodes_have_a_price),
        cmocka_unit_test(percents_lie_between_those_of_the_loads_that_were_timed),
        cmocka_unit_test(expected_tokens_lie_between_all_alike_and_all_different),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
