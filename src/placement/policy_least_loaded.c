/* Least-loaded routing of overflow (arXiv 2601.17111): only where the fullest rank has 1.3 times
 * the mean or more, an expert's rows beyond its owner's capacity, 1.1 times the mean, go with the
 * expert's weights to the ranks of least effective load, in chunks of at least 1024 rows.
 *
 * Effective load: rows assigned so far and those of own experts still to come. The copies are late.
 * Rows are then split by settling on the same copies, which is at least as even as the chunks. */
#include "placement/policy.h"

#include "base/size.h"
#include "placement/grow.h"
#include "placement/order.h"
#include "placement/split.h"

#include <string.h>

struct least_loaded {
    const struct mt_policy_input *input;
    struct mt_placement *placement;
    int64_t *total;   /* [E] */
    int64_t *load;    /* [R] effective */
    int64_t *taken;   /* [R] assigned so far */
    int *n_copy;      /* [R] */
    int *order;       /* [E] */
    int64_t capacity; /* of a rank */
    int64_t min_row;
};

/* Of the ranks that can take the expert; -1: none. */
static int least_loaded_rank(const struct least_loaded *plan, int expert)
{
    int best = -1;
    for (int rank = 0; rank < plan->placement->n_rank; ++rank) {
        if (plan->n_copy[rank] < plan->input->slots &&
            (best < 0 || plan->load[rank] < plan->load[best]) &&
            mt_placement_find(plan->placement, expert, rank) < 0) {
            best = rank;
        }
    }
    return best;
}

static void place(struct least_loaded *plan, int expert)
{
    const int owner = plan->placement->owner[expert];
    const int64_t room = mt_max_i64(0, plan->capacity - plan->taken[owner]);
    int64_t left = plan->total[expert] - mt_min_i64(plan->total[expert], room);
    plan->load[owner] -= left;
    plan->taken[owner] += plan->total[expert] - left;
    while (left > 0) {
        const int rank = least_loaded_rank(plan, expert);
        if (rank < 0 || plan->load[rank] >= plan->load[owner] + left) {
            break; /* nobody has room: the owner computes the rest */
        }
        const int64_t free = mt_max_i64(plan->capacity - plan->load[rank], plan->min_row);
        const int64_t n_row = mt_min_i64(left, free);
        mt_placement_add(plan->placement, expert, rank, true);
        ++plan->n_copy[rank];
        plan->load[rank] += n_row;
        plan->taken[rank] += n_row;
        left -= n_row;
    }
    plan->load[owner] += left;
    plan->taken[owner] += left;
}

static bool is_skewed(const struct least_loaded *plan, int64_t n_row)
{
    enum { WHOLE = 10, TENTHS_ABOVE = 3 };
    int64_t largest = 0;
    const int64_t mean = n_row / plan->placement->n_rank;
    for (int rank = 0; rank < plan->placement->n_rank; ++rank) {
        largest = mt_max_i64(largest, plan->load[rank]);
    }
    return n_row > 0 &&
           largest - mean >= mean / WHOLE * TENTHS_ABOVE + mean % WHOLE * TENTHS_ABOVE / WHOLE;
}

void mt_policy_least_loaded_after_gate(const struct mt_policy_input *input,
                                       struct mt_arena *scratch, struct mt_placement *placement)
{
    enum { MIN_ROW = 1024 };
    const int64_t mark = mt_arena_mark(scratch);
    const int n_rank = placement->n_rank;
    const int64_t word = (int64_t)sizeof(int64_t);
    struct least_loaded plan = {.input = input, .placement = placement};
    int64_t n_row = 0;
    plan.total = mt_arena_cut(scratch, input->n_expert * word);
    plan.load = mt_arena_cut(scratch, n_rank * word);
    plan.taken = mt_arena_cut(scratch, n_rank * word);
    plan.n_copy = mt_arena_cut(scratch, n_rank * word);
    plan.order = mt_arena_cut(scratch, input->n_expert * word);
    int *spare = mt_arena_cut(scratch, input->n_expert * word);
    mt_count_rows(n_rank, input->n_expert, input->count, plan.total, plan.taken);
    memset(plan.load, 0, (size_t)n_rank * sizeof(plan.load[0]));
    memset(plan.taken, 0, (size_t)n_rank * sizeof(plan.taken[0]));
    for (int expert = 0; expert < input->n_expert; ++expert) {
        plan.load[placement->owner[expert]] += plan.total[expert];
        n_row += plan.total[expert];
    }
    if (is_skewed(&plan, n_row)) {
        plan.capacity = n_row / n_rank + n_row / n_rank / 10;
        plan.min_row = mt_grow_min_row(MIN_ROW, n_row, n_rank);
        mt_placement_count_copies(placement, plan.n_copy);
        mt_order_by(plan.total, -1, input->n_expert, plan.order, spare);
        for (int at = 0; at < input->n_expert; ++at) {
            place(&plan, plan.order[at]);
        }
    }
    mt_arena_release(scratch, mark);
}
