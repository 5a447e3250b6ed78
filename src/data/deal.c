#include "data/deal.h"

#include "base/memory.h"
#include "base/size.h"

#include <stdlib.h>
#include <string.h>

enum mt_status mt_deal_init(struct mt_deal *deal, const struct mt_batch_split *split)
{
    memset(deal, 0, sizeof(*deal));
    MT_TRY(MT_ALLOCATE(deal->cost, split->global_batch, "costs of sequences"));
    MT_TRY(MT_ALLOCATE(deal->cell, split->global_batch, "costs of sequences"));
    MT_TRY(MT_ALLOCATE(deal->item, split->global_batch, "costs of sequences"));
    return MT_ALLOCATE(deal->load, split->n_rank, "costs of sequences");
}

void mt_deal_clear(struct mt_deal *deal)
{
    mt_memory_free(deal->cost);
    mt_memory_free(deal->cell);
    mt_memory_free(deal->item);
    mt_memory_free(deal->load);
    memset(deal, 0, sizeof(*deal));
}

static int compare_index(const struct mt_deal_item *a, const struct mt_deal_item *b)
{
    return (a->index > b->index) - (a->index < b->index);
}

static int rising(const void *a, const void *b)
{
    const struct mt_deal_item *x = a;
    const struct mt_deal_item *y = b;
    return x->cost != y->cost ? (x->cost > y->cost) - (x->cost < y->cost) : compare_index(x, y);
}

static int falling(const void *a, const void *b)
{
    const struct mt_deal_item *x = a;
    const struct mt_deal_item *y = b;
    return x->cost != y->cost ? (x->cost < y->cost) - (x->cost > y->cost) : compare_index(x, y);
}

/* item [n], costliest first, to the ranks of one micro-batch: a round gives each rank at most one.
 */
static void deal_micro(struct mt_deal *deal, int n_rank, int64_t micro,
                       const struct mt_deal_item *item, int64_t n)
{
    for (int rank = 0; rank < n_rank; ++rank) {
        deal->load[rank] = (struct mt_deal_item){0, rank};
    }
    for (int64_t first = 0; first < n; first += n_rank) {
        const int64_t end = mt_min_i64(n, first + n_rank);
        qsort(deal->load, (size_t)n_rank, sizeof(*deal->load), rising);
        for (int64_t i = first; i < end; ++i) {
            struct mt_deal_item *load = &deal->load[i - first];
            load->cost += item[i].cost;
            deal->cell[item[i].index] = micro * n_rank + load->index;
        }
    }
}

void mt_deal_plan(struct mt_deal *deal, const struct mt_batch_split *split)
{
    const int64_t n_micro = mt_batch_n_micro(split);
    const int64_t n_round = mt_ceil_div(split->global_batch, split->n_rank);
    for (int64_t i = 0; i < split->global_batch; ++i) {
        deal->item[i] = (struct mt_deal_item){deal->cost[i], i};
    }
    qsort(deal->item, (size_t)split->global_batch, sizeof(*deal->item), falling);
    for (int64_t micro = 0; micro < n_micro; ++micro) {
        /* Whole rounds, so that shares of the step differ by at most one as well. */
        const int64_t first = mt_share_start(n_round, (int)n_micro, (int)micro) * split->n_rank;
        const int64_t round = mt_share_start(n_round, (int)n_micro, (int)micro + 1);
        const int64_t end = mt_min_i64(round * split->n_rank, split->global_batch);
        deal_micro(deal, split->n_rank, micro, deal->item + first, end - first);
    }
}

void mt_deal_micro(const struct mt_deal *deal, const struct mt_batch_split *split, int64_t micro,
                   int64_t *sequence, int64_t *n)
{
    const int64_t cell = micro * split->n_rank + split->rank;
    *n = 0;
    for (int64_t i = 0; i < split->global_batch; ++i) {
        if (deal->cell[i] == cell) {
            MT_ASSERT(*n < split->micro_batch);
            sequence[(*n)++] = i;
        }
    }
}
