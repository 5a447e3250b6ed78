/* What a study must keep to go on after a stop, as numbers: the step, its history, and of every
 * layer recent loads, owners and copies. */
#include "placement/study.h"

#include "base/size.h"

#include <string.h>

enum { N_HEAD = 2 }; /* step, steps of history */

/* Numbers of a layer's copies: none where a policy fills its slots anew whatever was there, which
 * on many ranks would be most of a checkpoint. */
static int64_t copies_length(const struct mt_study *study)
{
    const int64_t n_instance = study->now.max_instance;
    return study->options.policy->slots == MT_SLOTS_FEW ? 1 + n_instance : 0;
}

static int64_t layer_length(const struct mt_study *study)
{
    const int64_t n_expert = study->options.n_expert;
    return 1 + (int64_t)MT_STUDY_RECENT * n_expert + n_expert + copies_length(study);
}

static int64_t history_length(const struct mt_study *study)
{
    const struct mt_history *history = &study->history;
    return (int64_t)history->n_layer * history->window * history->n_expert;
}

int64_t mt_study_state_length(const struct mt_study *study)
{
    return N_HEAD + history_length(study) + study->options.n_layer * layer_length(study);
}

void mt_study_write_state(const struct mt_study *study, int64_t *numbers)
{
    const struct mt_study_options *options = &study->options;
    const int64_t n_recent = (int64_t)MT_STUDY_RECENT * options->n_expert;
    const int64_t n_history = history_length(study);
    memset(numbers, 0, (size_t)mt_study_state_length(study) * sizeof(*numbers));
    numbers[0] = study->step;
    numbers[1] = study->history.n_step;
    memcpy(&numbers[N_HEAD], study->history.count, (size_t)n_history * sizeof(*numbers));
    for (int layer = options->first_layer; layer < options->n_layer; ++layer) {
        const struct mt_placement *placement = &study->placement[layer];
        int64_t *at = &numbers[N_HEAD + n_history + layer * layer_length(study)];
        *at++ = study->n_recent[layer];
        memcpy(at, &study->recent[layer * n_recent], (size_t)n_recent * sizeof(*at));
        at += n_recent;
        for (int e = 0; e < options->n_expert; ++e) {
            *at++ = placement->owner[e];
        }
        if (copies_length(study) > 0) {
            mt_placement_write_numbers(placement, at);
        }
    }
}

/* Loads, which came from a file, are rows. */
static bool are_rows(const int64_t *count, int64_t n)
{
    bool are = true;
    for (int64_t i = 0; i < n; ++i) {
        are = are && count[i] >= 0;
    }
    return are;
}

static bool is_layer_possible(const struct mt_study *study, const int64_t *numbers)
{
    const int64_t n_expert = study->options.n_expert;
    const int64_t n_recent = MT_STUDY_RECENT * n_expert;
    bool is_possible = numbers[0] >= 0 && numbers[0] <= MT_STUDY_RECENT;
    is_possible = is_possible && are_rows(&numbers[1], n_recent);
    for (int64_t e = 0; e < n_expert; ++e) {
        const int64_t owner = numbers[1 + n_recent + e];
        is_possible = is_possible && owner >= 0 && owner < study->options.cluster->n_rank;
    }
    return is_possible;
}

static bool is_possible(const struct mt_study *study, const int64_t *numbers)
{
    const struct mt_study_options *options = &study->options;
    const int64_t n_history = history_length(study);
    if (numbers[0] < 1 || numbers[1] < 0 || numbers[1] > study->history.window ||
        !are_rows(&numbers[N_HEAD], n_history)) {
        return false;
    }
    for (int layer = options->first_layer; layer < options->n_layer; ++layer) {
        const int64_t at = N_HEAD + n_history + layer * layer_length(study);
        if (!is_layer_possible(study, &numbers[at])) {
            return false;
        }
    }
    return true;
}

void mt_study_read_state(struct mt_study *study, const int64_t *numbers, struct mt_arena *scratch)
{
    const struct mt_study_options *options = &study->options;
    const int64_t n_recent = (int64_t)MT_STUDY_RECENT * options->n_expert;
    const int64_t n_history = history_length(study);
    const int64_t mark = mt_arena_mark(scratch);
    int64_t *n_copy = mt_arena_cut(scratch, options->cluster->n_rank * (int64_t)sizeof(*n_copy));
    if (is_possible(study, numbers)) {
        study->step = numbers[0];
        study->history.n_step = (int)numbers[1];
        memcpy(study->history.count, &numbers[N_HEAD], (size_t)n_history * sizeof(*numbers));
        for (int layer = options->first_layer; layer < options->n_layer; ++layer) {
            struct mt_placement *placement = &study->placement[layer];
            const int64_t *at = &numbers[N_HEAD + n_history + layer * layer_length(study)];
            study->n_recent[layer] = (int)*at++;
            memcpy(&study->recent[layer * n_recent], at, (size_t)n_recent * sizeof(*at));
            at += n_recent;
            for (int e = 0; e < options->n_expert; ++e) {
                placement->owner[e] = (int)*at++;
            }
            mt_placement_owners_only(placement);
            if (copies_length(study) > 0) {
                mt_placement_read_numbers(placement, at, study->n_slot, n_copy);
            }
        }
    }
    mt_arena_release(scratch, mark);
}
