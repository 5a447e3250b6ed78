/* What both forms of the report print, computed once. */
#ifndef MT_PROFILE_REPORT_INTERNAL_H
#define MT_PROFILE_REPORT_INTERNAL_H

#include "profile/analysis.h"
#include "profile/replay.h"
#include "profile/report.h"
#include "profile/run_metrics.h"

/* Columns of charts over steps: 64 ranks of them are 7,680 cells, which a browser draws at once. */
enum { MT_REPORT_COLUMNS = 120, MT_REPORT_CHANGES = 16, MT_REPORT_SAVES = 20, MT_REPORT_HOMES = 4 };
enum { MT_REPORT_LINE_BYTES = 256, MT_REPORT_TEXT_BYTES = 1024 };
enum { MT_REPORT_WIDTH = 80 }; /* columns of the text */

enum mt_report_state {
    MT_RUN_FINISHED,
    MT_RUN_GOING_ON,
    MT_RUN_BROKEN_OFF,
    MT_RUN_UNRECORDED /* it went on when its profiles ended: a disk was full */
};

/* Some steps in a row. Means over them, of the ranks that recorded them. */
struct mt_report_column {
    int64_t first, last;        /* step numbers */
    double step_ns;             /* until the next step begins, of the last rank */
    double worst_ns, median_ns; /* at work, not waiting */
    int worst_rank;
};

struct mt_report_phase {
    int phase;
    double mean_ns, max_ns; /* a step, at work */
    double wait_ns;         /* a step, mean over ranks */
    int worst_rank;
    bool is_uneven; /* max far above mean, and worth a word */
};

struct mt_report_change {
    char name[MT_REPORT_LINE_BYTES];
    double step_ns, gain; /* gain: share of the replayed step */
    bool is_finding;      /* what the finding asks for */
    bool is_bound;        /* nobody can do it, but it bounds what can be done */
};

/* Of the critical path, summed over ranks; the largest first. */
struct mt_report_critical {
    int phase;
    bool is_transfer;
    double share, step_ns;
    int rank; /* on which most of it lies */
    double rank_share;
};

struct mt_report_save {
    int64_t step;
    double mean_ns, max_ns;
    int rank;
};

/* A rank that computes an expert's rows, and its share of them. */
struct mt_report_home {
    int rank;
    double share;
};

struct mt_report {
    struct mt_profile profile;
    struct mt_run_metrics metrics;
    struct mt_analysis analysis;
    struct mt_replay *replay;
    enum mt_report_state state;
    int n_rank, n_node;
    int64_t last_step;     /* that any rank recorded; 0: none */
    double step_ns;        /* mean */
    double lost_share;     /* of ranks' time, stood still because others had not arrived */
    double *work_ns;       /* [R] a step, mean: not waiting */
    int64_t *memory_bytes; /* [R] largest; 0: not recorded */
    int n_column;
    struct mt_report_column column[MT_REPORT_COLUMNS];
    double *heat; /* [R, n_column] work over the median rank's; NaN: not recorded */
    int n_phase;
    struct mt_report_phase phase[MT_N_PHASE];
    int n_change;                                      /* 0: nothing could be replayed */
    struct mt_report_change change[MT_REPORT_CHANGES]; /* by gain, bounds last */
    double unchanged_ns; /* replayed without a change: what gains are shares of */
    double model_ns;     /* with the transfers of other steps: how far the model is off */
    int n_critical;
    struct mt_report_critical critical[2 * (MT_N_PHASE + 1)];
    double *critical_share; /* [R] of the path */
    int n_save;
    struct mt_report_save save[MT_REPORT_SAVES]; /* the last ones, ascending */
    int n_row_layer;                             /* layers that have rows */
    int *row_layer;                              /* [n_row_layer] */
    double *row_count;                           /* [n_row_layer, R] a step */
    int n_expert;                                /* 0: rows by expert were not recorded */
    double *expert_count;                        /* [n_row_layer, n_expert] a step, on all ranks */
    char finding[MT_REPORT_LINE_BYTES];
    char headline[MT_REPORT_LINE_BYTES];
    char detail[MT_REPORT_TEXT_BYTES];
    char run_line[MT_REPORT_TEXT_BYTES];
};

/* The tables over steps, phases, rows and saves. */
enum mt_status mt_report_sum_up(struct mt_report *report);
/* Rows by expert; needs the rows by layer. */
enum mt_status mt_report_sum_experts(struct mt_report *report);
/* How many of the last steps are replayed, for every what-if: 64, or fewer where very many ranks
 * meet often, for each rank of a collective looks at every other. */
int mt_report_replayed_steps(int n_rank, int64_t n_collective);
/* The replay's tables. */
enum mt_status mt_report_replay(struct mt_report *report);
/* finding, headline, detail, run_line: needs all the others. */
void mt_report_word(struct mt_report *report);

/* The worst finding, or NULL. */
static inline const struct mt_finding *mt_report_worst(const struct mt_report *report)
{
    return report->analysis.n_finding > 0 ? &report->analysis.finding[0] : NULL;
}

/* "moe.dispatch", "moe.dispatch, messages", "between phases". text [MT_REPORT_LINE_BYTES] */
void mt_report_phase_name(int phase, bool is_transfer, char *text);
/* "node 2 (host2, ranks 4 to 5)". text [MT_REPORT_LINE_BYTES] */
void mt_report_node_name(const struct mt_report *report, int node, char *text);
/* How long a rank elsewhere missed messages to or from this node, a step, all others being there
 * already. */
double mt_report_missed_ns(const struct mt_report *report, int node);
/* Phase in which rank's work made others wait longest; MT_N_PHASE: none. */
int mt_report_blamed_phase(const struct mt_report *report, int rank);
/* Of the model, relative: too long is positive. */
double mt_report_error(const struct mt_report *report);
/* How long each of the other ranks stood still because of this one, a step; mean. */
double mt_report_caused_ns(const struct mt_report *report, int rank);
/* Time for people: "1.23 s", "12.3 ms", "45 us". text [MT_REPORT_LINE_BYTES] */
void mt_report_time(double ns, char *text);
/* Share of the ranks' time that they waited for others: "12.3 %", "an unknown share". text
 * [MT_REPORT_LINE_BYTES] */
void mt_report_lost(const struct mt_report *report, char *text);
/* Rows a step of the mean expert; the ranks that compute most of an expert's rows, the first of
 * them most: how many of home [MT_REPORT_HOMES]. row_layer: index into report->row_layer. */
double mt_report_expert_mean(const struct mt_report *report, int row_layer);
int mt_report_expert_homes(const struct mt_report *report, int row_layer, int expert,
                           struct mt_report_home *home);
/* Where the report's numbers come from, sentence by sentence; false: there is no sentence i. */
bool mt_report_source(const struct mt_report *report, int i, char *text);

/* Words of the text, on as many lines as they need; what was printed before on the first line is
 * `indent` wide, and so are the margins of the others. */
void mt_report_print_wrapped(FILE *out, const char *text, int indent);
/* The same behind a name. */
void mt_report_print_under(FILE *out, const char *name, const char *text);
const char *mt_report_tail(const char *name, size_t columns);

/* "expert 17 also on ranks 9 and 12". text [MT_REPORT_LINE_BYTES] */
void mt_report_decision(const struct mt_run_decision *decision, char *text);
/* Lines about placement, if the run has any. */
void mt_report_print_placement(const struct mt_report *report, FILE *out);

/* The data of the page, as JSON text for a <script> element; mt_memory_free it. */
enum mt_status mt_report_data(const struct mt_report *report, char **out);

#endif
