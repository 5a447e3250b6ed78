/* One step on every rank and the critical path through it, as data of the page. */
#include "profile/report_internal.h"
#include "profile/report_json.h"

#include "base/memory.h"
#include "base/size.h"

/* A screen has no more columns: what is shorter than this part of a step is drawn with its
 * neighbours, in the colour of the longest of them. */
enum { LANE_PARTS = 800, LANE_PARTS_OF_MANY = 300, MANY_RANKS = 16 };

static bool is_expert(int phase)
{
    return phase == MT_PHASE_EXPERT || phase == MT_PHASE_EXPERT_BACKWARD;
}

/* As sections.js names its colours. */
static const char *style_of(const struct mt_stretch *stretch)
{
    if (stretch->kind == MT_STRETCH_WAIT) {
        return "wait";
    }
    if (stretch->kind == MT_STRETCH_TRANSFER) {
        return "send";
    }
    return is_expert(stretch->phase)                              ? "experts"
           : mt_phase_is_of_tokens((enum mt_phase)stretch->phase) ? "work"
                                                                  : "other";
}

/* Index into the list of names. */
static int name_of(const struct mt_stretch *stretch)
{
    return stretch->phase * 3 + (int)stretch->kind;
}

static json_t *names(void)
{
    static const char *const suffix[] = {[MT_STRETCH_WORK] = "",
                                         [MT_STRETCH_WAIT] = ": waits",
                                         [MT_STRETCH_TRANSFER] = ": messages"};
    json_t *list = json_array();
    for (int p = 0; p <= MT_N_PHASE; ++p) {
        char phase[MT_REPORT_LINE_BYTES];
        mt_report_phase_name(p, false, phase);
        for (int k = 0; k < 3; ++k) {
            (void)json_array_append_new(list, json_sprintf("%s%s", phase, suffix[k]));
        }
    }
    return list;
}

/* Neighbours that are drawn as one. */
struct cluster {
    int64_t begin_ns, end_ns;
    struct mt_stretch longest;
};

static void draw(json_t *lane, const struct cluster *cluster)
{
    if (cluster->end_ns > cluster->begin_ns) {
        (void)json_array_append_new(
            lane, json_pack("[o,o,s,i]", mt_json_seconds((double)cluster->begin_ns),
                            mt_json_seconds((double)(cluster->end_ns - cluster->begin_ns)),
                            style_of(&cluster->longest), name_of(&cluster->longest)));
    }
}

/* stretch [n], the latest first */
static json_t *lane_of(const struct mt_stretch *stretch, int64_t n, int64_t least_ns)
{
    json_t *lane = json_array();
    struct cluster cluster = {.end_ns = 0};
    for (int64_t i = n - 1; i >= 0; --i) {
        const struct mt_stretch *next = &stretch[i];
        const bool is_same = name_of(next) == name_of(&cluster.longest);
        if (!is_same && cluster.end_ns - cluster.begin_ns >= least_ns) {
            draw(lane, &cluster);
            cluster = (struct cluster){next->begin_ns, next->end_ns, *next};
            continue;
        }
        if (cluster.end_ns == cluster.begin_ns) {
            cluster = (struct cluster){next->begin_ns, next->end_ns, *next};
        }
        const int64_t longest_ns = cluster.longest.end_ns - cluster.longest.begin_ns;
        if (is_same) {
            cluster.longest.end_ns = next->end_ns;
        } else if (next->end_ns - next->begin_ns > longest_ns) {
            cluster.longest = *next;
        }
        cluster.end_ns = next->end_ns;
    }
    draw(lane, &cluster);
    return lane;
}

static json_t *path_of(const struct mt_stretch *stretch, int64_t n)
{
    json_t *path = json_array();
    for (int64_t i = n - 1; i >= 0; --i) {
        int64_t end_ns = stretch[i].end_ns;
        const int64_t begin_ns = stretch[i].begin_ns;
        const int rank = stretch[i].rank;
        for (; i > 0 && stretch[i - 1].rank == rank; --i) {
            end_ns = stretch[i - 1].end_ns;
        }
        (void)json_array_append_new(path,
                                    json_pack("[i,o,o]", rank, mt_json_seconds((double)begin_ns),
                                              mt_json_seconds((double)end_ns)));
    }
    return path;
}

static int64_t longest_timeline(const struct mt_report *report, int64_t *end_ns,
                                struct mt_stretch *stretch)
{
    int64_t longest = 0;
    *end_ns = 1;
    for (int r = 0; r < report->n_rank; ++r) {
        const int64_t n = mt_replay_timeline(report->replay, r, stretch, 1);
        longest = mt_max_i64(longest, n);
        *end_ns = mt_max_i64(*end_ns, n > 0 ? stretch[0].end_ns : 0);
    }
    return mt_max_i64(longest, mt_replay_critical(report->replay, stretch, 1));
}

enum mt_status mt_json_lanes(const struct mt_report *report, json_t *critical)
{
    struct mt_stretch first;
    struct mt_stretch *stretch = NULL;
    int64_t end_ns = 0;
    const int64_t max = longest_timeline(report, &end_ns, &first);
    const int64_t parts = report->n_rank > MANY_RANKS ? LANE_PARTS_OF_MANY : LANE_PARTS;
    json_t *lanes = json_array();
    MT_TRY(MT_ALLOCATE(stretch, max, "time line of a step"));
    for (int r = 0; r < report->n_rank; ++r) {
        const int64_t n = mt_replay_timeline(report->replay, r, stretch, max);
        (void)json_array_append_new(lanes, lane_of(stretch, n, end_ns / parts));
    }
    const int64_t n = mt_replay_critical(report->replay, stretch, max);
    (void)json_object_set_new(critical, "lanes", lanes);
    (void)json_object_set_new(critical, "path", path_of(stretch, n));
    (void)json_object_set_new(critical, "names", names());
    (void)json_object_set_new(critical, "length", mt_json_seconds((double)end_ns));
    mt_memory_free(stretch);
    return MT_OK;
}
