#include "train/interval.h"

#include "base/log.h"
#include "base/size.h"

/* More apart than this is never; it also bounds the search. */
static const int64_t MOST_FACTOR = (int64_t)1 << 20;

bool mt_interval_saves(const struct mt_config *config)
{
    return config->checkpoint.interval > 0 || config->checkpoint.max_overhead_percent > 0;
}

void mt_interval_init(struct mt_interval *interval, const struct mt_config *config, int64_t step)
{
    const int64_t given = config->checkpoint.interval;
    *interval = (struct mt_interval){
        .base = given > 0 ? given : (mt_interval_saves(config) ? 1 : 0),
        .most = config->checkpoint.max_overhead_percent / 100.0,
        .factor = 1,
        .last = step,
    };
}

void mt_interval_add_step(struct mt_interval *interval, double step_s, double cost_s)
{
    interval->n_step++;
    interval->step_s += step_s;
    interval->cost_s += cost_s;
}

/* The smallest factor with which saves cost no more than they may, by their mean so far. */
static int64_t choose_factor(const struct mt_interval *interval)
{
    int64_t factor = 1;
    if (interval->most <= 0 || interval->n_save == 0 || interval->n_step == 0) {
        return factor;
    }
    const double a_save_s = interval->cost_s / (double)interval->n_save;
    const double a_step_s = interval->step_s / (double)interval->n_step;
    while (factor < MOST_FACTOR &&
           a_save_s > interval->most * a_step_s * (double)(interval->base * factor)) {
        factor *= 2;
    }
    return factor;
}

bool mt_interval_is_due(struct mt_interval *interval, int64_t step)
{
    /* A run that went back comes again by the step of a save that failed. */
    interval->last = mt_min_i64(interval->last, step - 1);
    if (interval->base == 0 || step % interval->base != 0) {
        return false;
    }
    const int64_t factor = choose_factor(interval);
    if (factor != interval->factor) {
        const int64_t n_step = interval->base * factor;
        interval->factor = factor;
        mt_log_line("a save costs %.4g s and a step takes %.4g s: one in %lld steps from here "
                    "(checkpoint.max_overhead_percent)",
                    interval->cost_s / (double)interval->n_save,
                    interval->step_s / (double)interval->n_step, (long long)n_step);
    }
    /* Multiples of the base, though the last save may have been at another step. */
    return step / interval->base - interval->last / interval->base >= factor;
}

void mt_interval_begin_save(struct mt_interval *interval, int64_t step)
{
    interval->last = step;
    interval->n_save++;
}
