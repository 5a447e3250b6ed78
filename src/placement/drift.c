#include "placement/drift.h"

#include "base/random.h"

#include <math.h>
#include <string.h>

enum mt_status mt_drift_init(struct mt_drift *drift, int n_rank, int n_expert, const int *owner,
                             double skew, uint64_t seed)
{
    enum mt_status status = MT_OK;
    *drift = (struct mt_drift){.n_rank = n_rank,
                               .n_expert = n_expert,
                               .owner = owner,
                               .skew = skew,
                               .seed = seed,
                               .n_row = (int64_t)1 << 16};
    MT_TRY_GOTO(MT_ALLOCATE(drift->state, n_expert, "drifting loads"));
    MT_TRY_GOTO(MT_ALLOCATE(drift->weight, n_expert, "drifting loads"));
    MT_TRY_GOTO(MT_ALLOCATE(drift->place, n_rank, "drifting loads"));
    MT_TRY_GOTO(MT_ALLOCATE(drift->load, n_rank, "drifting loads"));
    for (int rank = 0; rank < n_rank; ++rank) {
        drift->place[rank] = (int)mt_random_permute(seed, 1, (uint64_t)rank, (uint64_t)n_rank);
    }
    return MT_OK;
cleanup:
    mt_drift_clear(drift);
    return status;
}

void mt_drift_clear(struct mt_drift *drift)
{
    mt_memory_free(drift->state);
    mt_memory_free(drift->weight);
    mt_memory_free(drift->place);
    mt_memory_free(drift->load);
    *drift = (struct mt_drift){0};
}

/* Weights with rank factors 1 / (1 + place)^exponent; returns the largest rank load over the
 * mean. */
static double weigh(struct mt_drift *drift, double exponent)
{
    double sum = 0.0;
    double largest = 0.0;
    memset(drift->load, 0, (size_t)drift->n_rank * sizeof(drift->load[0]));
    for (int expert = 0; expert < drift->n_expert; ++expert) {
        const int rank = drift->owner[expert];
        drift->weight[expert] =
            exp(drift->state[expert]) * pow(1.0 + drift->place[rank], -exponent);
        drift->load[rank] += drift->weight[expert];
        sum += drift->weight[expert];
    }
    for (int rank = 0; rank < drift->n_rank; ++rank) {
        largest = fmax(largest, drift->load[rank]);
    }
    return largest * drift->n_rank / sum;
}

/* Correlation 0.8 from one micro-batch to the next, as measured in real training (LAER: 0.73 to
 * 0.86); every 16th, two ranks change places. */
static void drift_on(struct mt_drift *drift)
{
    static const double KEPT = 0.8;
    static const double SPREAD = 0.3;
    enum { SWAP_EVERY = 16 };
    const uint64_t step = (uint64_t)drift->step;
    for (int expert = 0; expert < drift->n_expert; ++expert) {
        const double fresh = mt_random_normal(drift->seed, 2 + step, (uint64_t)expert);
        double *state = &drift->state[expert];
        *state = drift->step == 0 ? SPREAD * fresh
                                  : KEPT * *state + SPREAD * sqrt(1.0 - KEPT * KEPT) * fresh;
    }
    if (drift->step % SWAP_EVERY == SWAP_EVERY - 1) {
        const uint64_t n = (uint64_t)drift->n_rank;
        const int a = (int)(mt_random_u64(drift->seed, 1, step) % n);
        const int b = (int)(mt_random_u64(drift->seed, 1, ~step) % n);
        const int place = drift->place[a];
        drift->place[a] = drift->place[b];
        drift->place[b] = place;
    }
}

void mt_drift_next(struct mt_drift *drift, int64_t *counts, int64_t *total)
{
    enum { HALVINGS = 30 };
    double low = 0.0;
    double high = 8.0;
    double sum = 0.0;
    drift_on(drift);
    for (int i = 0; i < HALVINGS; ++i) {
        const double middle = (low + high) / 2.0;
        if (weigh(drift, middle) < drift->skew) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (void)weigh(drift, high);
    for (int expert = 0; expert < drift->n_expert; ++expert) {
        sum += drift->weight[expert];
        total[expert] = 0;
    }
    for (int source = 0; source < drift->n_rank; ++source) {
        for (int expert = 0; expert < drift->n_expert; ++expert) {
            const double mean = (double)drift->n_row * drift->weight[expert] / sum;
            const uint64_t index = (uint64_t)source * (uint64_t)drift->n_expert + (uint64_t)expert;
            const double u = mt_random_uniform(drift->seed, 1000000 + (uint64_t)drift->step, index);
            const int64_t n_row = (int64_t)fmax(0.0, mean + sqrt(12.0 * mean) * (u - 0.5));
            counts[index] = n_row;
            total[expert] += n_row;
        }
    }
    ++drift->step;
}
