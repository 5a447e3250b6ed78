#include "profile/analysis_internal.h"

#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"

#include <math.h>
#include <stdlib.h>

const double MT_FINDING_SHARE = 0.01;

void mt_analysis_clear(struct mt_analysis *analysis)
{
    mt_memory_free(analysis->finding);
    mt_memory_free(analysis->link_ns);
    mt_memory_free(analysis->worst);
    mt_memory_free(analysis->excess_ns);
    mt_memory_free(analysis->rows_ratio);
    mt_memory_free(analysis->slowdown);
    mt_memory_free(analysis->share);
    mt_memory_free(analysis->caused_by_layer_ns);
    mt_memory_free(analysis->caused_by_phase_ns);
    mt_memory_free(analysis->caused_ns);
    mt_memory_free(analysis->transfer_ns);
    mt_memory_free(analysis->wait_ns);
    *analysis = (struct mt_analysis){0};
}

static enum mt_status allocate(struct mt_analysis *a, int64_t n_rank, int64_t n_layer)
{
    static const char what[] = "analysis";
    MT_TRY(MT_ALLOCATE(a->wait_ns, n_rank, what));
    MT_TRY(MT_ALLOCATE(a->transfer_ns, n_rank, what));
    MT_TRY(MT_ALLOCATE(a->caused_ns, n_rank, what));
    MT_TRY(MT_ALLOCATE(a->caused_by_phase_ns, n_rank * (MT_N_PHASE + 1), what));
    MT_TRY(MT_ALLOCATE(a->caused_by_layer_ns, n_rank * (n_layer + 1), what));
    MT_TRY(MT_ALLOCATE(a->share, n_rank * MT_N_CAUSE, what));
    MT_TRY(MT_ALLOCATE(a->slowdown, n_rank, what));
    MT_TRY(MT_ALLOCATE(a->rows_ratio, n_rank, what));
    MT_TRY(MT_ALLOCATE(a->excess_ns, n_rank * MT_N_PHASE, what));
    MT_TRY(MT_ALLOCATE(a->worst, n_rank, what));
    MT_TRY(MT_ALLOCATE(a->link_ns, (int64_t)a->n_node * a->n_node, what));
    return MT_ALLOCATE(a->finding, n_rank * MT_N_CAUSE + 1, what);
}

static void clear_study(struct mt_study *study)
{
    mt_memory_free(study->scratch);
    mt_memory_free(study->link_ns);
    mt_memory_free(study->is_far);
    mt_memory_free(study->is_slow_throughout);
    mt_memory_free(study->is_slow);
    mt_memory_free(study->is_detailed);
    mt_memory_free(study->excess);
    mt_memory_free(study->caused);
}

static enum mt_status allocate_study(struct mt_study *study, int n_node)
{
    const int64_t n_rank = study->profile->n_rank;
    const int64_t n = study->n * n_rank;
    MT_TRY(MT_ALLOCATE(study->caused, n, "analysis"));
    MT_TRY(MT_ALLOCATE(study->excess, n, "analysis"));
    MT_TRY(MT_ALLOCATE(study->is_detailed, study->n, "analysis"));
    MT_TRY(MT_ALLOCATE(study->is_slow, n_rank, "analysis"));
    MT_TRY(MT_ALLOCATE(study->is_slow_throughout, n_rank, "analysis"));
    MT_TRY(MT_ALLOCATE(study->is_far, n_rank, "analysis"));
    MT_TRY(MT_ALLOCATE(study->link_ns, (int64_t)study->n * n_node, "analysis"));
    return MT_ALLOCATE(study->scratch, study->n + 2 * n_rank, "analysis");
}

int64_t mt_study_step_ns(const struct mt_study *study, int step)
{
    int64_t longest_ns = 0;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        const struct mt_profile_step *its = mt_study_step(study, step, r);
        if (its->is_there) {
            longest_ns = mt_max_i64(longest_ns, its->until_ns - its->begin_ns);
        }
    }
    return longest_ns;
}

/* What rank r's cause costs in one step, ns of step time: the wait that it caused, as the mean over
 * those who can wait; but no more than the rank's excess, for without it the others would wait for
 * the next one. */
static double cost_ns(const struct mt_study *study, int step, int rank, enum mt_cause cause)
{
    const struct mt_caused *caused = &study->caused[mt_study_at(study, step, rank)];
    const struct mt_excess *excess = &study->excess[mt_study_at(study, step, rank)];
    const double others = fmax(1.0, study->profile->n_rank - 1);
    const double device = study->is_slow[rank] ? excess->device : 0.0;
    const double noise = study->is_slow[rank] ? 0.0 : excess->device;
    const double all = device + noise + excess->rows + excess->data;
    const double work = all > 0 ? caused->work / all : 0.0;
    switch (cause) {
    case MT_CAUSE_SLOW_DEVICE:
        return fmin(work * device / others, device);
    case MT_CAUSE_ROUTING_LOAD:
        return fmin(work * excess->rows / others, excess->rows);
    case MT_CAUSE_LATE_DATA:
        return fmin((work * excess->data + caused->data) / others, excess->data);
    case MT_CAUSE_CHECKPOINT:
        return caused->checkpoint / others;
    case MT_CAUSE_COMMUNICATION:
        return study->is_far[rank] ? caused->network / others : 0.0;
    default:
        return (work * noise + caused->other + (all > 0 ? 0.0 : caused->work) +
                (study->is_far[rank] ? 0.0 : caused->network)) /
               others;
    }
}

/* Time at work in a phase, in which ranks may wait for one another as well. */
static int64_t busy_ns(const struct mt_profile_step *step, int phase)
{
    return mt_max_i64(0, step->phase_ns[phase] - step->wait_ns[phase]);
}

/* Time in a phase in which every rank stands: the shortest of all ranks' in that step. */
static double common_ns(const struct mt_study *study, int step, int phase)
{
    int64_t least_ns = INT64_MAX;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        const struct mt_profile_step *its = mt_study_step(study, step, r);
        if (its->is_there) {
            least_ns = mt_min_i64(least_ns, busy_ns(its, phase));
        }
    }
    return least_ns == INT64_MAX ? 0.0 : (double)least_ns;
}

/* Common time is charged to the rank that spent most of it, of all steps. */
static int longest_in(const struct mt_study *study, int phase)
{
    int longest = 0;
    int64_t most_ns = -1;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        int64_t ns = 0;
        for (int s = 0; s < study->n; ++s) {
            ns += busy_ns(mt_study_step(study, s, r), phase);
        }
        if (ns > most_ns) {
            most_ns = ns;
            longest = r;
        }
    }
    return longest;
}

struct costs {
    const struct mt_study *study;
    double *when;                   /* [n] how much of one rank's cause there was in each step */
    double total_ns, detailed_ns;   /* of all steps; of those with detail */
    int longest_data, longest_save; /* ranks */
};

/* Share of step time in which every rank stands for this cause, if it is charged to this rank. */
static double sum_common(const struct costs *c, int rank, enum mt_cause cause)
{
    const bool is_data = cause == MT_CAUSE_LATE_DATA && rank == c->longest_data;
    const bool is_save = cause == MT_CAUSE_CHECKPOINT && rank == c->longest_save;
    double ns = 0;
    for (int s = 0; s < c->study->n && (is_data || is_save); ++s) {
        ns += common_ns(c->study, s, is_data ? MT_PHASE_DATA : MT_PHASE_CHECKPOINT);
    }
    return ns / fmax(1.0, c->total_ns);
}

/* Data or a save: at least half of the rank's time in it is every rank's. */
static bool is_everybodys(const struct mt_study *study, int rank, enum mt_cause cause)
{
    const int phase = cause == MT_CAUSE_LATE_DATA ? MT_PHASE_DATA : MT_PHASE_CHECKPOINT;
    double own_ns = 0;
    double all_ns = 0;
    for (int s = 0; s < study->n; ++s) {
        own_ns += (double)busy_ns(mt_study_step(study, s, rank), phase);
        all_ns += common_ns(study, s, phase);
    }
    return (cause == MT_CAUSE_LATE_DATA || cause == MT_CAUSE_CHECKPOINT) && 2 * all_ns >= own_ns;
}

/* Share of step time, mean over the run. */
static double sum_costs(const struct costs *c, int rank, enum mt_cause cause)
{
    const struct mt_study *study = c->study;
    double caused_ns = 0;
    for (int s = 0; s < study->n; ++s) {
        caused_ns += study->is_detailed[s] ? cost_ns(study, s, rank, cause) : 0.0;
    }
    return caused_ns / fmax(1.0, c->detailed_ns) + sum_common(c, rank, cause);
}

/* Time of the cause itself, which every step tells, also those without detail; messages are known
 * in detail only. */
static double cause_ns(const struct mt_study *study, int step, int rank, enum mt_cause cause)
{
    const struct mt_excess *excess = &study->excess[mt_study_at(study, step, rank)];
    switch (cause) {
    case MT_CAUSE_SLOW_DEVICE:
        return excess->device;
    case MT_CAUSE_ROUTING_LOAD:
        return excess->rows;
    case MT_CAUSE_LATE_DATA:
        return excess->data + common_ns(study, step, MT_PHASE_DATA);
    case MT_CAUSE_CHECKPOINT:
        return (double)busy_ns(mt_study_step(study, step, rank), MT_PHASE_CHECKPOINT);
    default:
        return study->is_detailed[step] ? cost_ns(study, step, rank, cause) : 0.0;
    }
}

/* Sets persistence, period and since. Of thinned out steps every so-manieth tells of messages. */
static void find_persistence(const struct costs *c, struct mt_finding *finding)
{
    const struct mt_study *study = c->study;
    const enum mt_cause cause = finding->cause;
    const int rank = finding->rank;
    int n = 0;
    if (cause == MT_CAUSE_SLOW_DEVICE && study->is_slow_throughout[rank]) {
        finding->persistence = MT_PERMANENT;
        return;
    }
    for (int s = 0; s < study->n; ++s) {
        if (cause != MT_CAUSE_COMMUNICATION || study->is_detailed[s]) {
            c->when[n++] =
                cause_ns(study, s, rank, cause) / fmax(1.0, (double)mt_study_step_ns(study, s));
        }
    }
    const int steps = n > 0 ? (study->n + n / 2) / n : 0; /* that one number stands for */
    finding->persistence = mt_analysis_persistence(c->when, n, &finding->period);
    finding->period *= steps;
    if (finding->persistence == MT_PERMANENT) {
        finding->since =
            (int)mt_min_i64((int64_t)mt_analysis_since(c->when, n) * steps, study->n - 1);
    }
}

static int find_most(const int64_t *value, int n)
{
    int most = 0;
    for (int i = 1; i < n; ++i) {
        most = value[i] > value[most] ? i : most;
    }
    return most;
}

/* The layer with more than twice the mean of all that a layer caused; -1: none stands out. */
static int find_layer(const int64_t *value, int n_layer)
{
    int64_t sum = 0;
    for (int l = 0; l < n_layer; ++l) {
        sum += value[l];
    }
    const int most = n_layer > 0 ? find_most(value, n_layer) : -1;
    return most >= 0 && n_layer > 1 && value[most] * n_layer > 2 * sum ? most : -1;
}

static struct mt_finding make_finding(const struct costs *c, const struct mt_analysis *analysis,
                                      int rank, enum mt_cause cause)
{
    const int n_layer = c->study->profile->n_layer;
    const int64_t *by_phase = analysis->caused_by_phase_ns + (int64_t)rank * (MT_N_PHASE + 1);
    const int64_t *by_layer = analysis->caused_by_layer_ns + (int64_t)rank * (n_layer + 1);
    struct mt_finding finding = {
        .rank = rank, .cause = cause, .layer = -1, .node = -1, .to_node = -1};
    finding.share = sum_costs(c, rank, cause);
    finding.is_everybodys = is_everybodys(c->study, rank, cause);
    find_persistence(c, &finding);
    finding.phase = find_most(by_phase, MT_N_PHASE + 1);
    if (cause == MT_CAUSE_LATE_DATA) {
        finding.phase = MT_PHASE_DATA;
    } else if (cause == MT_CAUSE_CHECKPOINT) {
        finding.phase = MT_PHASE_CHECKPOINT;
    } else {
        finding.layer = find_layer(by_layer, n_layer);
    }
    if (cause == MT_CAUSE_SLOW_DEVICE) {
        finding.factor = analysis->slowdown[rank];
    } else if (cause == MT_CAUSE_ROUTING_LOAD) {
        finding.factor = analysis->rows_ratio[rank];
    }
    return finding;
}

static int compare_findings(const void *a, const void *b)
{
    const struct mt_finding *x = a;
    const struct mt_finding *y = b;
    if (x->share != y->share) {
        return x->share > y->share ? -1 : 1;
    }
    return x->rank != y->rank ? x->rank - y->rank : (int)x->cause - (int)y->cause;
}

void mt_analysis_sort_findings(struct mt_analysis *analysis)
{
    qsort(analysis->finding, (size_t)analysis->n_finding, sizeof(*analysis->finding),
          compare_findings);
}

static double *share_of(const struct mt_analysis *analysis, int rank, int cause)
{
    return &analysis->share[(int64_t)rank * MT_N_CAUSE + cause];
}

/* Of the ranks but one, or of all: -1. */
static double median_share(const struct mt_study *study, const struct mt_analysis *analysis,
                           int cause, int but)
{
    int64_t n = 0;
    for (int r = 0; r < analysis->n_rank; ++r) {
        if (r != but) {
            study->scratch[n++] = *share_of(analysis, r, cause);
        }
    }
    return mt_quantile_f64(study->scratch, n, 0.5);
}

/* A device that is slow throughout the window and messages that take longer were told from chance
 * by tests of their own (analysis_pace.c, analysis_links.c); of anything else what the median rank
 * costs may be chance. */
static double least_share(const struct mt_study *study, const struct mt_analysis *analysis,
                          const struct mt_finding *finding)
{
    const bool is_tested =
        finding->cause == MT_CAUSE_COMMUNICATION ||
        (finding->cause == MT_CAUSE_SLOW_DEVICE && study->is_slow_throughout[finding->rank]);
    return is_tested ? MT_FINDING_SHARE : analysis->least_share;
}

/* More than chance makes. Rows vary from step to step, and now and then any rank has most: they are
 * a rank's own when they cost far more than on the others. */
static bool stands_out(const struct mt_study *study, const struct mt_analysis *analysis,
                       const struct mt_finding *finding)
{
    static const double TIMES_OTHERS = 3;
    return finding->share >= least_share(study, analysis, finding) &&
           (finding->cause != MT_CAUSE_ROUTING_LOAD ||
            finding->share >
                TIMES_OTHERS * median_share(study, analysis, MT_CAUSE_ROUTING_LOAD, finding->rank));
}

/* What is a link's is not its ranks'. */
static void drop_ranks_of(const struct mt_profile *profile, const struct mt_finding *link,
                          struct mt_analysis *analysis)
{
    int n_kept = 0;
    for (int i = 0; i < analysis->n_finding; ++i) {
        const struct mt_finding finding = analysis->finding[i];
        const int node = profile->rank[finding.rank].node;
        if (finding.cause != MT_CAUSE_COMMUNICATION ||
            (node != link->node && node != link->to_node)) {
            analysis->finding[n_kept++] = finding;
        }
    }
    analysis->n_finding = n_kept;
}

static void find(const struct costs *c, struct mt_analysis *analysis)
{
    for (int i = 0; i < analysis->n_rank * MT_N_CAUSE; ++i) {
        analysis->share[i] = sum_costs(c, i / MT_N_CAUSE, (enum mt_cause)(i % MT_N_CAUSE));
    }
    analysis->noise_share = median_share(c->study, analysis, MT_CAUSE_NONE, -1);
    analysis->least_share = fmax(MT_FINDING_SHARE, analysis->noise_share);
    for (int r = 0; r < analysis->n_rank; ++r) {
        analysis->worst[r] = (struct mt_finding){.rank = r,
                                                 .cause = MT_CAUSE_NONE,
                                                 .phase = MT_N_PHASE,
                                                 .layer = -1,
                                                 .node = -1,
                                                 .to_node = -1};
        for (int cause = 0; cause < MT_N_CAUSE; ++cause) {
            const struct mt_finding finding = make_finding(c, analysis, r, (enum mt_cause)cause);
            if (cause != MT_CAUSE_NONE && finding.share > analysis->worst[r].share) {
                analysis->worst[r] = finding;
            }
            if (cause != MT_CAUSE_NONE && stands_out(c->study, analysis, &finding)) {
                analysis->finding[analysis->n_finding++] = finding;
            }
        }
    }
    struct mt_finding link;
    if (mt_study_find_link(c->study, analysis, c->detailed_ns, &link) &&
        stands_out(c->study, analysis, &link)) {
        drop_ranks_of(c->study->profile, &link, analysis);
        analysis->finding[analysis->n_finding++] = link;
    }
    mt_analysis_sort_findings(analysis);
}

static enum mt_status conclude(const struct mt_study *study, struct mt_analysis *analysis)
{
    struct costs c = {.study = study,
                      .longest_data = longest_in(study, MT_PHASE_DATA),
                      .longest_save = longest_in(study, MT_PHASE_CHECKPOINT)};
    MT_TRY(MT_ALLOCATE(c.when, study->n, "analysis"));
    for (int s = 0; s < study->n; ++s) {
        const double ns = (double)mt_study_step_ns(study, s);
        c.total_ns += ns;
        c.detailed_ns += study->is_detailed[s] ? ns : 0.0;
    }
    analysis->step_ns = study->n > 0 ? (int64_t)(c.total_ns / study->n) : 0;
    find(&c, analysis);
    mt_memory_free(c.when);
    return MT_OK;
}

static int count_nodes(const struct mt_profile *profile)
{
    int n_node = 1;
    for (int r = 0; r < profile->n_rank; ++r) {
        n_node = profile->rank[r].node >= n_node ? profile->rank[r].node + 1 : n_node;
    }
    return n_node;
}

/* Of the two ranks whose clocks are known worst. */
static int64_t worst_error(const struct mt_profile *profile)
{
    int64_t first_ns = 0;
    int64_t second_ns = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        const int64_t ns = profile->rank[r].error_ns;
        second_ns = mt_max_i64(second_ns, mt_min_i64(first_ns, ns));
        first_ns = mt_max_i64(first_ns, ns);
    }
    return first_ns + second_ns;
}

enum mt_status mt_analysis_make(const struct mt_profile *profile, int first, int n,
                                struct mt_analysis *analysis)
{
    enum mt_status status = MT_OK;
    struct mt_study study = {.profile = profile, .first = first, .n = n};
    MT_ASSERT(first >= 0 && n >= 0 && first + n <= profile->n_step);
    *analysis = (struct mt_analysis){.first_step = first,
                                     .n_step = n,
                                     .n_rank = profile->n_rank,
                                     .n_node = count_nodes(profile),
                                     .error_ns = worst_error(profile)};
    MT_TRY_GOTO(allocate(analysis, profile->n_rank, profile->n_layer));
    MT_TRY_GOTO(allocate_study(&study, analysis->n_node));
    MT_TRY_GOTO(mt_study_blame(&study, analysis));
    MT_TRY_GOTO(mt_study_work(&study, analysis));
    MT_TRY_GOTO(mt_study_pace(&study, analysis));
    MT_TRY_GOTO(conclude(&study, analysis));
cleanup:
    clear_study(&study);
    if (status != MT_OK) {
        mt_analysis_clear(analysis);
    }
    return status;
}
