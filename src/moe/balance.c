#include "moe/balance.h"

#include "base/memory.h"

#include <string.h>

enum mt_status mt_balance_init(struct mt_balance *balance, enum mt_balance_loss loss,
                               enum mt_balance_window window, int64_t n_layer, int64_t n_expert)
{
    memset(balance, 0, sizeof(*balance));
    if (loss == MT_BALANCE_SEQUENCE) {
        return MT_FAIL(MT_ERR_CONFIG, "moe.balance.loss = \"sequence\" is not in this version; "
                                      "expected \"global\", \"micro\" or \"none\"; change the key");
    }
    balance->loss = loss;
    balance->window = window;
    balance->n_layer = n_layer;
    balance->n_expert = n_expert;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(balance->window_count, n_layer * n_expert, "balance window"));
    MT_TRY_GOTO(MT_ALLOCATE(balance->lagged_count, n_layer * n_expert, "balance counts"));
    MT_TRY_GOTO(MT_ALLOCATE(balance->share, n_expert, "balance shares"));
cleanup:
    if (status != MT_OK) {
        mt_balance_clear(balance);
    }
    return status;
}

void mt_balance_clear(struct mt_balance *balance)
{
    mt_memory_free(balance->window_count);
    mt_memory_free(balance->lagged_count);
    mt_memory_free(balance->share);
    memset(balance, 0, sizeof(*balance));
}

static size_t table_bytes(const struct mt_balance *balance)
{
    return (size_t)(balance->n_layer * balance->n_expert) * sizeof(int64_t);
}

void mt_balance_begin_step(struct mt_balance *balance)
{
    memset(balance->window_count, 0, table_bytes(balance));
    balance->is_counting = false;
    balance->is_complete = false;
}

void mt_balance_add(struct mt_balance *balance, int layer, const int64_t *count, bool is_kept)
{
    const bool is_of_window = balance->is_counting || (is_kept && !balance->is_complete);
    if (!is_of_window) {
        return;
    }
    int64_t *window = balance->window_count + layer * balance->n_expert;
    for (int64_t e = 0; e < balance->n_expert; ++e) {
        window[e] += count[e];
    }
}

void mt_balance_set_counting(struct mt_balance *balance, bool counting)
{
    balance->is_counting = counting;
    balance->is_complete = balance->is_complete || counting;
}

static const int64_t *counts_of(const struct mt_balance *balance, int layer,
                                const int64_t *own_count)
{
    if (balance->loss == MT_BALANCE_MICRO) {
        return own_count;
    }
    const int64_t *table =
        balance->window == MT_WINDOW_LAGGED ? balance->lagged_count : balance->window_count;
    return table + layer * balance->n_expert;
}

const float *mt_balance_share(struct mt_balance *balance, int layer, const int64_t *own_count)
{
    if (balance->loss == MT_BALANCE_NONE) {
        return NULL;
    }
    const int64_t *count = counts_of(balance, layer, own_count);
    int64_t total = 0;
    for (int64_t e = 0; e < balance->n_expert; ++e) {
        total += count[e];
    }
    if (total == 0) {
        return NULL;
    }
    for (int64_t e = 0; e < balance->n_expert; ++e) {
        balance->share[e] = (float)((double)count[e] / (double)total);
    }
    return balance->share;
}

void mt_balance_end_step(struct mt_balance *balance, const int64_t *step_count)
{
    memcpy(balance->lagged_count, step_count, table_bytes(balance));
}
