#include "placement/placement.h"

#include "base/memory.h"
#include "base/size.h"

#include <string.h>

enum mt_status mt_placement_init(struct mt_placement *placement, int n_rank, int n_expert,
                                 int max_instance)
{
    enum mt_status status = MT_OK;
    MT_ASSERT(n_rank >= 1 && n_expert >= 1 && max_instance >= n_expert);
    *placement =
        (struct mt_placement){.n_rank = n_rank, .n_expert = n_expert, .max_instance = max_instance};
    MT_TRY_GOTO(MT_ALLOCATE(placement->owner, n_expert, "placement"));
    MT_TRY_GOTO(MT_ALLOCATE(placement->instance_start, (int64_t)n_expert + 1, "placement"));
    MT_TRY_GOTO(MT_ALLOCATE(placement->rank, max_instance, "placement"));
    MT_TRY_GOTO(MT_ALLOCATE(placement->is_late, max_instance, "placement"));
    mt_placement_default_owners(placement, 0);
    return MT_OK;
cleanup:
    mt_placement_clear(placement);
    return status;
}

void mt_placement_clear(struct mt_placement *placement)
{
    mt_memory_free(placement->owner);
    mt_memory_free(placement->instance_start);
    mt_memory_free(placement->rank);
    mt_memory_free(placement->is_late);
    *placement = (struct mt_placement){0};
}

/* E % R shares hold one expert more than the others: shares 0 .. E % R - 1. Layer after layer the
 * larger ones go to the next ranks in turn, so that over any run of layers the ranks' numbers of
 * experts differ by at most one (4 experts on 3 ranks: layer 0 gives 2 to rank 0, layer 1 to rank
 * 1):
 *
 *     owner = (share + layer * (E % R)) % R
 *
 * Where E is a multiple of R all layers are alike, and there is nothing to turn. */
void mt_placement_default_owners(struct mt_placement *placement, int layer)
{
    const int n_rank = placement->n_rank;
    const int n_expert = placement->n_expert;
    const int turn = (int)((int64_t)layer * (n_expert % n_rank) % n_rank);
    MT_ASSERT(layer >= 0);
    for (int share = 0; share < n_rank; ++share) {
        const int owner = (share + turn) % n_rank;
        const int first = (int)mt_share_start(n_expert, n_rank, share);
        const int end = (int)mt_share_start(n_expert, n_rank, share + 1);
        for (int expert = first; expert < end; ++expert) {
            placement->owner[expert] = owner;
        }
    }
    mt_placement_owners_only(placement);
}

void mt_placement_owners_only(struct mt_placement *placement)
{
    const int n_expert = placement->n_expert;
    for (int expert = 0; expert < n_expert; ++expert) {
        placement->instance_start[expert] = expert;
        placement->rank[expert] = placement->owner[expert];
        placement->is_late[expert] = false;
    }
    placement->instance_start[n_expert] = n_expert;
}

void mt_placement_copy(struct mt_placement *to, const struct mt_placement *from)
{
    const int n_instance = mt_placement_n_instance(from);
    const size_t n_expert = (size_t)from->n_expert;
    MT_ASSERT(to->n_rank == from->n_rank && to->n_expert == from->n_expert);
    MT_ASSERT(n_instance <= to->max_instance);
    memcpy(to->owner, from->owner, n_expert * sizeof(*to->owner));
    memcpy(to->instance_start, from->instance_start, (n_expert + 1) * sizeof(*to->instance_start));
    memcpy(to->rank, from->rank, (size_t)n_instance * sizeof(*to->rank));
    memcpy(to->is_late, from->is_late, (size_t)n_instance * sizeof(*to->is_late));
}

/* The expert's first instance on this rank or a higher one. */
static int first_from(const struct mt_placement *placement, int expert, int rank)
{
    int low = placement->instance_start[expert];
    int high = placement->instance_start[expert + 1];
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (placement->rank[middle] < rank) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int mt_placement_find(const struct mt_placement *placement, int expert, int rank)
{
    const int at = first_from(placement, expert, rank);
    return at < placement->instance_start[expert + 1] && placement->rank[at] == rank ? at : -1;
}

void mt_placement_add(struct mt_placement *placement, int expert, int rank, bool is_late)
{
    const int n_instance = mt_placement_n_instance(placement);
    const int at = first_from(placement, expert, rank);
    const size_t n_after = (size_t)(n_instance - at);
    MT_ASSERT(rank >= 0 && rank < placement->n_rank && n_instance < placement->max_instance);
    MT_ASSERT(at == placement->instance_start[expert + 1] || placement->rank[at] != rank);
    memmove(&placement->rank[at + 1], &placement->rank[at], n_after * sizeof(*placement->rank));
    memmove(&placement->is_late[at + 1], &placement->is_late[at],
            n_after * sizeof(*placement->is_late));
    placement->rank[at] = rank;
    placement->is_late[at] = is_late;
    for (int e = expert + 1; e <= placement->n_expert; ++e) {
        ++placement->instance_start[e];
    }
}

void mt_placement_forget_late(struct mt_placement *placement)
{
    memset(placement->is_late, 0,
           (size_t)mt_placement_n_instance(placement) * sizeof(*placement->is_late));
}

void mt_placement_count_copies(const struct mt_placement *placement, int *n_copy)
{
    memset(n_copy, 0, (size_t)placement->n_rank * sizeof(*n_copy));
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        for (int i = placement->instance_start[expert]; i < placement->instance_start[expert + 1];
             ++i) {
            n_copy[placement->rank[i]] += placement->rank[i] != placement->owner[expert] ? 1 : 0;
        }
    }
}

void mt_placement_check(const struct mt_placement *placement)
{
    MT_ASSERT(placement->instance_start[0] == 0);
    MT_ASSERT(mt_placement_n_instance(placement) <= placement->max_instance);
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        const int start = placement->instance_start[expert];
        const int end = placement->instance_start[expert + 1];
        bool is_owner_found = false;
        MT_ASSERT(start < end);
        for (int i = start; i < end; ++i) {
            MT_ASSERT(placement->rank[i] >= 0 && placement->rank[i] < placement->n_rank);
            MT_ASSERT(i == start || placement->rank[i - 1] < placement->rank[i]);
            if (placement->rank[i] == placement->owner[expert]) {
                is_owner_found = true;
                MT_ASSERT(!placement->is_late[i]);
            }
        }
        MT_ASSERT(is_owner_found);
    }
}

void mt_placement_write_numbers(const struct mt_placement *placement, int64_t *numbers)
{
    int64_t n = 0;
    for (int e = 0; e < placement->n_expert; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            numbers[1 + n++] = (int64_t)e * placement->n_rank + placement->rank[i];
        }
    }
    numbers[0] = n;
}

void mt_placement_read_numbers(struct mt_placement *placement, const int64_t *numbers, int slots,
                               int64_t *n_copy)
{
    const int64_t n_pair = (int64_t)placement->n_expert * placement->n_rank;
    mt_placement_owners_only(placement);
    memset(n_copy, 0, (size_t)placement->n_rank * sizeof(*n_copy));
    for (int64_t k = 0; k < numbers[0] && k < placement->max_instance; ++k) {
        const int64_t pair = numbers[1 + k];
        if (pair < 0 || pair >= n_pair) {
            continue;
        }
        const int expert = (int)(pair / placement->n_rank);
        const int rank = (int)(pair % placement->n_rank);
        if (n_copy[rank] < slots && mt_placement_find(placement, expert, rank) < 0) {
            mt_placement_add(placement, expert, rank, false);
            ++n_copy[rank];
        }
    }
}
