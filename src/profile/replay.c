/* Playing the graph: every rank goes along its chain until it has to wait for somebody who is not
 * there yet. Time never runs backwards along an edge that was measured: somebody can always go. */
#include "profile/replay.h"

#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"
#include "profile/replay_internal.h"

#include <math.h>
#include <string.h>

/* ---- which steps ---- */

/* Numbers of a step's collectives on all ranks: [first, end). */
static void find_range(const struct mt_profile *profile, int s, int64_t *first, int64_t *end,
                       int64_t *n_most)
{
    *first = INT64_MAX;
    *end = INT64_MIN;
    *n_most = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, r);
        if (step->n_collective > 0) {
            *first = mt_min_i64(*first, step->collective[0].number);
            *end = mt_max_i64(*end, step->collective[step->n_collective - 1].number + 1);
            *n_most = mt_max_i64(*n_most, step->n_collective);
        }
    }
}

/* Ranks begin the same collectives, so their numbers lie together; those of a damaged file do not,
 * and would make a graph of any size. */
static bool is_together(int64_t first, int64_t end, int64_t n)
{
    enum { TIMES = 4, MORE = 64 };
    return first > end || end - first <= TIMES * n + MORE;
}

static bool is_recorded(const struct mt_profile *profile, int s)
{
    const int64_t session = mt_profile_step(profile, s, 0)->session;
    int64_t first = 0;
    int64_t end = 0;
    int64_t n = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, r);
        if (!step->is_there || (profile->n_rank > 1 && step->n_collective == 0) ||
            step->n_lost > 0 || step->session != session) {
            return false;
        }
    }
    find_range(profile, s, &first, &end, &n);
    return is_together(first, end, n);
}

/* On a rank numbers ascend from step to step: it has one record of each collective. */
static bool is_ascending(const struct mt_profile *profile, int s)
{
    for (int r = 0; r < profile->n_rank; ++r) {
        const struct mt_profile_step *before = mt_profile_step(profile, s - 1, r);
        const struct mt_profile_step *step = mt_profile_step(profile, s, r);
        if (before->n_collective > 0 && step->n_collective > 0 &&
            before->collective[before->n_collective - 1].number >= step->collective[0].number) {
            return false;
        }
    }
    return true;
}

/* Of the same start as the step before, which are both recorded: each start counts anew. */
static bool is_next(const struct mt_profile *profile, int s)
{
    int64_t before = 0;
    int64_t n_before = 0;
    int64_t first = 0;
    int64_t end = 0;
    int64_t n = 0;
    if (s == 0 || profile->step_number[s] != profile->step_number[s - 1] + 1 ||
        mt_profile_step(profile, s, 0)->session != mt_profile_step(profile, s - 1, 0)->session ||
        !is_ascending(profile, s)) {
        return false;
    }
    find_range(profile, s - 1, &before, &end, &n_before);
    find_range(profile, s, &first, &end, &n);
    return is_together(before, end, n + n_before);
}

/* The first of the last max_step recorded steps. */
static int find_first(const struct mt_replay *replay, int max_step)
{
    int s = replay->end_step;
    for (int n = 0; s > replay->begin_step && n < max_step;
         n += is_recorded(replay->profile, s) ? 1 : 0) {
        --s;
    }
    return s;
}

/* Runs of recorded steps; segment NULL: only counts them. */
static int list_segments(const struct mt_replay *replay, int first, struct mt_segment *segment)
{
    const struct mt_profile *profile = replay->profile;
    int n = 0;
    bool is_open = false;
    for (int s = first; s < replay->end_step; ++s) {
        if (!is_recorded(profile, s)) {
            is_open = false;
            continue;
        }
        n += is_open && is_next(profile, s) ? 0 : 1;
        if (segment != NULL && (!is_open || !is_next(profile, s))) {
            segment[n - 1].first_step = s;
        }
        if (segment != NULL) {
            ++segment[n - 1].n_step;
        }
        is_open = true;
    }
    return n;
}

static enum mt_status create(struct mt_replay *replay, int max_step)
{
    const struct mt_profile *profile = replay->profile;
    const int first = find_first(replay, max_step);
    const int64_t n_speed = (int64_t)replay->n_rank * (MT_N_PHASE + 1);
    replay->n_segment = list_segments(replay, first, NULL);
    MT_TRY(MT_ALLOCATE(replay->segment, replay->n_segment, "segments of a replay"));
    (void)list_segments(replay, first, replay->segment);
    for (int i = 0; i < replay->n_segment; ++i) {
        MT_TRY(mt_segment_build(profile, &replay->segment[i]));
        replay->n_step += replay->segment[i].n_step;
    }
    MT_TRY(MT_ALLOCATE(replay->slowness, n_speed, "speeds of a replay"));
    MT_TRY(MT_ALLOCATE(replay->row_ns, replay->n_rank, "speeds of a replay"));
    MT_TRY(MT_ALLOCATE(replay->next, replay->n_rank, "a replay"));
    MT_TRY(MT_ALLOCATE(replay->now_ns, replay->n_rank, "a replay"));
    MT_TRY(MT_ALLOCATE(replay->scratch, replay->n_rank, "a replay"));
    return mt_replay_compare_ranks(replay);
}

enum mt_status mt_replay_create(const struct mt_profile *profile, int max_step,
                                struct mt_replay **out)
{
    return mt_replay_create_of(profile, 0, profile->n_step, max_step, out);
}

enum mt_status mt_replay_create_of(const struct mt_profile *profile, int first, int n, int max_step,
                                   struct mt_replay **out)
{
    struct mt_replay *replay = NULL;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(replay, 1, "replay"));
    replay->profile = profile;
    replay->n_rank = profile->n_rank;
    replay->begin_step = first;
    replay->end_step = first + n;
    const enum mt_status status = create(replay, max_step);
    if (status != MT_OK) {
        mt_replay_destroy(replay);
        return status;
    }
    *out = replay;
    return MT_OK;
}

void mt_replay_destroy(struct mt_replay *replay)
{
    if (replay == NULL) {
        return;
    }
    for (int i = 0; replay->segment != NULL && i < replay->n_segment; ++i) {
        mt_segment_clear(&replay->segment[i]);
    }
    mt_memory_free(replay->segment);
    mt_memory_free(replay->slowness);
    mt_memory_free(replay->row_ns);
    mt_memory_free(replay->next);
    mt_memory_free(replay->now_ns);
    mt_memory_free(replay->scratch);
    mt_memory_free(replay);
}

int mt_replay_n_step(const struct mt_replay *replay)
{
    return replay->n_step;
}

int mt_replay_step(const struct mt_replay *replay, int index)
{
    int i = 0;
    MT_ASSERT(index >= 0 && index < replay->n_step);
    while (index >= replay->segment[i].n_step) {
        index -= replay->segment[i++].n_step;
    }
    return replay->segment[i].first_step + index;
}

double mt_replay_measured_ns(const struct mt_replay *replay)
{
    double sum_ns = 0;
    for (int i = 0; i < replay->n_segment; ++i) {
        sum_ns += (double)replay->segment[i].measured_ns;
    }
    return replay->n_step > 0 ? sum_ns / replay->n_step : 0;
}

double mt_replay_slowness(const struct mt_replay *replay, int rank, int phase)
{
    return replay->slowness[(int64_t)rank * (MT_N_PHASE + 1) + phase];
}

/* ---- changes ---- */

/* Dense parameters and gradients are of no layer, copies of experts and theirs of one. */
static bool is_of_copies(int phase, int layer)
{
    return layer >= 0 && (phase == MT_PHASE_MATERIALIZE || phase == MT_PHASE_REDUCE);
}

static bool is_expert(int phase)
{
    return phase == MT_PHASE_EXPERT || phase == MT_PHASE_EXPERT_BACKWARD;
}

/* Time of this layer's experts at the mean number of rows, over the time that they took. */
static double balanced(const struct mt_replay *replay, int rank, const struct mt_piece *piece)
{
    const struct mt_profile *profile = replay->profile;
    if (piece->layer < 0 || piece->layer >= profile->n_layer) {
        return 1;
    }
    double mean = 0;
    for (int r = 0; r < replay->n_rank; ++r) {
        mean += (double)mt_profile_by_layer(profile, profile->rows, piece->step, r)[piece->layer] /
                replay->n_rank;
    }
    const double rows =
        (double)mt_profile_by_layer(profile, profile->rows, piece->step, rank)[piece->layer];
    const double ns =
        (double)mt_profile_by_layer(profile, profile->expert_ns, piece->step, rank)[piece->layer];
    return ns > 0 ? fmax(0, 1 + replay->row_ns[rank] * (mean - rows) / ns) : 1;
}

static double scale_of(const struct mt_replay *replay, const struct mt_change *change, int rank,
                       const struct mt_piece *piece)
{
    switch (change->kind) {
    case MT_CHANGE_RANK:
        return rank == change->rank ? 1 / mt_replay_slowness(replay, rank, piece->phase) : 1;
    case MT_CHANGE_ALL_RANKS:
        return 1 / mt_replay_slowness(replay, rank, piece->phase);
    case MT_CHANGE_EXPERTS:
        return is_expert(piece->phase) ? balanced(replay, rank, piece) : 1;
    case MT_CHANGE_ROWS:
        return rank == change->rank && is_expert(piece->phase)
                   ? fmin(1, balanced(replay, rank, piece))
                   : 1;
    case MT_CHANGE_PHASE:
        return piece->phase == change->phase ? 0 : 1;
    case MT_CHANGE_COPIES:
        return is_of_copies(piece->phase, piece->layer) ? 0 : 1;
    case MT_CHANGE_NOTHING:
    case MT_CHANGE_OTHER_TRANSFERS:
    case MT_CHANGE_TRANSFERS:
    case MT_CHANGE_LINKS:
    case MT_CHANGE_NODE_LINKS:
    default:
        return 1;
    }
}

/* What is changed in a run: all of them. */
struct changes {
    const struct mt_change *change;
    int n;
};

static int64_t work_ns(const struct mt_replay *replay, const struct mt_segment *segment,
                       const struct changes *changes, int rank, const struct mt_node *node)
{
    double ns = 0;
    for (int64_t i = node->first_piece; i < node->end_piece; ++i) {
        const struct mt_piece *piece = &segment->work[i];
        double scale = 1;
        for (int c = 0; c < changes->n; ++c) {
            scale *= scale_of(replay, &changes->change[c], rank, piece);
        }
        ns += (double)piece->ns * scale;
    }
    return (int64_t)(ns + 0.5);
}

/* Of the other ranks in the same collective, the median. */
static int64_t others_transfer_ns(const struct mt_replay *replay, const struct mt_segment *segment,
                                  int collective, int rank)
{
    int64_t n = 0;
    for (int r = 0; r < replay->n_rank; ++r) {
        const struct mt_part *part = mt_segment_part(segment, replay->n_rank, collective, r);
        if (r != rank && part->is_there) {
            replay->scratch[n++] = (double)part->transfer_ns;
        }
    }
    return (int64_t)mt_quantile_f64(replay->scratch, n, 0.5);
}

static int node_of(const struct mt_replay *replay, int rank)
{
    return replay->profile->rank[rank].node;
}

/* Without what messages over the changed links alone were missing. */
static int64_t without_links(const struct mt_replay *replay, const struct mt_change *change,
                             int rank, const struct mt_part *part)
{
    if (part->last_peer < 0 || node_of(replay, part->last_peer) == node_of(replay, rank)) {
        return part->transfer_ns;
    }
    const int mine = node_of(replay, rank);
    const int other = node_of(replay, part->last_peer);
    const bool is_changed = change->to_node < 0
                                ? mine == change->node || other == change->node
                                : (mine == change->node && other == change->to_node) ||
                                      (mine == change->to_node && other == change->node);
    return part->transfer_ns - (is_changed ? part->last_ns : 0);
}

/* All messages of the ranks of a slow node are slow: without that they take what the median rank
 * elsewhere takes without waiting for it. */
static int64_t with_links(const struct mt_replay *replay, const struct mt_segment *segment,
                          const struct mt_change *change, int rank, int collective)
{
    const struct mt_part *own = mt_segment_part(segment, replay->n_rank, collective, rank);
    const int64_t own_ns = without_links(replay, change, rank, own);
    int64_t n = 0;
    if (change->to_node >= 0 || node_of(replay, rank) != change->node) {
        return own_ns;
    }
    for (int r = 0; r < replay->n_rank; ++r) {
        const struct mt_part *part = mt_segment_part(segment, replay->n_rank, collective, r);
        if (node_of(replay, r) != change->node && part->is_there) {
            replay->scratch[n++] = (double)without_links(replay, change, r, part);
        }
    }
    return mt_min_i64(own_ns, (int64_t)mt_quantile_f64(replay->scratch, n, 0.5));
}

static int64_t transfer_with(const struct mt_replay *replay, const struct mt_segment *segment,
                             const struct mt_change *change, int rank, int collective)
{
    const struct mt_part *part = mt_segment_part(segment, replay->n_rank, collective, rank);
    const bool is_free =
        change->kind == MT_CHANGE_TRANSFERS ||
        (change->kind == MT_CHANGE_PHASE && part->phase == change->phase) ||
        (change->kind == MT_CHANGE_COPIES && is_of_copies(part->phase, part->layer));
    if (change->kind == MT_CHANGE_OTHER_TRANSFERS) {
        return part->other_ns;
    }
    if (change->kind == MT_CHANGE_LINKS && rank == change->rank) {
        return mt_min_i64(part->transfer_ns, others_transfer_ns(replay, segment, collective, rank));
    }
    if (change->kind == MT_CHANGE_NODE_LINKS) {
        return with_links(replay, segment, change, rank, collective);
    }
    return is_free ? 0 : part->transfer_ns;
}

static int64_t transfer_ns(const struct mt_replay *replay, const struct mt_segment *segment,
                           const struct changes *changes, int rank, int collective)
{
    int64_t ns = transfer_with(replay, segment, &changes->change[0], rank, collective);
    for (int c = 1; c < changes->n; ++c) {
        ns = mt_min_i64(ns, transfer_with(replay, segment, &changes->change[c], rank, collective));
    }
    return ns;
}

/* ---- the play ---- */

static bool needs(const struct mt_segment *segment, int n_rank, int collective, int rank, int other)
{
    const struct mt_part *mine = mt_segment_part(segment, n_rank, collective, rank);
    const struct mt_part *theirs = mt_segment_part(segment, n_rank, collective, other);
    if (other == rank || !theirs->is_there) {
        return other == rank;
    }
    return n_rank <= 64 ? (mine->needed >> other & 1) != 0 : theirs->begin_ns <= mine->done_ns;
}

/* When the wait can be over, and by whose arrival; false: somebody has not arrived. */
static bool find_ready(const struct mt_replay *replay, const struct mt_segment *segment,
                       const struct changes *changes, int rank, struct mt_node *node,
                       int64_t *ready_ns)
{
    const int n_rank = replay->n_rank;
    int64_t last_ns = INT64_MIN;
    for (int s = 0; s < n_rank; ++s) {
        if (!needs(segment, n_rank, node->collective, rank, s)) {
            continue;
        }
        const int64_t posted_ns = mt_segment_part(segment, n_rank, node->collective, s)->posted_ns;
        if (posted_ns < 0) {
            return false;
        }
        if (posted_ns > last_ns) {
            last_ns = posted_ns;
            node->source = s;
        }
    }
    *ready_ns = last_ns + transfer_ns(replay, segment, changes, rank, node->collective);
    return true;
}

/* As far as this rank can go; true: it has moved. is_stuck: nobody else can, so the wait at which
 * it stands is over. */
static bool advance(struct mt_replay *replay, struct mt_segment *segment,
                    const struct changes *changes, int rank, bool is_stuck)
{
    const int64_t first = replay->next[rank];
    for (; replay->next[rank] < segment->first_node[rank + 1]; ++replay->next[rank]) {
        struct mt_node *node = &segment->node[replay->next[rank]];
        int64_t ready_ns = INT64_MIN;
        node->source = -1;
        if (node->kind == MT_NODE_WAIT &&
            !find_ready(replay, segment, changes, rank, node, &ready_ns)) {
            if (!is_stuck || replay->next[rank] > first) {
                break;
            }
            node->source = -1;
        }
        node->come_ns = replay->now_ns[rank] + work_ns(replay, segment, changes, rank, node);
        node->go_ns = mt_max_i64(node->come_ns, ready_ns);
        if (node->go_ns == node->come_ns) {
            node->source = -1;
        }
        replay->now_ns[rank] = node->go_ns;
        if (node->kind == MT_NODE_POST) {
            mt_segment_part(segment, replay->n_rank, node->collective, rank)->posted_ns =
                node->go_ns;
        }
    }
    return replay->next[rank] > first;
}

/* Damaged records can have all ranks wait for one another: the first that has not come to its end
 * goes on. */
static bool free_one(struct mt_replay *replay, struct mt_segment *segment,
                     const struct changes *changes)
{
    bool has_moved = false;
    for (int r = 0; r < replay->n_rank && !has_moved; ++r) {
        has_moved = advance(replay, segment, changes, r, true);
    }
    return has_moved;
}

static int64_t play(struct mt_replay *replay, struct mt_segment *segment,
                    const struct changes *changes)
{
    for (int r = 0; r < replay->n_rank; ++r) {
        replay->next[r] = segment->first_node[r];
        replay->now_ns[r] = mt_segment_start_ns(replay, segment, r);
    }
    for (int64_t i = 0; i < (int64_t)segment->n_collective * replay->n_rank; ++i) {
        segment->part[i].posted_ns = -1;
    }
    for (bool has_moved = true; has_moved;) {
        has_moved = false;
        for (int r = 0; r < replay->n_rank; ++r) {
            has_moved = advance(replay, segment, changes, r, false) || has_moved;
        }
        has_moved = has_moved || free_one(replay, segment, changes);
    }
    int64_t end_ns = 0;
    for (int r = 0; r < replay->n_rank; ++r) {
        end_ns = mt_max_i64(end_ns, replay->now_ns[r]);
    }
    return end_ns - (segment->begin_ns - segment->base_ns);
}

double mt_replay_run(struct mt_replay *replay, const struct mt_change *change)
{
    return mt_replay_run_all(replay, change, 1);
}

double mt_replay_run_all(struct mt_replay *replay, const struct mt_change *change, int n)
{
    const struct changes changes = {change, n};
    double sum_ns = 0;
    MT_ASSERT(n > 0);
    for (int i = 0; i < replay->n_segment; ++i) {
        sum_ns += (double)play(replay, &replay->segment[i], &changes);
    }
    return replay->n_step > 0 ? sum_ns / replay->n_step : 0;
}
