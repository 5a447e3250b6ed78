/* Traces as lines of JSON: {"step":1,"micro":0,"layer":0,"counts":[...]}, with counts [E] or
 * [R][E]. */
#include "base/input_file.h"
#include "base/memory.h"
#include "base/size.h"
#include "data/trace_internal.h"

#include <jansson.h>
#include <string.h>

/* A key that must be a whole number in [0, most]; may be missing when `fallback` >= 0. */
static enum mt_status get_number(const struct mt_trace_lines *lines, const json_t *object,
                                 const char *key, int64_t most, int64_t fallback, int64_t *value)
{
    const json_t *item = json_object_get(object, key);
    *value = fallback;
    if (item == NULL && fallback >= 0) {
        return MT_OK;
    }
    if (!json_is_integer(item) || json_integer_value(item) < 0 || json_integer_value(item) > most) {
        return mt_trace_lines_fail(lines, "\"%s\" is %s; expected a whole number from 0 to %lld",
                                   key, item == NULL ? "missing" : "something else",
                                   (long long)most);
    }
    *value = json_integer_value(item);
    return MT_OK;
}

static enum mt_status check_keys(const struct mt_trace_lines *lines, json_t *object)
{
    static const char *const known[] = {"step", "micro", "layer", "counts"};
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(object, key, value)
    {
        bool is_known = false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); ++i) {
            is_known = is_known || strcmp(key, known[i]) == 0;
        }
        if (!is_known) {
            return mt_trace_lines_fail(
                lines, "unknown key \"%.60s\"; expected step, micro, layer and counts", key);
        }
    }
    return MT_OK;
}

/* list: one source's counts, [n_expert] */
static enum mt_status get_counts(const struct mt_trace_lines *lines, const json_t *list,
                                 int n_expert, int64_t *count)
{
    if (!json_is_array(list) || json_array_size(list) != (size_t)n_expert) {
        return mt_trace_lines_fail(
            lines, "%zu counts%s; expected a list of %d, one for each expert, as in the first line",
            json_array_size(list), json_is_array(list) ? "" : " (no list)", n_expert);
    }
    for (int e = 0; e < n_expert; ++e) {
        const json_t *item = json_array_get(list, (size_t)e);
        if (!json_is_integer(item) || json_integer_value(item) < 0) {
            return mt_trace_lines_fail(
                lines, "the count of expert %d is no whole number >= 0; expected one", e);
        }
        count[e] = json_integer_value(item);
    }
    return MT_OK;
}

/* From the first line on: are there sources, how many experts? */
static enum mt_status learn_columns(const struct mt_trace_lines *lines, const json_t *object,
                                    struct mt_trace_columns *columns)
{
    const json_t *counts = json_object_get(object, "counts");
    const json_t *first = json_array_get(counts, 0);
    columns->has_source = json_is_array(first);
    const size_t n_expert = json_array_size(columns->has_source ? first : counts);
    if (n_expert == 0 || n_expert > MT_TRACE_MAX_EXPERT) {
        return mt_trace_lines_fail(lines,
                                   "\"counts\" has %zu experts; expected 1 to %d: [..] with a "
                                   "number for each, or [[..], ..] with such a list for each rank",
                                   n_expert, MT_TRACE_MAX_EXPERT);
    }
    columns->n_expert = (int)n_expert;
    columns->has_micro = json_object_get(object, "micro") != NULL;
    columns->is_known = true;
    return MT_OK;
}

static enum mt_status get_sources(const struct mt_trace_lines *lines, const json_t *counts,
                                  const struct mt_trace_columns *columns, struct mt_trace_row *row)
{
    const int64_t n_expert = columns->n_expert;
    const size_t n = json_array_size(counts);
    row->n_source = 1;
    if (!columns->has_source) {
        MT_TRY(mt_trace_row_reserve(row, n_expert));
        return get_counts(lines, counts, columns->n_expert, row->count);
    }
    if (n == 0 || n > MT_TRACE_MAX_SOURCE) {
        return mt_trace_lines_fail(lines, "\"counts\" has %zu ranks; expected 1 to %d", n,
                                   MT_TRACE_MAX_SOURCE);
    }
    row->n_source = (int)n;
    MT_TRY(mt_trace_row_reserve(row, row->n_source * n_expert));
    for (int r = 0; r < row->n_source; ++r) {
        MT_TRY(get_counts(lines, json_array_get(counts, (size_t)r), columns->n_expert,
                          &row->count[r * n_expert]));
    }
    return MT_OK;
}

static enum mt_status read_object(const struct mt_trace_lines *lines, json_t *object,
                                  struct mt_trace_columns *columns, struct mt_trace_row *row)
{
    int64_t micro = 0;
    int64_t layer = 0;
    MT_TRY(check_keys(lines, object));
    if (!columns->is_known) {
        MT_TRY(learn_columns(lines, object, columns));
    }
    MT_TRY(get_number(lines, object, "step", INT64_MAX, -1, &row->step));
    MT_TRY(get_number(lines, object, "micro", MT_TRACE_MAX_MICRO - 1, columns->has_micro ? -1 : 0,
                      &micro));
    MT_TRY(get_number(lines, object, "layer", INT32_MAX, -1, &layer));
    MT_TRY(get_sources(lines, json_object_get(object, "counts"), columns, row));
    row->micro = (int)micro;
    row->layer = (int)layer;
    row->source = 0;
    return MT_OK;
}

enum mt_status mt_trace_jsonl_row(const struct mt_trace_lines *lines,
                                  struct mt_trace_columns *columns, struct mt_trace_row *row)
{
    json_error_t error;
    json_t *object = json_loadb(lines->text, (size_t)lines->length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        return mt_trace_lines_fail(
            lines, "%s; expected {\"step\":1,\"layer\":0,\"counts\":[..]}; see docs/traces.md",
            object == NULL ? mt_input_quote(error.text) : "no JSON object");
    }
    const enum mt_status status = read_object(lines, object, columns, row);
    json_decref(object);
    return status;
}
