/* The collectives of a segment: whose arrival each rank needs, and how long messages take then. */
#include "base/memory.h"
#include "base/size.h"
#include "profile/replay_internal.h"

enum { MASK_RANKS = 64 };

static void find_numbers(const struct mt_profile *profile, const struct mt_segment *segment,
                         int64_t *first, int64_t *end)
{
    *first = INT64_MAX;
    *end = INT64_MIN;
    for (int s = segment->first_step; s < segment->first_step + segment->n_step; ++s) {
        for (int r = 0; r < profile->n_rank; ++r) {
            const struct mt_profile_step *step = mt_profile_step(profile, s, r);
            if (step->n_collective > 0) {
                *first = mt_min_i64(*first, step->collective[0].number);
                *end = mt_max_i64(*end, step->collective[step->n_collective - 1].number + 1);
            }
        }
    }
}

static bool is_same_work(const struct mt_profile_collective *a,
                         const struct mt_profile_collective *b)
{
    return a->kind == b->kind && a->phase == b->phase && a->layer == b->layer &&
           a->micro == b->micro;
}

/* The same collective of another step: of equal ones the nearest in the order of begins. NULL: that
 * step has none. */
static const struct mt_profile_collective *find_twin(const struct mt_profile_step *step,
                                                     const struct mt_profile_collective *of, int at)
{
    for (int distance = 0; distance < step->n_collective + at; ++distance) {
        const int before = at - distance;
        const int after = at + distance;
        if (before >= 0 && before < step->n_collective &&
            is_same_work(&step->collective[before], of)) {
            return &step->collective[before];
        }
        if (after < step->n_collective && is_same_work(&step->collective[after], of)) {
            return &step->collective[after];
        }
    }
    return NULL;
}

static void fill_parts(const struct mt_profile *profile, struct mt_segment *segment, int64_t first)
{
    for (int s = segment->first_step; s < segment->first_step + segment->n_step; ++s) {
        for (int r = 0; r < profile->n_rank; ++r) {
            const struct mt_profile_step *step = mt_profile_step(profile, s, r);
            for (int i = 0; i < step->n_collective; ++i) {
                const struct mt_profile_collective *c = &step->collective[i];
                *mt_segment_part(segment, profile->n_rank, (int)(c->number - first), r) =
                    (struct mt_part){.is_there = true,
                                     .phase = c->phase,
                                     .layer = c->layer,
                                     .needed = c->sources,
                                     .last_peer = c->last_peer,
                                     .last_ns = c->last_ns,
                                     .begin_ns = c->begin_ns,
                                     .done_ns = c->done_ns};
            }
        }
    }
}

/* Sources of sources, until nothing is added: who passes on must have arrived, and who passes it to
 * them. */
static void close_sources(struct mt_part *part, int n_rank)
{
    for (bool has_grown = true; has_grown;) {
        has_grown = false;
        for (int r = 0; r < n_rank; ++r) {
            uint64_t all = part[r].needed;
            for (int s = 0; s < n_rank; ++s) {
                all |= (part[r].needed >> s & 1) != 0 ? part[s].needed : 0;
            }
            has_grown = has_grown || all != part[r].needed;
            part[r].needed = all;
        }
    }
}

/* Ranks that came when the wait was over cannot have been waited for. */
static void drop_later(struct mt_part *part, int n_rank)
{
    for (int r = 0; r < n_rank; ++r) {
        for (int s = 0; s < n_rank; ++s) {
            if (s != r && (!part[s].is_there || part[s].begin_ns > part[r].done_ns)) {
                part[r].needed &= ~((uint64_t)1 << s);
            }
        }
    }
}

/* Whose arrival ends each rank's wait: its sources' and theirs, and its receivers', since a large
 * message leaves when the other end has room for it. A small one leaves at once: it is out before
 * its receiver comes, or nobody stands still for it. */
static void find_needed(struct mt_part *part, int n_rank)
{
    uint64_t receivers[MASK_RANKS] = {0};
    if (n_rank > MASK_RANKS) {
        return; /* everybody who came before the end */
    }
    for (int r = 0; r < n_rank; ++r) {
        for (int s = 0; s < n_rank; ++s) {
            receivers[s] |= (part[r].needed >> s & 1) << r;
        }
    }
    close_sources(part, n_rank);
    for (int r = 0; r < n_rank; ++r) {
        part[r].needed |= receivers[r];
    }
    drop_later(part, n_rank);
}

static bool is_needed(const struct mt_part *part, int n_rank, int rank, int source)
{
    if (source == rank || !part[source].is_there) {
        return source == rank;
    }
    return n_rank <= MASK_RANKS ? (part[rank].needed >> source & 1) != 0
                                : part[source].begin_ns <= part[rank].done_ns;
}

static void measure_transfers(struct mt_part *part, int n_rank)
{
    for (int r = 0; r < n_rank; ++r) {
        int64_t last_ns = part[r].begin_ns;
        for (int s = 0; s < n_rank; ++s) {
            if (is_needed(part, n_rank, r, s)) {
                last_ns = mt_max_i64(last_ns, part[s].begin_ns);
            }
        }
        part[r].transfer_ns = mt_max_i64(0, part[r].done_ns - last_ns);
        part[r].last_ns =
            mt_max_i64(0, mt_min_i64(part[r].transfer_ns, part[r].done_ns - part[r].last_ns));
    }
}

/* What the same collective took in the three steps before (of the first ones: the last ones), the
 * median: a save or a moment off the core makes one of them long. Its own where there is no
 * other. */
static int64_t transfer_elsewhere(const struct mt_profile *profile,
                                  const struct mt_segment *segment, int64_t first, int step,
                                  int rank, int at)
{
    enum { LOOK_BACK = 3 };
    const struct mt_profile_collective *own =
        &mt_profile_step(profile, segment->first_step + step, rank)->collective[at];
    int64_t sorted_ns[LOOK_BACK];
    int n = 0;
    for (int back = 1; back <= LOOK_BACK && back < segment->n_step; ++back) {
        const int from = (step + segment->n_step - back) % segment->n_step;
        const struct mt_profile_collective *twin =
            find_twin(mt_profile_step(profile, segment->first_step + from, rank), own, at);
        if (twin == NULL) {
            continue;
        }
        const int64_t ns =
            mt_segment_part(segment, profile->n_rank, (int)(twin->number - first), rank)
                ->transfer_ns;
        int place = n++;
        for (; place > 0 && sorted_ns[place - 1] > ns; --place) {
            sorted_ns[place] = sorted_ns[place - 1];
        }
        sorted_ns[place] = ns;
    }
    return n > 0 ? sorted_ns[n / 2]
                 : mt_segment_part(segment, profile->n_rank, (int)(own->number - first), rank)
                       ->transfer_ns;
}

static void borrow_transfers(const struct mt_profile *profile, struct mt_segment *segment,
                             int64_t first)
{
    for (int i = 0; i < segment->n_step; ++i) {
        for (int r = 0; r < profile->n_rank; ++r) {
            const struct mt_profile_step *step =
                mt_profile_step(profile, segment->first_step + i, r);
            for (int c = 0; c < step->n_collective; ++c) {
                const int number = (int)(step->collective[c].number - first);
                mt_segment_part(segment, profile->n_rank, number, r)->other_ns =
                    transfer_elsewhere(profile, segment, first, i, r, c);
            }
        }
    }
}

enum mt_status mt_segment_join(const struct mt_profile *profile, struct mt_segment *segment,
                               int64_t *first)
{
    int64_t end = 0;
    const int n_rank = profile->n_rank;
    find_numbers(profile, segment, first, &end);
    if (*first > end) {
        return MT_OK; /* one rank, which meets nobody */
    }
    segment->n_collective = mt_size_to_int(end - *first);
    MT_TRY(MT_ALLOCATE(segment->part, (int64_t)segment->n_collective * n_rank,
                       "collectives of a replay"));
    fill_parts(profile, segment, *first);
    for (int c = 0; c < segment->n_collective; ++c) {
        struct mt_part *part = mt_segment_part(segment, n_rank, c, 0);
        find_needed(part, n_rank);
        measure_transfers(part, n_rank);
    }
    borrow_transfers(profile, segment, *first);
    return MT_OK;
}
