/* Choosing: from weights to chances, and from chances to tokens' experts. */
#include "placement/workload.h"

#include "base/random.h"
#include "placement/workload_internal.h"

#include <math.h>

enum {
    NEWTON_MOST = 100, /* five or six do unless nearly everything is chosen by all tokens */
    UNIT_BITS = 32     /* chances are in units of 2^-32 */
};

void mt_workload_shuffle(uint64_t seed, uint64_t stream, int n, int *order)
{
    for (int i = n - 1; i > 0; --i) {
        const int j = (int)(mt_random_u64(seed, stream, (uint64_t)i) % (uint64_t)(i + 1));
        const int kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

/* The sum is concave in c and below its tangent at 0, so that Newton's steps climb to the root and
 * never pass it. */
double mt_workload_solve(const double *w, const int *size, int n, double wanted)
{
    double sum = 0.0;
    for (int i = 0; i < n; ++i) {
        sum += w[i];
    }
    double c = wanted / sum;
    for (int step = 0; step < NEWTON_MOST; ++step) {
        double value = 0.0;
        double slope = 0.0;
        for (int i = 0; i < n; ++i) {
            if (w[i] > 0.0) {
                const double scale = size == NULL ? 1.0 : size[i];
                const double left = exp(-c * w[i] / scale);
                value += scale * (1.0 - left);
                slope += w[i] * left;
            }
        }
        if (wanted - value <= 1e-12 * wanted || slope <= 1e-280) {
            break;
        }
        c += (wanted - value) / slope;
    }
    return c;
}

/* chance [E] in units of 2^-32, each at most 1, together exactly K. */
static void fill_chance(const double *weight, int n_expert, int top_k, uint64_t *chance)
{
    const uint64_t one = (uint64_t)1 << UNIT_BITS;
    const double c = mt_workload_solve(weight, NULL, n_expert, top_k);
    uint64_t missing = (uint64_t)top_k << UNIT_BITS; /* wraps where there is too much */
    for (int e = 0; e < n_expert; ++e) {
        chance[e] = (uint64_t)(-expm1(-c * weight[e]) * (double)one);
        missing -= chance[e];
    }
    /* Rounding leaves a few units, which the first experts take; more only where nearly all experts
     * are chosen always, and then no expert has room for much. */
    for (int e = 0; e < n_expert && missing != 0; ++e) {
        const bool is_short = missing <= (uint64_t)INT64_MAX;
        const uint64_t room = weight[e] > 0.0 ? one - chance[e] : 0;
        const uint64_t step = is_short ? (missing < room ? missing : room)
                                       : (0 - missing < chance[e] ? 0 - missing : chance[e]);
        chance[e] = is_short ? chance[e] + step : chance[e] - step;
        missing = is_short ? missing - step : missing + step;
    }
    MT_ASSERT(missing == 0); /* at least K experts have a weight */
}

/* Systematic sampling (Madow 1949): experts as intervals on a line, as long as they are likely; one
 * random offset in [0, 1) and the points at offset + 0 .. K - 1 pick K of them. No interval is
 * longer than 1, so they differ; each is met exactly as often as it is likely. The order on the
 * line is shuffled so that neighbours, of one rank, may be picked together. */
void mt_workload_choose(const double *weight, int n_expert, int top_k,
                        const struct mt_workload_tokens *tokens, struct mt_arena *scratch,
                        int32_t *expert)
{
    const int64_t mark = mt_arena_mark(scratch);
    uint64_t *chance = mt_workload_cut(scratch, n_expert, sizeof(*chance));
    uint64_t *end = mt_workload_cut(scratch, n_expert, sizeof(*end)); /* of each interval */
    int *order = mt_workload_cut(scratch, n_expert, sizeof(*order));
    uint64_t sum = 0;
    MT_ASSERT(top_k >= 1 && top_k <= n_expert && tokens->n >= 0);
    fill_chance(weight, n_expert, top_k, chance);
    for (int e = 0; e < n_expert; ++e) {
        order[e] = e;
    }
    mt_workload_shuffle(tokens->seed, mt_random_u64(tokens->seed, tokens->stream, 0), n_expert,
                        order);
    for (int i = 0; i < n_expert; ++i) {
        sum += chance[order[i]];
        end[i] = sum;
    }
    const uint64_t offsets = mt_random_u64(tokens->seed, tokens->stream, 1);
    for (int64_t token = 0; token < tokens->n; ++token) {
        const uint64_t random =
            mt_random_u64(tokens->seed, offsets, (uint64_t)(tokens->first + token));
        uint64_t point = random >> (64 - UNIT_BITS);
        int from = 0;
        for (int k = 0; k < top_k; ++k, point += (uint64_t)1 << UNIT_BITS) {
            int low = from; /* the first interval that ends beyond the point */
            for (int n = n_expert - from; n > 0;) {
                const bool is_beyond = end[low + n / 2] > point;
                low = is_beyond ? low : low + n / 2 + 1;
                n = is_beyond ? n / 2 : n - n / 2 - 1;
            }
            expert[token * top_k + k] = order[low];
            from = low + 1;
        }
    }
    mt_arena_release(scratch, mark);
}

void mt_workload_counts(const double *weight, int n_expert, int top_k, int64_t n_token,
                        struct mt_arena *scratch, int64_t *count)
{
    const int64_t mark = mt_arena_mark(scratch);
    const uint64_t one = (uint64_t)1 << UNIT_BITS;
    uint64_t *chance = mt_workload_cut(scratch, n_expert, sizeof(*chance));
    uint64_t sum = 0;
    int64_t before = 0;
    MT_ASSERT(n_token >= 0 && n_token <= UINT32_MAX); /* so that the product below fits */
    fill_chance(weight, n_expert, top_k, chance);
    for (int e = 0; e < n_expert; ++e) {
        sum += chance[e];
        const uint64_t product = (sum % one) * (uint64_t)n_token;
        const int64_t rows =
            (int64_t)(sum >> UNIT_BITS) * n_token + (int64_t)((product + one / 2) >> UNIT_BITS);
        count[e] = rows - before;
        before = rows;
    }
    mt_arena_release(scratch, mark);
}
