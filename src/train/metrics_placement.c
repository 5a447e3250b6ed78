/* What placement did, in a step's line of metrics: copies, moves, the log of decisions, and what
 * other policies would have cost. */
#include "train/metrics_placement.h"

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

static json_t *decision_line(const struct mt_moe_decision *decision)
{
    json_t *line = json_object();
    json_t *ranks = json_array();
    for (int i = 0; i < decision->n_copy && i < MT_MOE_DECISION_RANKS; i++) {
        (void)json_array_append_new(ranks, json_integer(decision->rank[i]));
    }
    set(line, "layer", json_integer(decision->layer));
    set(line, "expert", json_integer(decision->expert));
    set(line, "copies", json_integer(decision->n_copy));
    set(line, "ranks", ranks);
    set(line, "late", json_boolean(decision->is_late));
    set(line, "rows", json_integer((json_int_t)decision->n_row));
    set(line, "saves_s", json_real(decision->saves_s));
    set(line, "costs_s", json_real(decision->costs_s));
    return line;
}

json_t *mt_metrics_placement(const struct mt_moe_stats *stats)
{
    const struct mt_moe_outlook *outlook = &stats->outlook;
    json_t *placement = json_object();
    json_t *decisions = json_array();
    for (int i = 0; i < outlook->n_decision; i++) {
        (void)json_array_append_new(decisions, decision_line(&outlook->decision[i]));
    }
    set(placement, "copies", json_integer((json_int_t)outlook->n_copy));
    set(placement, "late_copies", json_integer((json_int_t)outlook->n_late));
    set(placement, "moves", json_integer((json_int_t)stats->n_move));
    set(placement, "predicted_s", json_real(outlook->predicted_s));
    set(placement, "ideal_s", json_real(outlook->ideal_s));
    set(placement, "decisions", decisions);
    if (outlook->n_shadow > 0) {
        json_t *shadow = json_object();
        for (int i = 0; i < outlook->n_shadow; i++) {
            set(shadow, outlook->shadow[i].policy,
                json_pack("{s:f,s:f}", "predicted_s", outlook->shadow[i].predicted_s,
                          "rank_load_max_over_mean", outlook->shadow[i].load_max_over_mean));
        }
        set(placement, "shadow", shadow);
    }
    return placement;
}
