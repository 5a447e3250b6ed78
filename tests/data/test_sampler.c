#include "base/memory.h"
#include "data/mixture.h"
#include "data/sampler.h"
#include "support/test.h"

#include <string.h>

static void every_window_comes_once_an_epoch(void **state)
{
    MT_UNUSED(state);
    enum { MAX_WINDOWS = 70 };
    for (int64_t n = 1; n <= MAX_WINDOWS; ++n) {
        for (int64_t epoch = 0; epoch < 4; ++epoch) {
            int n_seen[MAX_WINDOWS] = {0};
            for (int64_t i = 0; i < n; ++i) {
                const int64_t window = mt_sampler_window(11, n, epoch * n + i);
                assert_in_range(window, 0, n - 1);
                ++n_seen[window];
            }
            for (int64_t w = 0; w < n; ++w) {
                assert_int_equal(n_seen[w], 1);
            }
        }
    }
}

/* How many of the first n sequences agree in two orders. */
static int n_equal(uint64_t seed_a, int64_t first_a, uint64_t seed_b, int64_t first_b, int64_t n)
{
    int equal = 0;
    for (int64_t i = 0; i < n; ++i) {
        equal +=
            mt_sampler_window(seed_a, n, first_a + i) == mt_sampler_window(seed_b, n, first_b + i);
    }
    return equal;
}

static void epochs_and_seeds_have_orders_of_their_own(void **state)
{
    MT_UNUSED(state);
    enum { N = 1000 };
    int in_place = 0;
    assert_int_equal(n_equal(1, 0, 1, 0, N), N);
    assert_true(n_equal(1, 0, 1, N, N) < 20); /* one is expected by chance */
    assert_true(n_equal(1, 0, 2, 0, N) < 20);
    for (int64_t i = 0; i < N; ++i) {
        in_place += mt_sampler_window(1, N, i) == i;
    }
    assert_true(in_place < 20);
}

static void an_endless_corpus_needs_no_order(void **state)
{
    MT_UNUSED(state);
    assert_true(mt_sampler_window(3, INT64_MAX, 12345) == 12345);
    assert_true(mt_sampler_window(3, INT64_MAX, INT64_MAX - 1) == INT64_MAX - 1);
    /* sizes beyond 2^31 stay in range */
    const int64_t large = (int64_t)5 << 40;
    assert_in_range(mt_sampler_window(3, large, large - 1), 0, large - 1);
    assert_in_range(mt_sampler_window(3, large, 7 * large + 3), 0, large - 1);
}

/* One rank's micro-batches follow each other from *next on; returns its share. */
static int64_t walk_share(const struct mt_batch_split *split, int64_t *next)
{
    int64_t share = 0;
    for (int64_t m = 0; m < mt_batch_n_micro(split); ++m) {
        int64_t first = 0;
        int64_t n = 0;
        mt_batch_micro(split, m, &first, &n);
        assert_in_range(n, 0, split->micro_batch);
        assert_int_equal(first, *next);
        *next += n;
        share += n;
    }
    return share;
}

static void expect_cover(int64_t global, int n_rank, int64_t micro)
{
    int64_t next = 0;
    int64_t least = global;
    int64_t most = 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        const struct mt_batch_split split = {global, micro, n_rank, rank};
        const int64_t share = walk_share(&split, &next);
        least = share < least ? share : least;
        most = share > most ? share : most;
    }
    assert_int_equal(next, global);
    assert_true(most - least <= 1);
}

static void shares_and_micro_batches_cover_the_global_batch_once(void **state)
{
    MT_UNUSED(state);
    for (int64_t global = 1; global <= 20; ++global) {
        for (int n_rank = 1; n_rank <= 9; ++n_rank) {
            for (int64_t micro = 1; micro <= 5; ++micro) {
                expect_cover(global, n_rank, micro);
            }
        }
    }
}

static void eight_sequences_on_three_ranks_are_three_three_two(void **state)
{
    MT_UNUSED(state);
    static const int64_t want[3][2][2] = {
        {{0, 2}, {2, 1}}, {{3, 2}, {5, 1}}, {{6, 2}, {8, 0}}}; /* [rank][micro] first, n */
    for (int rank = 0; rank < 3; ++rank) {
        const struct mt_batch_split split = {8, 2, 3, rank};
        assert_int_equal(mt_batch_n_micro(&split), 2);
        for (int64_t m = 0; m < 2; ++m) {
            int64_t first = -1;
            int64_t n = -1;
            mt_batch_micro(&split, m, &first, &n);
            assert_int_equal(first, want[rank][m][0]);
            assert_int_equal(n, want[rank][m][1]);
        }
    }
}

/* A step's tokens put together from the micro-batches of all ranks, token [global, T]. */
static void gather_step(const struct mt_mixture *data, int64_t sequence, int64_t global, int n_rank,
                        int64_t micro, int64_t length, int32_t *token, int32_t *target)
{
    for (int rank = 0; rank < n_rank; ++rank) {
        const struct mt_batch_split split = {global, micro, n_rank, rank};
        for (int64_t m = 0; m < mt_batch_n_micro(&split); ++m) {
            int64_t first = 0;
            int64_t n = 0;
            mt_batch_micro(&split, m, &first, &n);
            int64_t own[64];
            assert_true(n <= 64);
            for (int64_t i = 0; i < n; ++i) {
                own[i] = first + i;
            }
            MT_TEST_OK(mt_mixture_fill(data, 9, sequence, own, n, token + first * length,
                                       target + first * length, NULL));
        }
    }
}

static void the_stream_does_not_depend_on_ranks_or_batch_size(void **state)
{
    MT_UNUSED(state);
    enum { LENGTH = 5, N = 24 };
    static int32_t want[2][N * LENGTH];
    static int32_t got[2][N * LENGTH];
    struct mt_path_list *none = NULL;
    struct mt_mixture *data = NULL;
    static const struct mt_real_list no_weights;
    const struct mt_corpus_options options = {
        .format = MT_DATA_RANDOM, .vocab_size = 1000, .length = LENGTH, .seed = 4};
    MT_TEST_OK(MT_ALLOCATE(none, 1, "paths"));
    MT_TEST_OK(mt_mixture_open(none, &no_weights, &options, &data));
    gather_step(data, 0, N, 1, N, LENGTH, want[0], want[1]);
    for (int n_rank = 1; n_rank <= 8; ++n_rank) {
        for (int64_t global = 1; global <= N; ++global) {
            if (N % global != 0) {
                continue;
            }
            memset(got, -1, sizeof(got));
            for (int64_t s = 0; s < N; s += global) {
                gather_step(data, s, global, n_rank, 1 + n_rank % 3, LENGTH, got[0] + s * LENGTH,
                            got[1] + s * LENGTH);
            }
            assert_memory_equal(got, want, sizeof(want));
        }
    }
    mt_mixture_close(data);
    mt_memory_free(none);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_window_comes_once_an_epoch),
        cmocka_unit_test(epochs_and_seeds_have_orders_of_their_own),
        cmocka_unit_test(an_endless_corpus_needs_no_order),
        cmocka_unit_test(shares_and_micro_batches_cover_the_global_batch_once),
        cmocka_unit_test(eight_sequences_on_three_ranks_are_three_three_two),
        cmocka_unit_test(the_stream_does_not_depend_on_ranks_or_batch_size),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed != 0 || mt_memory_n_live() != 0;
}
