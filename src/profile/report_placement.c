/* What placement did, as text and as data of the page: how much of it, the log of its decisions,
 * what other policies would have cost on the same counts (placement.shadow). */
#include "profile/report_json.h"

#include <math.h>
#include <string.h>

/* Decisions that the text has; the page has all that were kept. */
enum { TEXT_DECISIONS = 8 };

static void add(char *text, const char *more)
{
    const size_t used = strlen(text);
    (void)snprintf(text + used, MT_REPORT_LINE_BYTES - used, "%s", more);
}

static void add_number(char *text, const char *before, int number)
{
    char line[64];
    (void)snprintf(line, sizeof(line), "%s%d", before, number);
    add(text, line);
}

void mt_report_decision(const struct mt_run_decision *decision, char *text)
{
    const int n_more = decision->n_copy - decision->n_rank;
    (void)snprintf(text, MT_REPORT_LINE_BYTES, "expert %d also on rank%s ", decision->expert,
                   decision->n_copy == 1 ? "" : "s");
    for (int i = 0; i < decision->n_rank; ++i) {
        const bool is_last = i > 0 && i == decision->n_rank - 1 && n_more <= 0;
        add_number(text, i == 0 ? "" : is_last ? " and " : ", ", decision->rank[i]);
    }
    if (n_more > 0) {
        add_number(text, " and ", n_more);
        add(text, " more");
    }
}

/* Of the MoE layers of a step: this policy's over what the run's own was predicted to take; 0:
 * unknown. */
static double over_own(const struct mt_run_metrics *metrics, double predicted_s)
{
    return metrics->predicted_s > 0 ? predicted_s / metrics->predicted_s : 0;
}

/* ---- text ---- */

static void print_decision(const struct mt_run_decision *decision, FILE *out)
{
    char what[MT_REPORT_LINE_BYTES];
    char saves[MT_REPORT_LINE_BYTES];
    char costs[MT_REPORT_LINE_BYTES];
    char line[4 * MT_REPORT_LINE_BYTES];
    mt_report_decision(decision, what);
    mt_report_time(decision->saves_s * 1e9, saves);
    mt_report_time(decision->costs_s * 1e9, costs);
    (void)snprintf(line, sizeof(line), "step %lld, layer %d: %s: saves %s, costs %s (%lld rows%s)",
                   (long long)decision->step, decision->layer, what, saves, costs,
                   (long long)decision->rows, decision->is_late ? ", after the gate" : "");
    mt_report_print_under(out, "decision", line);
}

static void print_policy(const struct mt_run_metrics *metrics, const char *name, double predicted_s,
                         double rank_load, FILE *out)
{
    char text[MT_REPORT_LINE_BYTES];
    char load[32] = "-";
    mt_report_time(predicted_s * 1e9, text);
    if (rank_load > 0) {
        (void)snprintf(load, sizeof(load), "%.2f", rank_load);
    }
    (void)fprintf(out, "%-22.22s %12s  %9.2f  %19s\n", name, text, over_own(metrics, predicted_s),
                  load);
}

static void print_shadows(const struct mt_run_metrics *metrics, FILE *out)
{
    if (metrics->n_shadow == 0) {
        return;
    }
    (void)fprintf(out, "\n%-22s %12s  %9s  %19s\n", "policy, predicted", "MoE layers", "over own",
                  "busiest rank / mean");
    print_policy(metrics, "this run's", metrics->predicted_s, metrics->rank_load, out);
    print_policy(metrics, "even rows: a bound", metrics->ideal_s, 1, out);
    for (int i = 0; i < metrics->n_shadow; ++i) {
        const struct mt_run_shadow *shadow = &metrics->shadow[i];
        print_policy(metrics, shadow->policy, shadow->predicted_s, shadow->rank_load, out);
    }
}

void mt_report_print_placement(const struct mt_report *report, FILE *out)
{
    const struct mt_run_metrics *metrics = &report->metrics;
    char line[MT_REPORT_LINE_BYTES];
    if (!metrics->has_placement) {
        return;
    }
    (void)snprintf(line, sizeof(line),
                   "%.1f copies a step, %.1f of them late; %lld moves in all; busiest rank %.2f of "
                   "the mean, busiest expert %.2f",
                   metrics->copies, metrics->late, (long long)metrics->n_move, metrics->rank_load,
                   metrics->expert_load);
    mt_report_print_under(out, "placement", line);
    for (int i = 0; i < metrics->n_decision && i < TEXT_DECISIONS; ++i) {
        print_decision(&metrics->decision[i], out);
    }
    print_shadows(metrics, out);
}

/* ---- the page ---- */

static json_t *decision_of(const struct mt_run_decision *decision)
{
    char what[MT_REPORT_LINE_BYTES];
    mt_report_decision(decision, what);
    return json_pack("{s:I,s:i,s:o,s:b,s:I,s:o,s:o}", "step", (json_int_t)decision->step, "layer",
                     decision->layer, "what", mt_json_text(what), "late", (int)decision->is_late,
                     "rows", (json_int_t)decision->rows, "saves_s", mt_json_real(decision->saves_s),
                     "costs_s", mt_json_real(decision->costs_s));
}

static json_t *policy_of(const struct mt_run_metrics *metrics, const char *name, double predicted_s,
                         double rank_load)
{
    return json_pack("{s:o,s:o,s:o,s:o}", "name", mt_json_text(name), "predicted_s",
                     mt_json_real(predicted_s), "over_own",
                     mt_json_real(over_own(metrics, predicted_s)), "rank_load",
                     mt_json_real(rank_load));
}

static json_t *policies(const struct mt_run_metrics *metrics)
{
    json_t *list = json_array();
    if (metrics->n_shadow == 0) {
        return list;
    }
    (void)json_array_append_new(
        list, policy_of(metrics, "this run's", metrics->predicted_s, metrics->rank_load));
    (void)json_array_append_new(list,
                                policy_of(metrics, "even rows: a bound", metrics->ideal_s, 1));
    for (int i = 0; i < metrics->n_shadow; ++i) {
        const struct mt_run_shadow *shadow = &metrics->shadow[i];
        (void)json_array_append_new(
            list, policy_of(metrics, shadow->policy, shadow->predicted_s, shadow->rank_load));
    }
    return list;
}

json_t *mt_json_placement(const struct mt_report *report)
{
    const struct mt_run_metrics *metrics = &report->metrics;
    json_t *list = json_array();
    if (!metrics->has_placement) {
        json_decref(list);
        return json_null();
    }
    for (int i = 0; i < metrics->n_decision; ++i) {
        (void)json_array_append_new(list, decision_of(&metrics->decision[i]));
    }
    return json_pack("{s:o,s:o,s:I,s:o,s:o,s:o,s:o}", "copies", mt_json_real(metrics->copies),
                     "late", mt_json_real(metrics->late), "moves", (json_int_t)metrics->n_move,
                     "rank_load", mt_json_real(metrics->rank_load), "expert_load",
                     mt_json_real(metrics->expert_load), "decisions", list, "policies",
                     policies(metrics));
}
