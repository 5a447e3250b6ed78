/* From records to the graph of a segment: chains of work, and who waits in them for what. */
#include "base/memory.h"
#include "base/size.h"
#include "profile/replay_internal.h"

#include <stdlib.h>

enum { SPAN_DEPTH = 32 };

/* ---- work ---- */

/* A moment of one rank, as measured. */
struct event {
    int64_t at_ns, until_ns; /* a wait lasts, a post does not */
    enum mt_node_kind kind;
    int collective, step;
    int busy_phase, layer; /* of the work that leads to it, where no spans tell */
    int micro;             /* of a post; -1: of none */
    bool leads_micro;      /* the first of its micro-batch: data were read before it */
};

static int by_time(const void *left, const void *right)
{
    const struct event *a = left;
    const struct event *b = right;
    if (a->at_ns != b->at_ns) {
        return a->at_ns < b->at_ns ? -1 : 1;
    }
    if (a->kind != b->kind) {
        return a->kind < b->kind ? -1 : 1;
    }
    return (a->collective > b->collective) - (a->collective < b->collective);
}

/* A post tells the phase in which the rank was longest since the post before it. So the work that
 * leads to a wait in between is of that phase, too; after a step's last post nothing is known. */
static void label_waits(struct event *event, int64_t n)
{
    int busy_phase = MT_N_PHASE;
    int layer = -1;
    for (int64_t i = n - 1; i >= 0; --i) {
        if (event[i].kind != MT_NODE_WAIT) {
            busy_phase = event[i].busy_phase;
            layer = event[i].layer;
        }
        event[i].busy_phase = busy_phase;
        event[i].layer = layer;
    }
}

/* The data of a step's first micro-batch are read before anything else, those of a later one before
 * its first post. */
static void mark_micros(struct event *event, int64_t n)
{
    int64_t first = 0; /* of the step */
    int micro = -1;
    for (int64_t i = 0; i < n; ++i) {
        if (event[i].kind == MT_NODE_POST && event[i].micro >= 0 && event[i].micro != micro) {
            event[micro < 0 ? first : i].leads_micro = true;
            micro = event[i].micro;
        }
        if (event[i].kind == MT_NODE_END) {
            first = i + 1;
            micro = -1;
        }
    }
}

/* Posts and waits of one rank inside the segment, and the ends of its steps; returns how many. */
static int64_t list_events(const struct mt_profile *profile, const struct mt_segment *segment,
                           int rank, int64_t first, struct event *event)
{
    int64_t n = 0;
    const int end = segment->first_step + segment->n_step;
    const int64_t end_ns = mt_profile_step(profile, end - 1, rank)->until_ns;
    for (int s = segment->first_step; s < end; ++s) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, rank);
        for (int i = 0; i < step->n_collective; ++i) {
            const struct mt_profile_collective *c = &step->collective[i];
            /* a GPU may come to it after the host's step */
            const int64_t begin_ns = mt_min_i64(c->begin_ns, end_ns);
            struct event moment = {.at_ns = begin_ns,
                                   .until_ns = begin_ns,
                                   .kind = MT_NODE_POST,
                                   .collective = (int)(c->number - first),
                                   .step = s,
                                   .busy_phase = c->busy_phase,
                                   .layer = c->layer,
                                   .micro = c->micro};
            event[n++] = moment;
            moment.kind = MT_NODE_WAIT;
            moment.at_ns = c->need_ns;
            moment.until_ns = mt_max_i64(c->need_ns, c->done_ns);
            if (moment.until_ns <= end_ns && c->need_ns != c->done_ns) {
                event[n++] = moment;
            }
        }
        event[n++] = (struct event){.at_ns = step->until_ns,
                                    .until_ns = step->until_ns,
                                    .kind = MT_NODE_END,
                                    .collective = -1,
                                    .step = s,
                                    .busy_phase = MT_N_PHASE,
                                    .layer = -1,
                                    .micro = -1};
    }
    qsort(event, (size_t)n, sizeof(*event), by_time);
    label_waits(event, n);
    mark_micros(event, n);
    return n;
}

/* Where a rank is in its spans. */
struct reader {
    const struct mt_profile *profile;
    int rank, step, end_step, span;
    bool has_device; /* its GPU's work makes the chain, and what is the host's own beside it */
    int n_micro;     /* of a step */
    int depth;
    struct mt_profile_span open[SPAN_DEPTH];
    struct mt_piece *piece;
    int64_t n_piece;
};

static void add_piece(struct reader *reader, const struct event *to, int phase, int layer,
                      int64_t ns)
{
    if (ns > 0) {
        reader->piece[reader->n_piece++] =
            (struct mt_piece){.step = to->step, .phase = phase, .layer = layer, .ns = ns};
    }
}

static bool has_device(const struct mt_profile *profile, const struct mt_segment *segment, int rank)
{
    for (int s = segment->first_step; s < segment->first_step + segment->n_step; ++s) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, rank);
        for (int i = 0; i < step->n_span; ++i) {
            if (step->span[i].track == MT_TRACK_DEVICE) {
                return true;
            }
        }
    }
    return false;
}

/* What the host enqueues for a GPU is the GPU's work. */
static bool is_of_chain(const struct reader *reader, const struct mt_profile_span *span)
{
    return !reader->has_device || span->track == MT_TRACK_DEVICE ||
           mt_phase_is_of_host((enum mt_phase)span->phase);
}

static const struct mt_profile_span *peek_span(struct reader *reader)
{
    while (reader->step < reader->end_step) {
        const struct mt_profile_step *step =
            mt_profile_step(reader->profile, reader->step, reader->rank);
        while (reader->span < step->n_span && !is_of_chain(reader, &step->span[reader->span])) {
            ++reader->span;
        }
        if (reader->span < step->n_span) {
            return &step->span[reader->span];
        }
        ++reader->step;
        reader->span = 0;
    }
    return NULL;
}

/* Spans that are over at now_ns are left, those that have begun are entered. Returns when the
 * innermost one changes next. */
static int64_t move_to(struct reader *reader, int64_t now_ns)
{
    const struct mt_profile_span *next = peek_span(reader);
    while (next != NULL && next->begin_ns <= now_ns) {
        while (reader->depth > 0 && reader->open[reader->depth - 1].end_ns <= next->begin_ns) {
            --reader->depth;
        }
        if (reader->depth < SPAN_DEPTH) {
            reader->open[reader->depth++] = *next;
        }
        ++reader->span;
        next = peek_span(reader);
    }
    while (reader->depth > 0 && reader->open[reader->depth - 1].end_ns <= now_ns) {
        --reader->depth;
    }
    int64_t end_ns = next != NULL ? next->begin_ns : INT64_MAX;
    for (int i = reader->depth - 1; i >= 0; --i) {
        end_ns =
            reader->open[i].end_ns > now_ns ? mt_min_i64(end_ns, reader->open[i].end_ns) : end_ns;
    }
    return end_ns;
}

/* The innermost open span, but a GPU's before what the host does beside it; NULL: none. */
static const struct mt_profile_span *span_at(const struct reader *reader, int64_t now_ns)
{
    const struct mt_profile_span *innermost = NULL;
    for (int i = reader->depth - 1; i >= 0; --i) {
        const struct mt_profile_span *span = &reader->open[i];
        if (span->end_ns > now_ns && span->track == MT_TRACK_DEVICE) {
            return span;
        }
        innermost = innermost == NULL ? span : innermost;
    }
    return innermost;
}

static int64_t busy_ns(const struct mt_profile_step *step, int phase)
{
    return mt_max_i64(0, step->phase_ns[phase] - step->wait_ns[phase]);
}

/* Work of a step without spans: of the phase in which the rank was longest. What is known to lie
 * there beside it is told apart: data before a micro-batch, saves and evaluations at the end. */
static void add_untraced(struct reader *reader, const struct event *to, int64_t ns)
{
    static const int at_end[] = {MT_PHASE_CHECKPOINT, MT_PHASE_EVAL};
    const struct mt_profile_step *step = mt_profile_step(reader->profile, to->step, reader->rank);
    if (to->leads_micro) {
        const int64_t data_ns = busy_ns(step, MT_PHASE_DATA) / mt_max_i64(1, reader->n_micro);
        add_piece(reader, to, MT_PHASE_DATA, -1, mt_min_i64(ns, data_ns));
        ns -= mt_min_i64(ns, data_ns);
    }
    for (int i = 0; i < 2 && to->kind == MT_NODE_END; ++i) {
        const int64_t part_ns = mt_min_i64(ns, busy_ns(step, at_end[i]));
        add_piece(reader, to, at_end[i], -1, part_ns);
        ns -= part_ns;
    }
    add_piece(reader, to, to->busy_phase, to->layer, ns);
}

/* The work between from_ns and the event: as its spans tell, if there are any. */
static void add_work(struct reader *reader, int64_t from_ns, const struct event *to)
{
    const bool is_traced = mt_profile_step(reader->profile, to->step, reader->rank)->n_span > 0;
    if (!is_traced) {
        add_untraced(reader, to, to->at_ns - from_ns);
        return;
    }
    while (from_ns < to->at_ns) {
        const int64_t until_ns = mt_min_i64(move_to(reader, from_ns), to->at_ns);
        const struct mt_profile_span *in = span_at(reader, from_ns);
        add_piece(reader, to, in != NULL ? in->phase : MT_N_PHASE, in != NULL ? in->layer : -1,
                  until_ns - from_ns);
        from_ns = until_ns;
    }
}

/* Nodes of one rank behind those of the ranks before it. */
static void chain_rank(struct mt_segment *segment, struct reader *reader, const struct event *event,
                       int64_t n_event)
{
    const int n_rank = reader->profile->n_rank;
    int64_t now_ns = mt_profile_step(reader->profile, segment->first_step, reader->rank)->begin_ns;
    int64_t at = segment->first_node[reader->rank];
    reader->n_micro = 0;
    for (int64_t i = 0; i < n_event; ++i) {
        reader->n_micro += event[i].leads_micro ? 1 : 0;
    }
    reader->n_micro /= segment->n_step; /* the same in each */
    for (int64_t i = 0; i < n_event; ++i, ++at) {
        struct mt_node *node = &segment->node[at];
        *node = (struct mt_node){.kind = event[i].kind,
                                 .collective = event[i].collective,
                                 .first_piece = reader->n_piece};
        add_work(reader, now_ns, &event[i]);
        node->end_piece = reader->n_piece;
        now_ns = mt_max_i64(now_ns, event[i].until_ns);
        if (event[i].kind == MT_NODE_POST) {
            mt_segment_part(segment, n_rank, event[i].collective, reader->rank)->post_node = at;
        }
    }
    segment->first_node[reader->rank + 1] = at;
}

static void count_records(const struct mt_profile *profile, const struct mt_segment *segment,
                          int64_t *n_event, int64_t *n_span)
{
    *n_event = 0;
    *n_span = 0;
    for (int s = segment->first_step; s < segment->first_step + segment->n_step; ++s) {
        for (int r = 0; r < profile->n_rank; ++r) {
            const struct mt_profile_step *step = mt_profile_step(profile, s, r);
            *n_event += 2 * (int64_t)step->n_collective + 1;
            *n_span += step->n_span;
        }
    }
}

static enum mt_status build_chains(const struct mt_profile *profile, struct mt_segment *segment,
                                   int64_t first)
{
    int64_t n_event = 0;
    int64_t n_span = 0;
    struct event *event = NULL;
    enum mt_status status = MT_OK;
    count_records(profile, segment, &n_event, &n_span);
    MT_TRY_GOTO(MT_ALLOCATE(event, n_event, "moments of a replay"));
    MT_TRY_GOTO(MT_ALLOCATE(segment->node, n_event, "moments of a replay"));
    /* a span ends a piece twice, at its begin and its end; an event has three at most */
    MT_TRY_GOTO(MT_ALLOCATE(segment->work, 2 * n_span + 3 * n_event, "work of a replay"));
    MT_TRY_GOTO(MT_ALLOCATE(segment->first_node, profile->n_rank + 1, "chains of a replay"));
    struct reader reader = {.profile = profile, .piece = segment->work};
    for (int r = 0; r < profile->n_rank; ++r) {
        reader.rank = r;
        reader.step = segment->first_step;
        reader.end_step = segment->first_step + segment->n_step;
        reader.span = 0;
        reader.depth = 0;
        reader.has_device = has_device(profile, segment, r);
        chain_rank(segment, &reader, event, list_events(profile, segment, r, first, event));
    }
cleanup:
    mt_memory_free(event);
    return status;
}

enum mt_status mt_segment_build(const struct mt_profile *profile, struct mt_segment *segment)
{
    int64_t first = 0;
    int64_t end_ns = INT64_MIN;
    segment->base_ns = INT64_MAX;
    segment->begin_ns = INT64_MIN;
    for (int r = 0; r < profile->n_rank; ++r) {
        const int last = segment->first_step + segment->n_step - 1;
        const int64_t begin_ns = mt_profile_step(profile, segment->first_step, r)->begin_ns;
        segment->base_ns = mt_min_i64(segment->base_ns, begin_ns);
        segment->begin_ns = mt_max_i64(segment->begin_ns, begin_ns);
        end_ns = mt_max_i64(end_ns, mt_profile_step(profile, last, r)->until_ns);
    }
    segment->measured_ns = end_ns - segment->begin_ns;
    MT_TRY(mt_segment_join(profile, segment, &first));
    return build_chains(profile, segment, first);
}

void mt_segment_clear(struct mt_segment *segment)
{
    mt_memory_free(segment->part);
    mt_memory_free(segment->node);
    mt_memory_free(segment->work);
    mt_memory_free(segment->first_node);
    *segment = (struct mt_segment){0};
}
