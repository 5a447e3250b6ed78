/* What the files of `moetrain plan` share: the machine that is planned for, the loads on it, and
 * the table of policies. */
#ifndef MT_CLI_PLAN_H
#define MT_CLI_PLAN_H

#include "cli/cli.h"
#include "data/trace.h"
#include "placement/study.h"
#include "train/session.h"

/* ---- plan_machine.c: a cluster that need not be there ---- */
struct mt_plan_machine {
    struct mt_cluster cluster;
    int64_t n_micro, max_token; /* micro-batches a step; tokens of a rank's largest micro-batch */
    double dense_ps;            /* a step beside its experts, on the rank with most tokens */
    char about[512];            /* the assumptions, for people */
};
/* Ranks in even nodes, costs from --costs, the options of device and links, or the configuration.
 */
enum mt_status mt_plan_machine_init(struct mt_plan_machine *machine,
                                    const struct mt_arguments *arguments,
                                    const struct mt_config *config, int n_rank, int n_node);
void mt_plan_machine_clear(struct mt_plan_machine *machine);
/* Tokens of a rank's micro-batch. */
int64_t mt_plan_n_token(const struct mt_config *config, int n_rank, int rank, int64_t micro);

/* ---- plan_loads.c: rows per source and expert ---- */
struct mt_plan_loads {
    const struct mt_config *config;
    const struct mt_cluster *cluster;
    int n_rank, n_expert, top_k;
    int64_t n_micro;        /* of the configuration */
    int n_layer;            /* that are studied, of the model's MoE layers: spread over them */
    struct mt_trace *trace; /* NULL: a workload */
    int64_t index;          /* of the trace's step in `step`; -1: none */
    int64_t *step;          /* one step of the trace */
    int workload;
    double skew;
    struct mt_placement owners; /* default ones */
    double *weight;             /* [R,E] */
    int64_t *total;             /* [E] */
    struct mt_arena scratch;
    char about[512];
};
enum mt_status mt_plan_loads_init(struct mt_plan_loads *loads, const struct mt_arguments *arguments,
                                  const struct mt_config *config,
                                  const struct mt_plan_machine *machine);
void mt_plan_loads_clear(struct mt_plan_loads *loads);
/* INT64_MAX for workloads. */
int64_t mt_plan_loads_n_step(const struct mt_plan_loads *loads);
/* counts [R,E] of the studied layer `layer`, in [0, n_layer), of the 0-based step; as many rows as
 * the configuration's batch has. */
enum mt_status mt_plan_loads_get(struct mt_plan_loads *loads, int64_t step, int64_t micro,
                                 int layer, int64_t *counts);

/* ---- plan_policies.c ---- */
struct mt_plan_policies;
/* Studies every policy; refuses what does not fit together. *out: NULL for a model without MoE
 * layers. */
enum mt_status mt_plan_policies_run(const struct mt_arguments *arguments,
                                    const struct mt_config *config, int n_rank, int n_node,
                                    struct mt_plan_policies **out);
/* The table on standard output; of NULL nothing. */
enum mt_status mt_plan_policies_print(struct mt_plan_policies *plan);
void mt_plan_policies_destroy(struct mt_plan_policies *plan); /* NULL allowed */

#endif
