/* Who waited for whom.
 *
 * In one collective rank r stands still from `need` to `done`. Ranks that arrive in between are the
 * ones it waits for: each moment is shared among those that have not arrived by then, and what is
 * left after the last of them is transfer. Ranks that arrive after r is done did not hold r up.
 *
 * A late rank q may be late because it stood waiting before. So each rank carries owed[x]: how much
 * of its present lateness it owes to rank x (x = q itself: its own doing; x = R: the network). What
 * q owes to x beyond what r owes to x explains that part of q's lateness as seen from r, and is
 * handed on to x; only the rest is q's own. */
#include "profile/analysis_internal.h"

#include "base/memory.h"
#include "base/size.h"

#include <math.h>
#include <string.h>

/* Of many late ranks the latest: the others cost the less the earlier they came. */
enum { MAX_LATE = 8 };

struct late {
    int rank;
    int64_t arrival_ns;
};

struct blame {
    struct mt_study *study;
    struct mt_analysis *analysis;
    int n_rank;
    int step;                           /* in the study */
    struct mt_profile_collective *part; /* [R] of the collective at hand */
    int *cursor;                        /* [R] into each rank's collectives */
    double *owed;                       /* [R, R + 1] since the step's begin */
    double *added;                      /* [R, R + 1] by the collective at hand */
    double *most;                       /* [R] */
};

/* Debts are numbers. fmax would be a call, and a third of a report's time at 512 ranks. */
static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double *row_of(const struct blame *b, double *matrix, int rank)
{
    return matrix + (int64_t)rank * (b->n_rank + 1);
}

static int64_t error_of(const struct blame *b, int one, int other)
{
    const struct mt_profile_rank *rank = b->study->profile->rank;
    return one == other ? 0 : rank[one].error_ns + rank[other].error_ns;
}

static bool receives_from(const struct mt_profile_collective *part, int rank)
{
    enum { MASK_BITS = 64 };
    return rank < MASK_BITS && (part->sources >> rank & 1) != 0;
}

/* Ranks that arrived while r stood still, ascending by arrival: those that r receives from, if any
 * of them is among them (others reach r through relays only). */
static int find_late(const struct blame *b, int r, bool only_sources, struct late *late)
{
    const struct mt_profile_collective *mine = &b->part[r];
    int n = 0;
    for (int q = 0; q < b->n_rank; ++q) {
        const int64_t arrival_ns = b->part[q].begin_ns;
        if (q == r || arrival_ns - mine->need_ns <= error_of(b, q, r) ||
            arrival_ns > mine->done_ns || (only_sources && !receives_from(mine, q))) {
            continue;
        }
        int at = n;
        while (at > 0 && late[at - 1].arrival_ns > arrival_ns) {
            --at;
        }
        if (n == MAX_LATE) { /* the earliest makes room */
            --at;
            if (at < 0) {
                continue;
            }
            memmove(&late[0], &late[1], (size_t)at * sizeof(*late));
        } else {
            memmove(&late[at + 1], &late[at], (size_t)(n - at) * sizeof(*late));
            ++n;
        }
        late[at] = (struct late){q, arrival_ns};
    }
    return n;
}

static void charge(const struct blame *b, int q, double ns)
{
    const struct mt_profile_collective *part = &b->part[q];
    struct mt_analysis *analysis = b->analysis;
    struct mt_caused *caused = &b->study->caused[mt_study_at(b->study, b->step, q)];
    switch (part->busy_phase) {
    case MT_PHASE_DATA:
        caused->data += ns;
        break;
    case MT_PHASE_CHECKPOINT:
        caused->checkpoint += ns;
        break;
    case MT_PHASE_EVAL:
    case MT_PHASE_METRICS:
        caused->other += ns;
        break;
    default:
        caused->work += ns;
    }
    const int n_layer = b->study->profile->n_layer;
    const int layer = part->layer >= 0 && part->layer < n_layer ? part->layer : n_layer;
    analysis->caused_ns[q] += (int64_t)ns;
    analysis->caused_by_phase_ns[(int64_t)q * (MT_N_PHASE + 1) + part->busy_phase] += (int64_t)ns;
    analysis->caused_by_layer_ns[(int64_t)q * (n_layer + 1) + layer] += (int64_t)ns;
}

/* r waited wait_ns for q, which came late_ns after r was ready. */
static void blame_one(const struct blame *b, int r, int q, double wait_ns, double late_ns)
{
    const double *mine = row_of(b, b->owed, r);
    const double *its = row_of(b, b->owed, q);
    double *added = row_of(b, b->added, r);
    double inherited = 0;
    for (int x = 0; x <= b->n_rank; ++x) {
        inherited += x == q ? 0.0 : larger(0.0, its[x] - mine[x]);
    }
    const double part = inherited > 0 ? fmin(1.0, late_ns / inherited) : 0.0;
    const double scale = part * wait_ns / late_ns; /* of the wait, for each ns inherited */
    for (int x = 0; x <= b->n_rank; ++x) {
        const double ns = x == q ? 0.0 : larger(0.0, its[x] - mine[x]) * scale;
        added[x] += ns;
        if (x == b->n_rank && ns > 0) {
            b->study->caused[mt_study_at(b->study, b->step, q)].network += ns;
        } else if (x != r && ns > 0) {
            charge(b, x, ns);
        }
    }
    const double own = wait_ns - fmin(wait_ns, inherited * scale);
    added[q] += own;
    charge(b, q, own);
}

/* Messages between nodes that were there after all others, when nobody was waited for any more. */
static void blame_link(const struct blame *b, int r, int64_t arrived_ns)
{
    const struct mt_profile_collective *mine = &b->part[r];
    const struct mt_profile_rank *rank = b->study->profile->rank;
    const int n_node = b->analysis->n_node;
    const int64_t ns = mine->done_ns - mt_max_i64(arrived_ns, mine->last_ns);
    if (mine->last_peer < 0 || rank[mine->last_peer].node == rank[r].node || ns <= 0) {
        return;
    }
    const int to = rank[mine->last_peer].node;
    b->analysis->link_ns[(int64_t)rank[r].node * n_node + to] += ns;
    b->study->link_ns[(int64_t)b->step * n_node + to] += (double)ns;
}

static void blame_wait(const struct blame *b, int r)
{
    const struct mt_profile_collective *mine = &b->part[r];
    struct late late[MAX_LATE];
    int n = find_late(b, r, true, late);
    if (n == 0) {
        n = find_late(b, r, false, late);
    }
    int64_t from_ns = mine->need_ns;
    for (int i = 0; i < n; ++i) {
        const double share_ns = (double)(late[i].arrival_ns - from_ns) / (n - i);
        for (int k = i; k < n; ++k) {
            blame_one(b, r, late[k].rank, share_ns, (double)(late[k].arrival_ns - mine->need_ns));
        }
        from_ns = late[i].arrival_ns;
    }
    b->analysis->wait_ns[r] += from_ns - mine->need_ns;
    b->analysis->transfer_ns[r] += mine->done_ns - from_ns;
    row_of(b, b->added, r)[b->n_rank] += (double)(mine->done_ns - from_ns);
    blame_link(b, r, from_ns);
}

/* All debts of this collective at once: what one wait adds must not explain another of the same. */
static void settle(const struct blame *b)
{
    const int64_t n = (int64_t)b->n_rank * (b->n_rank + 1);
    for (int64_t i = 0; i < n; ++i) {
        b->owed[i] += b->added[i];
        b->added[i] = 0;
    }
    /* whoever made others late was late itself */
    memcpy(b->most, b->owed, (size_t)b->n_rank * sizeof(*b->most));
    for (int r = 1; r < b->n_rank; ++r) {
        const double *its = row_of(b, b->owed, r);
        for (int q = 0; q < b->n_rank; ++q) {
            b->most[q] = larger(b->most[q], its[q]);
        }
    }
    for (int q = 0; q < b->n_rank; ++q) {
        row_of(b, b->owed, q)[q] = b->most[q];
    }
}

/* The next collective of which every rank has its part; false: there is none left. */
static bool find_next(const struct blame *b)
{
    int64_t number = 0;
    for (int agreed = 0; agreed < b->n_rank;) {
        agreed = 0;
        for (int r = 0; r < b->n_rank; ++r) {
            const struct mt_profile_step *step = mt_study_step(b->study, b->step, r);
            while (b->cursor[r] < step->n_collective &&
                   step->collective[b->cursor[r]].number < number) {
                ++b->cursor[r];
            }
            if (b->cursor[r] == step->n_collective) {
                return false;
            }
            b->part[r] = step->collective[b->cursor[r]];
            agreed += b->part[r].number == number ? 1 : 0;
            number = mt_max_i64(number, b->part[r].number);
        }
    }
    for (int r = 0; r < b->n_rank; ++r) {
        ++b->cursor[r];
    }
    return true;
}

static void blame_step(const struct blame *b)
{
    const size_t n = (size_t)b->n_rank * (size_t)(b->n_rank + 1);
    memset(b->owed, 0, n * sizeof(*b->owed));
    memset(b->cursor, 0, (size_t)b->n_rank * sizeof(*b->cursor));
    while (find_next(b)) {
        bool is_waiting = false;
        for (int r = 0; r < b->n_rank; ++r) {
            if (b->part[r].done_ns > b->part[r].need_ns) {
                blame_wait(b, r);
                is_waiting = true;
            }
        }
        if (is_waiting) {
            settle(b);
        }
    }
}

static bool has_detail(const struct mt_study *study, int step)
{
    for (int r = 0; r < study->profile->n_rank; ++r) {
        const struct mt_profile_step *its = mt_study_step(study, step, r);
        if (!its->is_there || its->n_collective == 0) {
            return false;
        }
    }
    return true;
}

enum mt_status mt_study_blame(struct mt_study *study, struct mt_analysis *analysis)
{
    const int n_rank = study->profile->n_rank;
    const int64_t n_owed = (int64_t)n_rank * (n_rank + 1);
    enum mt_status status = MT_OK;
    struct blame b = {.study = study, .analysis = analysis, .n_rank = n_rank};
    MT_TRY_GOTO(MT_ALLOCATE(b.part, n_rank, "analysis"));
    MT_TRY_GOTO(MT_ALLOCATE(b.cursor, n_rank, "analysis"));
    MT_TRY_GOTO(MT_ALLOCATE(b.owed, n_owed, "analysis"));
    MT_TRY_GOTO(MT_ALLOCATE(b.added, n_owed, "analysis"));
    MT_TRY_GOTO(MT_ALLOCATE(b.most, n_rank, "analysis"));
    for (b.step = 0; b.step < study->n; ++b.step) {
        study->is_detailed[b.step] = has_detail(study, b.step);
        if (study->is_detailed[b.step]) {
            blame_step(&b);
            ++analysis->n_detailed;
        }
    }
cleanup:
    mt_memory_free(b.most);
    mt_memory_free(b.added);
    mt_memory_free(b.owed);
    mt_memory_free(b.cursor);
    mt_memory_free(b.part);
    return status;
}
