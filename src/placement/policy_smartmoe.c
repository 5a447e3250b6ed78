/* SmartMoE's expert placement (Zhai et al., USENIX ATC'23, section 5): owners change by history so
 * that each layer's load is even; there are no copies, and a rank owns as many experts of a layer
 * as before.
 *
 * Per layer, while it helps: the rank with the largest predicted load swaps an expert with a colder
 * one of another rank, the swap that leaves the larger of the two ranks' loads least. What moves
 * carries its optimizer state, three times the bytes of a copy, so a layer is touched only if its
 * largest load falls by more than two percent. */
#include "placement/draft.h"

#include "base/size.h"

#include <string.h>

enum { GAIN_PERCENT = 2 };

struct swap {
    int expert, other; /* -1: none */
    int64_t pair;      /* the larger load of the two ranks afterwards */
};

/* The best swap of an expert of rank `hot`. */
static struct swap find_swap(const int64_t *load, const int *owner, int n_expert, int hot,
                             const int64_t *rank_load)
{
    struct swap best = {-1, -1, rank_load[hot]};
    for (int e = 0; e < n_expert; ++e) {
        if (owner[e] != hot) {
            continue;
        }
        for (int other = 0; other < n_expert; ++other) {
            const int64_t gap = load[e] - load[other];
            if (owner[other] == hot || gap <= 0) {
                continue;
            }
            const int64_t pair = mt_max_i64(rank_load[hot] - gap, rank_load[owner[other]] + gap);
            if (pair < best.pair) {
                best = (struct swap){e, other, pair};
            }
        }
    }
    return best;
}

static int hottest_rank(const int64_t *rank_load, int n_rank)
{
    int hot = 0;
    for (int rank = 1; rank < n_rank; ++rank) {
        hot = rank_load[rank] > rank_load[hot] ? rank : hot;
    }
    return hot;
}

/* owner [E] of one layer; wanted, rank_load: scratch [E], [R]. Every swap lowers the larger load of
 * a pair of ranks, so no arrangement comes again; the bound ends what improves by crumbs. */
static void swap_layer(const int64_t *load, int n_expert, int n_rank, int *owner, int *wanted,
                       int64_t *rank_load)
{
    memset(rank_load, 0, (size_t)n_rank * sizeof(*rank_load));
    memcpy(wanted, owner, (size_t)n_expert * sizeof(*wanted));
    for (int e = 0; e < n_expert; ++e) {
        rank_load[owner[e]] += load[e];
    }
    const int64_t before = rank_load[hottest_rank(rank_load, n_rank)];
    for (int64_t i = 0; i < 2 * (int64_t)n_expert; ++i) {
        const int hot = hottest_rank(rank_load, n_rank);
        const struct swap swap = find_swap(load, wanted, n_expert, hot, rank_load);
        if (swap.expert < 0) {
            break;
        }
        const int target = wanted[swap.other];
        const int64_t gap = load[swap.expert] - load[swap.other];
        rank_load[hot] -= gap;
        rank_load[target] += gap;
        wanted[swap.expert] = target;
        wanted[swap.other] = hot;
    }
    const int64_t after = rank_load[hottest_rank(rank_load, n_rank)];
    if (before - after > before / 100 * GAIN_PERCENT) {
        memcpy(owner, wanted, (size_t)n_expert * sizeof(*owner));
    }
}

void mt_policy_smartmoe_reshard(const struct mt_reshard_input *input, struct mt_arena *scratch,
                                int *owner)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_expert = input->n_expert;
    const int n_rank = input->cluster->n_rank;
    int64_t *load = mt_draft_cut(scratch, n_expert, sizeof(*load));
    int64_t *rank_load = mt_draft_cut(scratch, n_rank, sizeof(*rank_load));
    int *wanted = mt_draft_cut(scratch, n_expert, sizeof(*wanted));
    for (int layer = input->first_layer; layer < input->n_layer; ++layer) {
        mt_load_of_layer(input->history, layer, load);
        swap_layer(load, n_expert, n_rank, &owner[(int64_t)layer * n_expert], wanted, rank_load);
    }
    mt_arena_release(scratch, mark);
}
