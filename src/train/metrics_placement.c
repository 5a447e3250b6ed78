/* What placement did, in a step's line of metrics: copies, moves, the log of decisions, and what
 * other policies would have cost. */
#include "train/metrics_placement.h"

static json_t *decision_line(const struct mt_moe_decision *decision)
{
    json_t *ranks = json_array();
    for (int i = 0; i < decision->n_copy && i < MT_MOE_DECISION_RANKS; i++) {
        (void)json_array_append_new(ranks, json_integer(decision->rank[i]));
    }
    return json_pack("{s:i,s:i,s:i,s:o,s:b,s:I,s:f,s:f}", "layer", decision->layer, "expert",
                     decision->expert, "copies", decision->n_copy, "ranks", ranks, "late",
                     (int)decision->is_late, "rows", (json_int_t)decision->n_row, "saves_s",
                     decision->saves_s, "costs_s", decision->costs_s);
}

json_t *mt_metrics_placement(const struct mt_moe_stats *stats)
{
    const struct mt_moe_outlook *outlook = &stats->outlook;
    json_t *decisions = json_array();
    for (int i = 0; i < outlook->n_decision; i++) {
        (void)json_array_append_new(decisions, decision_line(&outlook->decision[i]));
    }
    json_t *placement =
        json_pack("{s:I,s:I,s:I,s:f,s:f,s:o}", "copies", (json_int_t)outlook->n_copy, "late_copies",
                  (json_int_t)outlook->n_late, "moves", (json_int_t)stats->n_move, "predicted_s",
                  outlook->predicted_s, "ideal_s", outlook->ideal_s, "decisions", decisions);
    if (outlook->n_shadow > 0) {
        json_t *shadow = json_object();
        for (int i = 0; i < outlook->n_shadow; i++) {
            (void)json_object_set_new(
                shadow, outlook->shadow[i].policy,
                json_pack("{s:f,s:f}", "predicted_s", outlook->shadow[i].predicted_s,
                          "rank_load_max_over_mean", outlook->shadow[i].load_max_over_mean));
        }
        (void)json_object_set_new(placement, "shadow", shadow);
    }
    return placement;
}
