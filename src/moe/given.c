/* Choices of experts that are given and not learned, for studies of placement: by a named workload
 * (placement/workload.h), or by the counts of a trace. Weights and gradients of the chosen are the
 * router's own, so training goes on as it would. */
#include "base/size.h"
#include "moe/context.h"

#include <math.h>

enum mt_status mt_given_init(struct mt_given *given, const struct mt_config *config, int n_rank)
{
    const int64_t n_expert = config->moe.num_experts;
    const int64_t n_layer = config->model.num_layers;
    struct mt_placement placement;
    enum mt_status status = MT_OK;
    *given = (struct mt_given){.routing = config->moe.routing,
                               .workload = mt_workload_find(config->moe.workload),
                               .skew = config->moe.skew,
                               .seed = (uint64_t)config->run.seed};
    if (given->routing == MT_ROUTING_LEARNED) {
        return MT_OK;
    }
    MT_TRY(mt_placement_init(&placement, n_rank, (int)n_expert, (int)n_expert));
    MT_TRY_GOTO(MT_ALLOCATE(given->default_owner, n_layer * n_expert, "default owners"));
    MT_TRY_GOTO(MT_ALLOCATE(given->weight, n_rank * n_expert, "weights of a workload"));
    MT_TRY_GOTO(MT_ALLOCATE(given->replay, n_layer * n_expert, "counts to replay"));
    MT_TRY_GOTO(mt_arena_init(&given->scratch, mt_workload_scratch_bytes(n_rank, (int)n_expert),
                              "scratch of a workload"));
    for (int layer = 0; layer < (int)n_layer; ++layer) {
        mt_placement_default_owners(&placement, layer);
        for (int64_t e = 0; e < n_expert; ++e) {
            given->default_owner[layer * n_expert + e] = placement.owner[e];
        }
    }
cleanup:
    mt_placement_clear(&placement);
    return status;
}

void mt_given_clear(struct mt_given *given)
{
    mt_memory_free(given->default_owner);
    mt_memory_free(given->weight);
    mt_memory_free(given->replay);
    mt_arena_clear(&given->scratch);
}

/* A token that draws without replacement by weights w takes expert i with probability 1 - exp(-c
 * w_i); so these weights give it the share of tokens that the counts say (c = 1). */
static void weights_of_counts(double *weight, const int64_t *count, int n_expert, int top_k)
{
    static const double MOST = 1.0 - 1e-9;
    static const double LEAST = 1e-12; /* so that K experts can always be chosen */
    double total = 0.0;
    for (int e = 0; e < n_expert; ++e) {
        total += (double)count[e];
    }
    for (int e = 0; e < n_expert; ++e) {
        const double share =
            total > 0.0 ? (double)count[e] * top_k / total : (double)top_k / (double)n_expert;
        weight[e] = fmax(LEAST, -log1p(-fmin(share, MOST)));
    }
}

/* One stream of random numbers for each (step, layer, half of a micro-batch, rank). */
static uint64_t stream_of(const struct mt_moe *moe, int layer, int half)
{
    uint64_t stream = (uint64_t)moe->step;
    stream = stream * (uint64_t)moe->n_layer + (uint64_t)layer;
    stream = stream * (uint64_t)moe->n_micro + (uint64_t)moe->micro;
    stream = stream * (uint64_t)moe->n_half + (uint64_t)half;
    return stream * (uint64_t)moe->n_rank + (uint64_t)moe->comm->rank;
}

static const double *weights_of(struct mt_moe *moe, int layer)
{
    struct mt_given *given = &moe->given;
    const int64_t row = (int64_t)layer * moe->n_expert;
    if (given->routing == MT_ROUTING_REPLAY) {
        weights_of_counts(given->weight, given->replay + row, moe->n_expert, moe->top_k);
        return given->weight;
    }
    const struct mt_workload_input input = {.workload = given->workload,
                                            .n_rank = moe->n_rank,
                                            .n_expert = moe->n_expert,
                                            .top_k = moe->top_k,
                                            .owner = given->default_owner + row,
                                            .skew = given->skew,
                                            .seed = given->seed,
                                            .step = moe->step,
                                            .micro = moe->micro,
                                            .layer = layer};
    mt_workload_weights(&input, &given->scratch, given->weight);
    return given->weight + (int64_t)moe->comm->rank * moe->n_expert;
}

/* "balanced" has no chance in it: experts in turn over all tokens of all ranks, so that every
 * rank's load is the mean. The ideal that policies are measured by. */
static void deal(const struct mt_moe *moe, int64_t n_choice, int32_t *expert)
{
    const int64_t first = (int64_t)moe->comm->rank * n_choice;
    for (int64_t i = 0; i < n_choice; ++i) {
        expert[i] = (int32_t)((first + i) % moe->n_expert);
    }
}

void mt_moe_give_choices(struct mt_moe *moe, int layer, int half, int64_t n, int32_t *expert)
{
    if (moe->given.routing == MT_ROUTING_SYNTHETIC &&
        moe->given.workload == mt_workload_find("balanced")) {
        deal(moe, n * moe->top_k, expert);
        return;
    }
    const struct mt_workload_tokens tokens = {
        .seed = moe->given.seed, .stream = stream_of(moe, layer, half), .n = n};
    const double *weight = weights_of(moe, layer);
    mt_workload_choose(weight, moe->n_expert, moe->top_k, &tokens, &moe->given.scratch, expert);
}

int64_t *mt_moe_replay_counts(struct mt_moe *moe)
{
    return moe->given.replay;
}
