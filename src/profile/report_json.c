/* The data of the page: what report/sections.js draws. Times in seconds. */
#include "profile/report_json.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Colours of maps are full this far from 1, at least and at most. */
static const double least_span = 0.1, most_span = 1;

json_t *mt_json_text(const char *text)
{
    json_t *value = json_string(text);
    if (value == NULL) {
        char plain[MT_REPORT_TEXT_BYTES];
        size_t n = 0;
        for (; text[n] != '\0' && n + 1 < sizeof(plain); ++n) {
            plain[n] = text[n];
            if ((unsigned char)text[n] > 127) {
                plain[n] = '?';
            }
        }
        plain[n] = '\0';
        value = json_string(plain);
    }
    return value;
}

json_t *mt_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *mt_json_seconds(double ns)
{
    return mt_json_real(round(ns * 1e-2) * 1e-7); /* 0.1 us */
}

static void put(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

static void append(json_t *array, json_t *value)
{
    (void)json_array_append_new(array, value);
}

static json_t *facts(const struct mt_report *report)
{
    char value[MT_REPORT_LINE_BYTES];
    char about[MT_REPORT_LINE_BYTES];
    json_t *list = json_array();
    mt_report_time(report->step_ns, value);
    (void)snprintf(about, sizeof(about), "mean of %d steps", report->profile.n_step);
    append(list, json_pack("[s,s,s]", "step time", value, about));
    mt_report_lost(report, value);
    append(list, json_pack("[s,s,s]", "waiting for others", value, "of all ranks' time"));
    for (int i = 0; i < report->n_change; ++i) {
        const struct mt_report_change *change = &report->change[i];
        if (change->is_finding || (mt_report_worst(report) == NULL && i == 0)) {
            (void)snprintf(value, sizeof(value), "%.1f %%", change->gain * 100);
            (void)snprintf(about, sizeof(about), "if %.100s", change->name);
            append(list, json_pack("[s,s,s]", "to gain", value, about));
        }
    }
    if (report->metrics.n_step > 0) {
        (void)snprintf(value, sizeof(value), "%.0f", report->metrics.tokens_per_s);
        append(list, json_pack("[s,s,s]", "tokens a second", value, "of the whole run"));
    }
    return list;
}

static json_t *steps(const struct mt_report *report)
{
    static const char *const key[] = {"first", "last", "step", "worst", "median", "worst_rank"};
    enum { N_KEY = sizeof(key) / sizeof(key[0]) };
    json_t *list[N_KEY];
    json_t *object = json_object();
    for (int k = 0; k < N_KEY; ++k) {
        list[k] = json_array();
        put(object, key[k], list[k]);
    }
    for (int c = 0; c < report->n_column; ++c) {
        const struct mt_report_column *column = &report->column[c];
        append(list[0], json_integer(column->first));
        append(list[1], json_integer(column->last));
        append(list[2], mt_json_seconds(column->step_ns));
        append(list[3], mt_json_seconds(column->worst_ns));
        append(list[4], mt_json_seconds(column->median_ns));
        append(list[5], json_integer(column->worst_rank));
    }
    return object;
}

double mt_json_span(double span)
{
    return fmin(fmax(ceil(span * 20) / 20, least_span), most_span);
}

static json_t *heat(const struct mt_report *report)
{
    json_t *first = json_array();
    json_t *last = json_array();
    json_t *rows = json_array();
    double span = 0;
    for (int c = 0; c < report->n_column; ++c) {
        append(first, json_integer(report->column[c].first));
        append(last, json_integer(report->column[c].last));
    }
    for (int r = 0; r < report->n_rank; ++r) {
        json_t *row = json_array();
        for (int c = 0; c < report->n_column; ++c) {
            const double value = report->heat[(int64_t)r * report->n_column + c];
            span = isfinite(value) ? fmax(span, fabs(value - 1)) : span;
            append(row, mt_json_real(round(value * 1000) / 1000));
        }
        append(rows, row);
    }
    return json_pack("{s:o,s:o,s:o,s:f}", "first", first, "last", last, "value", rows, "span",
                     mt_json_span(span));
}

static json_t *phases(const struct mt_report *report)
{
    json_t *list = json_array();
    for (int i = 0; i < report->n_phase; ++i) {
        const struct mt_report_phase *phase = &report->phase[i];
        append(list,
               json_pack("{s:s,s:o,s:o,s:o,s:o,s:i,s:b}", "name",
                         mt_phase_name((enum mt_phase)phase->phase), "mean",
                         mt_json_seconds(phase->mean_ns), "max", mt_json_seconds(phase->max_ns),
                         "ratio", mt_json_real(phase->max_ns / phase->mean_ns), "wait",
                         mt_json_seconds(phase->wait_ns), "worst", phase->worst_rank, "is_uneven",
                         (int)phase->is_uneven));
    }
    return list;
}

/* The few words beside a rank's bars. */
static void note_of(const struct mt_report *report, int rank, char *text)
{
    text[0] = '\0';
    for (int i = 0; i < report->analysis.n_finding; ++i) {
        const struct mt_finding *finding = &report->analysis.finding[i];
        if (finding->rank == rank) {
            (void)snprintf(text, MT_REPORT_LINE_BYTES, "%s, %.1f %%", mt_cause_name(finding->cause),
                           finding->share * 100);
            return;
        }
    }
}

static json_t *rank_of(const struct mt_report *report, int r)
{
    const struct mt_analysis *analysis = &report->analysis;
    const double n = fmax(1, analysis->n_detailed);
    const struct mt_finding *worst = &analysis->worst[r];
    const bool is_known = analysis->n_detailed > 0 && analysis->n_rank > 1;
    char note[MT_REPORT_LINE_BYTES];
    char phase[MT_REPORT_LINE_BYTES];
    note_of(report, r, note);
    mt_report_phase_name(mt_report_blamed_phase(report, r), false, phase);
    json_t *object = json_object();
    put(object, "rank", json_integer(r));
    put(object, "host", mt_json_text(report->profile.rank[r].host));
    put(object, "note", json_string(note));
    put(object, "work", mt_json_seconds(report->work_ns[r]));
    put(object, "waited", mt_json_seconds((double)analysis->wait_ns[r] / n));
    put(object, "transfer", mt_json_seconds((double)analysis->transfer_ns[r] / n));
    put(object, "caused", mt_json_seconds(mt_report_caused_ns(report, r)));
    put(object, "blamed_phase", json_string(analysis->caused_ns[r] > 0 && is_known ? phase : ""));
    put(object, "slowdown", mt_json_real(analysis->slowdown[r]));
    put(object, "rows", mt_json_real(analysis->rows_ratio[r]));
    put(object, "cause", json_string(note[0] != '\0' ? mt_cause_name(worst->cause) : ""));
    put(object, "persistence",
        json_string(note[0] != '\0' ? mt_persistence_name(worst->persistence) : ""));
    put(object, "memory", json_integer(report->memory_bytes[r]));
    return object;
}

static json_t *ranks(const struct mt_report *report)
{
    json_t *list = json_array();
    for (int r = 0; r < report->n_rank; ++r) {
        append(list, rank_of(report, r));
    }
    return list;
}

/* Nodes, and for each of them how long messages to or from it were missed from each other one. */
static json_t *nodes(const struct mt_report *report)
{
    const struct mt_analysis *analysis = &report->analysis;
    json_t *list = json_array();
    for (int node = 0; analysis->n_node > 1 && node < analysis->n_node; ++node) {
        char name[MT_REPORT_LINE_BYTES];
        mt_report_node_name(report, node, name);
        append(list, json_pack("{s:o,s:o}", "name", mt_json_text(name), "missed",
                               mt_json_seconds(mt_report_missed_ns(report, node))));
    }
    return list;
}

static json_t *what_if(const struct mt_report *report)
{
    json_t *list = json_array();
    const double measured_ns = mt_replay_measured_ns(report->replay);
    for (int i = 0; i < report->n_change; ++i) {
        const struct mt_report_change *change = &report->change[i];
        append(list,
               json_pack("{s:s,s:o,s:o,s:b,s:b}", "name", change->name, "step",
                         mt_json_seconds(change->step_ns), "gain", mt_json_real(change->gain),
                         "is_finding", (int)change->is_finding, "is_bound", (int)change->is_bound));
    }
    return json_pack("{s:i,s:o,s:o,s:o,s:o}", "n_step", mt_replay_n_step(report->replay),
                     "measured", mt_json_seconds(measured_ns), "replayed",
                     mt_json_seconds(report->model_ns), "error",
                     mt_json_real(mt_report_error(report)), "list", list);
}

static json_t *rows(const struct mt_report *report)
{
    json_t *layers = json_array();
    json_t *values = json_array();
    json_t *counts = json_array();
    json_t *experts = json_array();
    double span = 0;
    for (int i = 0; i < report->n_row_layer; ++i) {
        append(layers, json_integer(report->row_layer[i]));
    }
    for (int r = 0; r < report->n_rank; ++r) {
        json_t *value = json_array();
        json_t *count = json_array();
        for (int i = 0; i < report->n_row_layer; ++i) {
            const double *of = &report->row_count[(int64_t)i * report->n_rank];
            double mean = 0;
            for (int other = 0; other < report->n_rank; ++other) {
                mean += of[other] / report->n_rank;
            }
            span = fmax(span, fabs(of[r] / mean - 1));
            append(value, mt_json_real(round(of[r] / mean * 1000) / 1000));
            append(count, mt_json_real(of[r]));
        }
        append(values, value);
        append(counts, count);
    }
    const int n_dense = report->profile.n_layer - report->metrics.n_layer;
    for (int l = 0; l < report->metrics.n_layer; ++l) {
        append(experts, json_pack("{s:i,s:o}", "layer", n_dense > 0 ? l + n_dense : l, "load",
                                  mt_json_real(report->metrics.layer_load[l])));
    }
    return json_pack("{s:o,s:o,s:o,s:o,s:f}", "layers", layers, "value", values, "count", counts,
                     "experts", experts, "span", mt_json_span(span));
}

static json_t *saves(const struct mt_report *report)
{
    json_t *list = json_array();
    for (int i = 0; i < report->n_save; ++i) {
        const struct mt_report_save *save = &report->save[i];
        append(list, json_pack("{s:I,s:o,s:o,s:i}", "step", (json_int_t)save->step, "mean",
                               mt_json_seconds(save->mean_ns), "max", mt_json_seconds(save->max_ns),
                               "rank", save->rank));
    }
    return list;
}

static json_t *sentences(const struct mt_report *report)
{
    char text[MT_REPORT_LINE_BYTES];
    json_t *list = json_array();
    for (int i = 0; mt_report_source(report, i, text); ++i) {
        append(list, mt_json_text(text));
    }
    return list;
}

static json_t *problems(const struct mt_report *report)
{
    json_t *list = json_array();
    for (int i = 0; i < report->profile.n_problem; ++i) {
        append(list, mt_json_text(report->profile.problem[i]));
    }
    return list;
}

static enum mt_status critical(const struct mt_report *report, json_t *object)
{
    json_t *phase_list = json_array();
    json_t *rank_list = json_array();
    for (int i = 0; i < report->n_critical; ++i) {
        const struct mt_report_critical *entry = &report->critical[i];
        char name[MT_REPORT_LINE_BYTES];
        mt_report_phase_name(entry->phase, entry->is_transfer, name);
        append(phase_list,
               json_pack("{s:s,s:o,s:o,s:i,s:o}", "name", name, "time",
                         mt_json_seconds(entry->step_ns), "share", mt_json_real(entry->share),
                         "rank", entry->rank, "rank_share", mt_json_real(entry->rank_share)));
    }
    for (int r = 0; r < report->n_rank; ++r) {
        append(rank_list,
               json_pack("{s:i,s:o}", "rank", r, "share", mt_json_real(report->critical_share[r])));
    }
    put(object, "phases", phase_list);
    put(object, "ranks", rank_list);
    const int n = mt_replay_n_step(report->replay);
    if (n == 0) {
        return MT_OK;
    }
    put(object, "step",
        json_integer(report->profile.step_number[mt_replay_step(report->replay, n - 1)]));
    return mt_json_lanes(report, object);
}

/* Inside <script> no "<" may stand: "</script" and "<!--" would end it. */
static enum mt_status dump(const json_t *object, char **out)
{
    char *plain = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
    int64_t n = 1;
    if (plain == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE, "no memory for the data of a report; expected some MiB");
    }
    for (const char *c = plain; *c != '\0'; ++c) {
        n += *c == '<' ? 6 : 1;
    }
    const enum mt_status status = MT_ALLOCATE(*out, n, "data of a report");
    int64_t used = 0;
    for (const char *c = plain; status == MT_OK && *c != '\0'; ++c) {
        if (*c == '<') {
            memcpy(*out + used, "\\u003c", 6);
            used += 6;
        } else {
            (*out)[used++] = *c;
        }
    }
    free(plain);
    return status;
}

enum mt_status mt_report_data(const struct mt_report *report, char **out)
{
    const struct mt_finding *worst = mt_report_worst(report);
    json_t *object = json_object();
    json_t *path = json_object();
    put(object, "finding",
        json_pack("{s:i,s:i,s:i}", "rank", worst != NULL ? worst->rank : -1, "node",
                  worst != NULL ? worst->node : -1, "to_node",
                  worst != NULL ? worst->to_node : -1));
    put(object, "run", json_pack("{s:i}", "n_detailed", report->analysis.n_detailed));
    put(object, "facts", facts(report));
    put(object, "ranks", ranks(report));
    put(object, "nodes", nodes(report));
    put(object, "steps", steps(report));
    put(object, "heat", heat(report));
    put(object, "phases", phases(report));
    put(object, "whatif", what_if(report));
    put(object, "critical", path);
    put(object, "rows", rows(report));
    put(object, "experts", mt_json_experts(report));
    put(object, "placement", mt_json_placement(report));
    put(object, "saves", saves(report));
    put(object, "sources", sentences(report));
    put(object, "problems", problems(report));
    enum mt_status status = critical(report, path);
    if (status == MT_OK) {
        status = dump(object, out);
    }
    json_decref(object);
    return status;
}
