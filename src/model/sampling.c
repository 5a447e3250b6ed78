#include "model/sampling.h"

#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "base/sort.h"

#include <math.h>
#include <string.h>

enum mt_status mt_sampler_init(struct mt_sampler *sampler, const struct mt_sampling *sampling,
                               int64_t vocab)
{
    MT_ASSERT(vocab >= 1 && vocab <= INT32_MAX && sampling->temperature >= 0.0);
    MT_ASSERT(sampling->top_k >= 0 && sampling->top_p > 0.0 && sampling->top_p <= 1.0);
    *sampler = (struct mt_sampler){.sampling = *sampling, .vocab = vocab};
    return MT_ALLOCATE(sampler->candidate, vocab, "candidates for the next token");
}

void mt_sampler_clear(struct mt_sampler *sampler)
{
    mt_memory_free(sampler->candidate);
    memset(sampler, 0, sizeof(*sampler));
}

/* Ascending keys are falling logits, ties to the lower id: the bits of a float, turned so that they
 * are ordered as numbers, above the id. */
static int64_t key_of(float logit, int64_t id)
{
    const float value = logit + 0.0F; /* a negative zero becomes the other */
    int32_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    const int64_t rising = bits >= 0 ? bits : -(int64_t)(bits & INT32_MAX);
    return -rising * ((int64_t)1 << 32) + id;
}

static int32_t id_of(int64_t key)
{
    return (int32_t)(key & (int64_t)UINT32_MAX);
}

/* How many of the first n candidates, likeliest first, reach top_p of their probability. */
static int64_t reach(const struct mt_sampler *sampler, const float *logits, int64_t n)
{
    const double temperature = sampler->sampling.temperature;
    const double largest = (double)logits[id_of(sampler->candidate[0])];
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        total += exp(((double)logits[id_of(sampler->candidate[i])] - largest) / temperature);
    }
    double sum = 0.0;
    int64_t n_kept = 0;
    while (n_kept < n && (n_kept == 0 || sum < sampler->sampling.top_p * total)) {
        sum += exp(((double)logits[id_of(sampler->candidate[n_kept++])] - largest) / temperature);
    }
    return n_kept;
}

/* The candidates that may come are the first of the list; returns their number. */
static int64_t choose_candidates(struct mt_sampler *sampler, const float *logits)
{
    const struct mt_sampling *sampling = &sampler->sampling;
    const bool is_limited = sampling->top_k > 0 || sampling->top_p < 1.0;
    for (int64_t v = 0; v < sampler->vocab; v++) {
        sampler->candidate[v] = is_limited ? key_of(logits[v], v) : v;
    }
    if (!is_limited) {
        return sampler->vocab;
    }
    mt_sort_i64(sampler->candidate, sampler->vocab);
    const int64_t n =
        sampling->top_k > 0 ? mt_min_i64(sampling->top_k, sampler->vocab) : sampler->vocab;
    return sampling->top_p < 1.0 ? reach(sampler, logits, n) : n;
}

static double noise(const struct mt_sampler *sampler, uint64_t stream, int64_t index, int32_t id)
{
    const uint64_t place = (uint64_t)index << 32 | (uint64_t)id;
    const double uniform = mt_random_uniform(sampler->sampling.seed, stream, place);
    return -log(-log(uniform + 0x1p-54)); /* never of 0 */
}

enum mt_status mt_sampler_draw(struct mt_sampler *sampler, const float *logits, int64_t index,
                               int32_t *token)
{
    int32_t best = 0;
    for (int32_t v = 0; v < (int32_t)sampler->vocab; v++) {
        if (!isfinite(logits[v])) {
            return MT_FAIL(MT_ERR_INPUT,
                           "the logit of token %d is %g; finite numbers were expected; the "
                           "checkpoint's weights are damaged or training has diverged",
                           (int)v, (double)logits[v]);
        }
        best = logits[v] > logits[best] ? v : best;
    }
    *token = best;
    if (sampler->sampling.temperature <= 0.0) {
        return MT_OK;
    }
    const uint64_t stream = mt_random_stream("generate");
    const int64_t n = choose_candidates(sampler, logits);
    double highest = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        const int32_t id = id_of(sampler->candidate[i]);
        const double score =
            (double)logits[id] / sampler->sampling.temperature + noise(sampler, stream, index, id);
        if (score > highest || (score == highest && id < *token)) {
            highest = score;
            *token = id;
        }
    }
    return MT_OK;
}
