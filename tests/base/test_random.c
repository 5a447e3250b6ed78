#include "support/test.h"

#include "base/random.h"
#include "support/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check_block(const uint32_t key[2], const uint32_t counter[4], const uint32_t want[4])
{
    uint32_t got[4];
    mt_random_block((uint64_t)key[1] << 32 | key[0], (uint64_t)counter[3] << 32 | counter[2],
                    (uint64_t)counter[1] << 32 | counter[0], got);
    assert_memory_equal(got, want, sizeof(got));
}

/* The known answers that the authors publish with Random123 (philox4x32, 10 rounds). */
static void philox_gives_the_published_answers(void **state)
{
    MT_UNUSED(state);
    check_block((const uint32_t[2]){0, 0}, (const uint32_t[4]){0, 0, 0, 0},
                (const uint32_t[4]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    check_block((const uint32_t[2]){~0U, ~0U}, (const uint32_t[4]){~0U, ~0U, ~0U, ~0U},
                (const uint32_t[4]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    check_block((const uint32_t[2]){0xa4093822, 0x299f31d0},
                (const uint32_t[4]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                (const uint32_t[4]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void uniform_variates_fill_the_unit_interval(void **state)
{
    MT_UNUSED(state);
    enum { N = 100000, N_BIN = 10 };
    int count[N_BIN] = {0};
    for (uint64_t i = 0; i < N; ++i) {
        const double u = mt_random_uniform(5, 6, i);
        assert_true(u >= 0.0 && u < 1.0);
        ++count[(int)(u * N_BIN)];
    }
    for (int bin = 0; bin < N_BIN; ++bin) {
        /* 5 standard deviations of a binomial count: sqrt(N * 0.1 * 0.9) = 95 */
        assert_true(abs(count[bin] - N / N_BIN) < 475);
    }
}

static void normal_variates_have_the_moments_of_a_normal(void **state)
{
    MT_UNUSED(state);
    enum { N = 200000 };
    double moment[5] = {0.0};
    double neighbours = 0.0;
    double before = 0.0;
    for (uint64_t i = 0; i < N; ++i) {
        const double z = mt_random_normal(1, 2, i);
        assert_true(isfinite(z));
        neighbours += z * before / N;
        before = z;
        for (int p = 1; p <= 4; ++p) {
            moment[p] += pow(z, p) / N;
        }
    }
    /* 5 standard deviations: sqrt(var(z^p) / N) is 0.0022, 0.0032, 0.0087, 0.0219 */
    assert_true(fabs(moment[1]) < 0.012);
    assert_true(fabs(moment[2] - 1.0) < 0.016);
    assert_true(fabs(moment[3]) < 0.044);
    assert_true(fabs(moment[4] - 3.0) < 0.11);
    assert_true(fabs(neighbours) < 0.012);
}

static void a_stream_may_be_cut_anywhere(void **state)
{
    MT_UNUSED(state);
    enum { N = 101 };
    const uint64_t first = ((uint64_t)1 << 33) + 1;
    float whole[N];
    float parts[N];
    mt_random_fill_normal(9, 4, first, N, 0.02F, whole);
    for (int64_t cut = 0; cut <= N; ++cut) {
        memset(parts, 0, sizeof(parts));
        mt_random_fill_normal(9, 4, first, cut, 0.02F, parts);
        mt_random_fill_normal(9, 4, first + (uint64_t)cut, N - cut, 0.02F, parts + cut);
        MT_TEST_SAME_BITS(parts, whole, N);
    }
    for (uint64_t i = 0; i < N; ++i) {
        const float single = (float)((double)0.02F * mt_random_normal(9, 4, first + i));
        MT_TEST_SAME_BITS(&single, &whole[i], 1);
    }
}

static void keys_streams_and_indices_differ(void **state)
{
    MT_UNUSED(state);
    const uint64_t value = mt_random_u64(1, 1, 1);
    assert_true(value != mt_random_u64(2, 1, 1));
    assert_true(value != mt_random_u64(1, 2, 1));
    assert_true(value != mt_random_u64(1, 1, 2));
    assert_true(value != mt_random_u64(1, 1, (uint64_t)1 << 32 | 1));
    /* FNV-1a of the empty word and of "a", from the authors' page */
    assert_true(mt_random_stream("") == 0xcbf29ce484222325U);
    assert_true(mt_random_stream("a") == 0xaf63dc4c8601ec8cU);
}

static void a_permutation_visits_everything_once(void **state)
{
    MT_UNUSED(state);
    enum { N_MAX = 5000 };
    static bool is_seen[N_MAX];
    for (uint64_t n = 1; n <= N_MAX; n = n < 70 ? n + 1 : n * 5 / 3) {
        for (uint64_t key = 0; key < 3; ++key) {
            memset(is_seen, 0, sizeof(is_seen));
            for (uint64_t i = 0; i < n; ++i) {
                const uint64_t to = mt_random_permute(key, 11, i, n);
                assert_true(to < n);
                assert_false(is_seen[to]);
                is_seen[to] = true;
            }
        }
    }
}

static void a_permutation_of_a_huge_range_stays_in_it(void **state)
{
    MT_UNUSED(state);
    const uint64_t n = ((uint64_t)1 << 62) - 3;
    for (uint64_t i = 0; i < 100; ++i) {
        assert_true(mt_random_permute(1, 1, n - 1 - i, n) < n);
    }
    assert_true(mt_random_permute(1, 1, 5, n) != mt_random_permute(1, 1, 6, n));
}

/* Over many keys every element comes to every place equally often, small ranges included: chi
 * squared over n * n cells, against its mean plus 6 standard deviations. */
static void permutations_are_even_over_keys(void **state)
{
    MT_UNUSED(state);
    enum { N_KEY = 4000, N_MAX = 33 };
    for (uint64_t n = 2; n <= N_MAX; ++n) {
        int count[N_MAX][N_MAX] = {{0}};
        for (uint64_t key = 0; key < N_KEY; ++key) {
            for (uint64_t i = 0; i < n; ++i) {
                ++count[i][mt_random_permute(key, 3, i, n)];
            }
        }
        const double expected = (double)N_KEY / (double)n;
        double chi = 0.0;
        for (uint64_t i = 0; i < n; ++i) {
            for (uint64_t j = 0; j < n; ++j) {
                chi += pow((double)count[i][j] - expected, 2.0) / expected;
            }
        }
        const double freedom = (double)((n - 1) * (n - 1));
        const double bound = freedom + 6.0 * sqrt(2.0 * freedom);
        if (chi > bound) {
            fail_msg("n = %d: chi squared %.1f > %.1f", (int)n, chi, bound);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(uniform_variates_fill_the_unit_interval),
        cmocka_unit_test(normal_variates_have_the_moments_of_a_normal),
        cmocka_unit_test(a_stream_may_be_cut_anywhere),
        cmocka_unit_test(keys_streams_and_indices_differ),
        cmocka_unit_test(a_permutation_visits_everything_once),
        cmocka_unit_test(a_permutation_of_a_huge_range_stays_in_it),
        cmocka_unit_test(permutations_are_even_over_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
