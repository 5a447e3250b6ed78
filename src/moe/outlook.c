#include "moe/outlook.h"

#include "base/memory.h"
#include "base/size.h"
#include "placement/policy.h"
#include "placement/predict.h"

#include <string.h>

static const double PS_PER_S = 1e12;
/* Forward once, backward twice. */
enum { PASSES = 3 };
enum { N_STATE_HEAD = 2 };

static enum mt_status init_shadow(struct mt_outlook *outlook, const struct mt_config *config,
                                  const struct mt_cluster *cluster)
{
    int64_t most = 0;
    MT_TRY(MT_ALLOCATE(outlook->study, mt_n_policy, "shadow policies"));
    MT_TRY(MT_ALLOCATE(outlook->shadow, mt_n_policy, "shadow policies"));
    for (int i = 0; i < mt_n_policy; ++i) {
        int64_t n_bytes = 0;
        if (strcmp(mt_policies[i].name, config->placement.policy) == 0) {
            outlook->policy = i;
            continue;
        }
        const struct mt_study_options options = {.policy = &mt_policies[i],
                                                 .cluster = cluster,
                                                 .n_layer = (int)config->model.num_layers,
                                                 .first_layer = (int)config->model.first_k_dense,
                                                 .n_expert = (int)config->moe.num_experts,
                                                 .n_micro = 1,
                                                 .slots = config->placement.slots,
                                                 .overlap = (int)config->placement.overlap_experts,
                                                 .calibrate = config->placement.calibrate,
                                                 .split = config->placement.split,
                                                 .rematerialize = config->placement.rematerialize,
                                                 .load_window = (int)config->placement.load_window,
                                                 .reshard_interval =
                                                     config->placement.reshard_interval};
        MT_TRY(mt_study_init(&outlook->study[outlook->n_shadow], &options));
        outlook->shadow[outlook->n_shadow++].policy = mt_policies[i].name;
        if (!mt_study_scratch_bytes(&options, &n_bytes)) {
            return MT_FAIL(MT_ERR_RESOURCE,
                           "placement.shadow: the scratch of %s does not fit 63 bits; expected "
                           "fewer ranks or experts; set shadow = false",
                           mt_policies[i].name);
        }
        most = mt_max_i64(most, n_bytes);
    }
    outlook->n_state = N_STATE_HEAD;
    for (int i = 0; i < outlook->n_shadow; ++i) {
        outlook->n_state += mt_study_state_length(&outlook->study[i]);
    }
    MT_TRY(MT_ALLOCATE(outlook->state, outlook->n_state, "shadow policies"));
    return mt_arena_init(&outlook->scratch, most, "scratch of shadow policies");
}

enum mt_status mt_outlook_init(struct mt_outlook *outlook, const struct mt_config *config,
                               const struct mt_cluster *cluster)
{
    *outlook = (struct mt_outlook){0};
    outlook->n_layer = (int)config->model.num_layers;
    MT_TRY(MT_ALLOCATE(outlook->decision, config->model.num_layers * MT_MOE_LAYER_DECISIONS,
                       "decisions"));
    MT_TRY(MT_ALLOCATE(outlook->n_passed_row, config->model.num_layers, "decisions"));
    return config->placement.shadow ? init_shadow(outlook, config, cluster) : MT_OK;
}

void mt_outlook_clear(struct mt_outlook *outlook)
{
    for (int i = 0; outlook->study != NULL && i < outlook->n_shadow; ++i) {
        mt_study_clear(&outlook->study[i]);
    }
    mt_memory_free(outlook->study);
    mt_memory_free(outlook->shadow);
    mt_memory_free(outlook->state);
    mt_memory_free(outlook->decision);
    mt_memory_free(outlook->n_passed_row);
    mt_arena_clear(&outlook->scratch);
}

void mt_outlook_begin_step(struct mt_outlook *outlook, int n_micro)
{
    memset(outlook->n_passed_row, 0, (size_t)outlook->n_layer * sizeof(*outlook->n_passed_row));
    outlook->sum = (struct mt_moe_outlook){.decision = outlook->decision};
    for (int i = 0; i < outlook->n_shadow; ++i) {
        outlook->study[i].options.n_micro = n_micro;
        mt_study_forget(&outlook->study[i]);
    }
}

/* What an expert's copies do: rows they take off its owner, and what they cost beyond that - a late
 * copy's way, which is exposed, and the fixed price of one more instance. */
static struct mt_moe_decision decide(const struct mt_cluster *cluster,
                                     const struct mt_placement *placement, const int64_t *quota,
                                     int expert)
{
    const int64_t n_instance = mt_placement_n_instance(placement);
    const int owner = placement->owner[expert];
    struct mt_moe_decision decision = {.expert = expert};
    int64_t late_ps = 0;
    for (int i = placement->instance_start[expert]; i < placement->instance_start[expert + 1];
         ++i) {
        const int rank = placement->rank[i];
        if (rank == owner) {
            continue;
        }
        if (decision.n_copy < MT_MOE_DECISION_RANKS) {
            decision.rank[decision.n_copy] = rank;
        }
        ++decision.n_copy;
        for (int source = 0; source < placement->n_rank; ++source) {
            decision.n_row += quota[source * n_instance + i];
        }
        if (placement->is_late[i]) {
            const enum mt_level level = mt_cluster_level(cluster, owner, rank);
            decision.is_late = true;
            late_ps = mt_max_i64(
                late_ps, mt_costs_message_ps(&cluster->costs, level, cluster->expert_bytes));
        }
    }
    decision.saves_s = (double)(decision.n_row * PASSES) * (double)cluster->costs.row_ps / PS_PER_S;
    decision.costs_s = ((double)late_ps + (double)(PASSES * cluster->costs.instance_ps)) / PS_PER_S;
    return decision;
}

/* The layer's largest decisions, by rows, in falling order. */
static void insert(struct mt_moe_decision *best, int *n, const struct mt_moe_decision *decision)
{
    int at = *n;
    while (at > 0 && best[at - 1].n_row < decision->n_row) {
        --at;
    }
    if (at == MT_MOE_LAYER_DECISIONS) {
        return;
    }
    const int n_kept = *n < MT_MOE_LAYER_DECISIONS ? *n : MT_MOE_LAYER_DECISIONS - 1;
    memmove(&best[at + 1], &best[at], (size_t)(n_kept - at) * sizeof(*best));
    best[at] = *decision;
    *n = n_kept + 1;
}

bool mt_outlook_passes(const struct mt_outlook *outlook, const struct mt_predict_options *how)
{
    return how->is_followed && how->rematerialize && outlook->n_shadow == 0;
}

void mt_outlook_pass(struct mt_outlook *outlook, int layer, int n_expert, const int64_t *total)
{
    for (int e = 0; e < n_expert; ++e) {
        outlook->n_passed_row[layer] += total[e];
    }
}

void mt_outlook_add(struct mt_outlook *outlook, const struct mt_cluster *cluster, int layer,
                    const struct mt_placement *placement, const int64_t *quota,
                    const struct mt_predict_options *how, struct mt_arena *scratch)
{
    struct mt_moe_outlook *sum = &outlook->sum;
    struct mt_moe_decision *best = outlook->decision + sum->n_decision;
    struct mt_prediction prediction;
    int n = 0;
    mt_predict(cluster, placement, quota, how, scratch, &prediction);
    const double n_row = (double)mt_max_i64(prediction.n_row, 1);
    const double n_alike = 1.0 + (double)outlook->n_passed_row[layer] / n_row;
    sum->predicted_s += (double)prediction.total_ps * n_alike / PS_PER_S;
    sum->ideal_s += (double)prediction.ideal_ps * n_alike / PS_PER_S;
    if (how->is_followed) {
        return;
    }
    sum->n_copy += prediction.n_copy;
    sum->n_late += prediction.n_late;
    for (int e = 0; e < placement->n_expert; ++e) {
        if (placement->instance_start[e + 1] - placement->instance_start[e] > 1) {
            struct mt_moe_decision decision = decide(cluster, placement, quota, e);
            decision.layer = layer;
            insert(best, &n, &decision);
        }
    }
    sum->n_decision += n;
}

void mt_outlook_shadow(struct mt_outlook *outlook, int layer, const int64_t *counts)
{
    for (int i = 0; i < outlook->n_shadow; ++i) {
        mt_study_layer(&outlook->study[i], layer, counts, &outlook->scratch, NULL);
    }
}

void mt_outlook_finish(struct mt_outlook *outlook, struct mt_moe_outlook *sum)
{
    for (int i = 0; i < outlook->n_shadow; ++i) {
        struct mt_study *study = &outlook->study[i];
        struct mt_moe_shadow *shadow = &outlook->shadow[i];
        const double n_row = (double)mt_max_i64(study->sum.n_row, 1);
        shadow->predicted_s = (double)study->sum.prediction.total_ps / PS_PER_S;
        shadow->load_max_over_mean =
            (double)study->sum.n_largest_row * study->options.cluster->n_rank / n_row;
        mt_study_end_step(study, &outlook->scratch);
    }
    outlook->sum.n_shadow = outlook->n_shadow;
    outlook->sum.shadow = outlook->shadow;
    *sum = outlook->sum;
}

void mt_outlook_write_state(struct mt_outlook *outlook, int n_rank)
{
    int64_t at = N_STATE_HEAD;
    if (outlook->n_state == 0) {
        return;
    }
    outlook->state[0] = n_rank;
    outlook->state[1] = 1 + outlook->policy;
    for (int i = 0; i < outlook->n_shadow; ++i) {
        mt_study_write_state(&outlook->study[i], &outlook->state[at]);
        at += mt_study_state_length(&outlook->study[i]);
    }
}

void mt_outlook_read_state(struct mt_outlook *outlook, int n_rank)
{
    int64_t at = N_STATE_HEAD;
    if (outlook->n_state == 0 || outlook->state[0] != n_rank ||
        outlook->state[1] != 1 + outlook->policy) {
        return;
    }
    for (int i = 0; i < outlook->n_shadow; ++i) {
        mt_study_read_state(&outlook->study[i], &outlook->state[at], &outlook->scratch);
        at += mt_study_state_length(&outlook->study[i]);
    }
}
