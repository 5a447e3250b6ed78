#include "placement/placement.h"

#include "base/memory.h"

#include <string.h>

enum mt_status mt_history_init(struct mt_history *history, int n_layer, int n_expert, int window)
{
    MT_ASSERT(n_layer >= 0 && n_expert >= 1 && window >= 1);
    *history = (struct mt_history){.n_layer = n_layer, .n_expert = n_expert, .window = window};
    const int64_t n_layer_count = (int64_t)window * n_expert; /* at most 2^47: 2^31 times 2^16 */
    return mt_memory_allocate_items(n_layer_count * (int64_t)sizeof(int64_t), n_layer,
                                    "load history", (void **)&history->count);
}

void mt_history_clear(struct mt_history *history)
{
    mt_memory_free(history->count);
    *history = (struct mt_history){0};
}

void mt_history_record(struct mt_history *history, const int64_t *counts)
{
    const int64_t n_expert = history->n_expert;
    const size_t step_bytes = (size_t)n_expert * sizeof(int64_t);
    const bool is_full = history->n_step == history->window;
    const int64_t at = is_full ? history->window - 1 : history->n_step;
    for (int64_t layer = 0; layer < history->n_layer; ++layer) {
        int64_t *steps = &history->count[layer * history->window * n_expert];
        if (is_full) {
            memmove(steps, steps + n_expert, (size_t)at * step_bytes);
        }
        memcpy(steps + at * n_expert, counts + layer * n_expert, step_bytes);
    }
    history->n_step += is_full ? 0 : 1;
}

const int64_t *mt_history_layer(const struct mt_history *history, int layer)
{
    MT_ASSERT(layer >= 0 && layer < history->n_layer);
    return &history->count[(int64_t)layer * history->window * history->n_expert];
}
