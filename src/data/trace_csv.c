/* Traces as comma-separated values, read by hand because a trace is strict: digits and commas, no
 * quotes, spaces or signs. */
#include "base/memory.h"
#include "base/size.h"
#include "data/trace_internal.h"

#include <stdlib.h>
#include <string.h>

/* A field of the line: text [length]. */
struct field {
    const char *text;
    int64_t length;
};

/* The next field at *at; *at becomes -1 after the last. */
static struct field next_field(const struct mt_trace_lines *lines, int64_t *at)
{
    const char *start = lines->text + *at;
    const char *comma = memchr(start, ',', (size_t)(lines->length - *at));
    const int64_t length = comma != NULL ? comma - start : lines->length - *at;
    *at = comma != NULL ? *at + length + 1 : -1;
    return (struct field){start, length};
}

static bool is_word(struct field field, const char *word)
{
    return field.length == (int64_t)strlen(word) &&
           memcmp(field.text, word, (size_t)field.length) == 0;
}

static enum mt_status bad_header(const struct mt_trace_lines *lines, int column, struct field field)
{
    return mt_trace_lines_fail(
        lines,
        "column %d of the header is \"%.*s\", not as in step[,micro],layer[,rank],expert_0,"
        "expert_1,...; expected that first line; see docs/traces.md",
        column, (int)mt_min_i64(field.length, 40), field.text);
}

enum mt_status mt_trace_csv_header(const struct mt_trace_lines *lines,
                                   struct mt_trace_columns *columns)
{
    static const char *const lead[] = {"step", "micro", "layer", "rank"};
    enum { N_LEAD = 4 };
    int64_t at = 0;
    int column = 0;
    int next_lead = 0;
    *columns = (struct mt_trace_columns){0};
    while (at >= 0) {
        char expert[32];
        const struct field field = next_field(lines, &at);
        int i = next_lead;
        ++column;
        while (i < N_LEAD && columns->n_expert == 0 && !is_word(field, lead[i])) {
            ++i;
        }
        if (i < N_LEAD && columns->n_expert == 0) {
            /* step and layer are not left out */
            const bool skips = (next_lead == 0 && i > 0) || (next_lead <= 2 && i > 2);
            if (skips) {
                return bad_header(lines, column, field);
            }
            columns->has_micro = columns->has_micro || i == 1;
            columns->has_source = columns->has_source || i == 3;
            next_lead = i + 1;
            continue;
        }
        (void)snprintf(expert, sizeof(expert), "expert_%d", columns->n_expert);
        if (next_lead <= 2 || !is_word(field, expert) || columns->n_expert == MT_TRACE_MAX_EXPERT) {
            return bad_header(lines, column, field);
        }
        ++columns->n_expert;
    }
    if (columns->n_expert == 0) {
        return bad_header(lines, column + 1, (struct field){"", 0});
    }
    columns->is_known = true;
    return MT_OK;
}

/* Digits only, at most `most`. */
static bool parse_count(struct field field, int64_t most, int64_t *value)
{
    *value = 0;
    for (int64_t i = 0; i < field.length; ++i) {
        const int digit = field.text[i] - '0';
        if (digit < 0 || digit > 9 || *value > (most - digit) / 10) {
            return false;
        }
        *value = *value * 10 + digit;
    }
    return field.length > 0;
}

/* Field number `column` (from 0) as a number up to `most`. */
static enum mt_status next_count(const struct mt_trace_lines *lines, int64_t *at, int column,
                                 int64_t most, int64_t *value)
{
    if (*at < 0) {
        return mt_trace_lines_fail(lines,
                                   "%d fields; expected as many as the header has; is the file cut "
                                   "short?",
                                   column);
    }
    const struct field field = next_field(lines, at);
    if (!parse_count(field, most, value)) {
        return mt_trace_lines_fail(
            lines,
            "field %d is \"%.*s\"; expected a whole number from 0 to %lld in "
            "digits",
            column + 1, (int)mt_min_i64(field.length, 40), field.text, (long long)most);
    }
    return MT_OK;
}

enum mt_status mt_trace_csv_row(const struct mt_trace_lines *lines,
                                struct mt_trace_columns *columns, struct mt_trace_row *row)
{
    int64_t at = 0;
    int column = 0;
    int64_t micro = 0;
    int64_t layer = 0;
    int64_t source = 0;
    MT_TRY(mt_trace_row_reserve(row, columns->n_expert));
    MT_TRY(next_count(lines, &at, column++, INT64_MAX, &row->step));
    if (columns->has_micro) {
        MT_TRY(next_count(lines, &at, column++, MT_TRACE_MAX_MICRO - 1, &micro));
    }
    MT_TRY(next_count(lines, &at, column++, INT32_MAX, &layer));
    if (columns->has_source) {
        MT_TRY(next_count(lines, &at, column++, MT_TRACE_MAX_SOURCE - 1, &source));
    }
    for (int e = 0; e < columns->n_expert; ++e) {
        MT_TRY(next_count(lines, &at, column++, INT64_MAX, &row->count[e]));
    }
    if (at >= 0) {
        return mt_trace_lines_fail(lines, "more than %d fields; expected as many as the header has",
                                   column);
    }
    row->micro = (int)micro;
    row->layer = (int)layer;
    row->source = (int)source;
    row->n_source = 1;
    return MT_OK;
}
