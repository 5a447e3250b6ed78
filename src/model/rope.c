#include "model/rope.h"

#include "base/size.h"

#include <math.h>

static const double TURN = 6.283185307179586476925286766559; /* 2 pi */

static double clamp_01(double x)
{
    return fmin(fmax(x, 0.0), 1.0);
}

/* How much of frequency i stays as it is, from 0 to 1. */
static double kept_llama3(const struct mt_config *config, double frequency, double length)
{
    const double *turns = config->model.rope_turns;
    return clamp_01((length * frequency / TURN - turns[0]) / (turns[1] - turns[0]));
}

/* The i, not rounded, whose frequency turns so many times in the length. */
static double index_of_turns(const struct mt_config *config, double turns, double length)
{
    const double width = (double)config->model.head_dim;
    return width * log(length / (turns * TURN)) / (2.0 * log(config->model.rope_theta));
}

static double kept_yarn(const struct mt_config *config, int64_t i, double length)
{
    const double *turns = config->model.rope_turns;
    const double last = (double)(config->model.head_dim - 1);
    const double low = fmax(floor(index_of_turns(config, turns[1], length)), 0.0);
    const double high = fmin(ceil(index_of_turns(config, turns[0], length)), last);
    const double n = high == low ? 0.001 : high - low;
    return 1.0 - clamp_01(((double)i - low) / n);
}

void mt_rope_frequencies(const struct mt_config *config, double *frequency)
{
    const int64_t original = config->model.rope_original_seq_len;
    const double length = (double)(original > 0 ? original : config->model.max_seq_len);
    const double width = (double)config->model.head_dim;
    for (int64_t i = 0; i < config->model.head_dim / 2; ++i) {
        const double plain = pow(config->model.rope_theta, -2.0 * (double)i / width);
        double kept = 0.0;
        switch (config->model.rope_scaling) {
        case MT_ROPE_NONE:
            kept = 1.0;
            break;
        case MT_ROPE_LINEAR:
            break;
        case MT_ROPE_LLAMA3:
            kept = kept_llama3(config, plain, length);
            break;
        case MT_ROPE_YARN:
            kept = kept_yarn(config, i, length);
            break;
        }
        frequency[i] =
            kept == 1.0 ? plain : plain * kept + plain / config->model.rope_factor * (1.0 - kept);
    }
}
