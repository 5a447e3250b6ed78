/* One token from logits: temperature, top-k, top-p.
 *
 * Which tokens may come is a matter of order: the top_k likeliest (ties to the lower id), and of
 * these the fewest, likeliest first, whose share of their probability reaches top_p. Which of them
 * comes is decided by noise of each token's own (Gumbel 1954): the largest logit / temperature +
 * noise wins, which draws from the softmax of those that may. The noise is a function of (seed,
 * index, token), so a token does not depend on how the others are found, and one that wins among
 * many wins among fewer. */
#ifndef MT_MODEL_SAMPLING_H
#define MT_MODEL_SAMPLING_H

#include "base/status.h"

#include <stdint.h>

struct mt_sampling {
    double temperature; /* 0: the likeliest, whatever the rest says */
    int64_t top_k;      /* 0: all */
    double top_p;       /* in (0, 1]; 1: all */
    uint64_t seed;
};

struct mt_sampler {
    struct mt_sampling sampling;
    int64_t vocab;
    int64_t *candidate; /* [V] */
};
/* Ids are drawn from [0, vocab), vocab >= 1. */
enum mt_status mt_sampler_init(struct mt_sampler *sampler, const struct mt_sampling *sampling,
                               int64_t vocab);
void mt_sampler_clear(struct mt_sampler *sampler);

/* Token number `index` of the text. MT_ERR_INPUT when a logit is no finite number. */
enum mt_status mt_sampler_draw(struct mt_sampler *sampler, const float *logits, int64_t index,
                               int32_t *token);

#endif
