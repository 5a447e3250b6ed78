/* metrics.jsonl, line after line. */
#include "profile/run_metrics.h"

#include "base/memory.h"
#include "base/size.h"
#include "profile/lines.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : 0;
}

static int integer_of(const json_t *object, const char *key)
{
    const double value = number_of(object, key);
    return value >= 0 && value < 1e9 ? (int)value : -1;
}

static void read_decision(const json_t *object, int64_t step, struct mt_run_decision *decision)
{
    const json_t *ranks = json_object_get(object, "ranks");
    *decision = (struct mt_run_decision){.step = step,
                                         .rows = integer_of(object, "rows"),
                                         .layer = integer_of(object, "layer"),
                                         .expert = integer_of(object, "expert"),
                                         .n_copy = integer_of(object, "copies"),
                                         .is_late = json_is_true(json_object_get(object, "late")),
                                         .saves_s = number_of(object, "saves_s"),
                                         .costs_s = number_of(object, "costs_s")};
    for (size_t i = 0; i < json_array_size(ranks) && i < MT_RUN_DECISION_RANKS; ++i) {
        decision->rank[decision->n_rank++] = (int)json_integer_value(json_array_get(ranks, i));
    }
}

/* The latest step's decisions come first; older ones fall off the end. */
static void add_decisions(const json_t *list, int64_t step, struct mt_run_metrics *metrics)
{
    const int n = (int)mt_min_i64((int64_t)json_array_size(list), MT_RUN_DECISIONS);
    const int n_kept = (int)mt_min_i64(metrics->n_decision, MT_RUN_DECISIONS - n);
    memmove(metrics->decision + n, metrics->decision, (size_t)n_kept * sizeof(*metrics->decision));
    for (int i = 0; i < n; ++i) {
        read_decision(json_array_get(list, (size_t)i), step, &metrics->decision[i]);
    }
    metrics->n_decision = n + n_kept;
}

static struct mt_run_shadow *find_shadow(struct mt_run_metrics *metrics, const char *policy)
{
    for (int i = 0; i < metrics->n_shadow; ++i) {
        if (strncmp(metrics->shadow[i].policy, policy, MT_RUN_NAME_BYTES - 1) == 0) {
            return &metrics->shadow[i];
        }
    }
    if (metrics->n_shadow == MT_RUN_SHADOWS) {
        return NULL;
    }
    struct mt_run_shadow *shadow = &metrics->shadow[metrics->n_shadow++];
    (void)snprintf(shadow->policy, sizeof(shadow->policy), "%s", policy);
    return shadow;
}

static void add_shadows(json_t *shadows, struct mt_run_metrics *metrics)
{
    const char *policy = NULL;
    json_t *about = NULL;
    json_object_foreach(shadows, policy, about)
    {
        struct mt_run_shadow *shadow = find_shadow(metrics, policy);
        if (shadow != NULL) {
            ++shadow->n_step;
            shadow->predicted_s += number_of(about, "predicted_s");
            shadow->rank_load += number_of(about, "rank_load_max_over_mean");
        }
    }
}

static void add_placement(const json_t *line, int64_t step, struct mt_run_metrics *metrics)
{
    const json_t *placement = json_object_get(line, "placement");
    if (!json_is_object(placement)) {
        return;
    }
    metrics->has_placement = true;
    metrics->copies += number_of(placement, "copies");
    metrics->late += number_of(placement, "late_copies");
    metrics->n_move += (int64_t)number_of(placement, "moves");
    metrics->predicted_s += number_of(placement, "predicted_s");
    metrics->ideal_s += number_of(placement, "ideal_s");
    add_shadows(json_object_get(placement, "shadow"), metrics);
    add_decisions(json_object_get(placement, "decisions"), step, metrics);
}

static enum mt_status add_layers(const json_t *line, struct mt_run_metrics *metrics)
{
    const json_t *loads = json_object_get(line, "expert_load_max_over_mean_by_layer");
    const int64_t n = (int64_t)json_array_size(loads);
    if (metrics->layer_load == NULL && n > 0) {
        MT_TRY(MT_ALLOCATE(metrics->layer_load, n, "loads of layers"));
        metrics->n_layer = mt_size_to_int(n);
    }
    for (int l = 0; l < metrics->n_layer && l < n; ++l) {
        metrics->layer_load[l] += json_number_value(json_array_get(loads, (size_t)l));
    }
    return MT_OK;
}

static enum mt_status add_line(const json_t *line, struct mt_run_metrics *metrics)
{
    const json_t *run = json_object_get(line, "run");
    const char *device = json_string_value(json_object_get(run, "device"));
    if (device != NULL) {
        (void)snprintf(metrics->device, sizeof(metrics->device), "%s", device);
    }
    if (!json_is_number(json_object_get(line, "step_time_s"))) {
        return MT_OK; /* an evaluation, or the run's first line */
    }
    ++metrics->n_step;
    metrics->last_step = mt_max_i64(metrics->last_step, integer_of(line, "step"));
    metrics->step_time_s += number_of(line, "step_time_s");
    metrics->tokens_per_s += number_of(line, "tokens_per_s");
    metrics->expert_load += number_of(line, "expert_load_max_over_mean");
    metrics->rank_load += number_of(line, "rank_load_max_over_mean");
    add_placement(line, (int64_t)number_of(line, "step"), metrics);
    return add_layers(line, metrics);
}

static void finish_means(struct mt_run_metrics *metrics)
{
    const double n = metrics->n_step > 0 ? (double)metrics->n_step : 1;
    metrics->step_time_s /= n;
    metrics->tokens_per_s /= n;
    metrics->expert_load /= n;
    metrics->rank_load /= n;
    metrics->copies /= n;
    metrics->late /= n;
    metrics->predicted_s /= n;
    metrics->ideal_s /= n;
    for (int i = 0; i < metrics->n_shadow; ++i) {
        metrics->shadow[i].predicted_s /= (double)metrics->shadow[i].n_step;
        metrics->shadow[i].rank_load /= (double)metrics->shadow[i].n_step;
    }
    for (int l = 0; l < metrics->n_layer; ++l) {
        metrics->layer_load[l] /= n;
    }
}

enum mt_status mt_run_metrics_read(const char *run_dir, struct mt_run_metrics *metrics)
{
    char path[PATH_BYTES];
    struct mt_lines lines;
    json_t *line = NULL;
    bool is_blank = false;
    *metrics = (struct mt_run_metrics){0};
    (void)snprintf(path, sizeof(path), "%s/metrics.jsonl", run_dir);
    if (access(path, F_OK) != 0) {
        return MT_OK;
    }
    metrics->is_there = true;
    enum mt_status status = mt_lines_open(path, "a run's metrics were expected", &lines);
    if (status == MT_ERR_INPUT) {
        (void)snprintf(metrics->problem, sizeof(metrics->problem), "%.*s",
                       (int)sizeof(metrics->problem) - 1, mt_error_last()->text);
        mt_error_clear();
        return MT_OK;
    }
    MT_TRY(status);
    while (status == MT_OK && mt_lines_next(&lines, &line, &is_blank)) {
        if (json_is_object(line)) {
            status = add_line(line, metrics);
        } else {
            ++metrics->n_broken;
        }
        json_decref(line);
    }
    metrics->n_broken += lines.is_too_long || lines.has_failed ? 1 : 0;
    mt_lines_close(&lines);
    finish_means(metrics);
    return status;
}

void mt_run_metrics_clear(struct mt_run_metrics *metrics)
{
    mt_memory_free(metrics->layer_load);
    *metrics = (struct mt_run_metrics){0};
}
