#include "optim/optim.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

/* The step after which the decay begins. */
static int64_t decay_start(const struct mt_config *config)
{
    const int64_t warmup = config->schedule.warmup_steps;
    const int64_t tail = config->train.steps - config->schedule.decay_steps;
    return config->schedule.kind == MT_SCHEDULE_WSD && tail > warmup ? tail : warmup;
}

/* Share of the decay that is over at this step: 0 where it begins, 1 at its end and ever after. */
static double decay_progress(const struct mt_config *config, int64_t step)
{
    const int64_t done = step - decay_start(config);
    if (done <= 0) {
        return 0.0;
    }
    const int64_t decay_steps = config->schedule.decay_steps;
    return done >= decay_steps ? 1.0 : (double)done / (double)decay_steps;
}

double mt_schedule_lr(const struct mt_config *config, int64_t step)
{
    MT_ASSERT(step >= 1);
    const double lr = config->optimizer.lr;
    const int64_t warmup = config->schedule.warmup_steps;
    if (step <= warmup) {
        return lr * (double)step / (double)warmup;
    }
    const double floor = config->schedule.min_lr_ratio;
    const double progress = decay_progress(config, step);
    switch (config->schedule.kind) {
    case MT_SCHEDULE_COSINE:
        return lr * (floor + (1.0 - floor) * 0.5 * (1.0 + cos(PI * progress)));
    case MT_SCHEDULE_WSD:
    case MT_SCHEDULE_LINEAR:
        return lr * (1.0 - (1.0 - floor) * progress);
    case MT_SCHEDULE_CONSTANT:
        break;
    }
    return lr;
}
