/* Which link is odd, and whether it is a link or a rank behind all of its links. */
#include "base/size.h"
#include "comm/ping_pong.h"
#include "train/doctor.h"

#include <math.h>

/* Between nodes links are alike, one card a rank, so what holds for rates of ranks holds for them.
 * Within a node they are not: ranks of two sockets reach half of what neighbours do. */
static const double LEAST_RATE[] = {[MT_LEVEL_NODE] = 0.5, [MT_LEVEL_NETWORK] = 0.8};
/* Latencies are short and swing; twice the median delays an exchange of small messages by as much,
 * and what is below 5 us is the hierarchy of caches, not a fault. */
static const double MOST_LATENCY = 2.0;
static const double HARMLESS_US = 5.0;

/* Beyond so many odd links of one level that no rank explains, they are one finding. */
enum { MOST_LINKS_NAMED = 8 };

static const double PS_PER_US = 1e6;
/* 1 byte a picosecond is 1000 GB/s. */
static const double GBYTES_PER_BYTE_PS = 1e3;

static const char *const LEVEL_TEXT[] = {
    [MT_LEVEL_NODE] = "within its node", [MT_LEVEL_NETWORK] = "to other nodes"};
static const char *const LEVEL_ADVICE[] = {
    [MT_LEVEL_NODE] = "look for other programs on their cores, and at how ranks are bound",
    [MT_LEVEL_NETWORK] = "look at its network card, cable and port (ethtool, ibstat) and for other "
                         "traffic",
};

enum { SMALL, LARGE };

struct link {
    double gbytes_per_s, latency_us; /* 0: not measured */
};

/* Both ends measure; what the lower rank saw counts. */
static struct link link_of(const struct mt_doctor_exam *exam, int round, int rank, int partner)
{
    const struct mt_doctor_links *links = exam->links;
    const int64_t row = partner < rank ? partner : rank;
    const int64_t *time_ps = links->time_ps + 2 * (row * links->n_round + round);
    if (time_ps[SMALL] <= 0 || time_ps[LARGE] <= 0) {
        return (struct link){0.0, 0.0};
    }
    return (struct link){MT_PING_LARGE_BYTES * GBYTES_PER_BYTE_PS / (double)time_ps[LARGE],
                         (double)time_ps[SMALL] / PS_PER_US};
}

/* False: nobody there, or another level, or not measured. */
static bool find_link(const struct mt_doctor_exam *exam, enum mt_level level, int round, int rank,
                      struct link *link, int *partner)
{
    const struct mt_doctor_round *which = &exam->links->round[round];
    *partner = -1;
    if (which->level != level) {
        return false;
    }
    *partner = mt_doctor_partner(exam->topology, which, rank);
    if (*partner < 0) {
        return false;
    }
    *link = link_of(exam, round, rank, *partner);
    return link->gbytes_per_s > 0.0;
}

/* Median of a rank's links; 0: it has none. */
static double middle_of_rank(const struct mt_doctor_exam *exam, enum mt_level level, int rank,
                             bool is_rate)
{
    double *value = exam->scratch + exam->topology->n_rank;
    struct link link;
    int partner = -1;
    int n = 0;
    for (int round = 0; round < exam->links->n_round; ++round) {
        if (find_link(exam, level, round, rank, &link, &partner)) {
            value[n++] = is_rate ? link.gbytes_per_s : link.latency_us;
        }
    }
    return n > 0 ? mt_doctor_median(value, n, is_rate) : 0.0;
}

/* Over ranks of each rank's median: a slow rank is an end of two links of three where there are
 * three ranks, so the median over links would be slow itself. */
static double middle_of_level(const struct mt_doctor_exam *exam, enum mt_level level, bool is_rate)
{
    int n = 0;
    for (int rank = 0; rank < exam->topology->n_rank; ++rank) {
        const double middle = middle_of_rank(exam, level, rank, is_rate);
        if (middle > 0.0) {
            exam->scratch[n++] = middle;
        }
    }
    return n > 0 ? mt_doctor_median(exam->scratch, n, is_rate) : 0.0;
}

void mt_doctor_level(const struct mt_doctor_exam *exam, enum mt_level level,
                     struct mt_doctor_level *out)
{
    struct link link;
    int partner = -1;
    *out = (struct mt_doctor_level){.gbytes_per_s = middle_of_level(exam, level, true),
                                    .latency_us = middle_of_level(exam, level, false),
                                    .worst_gbytes_per_s = INFINITY};
    for (int round = 0; round < exam->links->n_round; ++round) {
        for (int rank = 0; rank < exam->topology->n_rank; ++rank) {
            const bool is_there = find_link(exam, level, round, rank, &link, &partner);
            out->n_pair += partner > rank ? 1 : 0;
            if (!is_there || partner < rank) {
                continue;
            }
            ++out->n_link;
            if (link.gbytes_per_s < out->worst_gbytes_per_s) {
                out->worst_gbytes_per_s = link.gbytes_per_s;
                out->slowest[0] = rank;
                out->slowest[1] = partner;
            }
            if (link.latency_us > out->worst_latency_us) {
                out->worst_latency_us = link.latency_us;
                out->latest[0] = rank;
                out->latest[1] = partner;
            }
        }
    }
}

/* Ranks that share cores of a machine answer when the system lets them: they are told so once, and
 * their links to each other are not compared. */
static bool is_comparable(const struct mt_doctor_exam *exam, int rank, int partner)
{
    const struct mt_doctor_facts *a = &exam->facts[rank];
    const struct mt_doctor_facts *b = &exam->facts[partner];
    return a->machine != b->machine || (a->is_alone != 0 && b->is_alone != 0);
}

/* A link between two ranks of level `which`, whose healthy values are in `level`. */
static bool is_odd(const struct mt_doctor_exam *exam, const struct mt_doctor_level *level,
                   enum mt_level which, const int end[2], const struct link *link)
{
    return is_comparable(exam, end[0], end[1]) &&
           (link->gbytes_per_s < LEAST_RATE[which] * level->gbytes_per_s ||
            (link->latency_us > HARMLESS_US &&
             link->latency_us > MOST_LATENCY * level->latency_us));
}

bool mt_doctor_round_is_odd(const struct mt_doctor_exam *exam, const struct mt_doctor_level *level,
                            int round)
{
    const enum mt_level which = exam->links->round[round].level;
    struct link link;
    int partner = -1;
    for (int rank = 0; rank < exam->topology->n_rank; ++rank) {
        if (find_link(exam, which, round, rank, &link, &partner) &&
            is_odd(exam, &level[which], which, (int[]){rank, partner}, &link)) {
            return true;
        }
    }
    return false;
}

/* ---- findings ---- */

struct search {
    const struct mt_doctor_exam *exam;
    enum mt_level which;
    struct mt_doctor_level level;
    int *is_named, *n_odd, *n_link; /* [R]: of links whose ends are not named yet */
};

static void count_odd(struct search *s)
{
    const struct mt_doctor_exam *exam = s->exam;
    struct link link;
    int partner = -1;
    for (int rank = 0; rank < exam->topology->n_rank; ++rank) {
        s->n_odd[rank] = s->n_link[rank] = 0;
        for (int round = 0; round < exam->links->n_round && s->is_named[rank] == 0; ++round) {
            if (find_link(exam, s->which, round, rank, &link, &partner) &&
                s->is_named[partner] == 0) {
                ++s->n_link[rank];
                s->n_odd[rank] +=
                    is_odd(exam, &s->level, s->which, (int[]){rank, partner}, &link) ? 1 : 0;
            }
        }
    }
}

/* The rank with most odd links, if they are two at least and half of its links; -1: none. */
static int worst_rank(const struct search *s)
{
    int worst = -1;
    int most = 1;
    for (int rank = 0; rank < s->exam->topology->n_rank; ++rank) {
        if (s->n_odd[rank] > most && 2 * s->n_odd[rank] >= s->n_link[rank]) {
            worst = rank;
            most = s->n_odd[rank];
        }
    }
    return worst;
}

static void say_rank(const struct search *s, int rank, struct mt_doctor_findings *findings)
{
    const struct mt_doctor_exam *exam = s->exam;
    struct mt_doctor_finding *finding = mt_doctor_add(findings, "link", &rank, 1);
    struct link link;
    struct link worst = {INFINITY, 0.0};
    int partner = -1;
    char name[64];
    for (int round = 0; round < exam->links->n_round; ++round) {
        if (find_link(exam, s->which, round, rank, &link, &partner)) {
            worst.gbytes_per_s = fmin(worst.gbytes_per_s, link.gbytes_per_s);
            worst.latency_us = fmax(worst.latency_us, link.latency_us);
        }
    }
    mt_doctor_name(exam, finding, name, sizeof(name));
    (void)snprintf(finding->text, sizeof(finding->text),
                   "%s: %d of its %d links %s are slow, down to %.3g GB/s and up to %.3g us; "
                   "expected at least %.1f of the median, %.3g GB/s, and at most %.0f of %.3g us; "
                   "%s",
                   name, s->n_odd[rank], s->n_link[rank], LEVEL_TEXT[s->which], worst.gbytes_per_s,
                   worst.latency_us, LEAST_RATE[s->which], s->level.gbytes_per_s, MOST_LATENCY,
                   s->level.latency_us, LEVEL_ADVICE[s->which]);
}

static void say_link(const struct search *s, int rank, int partner, const struct link *link,
                     struct mt_doctor_findings *findings)
{
    const int end[] = {rank, partner};
    struct mt_doctor_finding *finding = mt_doctor_add(findings, "link", end, 2);
    (void)snprintf(finding->text, sizeof(finding->text),
                   "ranks %d (%.32s) and %d (%.32s): their link takes %.3g GB/s and %.3g us; "
                   "expected at least %.1f of the median, %.3g GB/s, and at most %.0f of %.3g us; "
                   "%s",
                   rank, s->exam->facts[rank].host, partner, s->exam->facts[partner].host,
                   link->gbytes_per_s, link->latency_us, LEAST_RATE[s->which],
                   s->level.gbytes_per_s, MOST_LATENCY, s->level.latency_us,
                   LEVEL_ADVICE[s->which]);
}

/* Too many to be one link's fault. */
static void say_many(const struct search *s, int n_odd, struct mt_doctor_findings *findings)
{
    const struct mt_doctor_level *level = &s->level;
    (void)snprintf(mt_doctor_add(findings, "link", level->slowest, 2)->text, MT_DOCTOR_TEXT_BYTES,
                   "%d of %d links %s are odd, at worst %.3g GB/s (ranks %d and %d) and %.3g us "
                   "(ranks %d and %d); expected at least %.1f of the median, %.3g GB/s, and at "
                   "most %.0f of %.3g us; look for other programs and traffic, and try again",
                   n_odd, level->n_link, LEVEL_TEXT[s->which], level->worst_gbytes_per_s,
                   level->slowest[0], level->slowest[1], level->worst_latency_us, level->latest[0],
                   level->latest[1], LEAST_RATE[s->which], level->gbytes_per_s, MOST_LATENCY,
                   level->latency_us);
}

/* The link of a rank in a round, seen from its lower end, is odd, and no named rank explains it. */
static bool is_rest(const struct search *s, int round, int rank, struct link *link, int *partner)
{
    return find_link(s->exam, s->which, round, rank, link, partner) && rank < *partner &&
           s->is_named[rank] == 0 && s->is_named[*partner] == 0 &&
           is_odd(s->exam, &s->level, s->which, (int[]){rank, *partner}, link);
}

/* Those links; said one by one, or only counted. */
static int visit_rest(const struct search *s, struct mt_doctor_findings *findings, bool is_said)
{
    struct link link;
    int partner = -1;
    int n_odd = 0;
    for (int rank = 0; rank < s->exam->topology->n_rank; ++rank) {
        for (int round = 0; round < s->exam->links->n_round; ++round) {
            const bool is_one = is_rest(s, round, rank, &link, &partner);
            n_odd += is_one ? 1 : 0;
            if (is_one && is_said) {
                say_link(s, rank, partner, &link, findings);
            }
        }
    }
    return n_odd;
}

static void judge_level(const struct mt_doctor_exam *exam, enum mt_level which,
                        struct mt_doctor_findings *findings)
{
    const int n_rank = exam->topology->n_rank;
    struct search s = {.exam = exam,
                       .which = which,
                       .is_named = exam->odd,
                       .n_odd = exam->odd + n_rank,
                       .n_link = exam->odd + 2 * (int64_t)n_rank};
    mt_doctor_level(exam, which, &s.level);
    for (int rank = 0; rank < n_rank; ++rank) {
        s.is_named[rank] = 0;
    }
    count_odd(&s);
    for (int rank = worst_rank(&s); rank >= 0; rank = worst_rank(&s)) {
        say_rank(&s, rank, findings);
        s.is_named[rank] = 1;
        count_odd(&s);
    }
    const int n_odd = visit_rest(&s, findings, false);
    if (n_odd > MOST_LINKS_NAMED) {
        say_many(&s, n_odd, findings);
    } else {
        (void)visit_rest(&s, findings, true);
    }
}

void mt_doctor_judge_links(const struct mt_doctor_exam *exam, struct mt_doctor_findings *findings)
{
    judge_level(exam, MT_LEVEL_NODE, findings);
    judge_level(exam, MT_LEVEL_NETWORK, findings);
}
