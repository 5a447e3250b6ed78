/* FlexMoE (Nie et al., SIGMOD'23): replicas that stay, and change a little when loads drift.
 *
 * The placement of the last time stands as long as the largest predicted load is within 1.1 of the
 * mean. Beyond that replicas change one by one while it helps, an expert's load taken as even over
 * its replicas:
 *
 *   expand   the hottest expert of the hottest rank also on the coldest rank that has a slot;
 *   shrink   where no rank has one, the coldest copy makes room for it;
 *   migrate  if that does not help, the hottest copy of the hottest rank moves to a colder one.
 *
 * "Helps" is a lower largest load, or fewer ranks that have it. */
#include "placement/draft.h"

#include <string.h>

enum {
    TRIGGER_PERCENT = 110,
    SCALE = 256 /* a share of a load keeps this fraction of a row */
};

struct market {
    struct mt_draft draft;
    const int64_t *load; /* [E] */
    int64_t *rank_load;  /* [R] in rows / SCALE */
};

struct peak {
    int rank; /* the lowest of those that have the largest load */
    int n;    /* how many have it */
    int64_t load;
};

static int64_t share(const struct market *market, int expert)
{
    return market->load[expert] * SCALE / market->draft.n_instance[expert];
}

static struct peak find_peak(const struct market *market)
{
    struct peak peak = {0, 1, market->rank_load[0]};
    for (int rank = 1; rank < market->draft.cluster->n_rank; ++rank) {
        const int64_t load = market->rank_load[rank];
        peak.n += load == peak.load ? 1 : 0;
        if (load > peak.load) {
            peak = (struct peak){rank, 1, load};
        }
    }
    return peak;
}

static bool is_lower(struct peak a, struct peak b)
{
    return a.load < b.load || (a.load == b.load && a.n < b.n);
}

/* Adds `sign` times the expert's share to the ranks that hold it. */
static void spread(struct market *market, int expert, int sign)
{
    const int64_t part = sign * share(market, expert);
    for (int rank = 0; rank < market->draft.cluster->n_rank; ++rank) {
        market->rank_load[rank] += mt_draft_has(&market->draft, expert, rank) ? part : 0;
    }
}

static void grow(struct market *market, int expert, int rank)
{
    spread(market, expert, -1);
    mt_draft_add(&market->draft, expert, rank, MT_DRAFT_HERE);
    spread(market, expert, 1);
}

static void shrink(struct market *market, int expert, int rank)
{
    spread(market, expert, -1);
    mt_draft_remove(&market->draft, expert, rank);
    spread(market, expert, 1);
}

/* The coldest rank that can take the expert; -1: none. */
static int find_target(const struct market *market, int expert)
{
    int target = -1;
    for (int rank = 0; rank < market->draft.cluster->n_rank; ++rank) {
        if (mt_draft_can(&market->draft, expert, rank) &&
            (target < 0 || market->rank_load[rank] < market->rank_load[target])) {
            target = rank;
        }
    }
    return target;
}

/* The expert with the largest share on the rank, owners' included or copies only; -1: none. */
static int find_hottest(const struct market *market, int rank, bool only_copies)
{
    int hottest = -1;
    for (int e = 0; e < market->draft.n_expert; ++e) {
        const bool may = !only_copies || market->draft.owner[e] != rank;
        if (may && mt_draft_has(&market->draft, e, rank) &&
            (hottest < 0 || share(market, e) > share(market, hottest))) {
            hottest = e;
        }
    }
    return hottest;
}

/* The coldest copy whose rank lacks `expert` and is not `hot`. False: there is none. */
static bool find_victim(const struct market *market, int expert, int hot, int *victim, int *at)
{
    *victim = -1;
    for (int e = 0; e < market->draft.n_expert; ++e) {
        const bool is_colder =
            e != expert && (*victim < 0 || share(market, e) < share(market, *victim));
        for (int rank = 0; rank < market->draft.cluster->n_rank && is_colder; ++rank) {
            if (rank != hot && rank != market->draft.owner[e] &&
                mt_draft_has(&market->draft, e, rank) &&
                !mt_draft_has(&market->draft, expert, rank)) {
                *victim = e;
                *at = rank;
                break;
            }
        }
    }
    return *victim >= 0;
}

static bool try_expand(struct market *market, struct peak before)
{
    const int expert = find_hottest(market, before.rank, false);
    int victim = -1;
    int target = expert < 0 ? -1 : find_target(market, expert);
    if (expert < 0 || (target < 0 && !find_victim(market, expert, before.rank, &victim, &target))) {
        return false;
    }
    if (victim >= 0) {
        shrink(market, victim, target);
    }
    grow(market, expert, target);
    if (is_lower(find_peak(market), before)) {
        return true;
    }
    shrink(market, expert, target);
    if (victim >= 0) {
        grow(market, victim, target);
    }
    return false;
}

static bool try_migrate(struct market *market, struct peak before)
{
    const int expert = find_hottest(market, before.rank, true);
    const int target = expert < 0 ? -1 : find_target(market, expert);
    if (target < 0) {
        return false;
    }
    shrink(market, expert, before.rank);
    grow(market, expert, target);
    if (is_lower(find_peak(market), before)) {
        return true;
    }
    shrink(market, expert, target);
    grow(market, expert, before.rank);
    return false;
}

/* Copies of what nobody wants go first. */
static void drop_idle(struct market *market)
{
    for (int e = 0; e < market->draft.n_expert; ++e) {
        for (int rank = 0; rank < market->draft.cluster->n_rank && market->load[e] == 0; ++rank) {
            if (rank != market->draft.owner[e] && mt_draft_has(&market->draft, e, rank)) {
                mt_draft_remove(&market->draft, e, rank);
            }
        }
    }
}

void mt_policy_flexmoe_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                   struct mt_placement *placement)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_rank = placement->n_rank;
    int64_t *load = mt_draft_cut(scratch, input->n_expert, sizeof(*load));
    struct market market = {.load = load};
    market.rank_load = mt_draft_cut(scratch, n_rank, sizeof(*market.rank_load));
    const int64_t total = mt_load_of_history(input, load);
    mt_draft_init(&market.draft, input, placement, scratch);
    memset(market.rank_load, 0, (size_t)n_rank * sizeof(*market.rank_load));
    for (int e = 0; e < input->n_expert; ++e) {
        spread(&market, e, 1);
    }
    const int64_t mean = total * SCALE / n_rank;
    if (find_peak(&market).load > mean / 100 * TRIGGER_PERCENT) {
        drop_idle(&market);
        /* More changes than there are slots and experts would be going round in circles. */
        const int64_t most = (int64_t)n_rank * input->slots + input->n_expert;
        for (int64_t i = 0; i < most; ++i) {
            const struct peak peak = find_peak(&market);
            if (!try_expand(&market, peak) && !try_migrate(&market, peak)) {
                break;
            }
        }
        mt_draft_write(&market.draft, placement);
    }
    mt_arena_release(scratch, mark);
}
