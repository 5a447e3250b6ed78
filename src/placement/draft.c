#include "placement/draft.h"

#include "base/size.h"
#include "placement/order.h"

#include <string.h>

void mt_draft_init(struct mt_draft *draft, const struct mt_policy_input *input,
                   const struct mt_placement *placement, struct mt_arena *scratch)
{
    const int n_rank = placement->n_rank;
    const int64_t n_pair = (int64_t)placement->n_expert * n_rank;
    MT_ASSERT(placement->n_expert == input->n_expert && n_rank == input->cluster->n_rank);
    *draft = (struct mt_draft){
        .cluster = input->cluster,
        .owner = placement->owner,
        .n_expert = placement->n_expert,
        .mark = mt_draft_cut(scratch, n_pair, sizeof(*draft->mark)),
        .n_free = mt_draft_cut(scratch, n_rank, sizeof(*draft->n_free)),
        .n_instance = mt_draft_cut(scratch, placement->n_expert, sizeof(*draft->n_instance)),
    };
    memset(draft->mark, MT_DRAFT_NONE, (size_t)n_pair);
    for (int rank = 0; rank < n_rank; ++rank) {
        draft->n_free[rank] = input->slots;
    }
    for (int e = 0; e < placement->n_expert; ++e) {
        const int start = placement->instance_start[e];
        const int end = placement->instance_start[e + 1];
        draft->n_instance[e] = end - start;
        for (int i = start; i < end; ++i) {
            const int rank = placement->rank[i];
            draft->mark[(int64_t)e * n_rank + rank] =
                placement->is_late[i] ? MT_DRAFT_LATE : MT_DRAFT_HERE;
            draft->n_free[rank] -= rank != placement->owner[e] ? 1 : 0;
        }
    }
}

void mt_draft_copy(struct mt_draft *to, const struct mt_draft *from)
{
    const size_t n_rank = (size_t)from->cluster->n_rank;
    const size_t n_expert = (size_t)from->n_expert;
    MT_ASSERT(to->n_expert == from->n_expert && to->cluster == from->cluster);
    memcpy(to->mark, from->mark, n_expert * n_rank * sizeof(*to->mark));
    memcpy(to->n_free, from->n_free, n_rank * sizeof(*to->n_free));
    memcpy(to->n_instance, from->n_instance, n_expert * sizeof(*to->n_instance));
}

void mt_draft_write(const struct mt_draft *draft, struct mt_placement *placement)
{
    const int n_rank = draft->cluster->n_rank;
    int n = 0;
    for (int e = 0; e < draft->n_expert; ++e) {
        const unsigned char *mark = &draft->mark[(int64_t)e * n_rank];
        MT_ASSERT(n + draft->n_instance[e] <= placement->max_instance);
        placement->instance_start[e] = n;
        for (int rank = 0; rank < n_rank; ++rank) {
            if (mark[rank] != MT_DRAFT_NONE) {
                placement->rank[n] = rank;
                placement->is_late[n] = mark[rank] == MT_DRAFT_LATE;
                ++n;
            }
        }
    }
    placement->instance_start[draft->n_expert] = n;
}

void mt_draft_add(struct mt_draft *draft, int expert, int rank, enum mt_draft_mark mark)
{
    MT_ASSERT(mt_draft_can(draft, expert, rank) && mark != MT_DRAFT_NONE);
    draft->mark[(int64_t)expert * draft->cluster->n_rank + rank] = (unsigned char)mark;
    --draft->n_free[rank];
    ++draft->n_instance[expert];
}

void mt_draft_remove(struct mt_draft *draft, int expert, int rank)
{
    MT_ASSERT(mt_draft_has(draft, expert, rank) && rank != draft->owner[expert]);
    draft->mark[(int64_t)expert * draft->cluster->n_rank + rank] = MT_DRAFT_NONE;
    ++draft->n_free[rank];
    --draft->n_instance[expert];
}

/* load [E] = the column sums of rows [n, E], at most 2^36 each: 2^16 experts with shares in
 * 1/256 row then sum to 2^60, and an expert's load times the slots of 4096 ranks fits too. */
static int64_t sum_rows(const int64_t *rows, int64_t n, int n_expert, int64_t *load)
{
    const int64_t most_rows = (int64_t)1 << 36;
    int64_t total = 0;
    memset(load, 0, (size_t)n_expert * sizeof(*load));
    for (int64_t row = 0; row < n; ++row) {
        for (int e = 0; e < n_expert; ++e) {
            load[e] += mt_min_i64(rows[row * n_expert + e], most_rows - load[e]);
        }
    }
    for (int e = 0; e < n_expert; ++e) {
        total += load[e];
    }
    return total;
}

int64_t mt_load_of_history(const struct mt_policy_input *input, int64_t *load)
{
    return sum_rows(input->history, input->n_history, input->n_expert, load);
}

int64_t mt_load_of_layer(const struct mt_history *history, int layer, int64_t *load)
{
    return sum_rows(mt_history_layer(history, layer), history->n_step, history->n_expert, load);
}

int64_t mt_load_of_counts(const struct mt_policy_input *input, int64_t *load)
{
    return sum_rows(input->count, input->cluster->n_rank, input->n_expert, load);
}

void mt_load_order(const int64_t *load, int n, struct mt_arena *scratch, int *order)
{
    const int64_t mark = mt_arena_mark(scratch);
    mt_order_by(load, -1, n, order, mt_draft_cut(scratch, n, sizeof(*order)));
    mt_arena_release(scratch, mark);
}
