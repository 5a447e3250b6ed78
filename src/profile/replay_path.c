/* What the latest run looked like: a rank's time, and the path that decided how long it took. */
#include "base/size.h"
#include "profile/replay_internal.h"

#include <string.h>

/* Told piece after piece. */
typedef void (*tell_fn)(const struct mt_stretch *stretch, void *context);

static int64_t come_from_ns(const struct mt_replay *replay, const struct mt_segment *segment,
                            int rank, int64_t node)
{
    return node == segment->first_node[rank] ? mt_segment_start_ns(replay, segment, rank)
                                             : segment->node[node - 1].go_ns;
}

/* The work that leads to a node, the latest piece first. A change may have scaled pieces
 * differently; here they share what is left of all of them. */
static void tell_work(const struct mt_replay *replay, const struct mt_segment *segment, int rank,
                      int64_t at, tell_fn tell, void *context)
{
    const struct mt_node *node = &segment->node[at];
    const int64_t from_ns = come_from_ns(replay, segment, rank, at);
    int64_t measured_ns = 0;
    for (int64_t i = node->first_piece; i < node->end_piece; ++i) {
        measured_ns += segment->work[i].ns;
    }
    const double scale =
        measured_ns > 0 ? (double)(node->come_ns - from_ns) / (double)measured_ns : 0;
    int64_t end_ns = node->come_ns;
    for (int64_t i = node->end_piece - 1; i >= node->first_piece; --i) {
        const int64_t begin_ns = i == node->first_piece
                                     ? from_ns
                                     : end_ns - (int64_t)((double)segment->work[i].ns * scale);
        const struct mt_stretch work = {.kind = MT_STRETCH_WORK,
                                        .rank = rank,
                                        .phase = segment->work[i].phase,
                                        .begin_ns = begin_ns,
                                        .end_ns = end_ns};
        tell(&work, context);
        end_ns = begin_ns;
    }
}

/* From the arrival of the wait's source until the wait was over. */
static struct mt_stretch transfer_of(const struct mt_replay *replay,
                                     const struct mt_segment *segment, int rank,
                                     const struct mt_node *node)
{
    const int n_rank = replay->n_rank;
    return (struct mt_stretch){
        .kind = MT_STRETCH_TRANSFER,
        .rank = rank,
        .phase = mt_segment_part(segment, n_rank, node->collective, rank)->phase,
        .begin_ns = mt_segment_part(segment, n_rank, node->collective, node->source)->posted_ns,
        .end_ns = node->go_ns};
}

/* Backwards from the end of the last rank, always to what came last. */
static void walk_back(const struct mt_replay *replay, const struct mt_segment *segment,
                      tell_fn tell, void *context)
{
    int rank = 0;
    int64_t at = segment->first_node[1] - 1;
    for (int r = 1; r < replay->n_rank; ++r) {
        const int64_t last = segment->first_node[r + 1] - 1;
        if (segment->node[last].go_ns > segment->node[at].go_ns) {
            rank = r;
            at = last;
        }
    }
    /* Each moment was played before those that it leads to, and is passed once at most. */
    for (int64_t left = segment->first_node[replay->n_rank];
         left > 0 && at >= segment->first_node[rank]; --left) {
        const struct mt_node *node = &segment->node[at];
        if (node->source >= 0) {
            const struct mt_stretch transfer = transfer_of(replay, segment, rank, node);
            tell(&transfer, context);
            rank = node->source;
            at = mt_segment_part(segment, replay->n_rank, node->collective, rank)->post_node;
            continue;
        }
        tell_work(replay, segment, rank, at, tell, context);
        --at;
    }
}

/* ---- the last step ---- */

struct list {
    int64_t begin_ns; /* of the step */
    int64_t n, max;
    struct mt_stretch *out;
};

static void add_to_list(const struct mt_stretch *stretch, void *context)
{
    struct list *list = context;
    if (stretch->end_ns <= list->begin_ns || stretch->end_ns == stretch->begin_ns) {
        return;
    }
    if (list->n < list->max) {
        struct mt_stretch *out = &list->out[list->n];
        *out = *stretch;
        out->begin_ns = mt_max_i64(0, stretch->begin_ns - list->begin_ns);
        out->end_ns -= list->begin_ns;
    }
    ++list->n;
}

/* The node with which a rank's last but one step ends; -1: there is only one. */
static int64_t find_last_step(const struct mt_segment *segment, int rank)
{
    int64_t at = segment->first_node[rank + 1] - 2;
    while (at >= segment->first_node[rank] && segment->node[at].kind != MT_NODE_END) {
        --at;
    }
    return at >= segment->first_node[rank] ? at : -1;
}

static struct list begin_list(const struct mt_replay *replay, const struct mt_segment *segment,
                              struct mt_stretch *out, int64_t max)
{
    struct list list = {.begin_ns = INT64_MAX, .max = max, .out = out};
    for (int r = 0; r < replay->n_rank; ++r) {
        const int64_t at = find_last_step(segment, r);
        list.begin_ns =
            mt_min_i64(list.begin_ns,
                       at >= 0 ? segment->node[at].go_ns : mt_segment_start_ns(replay, segment, r));
    }
    return list;
}

int64_t mt_replay_critical(const struct mt_replay *replay, struct mt_stretch *out, int64_t max)
{
    if (replay->n_segment == 0) {
        return 0;
    }
    const struct mt_segment *segment = &replay->segment[replay->n_segment - 1];
    struct list list = begin_list(replay, segment, out, max);
    walk_back(replay, segment, add_to_list, &list);
    return list.n;
}

int64_t mt_replay_timeline(const struct mt_replay *replay, int rank, struct mt_stretch *out,
                           int64_t max)
{
    if (replay->n_segment == 0) {
        return 0;
    }
    const struct mt_segment *segment = &replay->segment[replay->n_segment - 1];
    struct list list = begin_list(replay, segment, out, max);
    for (int64_t at = segment->first_node[rank + 1] - 1; at >= segment->first_node[rank]; --at) {
        const struct mt_node *node = &segment->node[at];
        if (node->source >= 0) {
            struct mt_stretch part = transfer_of(replay, segment, rank, node);
            const int64_t arrived_ns = mt_max_i64(part.begin_ns, node->come_ns);
            part.begin_ns = arrived_ns;
            add_to_list(&part, &list);
            part.kind = MT_STRETCH_WAIT;
            part.begin_ns = node->come_ns;
            part.end_ns = arrived_ns;
            add_to_list(&part, &list);
        }
        tell_work(replay, segment, rank, at, add_to_list, &list);
    }
    return list.n;
}

/* ---- all steps ---- */

struct sums {
    int64_t *work_ns, *transfer_ns;
};

static void add_to_sums(const struct mt_stretch *stretch, void *context)
{
    const struct sums *sums = context;
    int64_t *of = stretch->kind == MT_STRETCH_WORK ? sums->work_ns : sums->transfer_ns;
    of[(int64_t)stretch->rank * (MT_N_PHASE + 1) + stretch->phase] +=
        stretch->end_ns - stretch->begin_ns;
}

void mt_replay_critical_sums(const struct mt_replay *replay, int64_t *work_ns, int64_t *transfer_ns)
{
    const size_t bytes = (size_t)replay->n_rank * (MT_N_PHASE + 1) * sizeof(*work_ns);
    struct sums sums = {work_ns, transfer_ns};
    memset(work_ns, 0, bytes);
    memset(transfer_ns, 0, bytes);
    for (int i = 0; i < replay->n_segment; ++i) {
        walk_back(replay, &replay->segment[i], add_to_sums, &sums);
    }
}
