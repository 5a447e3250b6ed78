#include "moe/tally.h"

#include "base/memory.h"
#include "base/size.h"

#include <string.h>

enum mt_status mt_tally_init(struct mt_tally *tally, const struct mt_config *config, int n_rank)
{
    *tally = (struct mt_tally){.is_micro = config->balance.loss == MT_BALANCE_MICRO,
                               .n_rank = n_rank,
                               .n_layer = (int)config->model.num_layers,
                               .first_layer = (int)config->model.first_k_dense,
                               .n_expert = config->moe.num_experts,
                               .top_k = config->moe.top_k};
    const int64_t n_layer = tally->n_layer;
    const int64_t n_pair = n_layer * tally->n_expert;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(tally->count, n_pair, "expert counts"));
    MT_TRY_GOTO(MT_ALLOCATE(tally->probability_sum, n_pair, "router probabilities"));
    MT_TRY_GOTO(MT_ALLOCATE(tally->lse_square_sum, n_layer, "router statistics"));
    MT_TRY_GOTO(MT_ALLOCATE(tally->micro_loss, n_layer, "balance losses"));
    MT_TRY_GOTO(MT_ALLOCATE(tally->partial, 2 * n_layer, "layer statistics"));
cleanup:
    if (status != MT_OK) {
        mt_tally_clear(tally);
    }
    return status;
}

void mt_tally_clear(struct mt_tally *tally)
{
    mt_memory_free(tally->count);
    mt_memory_free(tally->probability_sum);
    mt_memory_free(tally->lse_square_sum);
    mt_memory_free(tally->micro_loss);
    mt_memory_free(tally->partial);
    memset(tally, 0, sizeof(*tally));
}

void mt_tally_reset(struct mt_tally *tally)
{
    const size_t n_layer = (size_t)tally->n_layer;
    const size_t n_pair = n_layer * (size_t)tally->n_expert;
    memset(tally->count, 0, n_pair * sizeof(int64_t));
    tally->rows_of_busiest = 0;
    tally->rows_of_all = 0;
    memset(tally->probability_sum, 0, n_pair * sizeof(double));
    memset(tally->lse_square_sum, 0, n_layer * sizeof(double));
    memset(tally->micro_loss, 0, n_layer * sizeof(double));
}

/* sum_i count_i value_i / sum of counts: with counts as shares f. 0 when nothing was counted. */
static double weighted_by_share(const int64_t *count, const double *value, int64_t n)
{
    int64_t total = 0;
    double sum = 0.0;
    for (int64_t i = 0; i < n; ++i) {
        total += count[i];
        sum += (double)count[i] * value[i];
    }
    return total > 0 ? sum / (double)total : 0.0;
}

void mt_tally_add_gate(struct mt_tally *tally, int layer, const struct mt_tally_gate *gate)
{
    int64_t *count = tally->count + layer * tally->n_expert;
    double *probability_sum = tally->probability_sum + layer * tally->n_expert;
    for (int64_t e = 0; e < tally->n_expert; ++e) {
        count[e] += gate->global_count[e];
        probability_sum[e] += gate->probability_sum[e];
    }
    tally->lse_square_sum[layer] += gate->lse_square_sum;
    tally->micro_loss[layer] +=
        (double)tally->n_expert *
        weighted_by_share(gate->own_count, gate->probability_sum, tally->n_expert);
}

struct spread {
    int64_t total, largest, n_zero;
};

static struct spread spread_of(const int64_t *count, int64_t n)
{
    struct spread spread = {0, 0, 0};
    for (int64_t i = 0; i < n; ++i) {
        spread.total += count[i];
        spread.largest = mt_max_i64(spread.largest, count[i]);
        spread.n_zero += count[i] == 0;
    }
    return spread;
}

void mt_tally_add_load(struct mt_tally *tally, const int64_t *load)
{
    const struct spread spread = spread_of(load, tally->n_rank);
    tally->rows_of_busiest += spread.largest;
    tally->rows_of_all += spread.total;
}

static double max_over_mean(struct spread spread, int64_t n)
{
    return spread.total > 0 ? (double)spread.largest * (double)n / (double)spread.total : 0.0;
}

enum mt_status mt_tally_finish(struct mt_tally *tally, struct mt_comm *comm,
                               struct mt_moe_stats *stats)
{
    const int n_moe_layer = tally->n_layer - tally->first_layer;
    double *layer_load = stats->load_max_over_mean_layer;
    /* f is known everywhere, so that one product a layer travels instead of E sums. */
    for (int64_t m = 0; m < n_moe_layer; ++m) {
        const int64_t layer = tally->first_layer + m;
        const int64_t row = layer * tally->n_expert;
        tally->partial[2 * m] =
            tally->is_micro ? tally->micro_loss[layer]
                            : (double)tally->n_expert *
                                  weighted_by_share(tally->count + row,
                                                    tally->probability_sum + row, tally->n_expert);
        tally->partial[2 * m + 1] = tally->lse_square_sum[layer];
    }
    MT_TRY(mt_comm_sum_f64(comm, tally->partial, 2 * (int64_t)n_moe_layer));
    *stats =
        (struct mt_moe_stats){.load_max_over_mean_layer = layer_load, .n_moe_layer = n_moe_layer};
    for (int64_t m = 0; m < n_moe_layer; ++m) {
        const int64_t row = (tally->first_layer + m) * tally->n_expert;
        const struct spread spread = spread_of(tally->count + row, tally->n_expert);
        const double n_token = (double)mt_max_i64(spread.total / tally->top_k, 1);
        stats->balance_loss += tally->partial[2 * m] / n_token / n_moe_layer;
        stats->z_loss += tally->partial[2 * m + 1] / n_token / n_moe_layer;
        stats->n_dead += spread.n_zero;
        layer_load[m] = max_over_mean(spread, tally->n_expert);
        stats->load_max_over_mean += layer_load[m] / n_moe_layer;
    }
    const struct spread busiest = {tally->rows_of_all, tally->rows_of_busiest, 0};
    stats->rank_max_over_mean = max_over_mean(busiest, tally->n_rank);
    return MT_OK;
}
