#include "data/sampler.h"

#include "base/random.h"
#include "base/size.h"
#include "base/status.h"

/* mt_random_permute's largest n. */
static const int64_t MAX_PERMUTED = (int64_t)1 << 62;

int64_t mt_sampler_window(uint64_t seed, int64_t n_window, int64_t sequence)
{
    MT_ASSERT(n_window >= 1 && sequence >= 0);
    if (n_window > MAX_PERMUTED) {
        return sequence; /* format random: no end, and every order is as good */
    }
    const uint64_t epoch = (uint64_t)(sequence / n_window);
    const uint64_t stream = mt_random_stream("data.order") + epoch;
    return (int64_t)mt_random_permute(seed, stream, (uint64_t)(sequence % n_window),
                                      (uint64_t)n_window);
}

int64_t mt_batch_n_micro(const struct mt_batch_split *split)
{
    return mt_ceil_div(mt_ceil_div(split->global_batch, split->n_rank), split->micro_batch);
}

void mt_batch_micro(const struct mt_batch_split *split, int64_t micro, int64_t *first, int64_t *n)
{
    MT_ASSERT(micro >= 0 && micro < mt_batch_n_micro(split));
    const int64_t start = mt_share_start(split->global_batch, split->n_rank, split->rank);
    const int64_t end = mt_share_start(split->global_batch, split->n_rank, split->rank + 1);
    *first = mt_min_i64(start + micro * split->micro_batch, end);
    *n = mt_min_i64(split->micro_batch, end - *first);
}
