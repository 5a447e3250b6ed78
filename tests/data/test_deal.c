/* Sequences dealt to ranks by cost: each once, numbers even, work as even as costs allow. */
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "data/deal.h"
#include "support/test.h"

#include <string.h>

enum { MAX_GLOBAL = 96, SEED = 5 };

static const struct mt_batch_split splits[] = {
    {1, 1, 1, 0},  {8, 2, 1, 0},  {8, 2, 2, 0},   {7, 1, 3, 0},   {5, 2, 8, 0},
    {96, 4, 6, 0}, {50, 3, 7, 0}, {33, 16, 2, 0}, {64, 2, 32, 0},
};
enum { N_SPLIT = sizeof(splits) / sizeof(splits[0]) };

/* Sums of squares of lengths that make up 512: from one document to many. */
static int64_t cost_of(int64_t sequence)
{
    int64_t left = 512;
    int64_t cost = 512 * 100;
    const uint64_t most = 1 + mt_random_u64(SEED, (uint64_t)sequence, 0) % 512;
    for (uint64_t i = 1; left > 0; ++i) {
        const int64_t length =
            mt_min_i64(left, 1 + (int64_t)(mt_random_u64(SEED, (uint64_t)sequence, i) % most));
        cost += length * length;
        left -= length;
    }
    return cost;
}

static void make(struct mt_deal *deal, const struct mt_batch_split *split)
{
    MT_TEST_OK(mt_deal_init(deal, split));
    for (int64_t i = 0; i < split->global_batch; ++i) {
        deal->cost[i] = cost_of(i);
    }
    mt_deal_plan(deal, split);
}

static int64_t cost_in(const struct mt_deal *deal, const int64_t *sequence, int64_t n)
{
    int64_t cost = 0;
    for (int64_t i = 0; i < n; ++i) {
        cost += deal->cost[sequence[i]];
    }
    return cost;
}

static void every_sequence_is_dealt_once_and_numbers_are_even(void **state)
{
    MT_UNUSED(state);
    for (int s = 0; s < N_SPLIT; ++s) {
        struct mt_batch_split split = splits[s];
        struct mt_deal deal;
        int n_seen[MAX_GLOBAL] = {0};
        int64_t n_own[MAX_GLOBAL] = {0};
        make(&deal, &split);
        for (int64_t micro = 0; micro < mt_batch_n_micro(&split); ++micro) {
            int64_t least = INT64_MAX;
            int64_t most = 0;
            for (split.rank = 0; split.rank < split.n_rank; ++split.rank) {
                int64_t sequence[MAX_GLOBAL];
                int64_t n = 0;
                mt_deal_micro(&deal, &split, micro, sequence, &n);
                for (int64_t i = 0; i < n; ++i) {
                    ++n_seen[sequence[i]];
                    assert_true(i == 0 || sequence[i] > sequence[i - 1]);
                }
                n_own[split.rank] += n;
                least = mt_min_i64(least, n);
                most = mt_max_i64(most, n);
            }
            assert_true(most <= split.micro_batch && most - least <= 1);
        }
        for (int r = 1; r < split.n_rank; ++r) {
            assert_in_range(n_own[r] - n_own[0] + 1, 0, 2);
        }
        for (int64_t i = 0; i < split.global_batch; ++i) {
            assert_int_equal(n_seen[i], 1);
        }
        mt_deal_clear(&deal);
    }
}

/* What the step lasts: in each micro-batch the ranks wait for the one with most. */
static int64_t duration(const struct mt_deal *deal, struct mt_batch_split split, bool by_cost)
{
    int64_t sum = 0;
    for (int64_t micro = 0; micro < mt_batch_n_micro(&split); ++micro) {
        int64_t most = 0;
        for (split.rank = 0; split.rank < split.n_rank; ++split.rank) {
            int64_t sequence[MAX_GLOBAL];
            int64_t first = 0;
            int64_t n = 0;
            if (by_cost) {
                mt_deal_micro(deal, &split, micro, sequence, &n);
            } else {
                mt_batch_micro(&split, micro, &first, &n);
                for (int64_t i = 0; i < n; ++i) {
                    sequence[i] = first + i;
                }
            }
            most = mt_max_i64(most, cost_in(deal, sequence, n));
        }
        sum += most;
    }
    return sum;
}

static void ranks_that_meet_have_alike_work(void **state)
{
    MT_UNUSED(state);
    const struct mt_batch_split split = {96, 4, 6, 0};
    struct mt_deal deal;
    int64_t whole = 0;
    make(&deal, &split);
    for (int64_t i = 0; i < split.global_batch; ++i) {
        whole += deal.cost[i];
    }
    const double even = (double)whole / split.n_rank;
    const double by_cost = (double)duration(&deal, split, true) / even;
    const double by_count = (double)duration(&deal, split, false) / even;
    print_message("a step lasts %.3f of an even one by cost, %.3f by count\n", by_cost, by_count);
    assert_true(by_cost < 1.02 && by_count > 1.2);
    mt_deal_clear(&deal);
}

/* Equal costs: ties go to the lower sequence and the lower rank, whatever qsort does. */
static void equal_costs_are_dealt_in_order(void **state)
{
    MT_UNUSED(state);
    struct mt_batch_split split = {6, 1, 3, 0};
    struct mt_deal deal;
    MT_TEST_OK(mt_deal_init(&deal, &split));
    mt_deal_plan(&deal, &split);
    for (int64_t i = 0; i < split.global_batch; ++i) {
        assert_int_equal(deal.cell[i], i);
    }
    mt_deal_clear(&deal);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_is_dealt_once_and_numbers_are_even),
        cmocka_unit_test(ranks_that_meet_have_alike_work),
        cmocka_unit_test(equal_costs_are_dealt_in_order),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed != 0 || mt_memory_n_live() != 0;
}
