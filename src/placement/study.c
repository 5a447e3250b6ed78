#include "placement/study.h"

#include "base/size.h"
#include "placement/ps.h"

#include <string.h>

static int64_t max_instance(const struct mt_study_options *options, int n_slot)
{
    return options->n_expert + (int64_t)options->cluster->n_rank * n_slot;
}

static int slot_count(const struct mt_study_options *options)
{
    return mt_policy_slot_count(options->policy, options->cluster->n_rank, options->n_expert,
                                options->slots);
}

static enum mt_status too_large(const struct mt_study_options *options)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "%d ranks with %d experts of a layer everywhere are more instances than 2^31; "
                   "expected fewer; set placement.slots",
                   options->cluster->n_rank, options->n_expert);
}

static enum mt_status init_layers(struct mt_study *study)
{
    const struct mt_study_options *options = &study->options;
    const int n_rank = options->cluster->n_rank;
    const int64_t capacity = max_instance(options, study->n_slot);
    if (capacity > INT32_MAX) {
        return too_large(options);
    }
    MT_TRY(MT_ALLOCATE(study->placement, options->n_layer, "placements of a study"));
    for (int layer = options->first_layer; layer < options->n_layer; ++layer) {
        struct mt_placement *placement = &study->placement[layer];
        MT_TRY(mt_placement_init(placement, n_rank, options->n_expert, (int)capacity));
        mt_placement_default_owners(placement, layer);
    }
    if (!options->rematerialize) {
        MT_TRY(MT_ALLOCATE(study->held, options->n_layer, "placements of a study"));
    }
    for (int layer = options->first_layer; study->held != NULL && layer < options->n_layer;
         ++layer) {
        MT_TRY(mt_placement_init(&study->held[layer], n_rank, options->n_expert, (int)capacity));
        mt_placement_copy(&study->held[layer], &study->placement[layer]);
    }
    return mt_placement_init(&study->now, n_rank, options->n_expert, (int)capacity);
}

enum mt_status mt_study_init(struct mt_study *study, const struct mt_study_options *options)
{
    enum mt_status status = MT_OK;
    const int64_t n_pair = (int64_t)options->n_layer * options->n_expert;
    MT_ASSERT(options->first_layer >= 0 && options->first_layer <= options->n_layer);
    *study = (struct mt_study){.options = *options, .n_slot = slot_count(options), .step = 1};
    MT_TRY_GOTO(init_layers(study));
    MT_TRY_GOTO(MT_ALLOCATE(study->recent, n_pair * MT_STUDY_RECENT, "loads of a study"));
    MT_TRY_GOTO(MT_ALLOCATE(study->n_recent, options->n_layer, "loads of a study"));
    MT_TRY_GOTO(MT_ALLOCATE(study->n_micro, options->n_layer, "loads of a study"));
    MT_TRY_GOTO(MT_ALLOCATE(study->count, n_pair, "loads of a study"));
    MT_TRY_GOTO(MT_ALLOCATE(study->owner, n_pair, "owners of a study"));
    MT_TRY_GOTO(mt_history_init(&study->history, options->n_layer, options->n_expert,
                                options->load_window));
    return MT_OK;
cleanup:
    mt_study_clear(study);
    return status;
}

void mt_study_clear(struct mt_study *study)
{
    for (int layer = 0; study->placement != NULL && layer < study->options.n_layer; ++layer) {
        mt_placement_clear(&study->placement[layer]);
    }
    for (int layer = 0; study->held != NULL && layer < study->options.n_layer; ++layer) {
        mt_placement_clear(&study->held[layer]);
    }
    mt_placement_clear(&study->now);
    mt_history_clear(&study->history);
    mt_memory_free(study->placement);
    mt_memory_free(study->held);
    mt_memory_free(study->n_micro);
    mt_memory_free(study->recent);
    mt_memory_free(study->n_recent);
    mt_memory_free(study->count);
    mt_memory_free(study->owner);
    *study = (struct mt_study){0};
}

bool mt_study_scratch_bytes(const struct mt_study_options *options, int64_t *n_bytes)
{
    enum { ALIGNMENT_BYTES = 64, N_ARRAY = 4 };
    const int n_rank = options->cluster->n_rank;
    const int64_t n_instance = max_instance(options, slot_count(options));
    int64_t quota = 0;
    int64_t extra = 0;
    return mt_policy_scratch_bytes(n_rank, options->n_expert, options->n_layer, n_instance,
                                   n_bytes) &&
           mt_size_multiply(n_instance, n_rank, &quota) && mt_size_add(quota, n_rank, &extra) &&
           mt_size_multiply(extra, (int64_t)sizeof(int64_t), &extra) &&
           mt_size_add(*n_bytes, extra, n_bytes) &&
           mt_size_add(*n_bytes, (int64_t)ALIGNMENT_BYTES * N_ARRAY, n_bytes);
}

/* The micro-batch's totals become the newest of the layer's recent ones, and part of the step's. */
static void remember(struct mt_study *study, int layer, const int64_t *counts)
{
    const int64_t n_expert = study->options.n_expert;
    int64_t *recent = &study->recent[(int64_t)layer * MT_STUDY_RECENT * n_expert];
    int64_t *step = &study->count[layer * n_expert];
    if (study->n_recent[layer] == MT_STUDY_RECENT) {
        const size_t kept = (MT_STUDY_RECENT - 1) * (size_t)n_expert;
        memmove(recent, recent + n_expert, kept * sizeof(*recent));
        --study->n_recent[layer];
    }
    int64_t *newest = recent + study->n_recent[layer] * n_expert;
    ++study->n_recent[layer];
    memset(newest, 0, (size_t)n_expert * sizeof(*newest));
    for (int source = 0; source < study->options.cluster->n_rank; ++source) {
        for (int64_t e = 0; e < n_expert; ++e) {
            newest[e] += counts[source * n_expert + e];
        }
    }
    for (int64_t e = 0; e < n_expert; ++e) {
        step[e] = mt_ps_add(step[e], newest[e]);
    }
}

/* Have copies stayed from the micro-batch before? */
static bool is_held(const struct mt_study *study, int layer)
{
    return study->held != NULL && study->n_micro[layer] > 0 &&
           study->n_micro[layer] < study->options.n_micro;
}

static struct mt_policy_input input_of(const struct mt_study *study, int layer)
{
    const struct mt_study_options *options = &study->options;
    MT_ASSERT(layer >= options->first_layer && layer < options->n_layer);
    return (struct mt_policy_input){
        .cluster = options->cluster,
        .n_expert = options->n_expert,
        .layer = layer,
        .step = study->step,
        .n_micro = options->n_micro,
        .slots = study->n_slot,
        .overlap = options->overlap,
        .calibrate = options->calibrate,
        .is_held = is_held(study, layer),
        .n_history = study->history.n_step,
        .history = mt_history_layer(&study->history, layer),
        .n_recent = study->n_recent[layer],
        .recent = &study->recent[(int64_t)layer * MT_STUDY_RECENT * options->n_expert],
    };
}

void mt_study_before_gate(struct mt_study *study, int layer, struct mt_arena *scratch)
{
    const struct mt_policy_input input = input_of(study, layer);
    if (input.is_held) {
        mt_placement_copy(&study->placement[layer], &study->held[layer]);
    }
    study->options.policy->before_gate(&input, scratch, &study->placement[layer]);
    mt_placement_copy(&study->now, &study->placement[layer]);
}

static void add_prediction(struct mt_prediction *sum, const struct mt_prediction *one)
{
    sum->total_ps = mt_ps_add(sum->total_ps, one->total_ps);
    sum->compute_ps = mt_ps_add(sum->compute_ps, one->compute_ps);
    sum->exchange_ps = mt_ps_add(sum->exchange_ps, one->exchange_ps);
    sum->copies_ps = mt_ps_add(sum->copies_ps, one->copies_ps);
    sum->ideal_ps = mt_ps_add(sum->ideal_ps, one->ideal_ps);
    sum->n_copy += one->n_copy;
    sum->n_late += one->n_late;
    sum->copy_bytes = mt_ps_add(sum->copy_bytes, one->copy_bytes);
}

static void predict(const struct mt_study *study, int layer, const int64_t *quota,
                    struct mt_arena *scratch, struct mt_prediction *prediction)
{
    const struct mt_study_options *options = &study->options;
    const struct mt_predict_options how = {
        .rematerialize = options->rematerialize,
        .cuts_experts = options->policy->cuts_experts,
        .is_followed = study->held != NULL && study->n_micro[layer] + 1 < options->n_micro,
        .held = is_held(study, layer) ? &study->held[layer] : NULL};
    mt_predict(options->cluster, &study->now, quota, &how, scratch, prediction);
}

/* What the layer's copies are from now on, as far as they stay. */
static void hold(struct mt_study *study, int layer)
{
    ++study->n_micro[layer];
    if (study->held != NULL) {
        mt_placement_copy(&study->held[layer], &study->now);
        mt_placement_forget_late(&study->held[layer]);
    }
}

static void add_rows(struct mt_study *study, const struct mt_prediction *one)
{
    const double mean = (double)one->n_row / study->options.cluster->n_rank;
    const double ratio = one->n_row > 0 ? (double)one->largest_row / mean : 1.0;
    for (int level = 0; level < MT_N_LEVEL; ++level) {
        study->sum.n_sent_row[level] =
            mt_ps_add(study->sum.n_sent_row[level], one->n_sent_row[level]);
    }
    study->sum.n_row = mt_ps_add(study->sum.n_row, one->n_row);
    study->sum.n_largest_row = mt_ps_add(study->sum.n_largest_row, one->largest_row);
    study->sum.load_ratio += ratio;
    if (ratio > study->sum.worst_load_ratio) {
        study->sum.worst_load_ratio = ratio;
    }
}

void mt_study_after_gate(struct mt_study *study, int layer, const int64_t *counts,
                         struct mt_arena *scratch, int64_t *quota, struct mt_prediction *prediction)
{
    const struct mt_study_options *options = &study->options;
    const int64_t n_rank = options->cluster->n_rank;
    const int64_t word = (int64_t)sizeof(int64_t);
    const int64_t mark = mt_arena_mark(scratch);
    struct mt_policy_input input = input_of(study, layer);
    struct mt_prediction one;
    input.count = counts;
    if (options->policy->after_gate != NULL) {
        options->policy->after_gate(&input, scratch, &study->now);
    }
    if (quota == NULL) {
        quota = mt_arena_cut(scratch, n_rank * mt_placement_n_instance(&study->now) * word);
    }
    mt_split(mt_policy_split(options->policy, options->split), options->cluster, &study->now,
             counts, scratch, quota);
    predict(study, layer, quota, scratch, &one);
    hold(study, layer);
    add_prediction(&study->sum.prediction, &one);
    add_rows(study, &one);
    ++study->sum.n_layer;
    remember(study, layer, counts);
    if (prediction != NULL) {
        *prediction = one;
    }
    mt_arena_release(scratch, mark);
}

void mt_study_layer(struct mt_study *study, int layer, const int64_t *counts,
                    struct mt_arena *scratch, struct mt_prediction *prediction)
{
    mt_study_before_gate(study, layer, scratch);
    mt_study_after_gate(study, layer, counts, scratch, NULL, prediction);
}

void mt_study_reshard(struct mt_study *study, struct mt_arena *scratch)
{
    const struct mt_study_options *options = &study->options;
    const int64_t n_expert = options->n_expert;
    const int n_moe = options->n_layer - options->first_layer;
    const struct mt_reshard_input input = {
        .cluster = options->cluster,
        .n_layer = options->n_layer,
        .first_layer = options->first_layer,
        .n_expert = options->n_expert,
        .step = study->step,
        .n_micro = options->n_micro,
        .slots = study->n_slot,
        .overlap = options->overlap,
        .capacity = (int)mt_ceil_div(n_moe * n_expert, options->cluster->n_rank),
        .history = &study->history,
    };
    if (options->policy->reshard == NULL || study->history.n_step == 0) {
        return;
    }
    const size_t row = (size_t)n_expert * sizeof(*study->owner);
    for (int layer = options->first_layer; layer < options->n_layer; ++layer) {
        memcpy(&study->owner[layer * n_expert], study->placement[layer].owner, row);
    }
    options->policy->reshard(&input, scratch, study->owner);
    for (int layer = options->first_layer; layer < options->n_layer; ++layer) {
        const int *owner = &study->owner[layer * n_expert];
        struct mt_placement *placement = &study->placement[layer];
        int64_t n_move = 0;
        for (int64_t e = 0; e < n_expert; ++e) {
            n_move += owner[e] != placement->owner[e] ? 1 : 0;
        }
        if (n_move > 0) {
            memcpy(placement->owner, owner, row);
            mt_placement_owners_only(placement);
        }
        study->sum.n_move += n_move;
    }
}

void mt_study_end_step(struct mt_study *study, struct mt_arena *scratch)
{
    const struct mt_study_options *options = &study->options;
    const size_t n_pair = (size_t)options->n_layer * (size_t)options->n_expert;
    mt_history_record(&study->history, study->count);
    memset(study->count, 0, n_pair * sizeof(*study->count));
    memset(study->n_micro, 0, (size_t)options->n_layer * sizeof(*study->n_micro));
    if (options->reshard_interval > 0 && study->step % options->reshard_interval == 0) {
        mt_study_reshard(study, scratch);
    }
    ++study->step;
    ++study->sum.n_step;
}

void mt_study_forget(struct mt_study *study)
{
    study->sum = (struct mt_study_sum){0};
}

void mt_study_spread(const int64_t *total, int n_rank, int n_expert, int64_t *counts)
{
    /* Expert e's remainder starts where that of e - 1 ended, so that no rank gets them all. */
    int64_t turn = 0;
    for (int e = 0; e < n_expert; ++e) {
        const int64_t rest = total[e] % n_rank;
        for (int64_t rank = 0; rank < n_rank; ++rank) {
            const int64_t place = (rank + n_rank - turn) % n_rank;
            counts[rank * n_expert + e] = total[e] / n_rank + (place < rest ? 1 : 0);
        }
        turn = (turn + rest) % n_rank;
    }
}
