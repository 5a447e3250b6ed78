#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/vector.h"

#include <math.h>

/* Chunks of rows, whose losses are summed in order: a number that depends on n alone. */
enum { PARTIALS = 256 };
/* Columns whose exponentials are summed in float before they join a double. */
enum { COLUMNS = 1024 };

struct loss {
    float *logits; /* [n,V] */
    const int32_t *target;
    int64_t vocab;
    float scale;
    double partial[PARTIALS];
};

/* The loss of one row; logits [V] become the gradient. */
MT_INLINE double row_loss(float *logits, int64_t target, int64_t vocab, float scale)
{
    const float largest = mt_max(logits, vocab);
    /* Of the order of the target's own logit: the subtraction in double loses nothing. */
    const double at_target = (double)logits[target] - (double)largest;
    double sum = 0.0;
    for (int64_t i = 0; i < vocab; i += COLUMNS) {
        const int64_t n = mt_min_i64(COLUMNS, vocab - i);
        sum += (double)mt_exp_sum(logits + i, logits + i, largest, n);
    }
    if (scale != 0.0F) {
        const float factor = (float)((double)scale / sum);
        for (int64_t i = 0; i < vocab; i++) {
            logits[i] *= factor;
        }
        logits[target] -= scale;
    }
    return log(sum) - at_target;
}

MT_CLONES static void loss_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    struct loss *loss = context;
    double sum = 0.0;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        sum +=
            row_loss(loss->logits + row * loss->vocab, loss->target[row], loss->vocab, loss->scale);
    }
    loss->partial[chunk->index] = sum;
}

void mt_cpu_cross_entropy(struct mt_device *device, double *loss, float *logits,
                          const int32_t *target, int64_t n, int64_t vocab, float scale)
{
    struct loss parts = {.logits = logits, .target = target, .vocab = vocab, .scale = scale};
    const int64_t chunk = mt_max_i64(mt_max_i64(1, 8192 / vocab), mt_ceil_div(n, PARTIALS));
    mt_cpu_for_chunks(device, n, chunk, loss_rows, &parts);
    double sum = 0.0;
    for (int64_t i = 0; i < mt_ceil_div(n, chunk); i++) {
        sum += parts.partial[i];
    }
    *loss = sum;
}
