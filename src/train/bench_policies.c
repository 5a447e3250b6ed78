#include "train/bench_policies.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/sort.h"
#include "placement/adaptive.h"
#include "train/costs.h"
#include "train/internal.h"

#include <stdlib.h>
#include <string.h>

/* Steps that fill load history, and are not timed. */
enum { WARM_STEPS = 4, MAX_CONTESTANTS = 24 };
static const double NS_PER_S = 1e9;

struct contestant {
    const char *label;
    const struct mt_policy *policy;
    bool is_ideal, is_resident_first;
    struct mt_config *config;
    struct mt_trainer *trainer;
    double *step_s, *predicted_s; /* [steps] */
    double load, n_copy, n_late;  /* sums over timed steps */
    int64_t n_timed;
};

struct field {
    int n;
    struct contestant contestant[MAX_CONTESTANTS];
    struct mt_costs costs;
    bool has_costs;
    double rest_s; /* of a step beside its MoE layers: measured once, at the first ideal */
    bool has_rest;
};

static bool is_wanted(const char *list, const char *name)
{
    const size_t n = strlen(name);
    for (const char *at = list; at != NULL && *at != '\0';) {
        const size_t word = strcspn(at, ",");
        if (word == n && strncmp(at, name, n) == 0) {
            return true;
        }
        at += word + (at[word] == ',' ? 1 : 0);
    }
    return list == NULL;
}

static void add(struct field *field, const char *label, const struct mt_policy *policy,
                bool is_resident_first)
{
    MT_ASSERT(field->n < MAX_CONTESTANTS);
    field->contestant[field->n++] = (struct contestant){
        .label = label, .policy = policy, .is_resident_first = is_resident_first};
}

static void line_up(struct field *field, const struct mt_bench_policies *bench)
{
    add(field, "ideal", mt_policy_find("ep"), true);
    field->contestant[0].is_ideal = true;
    for (int i = 0; i < mt_n_policy; i++) {
        if (is_wanted(bench->policies, mt_policies[i].name)) {
            add(field, mt_policies[i].name, &mt_policies[i], true);
        }
    }
    for (int i = 0; i < mt_n_adaptive_variant && bench->ablation; i++) {
        const struct mt_policy *variant = &mt_adaptive_variants[i];
        add(field, variant->name, variant, strstr(variant->name, "resident-first") == NULL);
    }
}

static enum mt_status make_config(struct contestant *contestant, const struct mt_config *base,
                                  double skew)
{
    const bool is_variant = mt_policy_find(contestant->policy->name) == NULL;
    MT_TRY(MT_ALLOCATE(contestant->config, 1, "configuration"));
    struct mt_config *config = contestant->config;
    *config = *base;
    config->moe.skew = skew;
    config->moe.trace[0] = '\0';
    (void)snprintf(config->placement.policy, sizeof(config->placement.policy), "%s",
                   is_variant ? "adaptive" : contestant->policy->name);
    if (contestant->policy->slots == MT_SLOTS_ALL) {
        config->placement.slots = 0; /* it cannot do with fewer than it wants */
    }
    if (contestant->is_ideal) {
        (void)snprintf(config->moe.workload, sizeof(config->moe.workload), "balanced");
    }
    MT_TRY(MT_ALLOCATE(contestant->step_s, config->train.steps, "times"));
    MT_TRY(MT_ALLOCATE(contestant->predicted_s, config->train.steps, "times"));
    return MT_ALLOCATE(contestant->trainer, 1, "trainer");
}

static enum mt_status open_contestant(struct field *field, struct contestant *contestant,
                                      const struct mt_config *base, double skew)
{
    MT_TRY(mt_job_agree(make_config(contestant, base, skew)));
    struct mt_trainer *trainer = contestant->trainer;
    trainer->config = contestant->config;
    MT_TRY(mt_trainer_open(trainer));
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    if (!field->has_costs) {
        MT_TRY(mt_costs_measure(&trainer->session, trainer->split.micro_batch, &field->costs));
        field->has_costs = true;
    }
    mt_moe_set_costs(moe, &field->costs);
    mt_moe_set_policy(moe, contestant->policy, contestant->is_resident_first);
    mt_store_init_values(trainer->session.store, (uint64_t)contestant->config->run.seed);
    return mt_store_publish(trainer->session.store);
}

static void close_contestant(struct contestant *contestant)
{
    if (contestant->trainer != NULL) {
        mt_trainer_close(contestant->trainer);
    }
    mt_memory_free(contestant->trainer);
    mt_memory_free(contestant->step_s);
    mt_memory_free(contestant->predicted_s);
    mt_memory_free(contestant->config);
    contestant->trainer = NULL;
    contestant->step_s = NULL;
    contestant->predicted_s = NULL;
    contestant->config = NULL;
}

/* From when all ranks are here until all are done, mean over ranks: they leave the last sum a
 * message apart. */
static enum mt_status time_step(struct contestant *contestant, int64_t step)
{
    struct mt_trainer *trainer = contestant->trainer;
    struct mt_comm *comm = &trainer->session.comm;
    struct mt_step_result result = {0};
    int64_t nothing = 0; /* a sum of it is a meeting */
    trainer->state.step = step;
    MT_TRY(mt_store_use_all(trainer->session.store)); /* the last step's gathering is not timed */
    MT_TRY(mt_comm_sum_i64(comm, &nothing, 1));
    const int64_t start_ns = mt_clock_ns();
    mt_bench_train_step(trainer, &result);
    MT_TRY(mt_comm_sum_i64(comm, &nothing, 1));
    double elapsed_s = (double)(mt_clock_ns() - start_ns) / NS_PER_S / comm->topology.n_rank;
    MT_TRY(mt_comm_sum_f64(comm, &elapsed_s, 1));
    if (step > WARM_STEPS) {
        contestant->step_s[contestant->n_timed] = elapsed_s;
        contestant->predicted_s[contestant->n_timed++] = result.moe.outlook.predicted_s;
        contestant->load += result.moe.rank_max_over_mean;
        contestant->n_copy += (double)result.moe.outlook.n_copy;
        contestant->n_late += (double)result.moe.outlook.n_late;
    }
    return MT_OK;
}

static double median(double *value, int64_t n)
{
    mt_sort_f64(value, n);
    return n % 2 == 1 ? value[n / 2] : 0.5 * (value[n / 2 - 1] + value[n / 2]);
}

static void print_skew(struct field *field, double skew, FILE *out)
{
    const struct contestant *first = &field->contestant[0];
    const int64_t n = first->n_timed;
    double ideal_s = 0.0;
    double ep_s = 0.0;
    (void)fprintf(out, "\nskew %.2f\n  %-28s %9s %9s %7s %10s %7s %6s %7s %6s\n", skew, "policy",
                  "step ms", "predicted", "error", "ideal/step", "vs ep", "load", "copies", "late");
    for (int i = 0; i < field->n; i++) {
        struct contestant *c = &field->contestant[i];
        const double step_s = median(c->step_s, n);
        const double moe_s = median(c->predicted_s, n);
        if (!field->has_rest) {
            field->rest_s = step_s - moe_s;
            field->has_rest = true;
        }
        const double predicted_s = field->rest_s + moe_s;
        ideal_s = i == 0 ? step_s : ideal_s;
        ep_s = !c->is_ideal && c->policy == mt_policy_find("ep") ? step_s : ep_s;
        char versus[16] = "-"; /* before `ep` has run, or without it */
        if (ep_s > 0.0) {
            (void)snprintf(versus, sizeof(versus), "%.2f", ep_s / step_s);
        }
        (void)fprintf(out, "  %-28s %9.1f %9.1f %+6.1f%% %10.3f %7s %6.3f %7.1f %6.1f\n", c->label,
                      step_s * 1e3, predicted_s * 1e3, 100.0 * (predicted_s / step_s - 1.0),
                      ideal_s / step_s, versus, c->load / (double)n, c->n_copy / (double)n,
                      c->n_late / (double)n);
    }
    (void)fflush(out);
}

static enum mt_status open_all(struct field *field, const struct mt_bench_policies *bench,
                               double skew)
{
    for (int i = 0; i < field->n; i++) {
        struct contestant *contestant = &field->contestant[i];
        contestant->n_timed = 0;
        contestant->load = contestant->n_copy = contestant->n_late = 0.0;
        MT_TRY(open_contestant(field, contestant, bench->config, skew));
    }
    return MT_OK;
}

static enum mt_status make_steps(struct field *field, int64_t n_step)
{
    for (int64_t turn = 0; turn < n_step * field->n; turn++) {
        MT_TRY(time_step(&field->contestant[turn % field->n], 1 + turn / field->n));
    }
    return MT_OK;
}

static enum mt_status run_skew(struct field *field, const struct mt_bench_policies *bench,
                               double skew, FILE *out)
{
    enum mt_status status = open_all(field, bench, skew);
    if (status == MT_OK) {
        status = make_steps(field, bench->config->train.steps);
    }
    if (status == MT_OK && mt_job_rank() == 0) {
        print_skew(field, skew, out);
    }
    for (int i = 0; i < field->n; i++) {
        close_contestant(&field->contestant[i]);
    }
    return status;
}

static void print_head(const struct field *field, const struct mt_config *config, FILE *out)
{
    const struct mt_costs *costs = &field->costs;
    (void)fprintf(
        out,
        "%d ranks, %lld experts top-%lld, workload %s, %lld steps of which %d are not timed\n"
        "a row %.3g us, a copy %.3g us inside nodes, attention %.3g us\n"
        "step ms: median; predicted: MoE layers as predicted, the rest as measured at the first\n"
        "ideal; ideal: the same step with every expert's rows equal; load: rows of the busiest\n"
        "rank over the mean; copies, late: of all layers of a micro-batch\n",
        mt_job_size(), (long long)config->moe.num_experts, (long long)config->moe.top_k,
        config->moe.workload, (long long)config->train.steps, (int)WARM_STEPS,
        (double)costs->row_ps * 1e-6,
        (double)mt_costs_message_ps(costs, MT_LEVEL_NODE,
                                    3 * (int64_t)sizeof(float) * config->model.hidden_size *
                                        config->moe.expert_intermediate_size) *
            1e-6,
        (double)costs->attention_ps * 1e-6);
}

/* A misspelt name would leave hours of comparison without what they were for. */
static enum mt_status check_policies(const char *list)
{
    const char *at = list;
    do {
        char name[MT_POLICY_BYTES] = "";
        const size_t n = strcspn(at, ",");
        (void)snprintf(name, sizeof(name), "%.*s", (int)n, at);
        if (n >= sizeof(name) || mt_policy_find(name) == NULL) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "--policies %s: \"%s\" is no policy; expected names that docs/fssdp.md "
                           "lists, with commas between them, e.g. ep,adaptive",
                           list, name);
        }
        at += n + (at[n] == ',' ? 1 : 0);
    } while (*at != '\0');
    return MT_OK;
}

static enum mt_status check(const struct mt_bench_policies *bench)
{
    const struct mt_config *config = bench->config;
    if (config->moe.routing != MT_ROUTING_SYNTHETIC ||
        config->model.first_k_dense >= config->model.num_layers) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "bench policies needs MoE layers with moe.routing = \"synthetic\" and a "
                       "workload; this configuration has others; see configs/bench-policies.toml");
    }
    if (config->train.steps <= WARM_STEPS) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "train.steps = %lld: the first %d are not timed; expected more; raise it",
                       (long long)config->train.steps, (int)WARM_STEPS);
    }
    return bench->policies != NULL ? check_policies(bench->policies) : MT_OK;
}

enum mt_status mt_bench_policies(const struct mt_bench_policies *bench, FILE *out)
{
    struct field *field = NULL;
    enum mt_status status = MT_OK;
    MT_TRY(mt_job_agree(check(bench)));
    MT_TRY(mt_job_agree(MT_ALLOCATE(field, 1, "contestants")));
    line_up(field, bench);
    for (int i = 0; i < bench->n_skew; i++) {
        MT_TRY_GOTO(run_skew(field, bench, bench->skew[i], out));
        if (i == 0 && mt_job_rank() == 0) {
            print_head(field, bench->config, out);
        }
    }
cleanup:
    mt_memory_free(field);
    return status;
}
