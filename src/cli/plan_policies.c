/* What every placement policy would cost on the machine and loads of a plan. */
#include "base/size.h"
#include "cli/plan.h"
#include "placement/adaptive.h"

#include <string.h>

static const double PS_PER_S = 1e12;
static const double GIB = 1024.0 * 1024.0 * 1024.0;
static const double GB = 1e9;

enum {
    MAX_MICRO = 4,         /* micro-batches of a step that are studied */
    MAX_STICKY = 16,       /* where copies stay from one to the next: they are not alike */
    LAYER_PAIRS = 1 << 22, /* layers times ranks times experts, beyond the first two layers */
    STEP_PAIRS = 1 << 22,  /* steps times these */
    RANKS_AN_EXPERT = 4,   /* copies cost as much where experts are fewer than that */
    LEAST_STEPS = 2,
    MOST_STEPS = 16,
    LEAST_LAYERS = 2
};
/* Of one policy: at 1024 ranks x 128 experts copies of all experts everywhere are 2 GiB of quotas,
 * at 4096 x 256 more than a machine has. */
static const int64_t MAX_SCRATCH_BYTES = (int64_t)4 << 30;

struct mt_plan_policies {
    const struct mt_config *config;
    struct mt_plan_machine machine;
    struct mt_plan_loads loads;
    int n_policy;           /* the table's, with --ablation and adaptive's variants */
    struct mt_study *study; /* [n_policy]; of zeros where the policy is too large */
    struct mt_arena scratch;
    int64_t *counts; /* [R,E] */
    int n_moe;       /* MoE layers of the model; loads.n_layer of them are studied */
    int n_micro;     /* studied, of machine.n_micro */
    int64_t n_warm, n_step;
    struct mt_config *other; /* the configuration with another policy */
    int64_t *memory_bytes;   /* [n_policy] of those printed */
    int name_width;
};

static enum mt_status choose_sample(struct mt_plan_policies *plan,
                                    const struct mt_arguments *arguments)
{
    const struct mt_config *config = plan->config;
    const int64_t n_rank = plan->machine.cluster.n_rank;
    const int64_t n_pair = n_rank * mt_max_i64(config->moe.num_experts, n_rank / RANKS_AN_EXPERT);
    const int64_t n_layer = mt_max_i64(LAYER_PAIRS / n_pair, LEAST_LAYERS);
    const int64_t by_size = mt_max_i64(mt_min_i64(STEP_PAIRS / n_pair, MOST_STEPS), LEAST_STEPS);
    const int64_t n_there = mt_plan_loads_n_step(&plan->loads);
    plan->loads.n_layer = (int)mt_min_i64(plan->n_moe, n_layer);
    plan->n_micro = (int)mt_min_i64(plan->machine.n_micro,
                                    config->placement.rematerialize ? MAX_MICRO : MAX_STICKY);
    /* Nothing is known at first: that is not what a policy costs in the long run. */
    const int64_t n_warm =
        mt_min_i64(mt_min_i64(config->placement.load_window, by_size), n_there / 4);
    MT_TRY(mt_argument_integer(arguments, "--warm-up", n_warm, 0, &plan->n_warm));
    const int64_t n_left = mt_max_i64(n_there - plan->n_warm, 0);
    MT_TRY(mt_argument_integer(arguments, "--steps", mt_max_i64(mt_min_i64(by_size, n_left), 1), 1,
                               &plan->n_step));
    if (plan->n_step > n_left) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--steps %lld after --warm-up %lld are more than the %lld that %s; expected "
                       "a sum of at most that",
                       (long long)plan->n_step, (long long)plan->n_warm, (long long)n_there,
                       plan->loads.trace != NULL ? "the trace has" : "plan goes through");
    }
    return MT_OK;
}

static const struct mt_policy *policy_of(int policy)
{
    return policy < mt_n_policy ? &mt_policies[policy]
                                : &mt_adaptive_variants[policy - mt_n_policy];
}

static struct mt_study_options options_of(const struct mt_plan_policies *plan,
                                          const struct mt_policy *policy)
{
    const struct mt_config *config = plan->config;
    return (struct mt_study_options){.policy = policy,
                                     .cluster = &plan->machine.cluster,
                                     .n_layer = plan->loads.n_layer,
                                     .n_expert = (int)config->moe.num_experts,
                                     .n_micro = plan->n_micro,
                                     .slots = config->placement.slots,
                                     .overlap = (int)config->placement.overlap_experts,
                                     .calibrate = config->placement.calibrate,
                                     .split = config->placement.split,
                                     .rematerialize = config->placement.rematerialize,
                                     .load_window = (int)config->placement.load_window};
}

/* *most: scratch of the largest study so far. */
static enum mt_status init_study(struct mt_plan_policies *plan, int policy, int64_t *most)
{
    const struct mt_study_options options = options_of(plan, policy_of(policy));
    int64_t n_bytes = 0;
    if (!mt_study_scratch_bytes(&options, &n_bytes) || n_bytes > MAX_SCRATCH_BYTES) {
        return MT_OK;
    }
    *most = mt_max_i64(*most, n_bytes);
    return mt_study_init(&plan->study[policy], &options);
}

static enum mt_status init_studies(struct mt_plan_policies *plan)
{
    int64_t most = 0;
    MT_TRY(MT_ALLOCATE(plan->study, plan->n_policy, "studies of a plan"));
    MT_TRY(MT_ALLOCATE(plan->memory_bytes, plan->n_policy, "plan of policies"));
    for (int p = 0; p < plan->n_policy; p++) {
        MT_TRY(init_study(plan, p, &most));
    }
    MT_TRY(mt_arena_init(&plan->scratch, most, "scratch of policies"));
    return MT_ALLOCATE(plan->counts,
                       (int64_t)plan->machine.cluster.n_rank * plan->config->moe.num_experts,
                       "loads of a plan");
}

static bool is_studied(const struct mt_plan_policies *plan, int policy)
{
    return plan->study[policy].placement != NULL;
}

static enum mt_status run_layer(struct mt_plan_policies *plan, int64_t step, int micro, int layer)
{
    MT_TRY(mt_plan_loads_get(&plan->loads, step, micro, layer, plan->counts));
    for (int p = 0; p < plan->n_policy; p++) {
        if (is_studied(plan, p)) {
            mt_study_layer(&plan->study[p], layer, plan->counts, &plan->scratch, NULL);
        }
    }
    return MT_OK;
}

static enum mt_status run_step(struct mt_plan_policies *plan, int64_t step)
{
    for (int i = 0; i < plan->n_micro * plan->loads.n_layer; i++) {
        MT_TRY(run_layer(plan, step, i / plan->loads.n_layer, i % plan->loads.n_layer));
    }
    for (int p = 0; p < plan->n_policy; p++) {
        if (is_studied(plan, p)) {
            mt_study_end_step(&plan->study[p], &plan->scratch);
        }
    }
    return MT_OK;
}

/* Warm-up, then owners as the policy wants them, then what counts. */
static enum mt_status run_studies(struct mt_plan_policies *plan)
{
    for (int64_t step = 0; step < plan->n_warm; step++) {
        MT_TRY(run_step(plan, step));
    }
    for (int p = 0; p < plan->n_policy; p++) {
        if (is_studied(plan, p)) {
            mt_study_forget(&plan->study[p]);
            if (plan->config->placement.reshard_interval > 0) {
                mt_study_reshard(&plan->study[p], &plan->scratch);
            }
        }
    }
    for (int64_t step = 0; step < plan->n_step; step++) {
        MT_TRY(run_step(plan, plan->n_warm + step));
    }
    return MT_OK;
}

/* From sums over what was studied to one step of the whole model. */
static double per_step(const struct mt_plan_policies *plan, double sum)
{
    return sum / (double)plan->n_step * plan->n_moe / plan->loads.n_layer *
           (double)plan->machine.n_micro / plan->n_micro;
}

static double step_s(const struct mt_plan_policies *plan, int64_t experts_ps)
{
    return (per_step(plan, (double)experts_ps) + plan->machine.dense_ps) / PS_PER_S;
}

/* Bytes that all ranks send in a step: rows there and back in both directions, copies and their
 * gradients. */
static double sent_bytes(const struct mt_plan_policies *plan, const struct mt_study_sum *sum)
{
    enum { EXCHANGES = 4 };
    const double n_row =
        (double)(sum->n_sent_row[MT_LEVEL_NODE] + sum->n_sent_row[MT_LEVEL_NETWORK]);
    return per_step(plan, EXCHANGES * n_row * (double)plan->machine.cluster.row_bytes +
                              (double)sum->prediction.copy_bytes);
}

/* Of the rank that holds most, were the policy the configuration's. */
static enum mt_status estimate_memory(struct mt_plan_policies *plan, const struct mt_policy *policy,
                                      int64_t *n_bytes)
{
    struct mt_memory_estimate estimate;
    struct mt_config *config = plan->other;
    const int n_rank = plan->machine.cluster.n_rank;
    const int64_t share = mt_ceil_div(config->train.global_batch_size, n_rank);
    (void)snprintf(config->placement.policy, sizeof(config->placement.policy), "%s", policy->name);
    MT_TRY(mt_session_estimate(config, n_rank, true,
                               mt_min_i64(config->train.micro_batch_size, share), &estimate));
    *n_bytes = estimate.total;
    return MT_OK;
}

/* Where everything costs nothing, nothing is faster. */
static double ratio(double a, double b)
{
    return b > 0.0 ? a / b : 1.0;
}

static void print_row(const struct mt_plan_policies *plan, int policy, int64_t memory_bytes)
{
    const struct mt_study *study = &plan->study[policy];
    const struct mt_study_sum *sum = &study->sum;
    const struct mt_study_sum *ep = &plan->study[0].sum;
    const double seconds = step_s(plan, sum->prediction.total_ps);
    const double interval = (double)mt_max_i64(plan->config->placement.reshard_interval, 1);
    (void)printf("  %-*s %10.4g %7.3f %7.3f %9.4g %9.4g %9.4g %7.3f %7.3f %8.1f %7.1f %7.1f %10.4g "
                 "%9.2f\n",
                 plan->name_width, policy_of(policy)->name, seconds,
                 ratio(step_s(plan, ep->prediction.total_ps), seconds),
                 ratio(step_s(plan, ep->prediction.ideal_ps), seconds),
                 per_step(plan, (double)sum->prediction.compute_ps) / PS_PER_S,
                 per_step(plan, (double)sum->prediction.exchange_ps) / PS_PER_S,
                 per_step(plan, (double)sum->prediction.copies_ps) / PS_PER_S,
                 sum->load_ratio / (double)sum->n_layer, sum->worst_load_ratio,
                 per_step(plan, (double)sum->prediction.n_copy),
                 per_step(plan, (double)sum->prediction.n_late),
                 (double)sum->n_move * plan->n_moe / plan->loads.n_layer / interval,
                 sent_bytes(plan, sum) / GB, (double)memory_bytes / GIB);
}

static void print_head(const struct mt_plan_policies *plan)
{
    const struct mt_study_sum *ep = &plan->study[0].sum;
    (void)printf("\npredicted step by placement policy\n");
    (void)printf("  machine: %s\n", plan->machine.about);
    (void)printf("  loads: %s\n", plan->loads.about);
    (void)printf("  studied: %lld steps after %lld to warm up, %d of %d MoE layers, %d of %lld "
                 "micro-batches\n",
                 (long long)plan->n_step, (long long)plan->n_warm, plan->loads.n_layer, plan->n_moe,
                 plan->n_micro, (long long)plan->machine.n_micro);
    if (plan->config->placement.split != MT_SPLIT_AUTO) {
        (void)printf("  rows under every policy: placement.split = \"%s\"\n",
                     plan->config->placement.split == MT_SPLIT_SETTLED ? "settled" : "local_first");
    }
    (void)printf("  forced balance: %.4g s a step, of which %.4g s beside experts; neither has the "
                 "optimizer nor the exchange of dense parameters\n\n",
                 step_s(plan, ep->prediction.ideal_ps), plan->machine.dense_ps / PS_PER_S);
    (void)printf("  %-*s %10s %7s %7s %9s %9s %9s %15s %8s %7s %7s %10s %9s\n", plan->name_width,
                 "", "step", "ep /", "ideal /", "compute", "exchange", "copies", "largest / mean",
                 "copies", "late", "moves", "sent", "memory");
    (void)printf("  %-*s %10s %7s %7s %9s %9s %9s %7s %7s %8s %7s %7s %10s %9s\n", plan->name_width,
                 "policy", "s", "step", "step", "s", "s", "exposed s", "mean", "worst", "a step",
                 "a step", "a step", "GB a step", "GiB/rank");
}

/* Slots and cutting are all that memory knows of a policy: as another before it, or estimated. */
static enum mt_status find_memory(struct mt_plan_policies *plan, int policy, int64_t *n_bytes)
{
    const struct mt_policy *own = policy_of(policy);
    for (int p = 0; p < policy; p++) {
        if (is_studied(plan, p) && plan->study[p].n_slot == plan->study[policy].n_slot &&
            policy_of(p)->cuts_experts == own->cuts_experts) {
            *n_bytes = plan->memory_bytes[p];
            return MT_OK;
        }
    }
    return estimate_memory(plan, own, n_bytes);
}

static enum mt_status print_policy(struct mt_plan_policies *plan, int policy)
{
    int64_t *memory_bytes = &plan->memory_bytes[policy];
    if (!is_studied(plan, policy)) {
        (void)printf("  %-*s not studied: too many copies for %d ranks and %lld experts; set "
                     "placement.slots\n",
                     plan->name_width, policy_of(policy)->name, plan->machine.cluster.n_rank,
                     (long long)plan->config->moe.num_experts);
        return MT_OK;
    }
    MT_TRY(find_memory(plan, policy, memory_bytes));
    print_row(plan, policy, *memory_bytes);
    return MT_OK;
}

static enum mt_status check_policy(const struct mt_config *config)
{
    if (mt_policy_find(config->placement.policy) == NULL) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "placement.policy = \"%s\" is not in this version; expected one of the "
                       "table's rows; change the key",
                       config->placement.policy);
    }
    return MT_OK;
}

/* What choices of tokens and parts of a row can be counted for. */
static enum mt_status check_rows(const struct mt_plan_policies *plan)
{
    static const int64_t MOST_ROWS = (int64_t)1 << 40;
    const int64_t n_token = plan->machine.max_token;
    int64_t n_row = 0;
    if (n_token > UINT32_MAX || !mt_size_multiply(n_token, plan->config->moe.top_k, &n_row) ||
        !mt_size_multiply(n_row, plan->machine.cluster.n_rank, &n_row) || n_row > MOST_ROWS) {
        return MT_FAIL(
            MT_ERR_CONFIG,
            "%lld tokens of a rank's micro-batch, with %lld experts each on %d ranks, are "
            "too many to study policies; expected fewer than 2^32, and at most 2^40 "
            "rows in all; lower train.micro_batch_size, or say --no-policies",
            (long long)n_token, (long long)plan->config->moe.top_k, plan->machine.cluster.n_rank);
    }
    return MT_OK;
}

static enum mt_status run(struct mt_plan_policies *plan, const struct mt_arguments *arguments,
                          int n_rank, int n_node)
{
    const struct mt_config *config = plan->config;
    MT_TRY(check_policy(config));
    MT_TRY(mt_plan_machine_init(&plan->machine, arguments, config, n_rank, n_node));
    MT_TRY(check_rows(plan));
    MT_TRY(mt_policy_check(mt_policy_find(config->placement.policy), &plan->machine.cluster,
                           (int)config->moe.num_experts, config->placement.slots));
    MT_TRY(mt_plan_loads_init(&plan->loads, arguments, config, &plan->machine));
    MT_TRY(choose_sample(plan, arguments));
    const bool has_variants = mt_argument(arguments, "--ablation") != NULL;
    plan->n_policy = mt_n_policy + (has_variants ? mt_n_adaptive_variant : 0);
    plan->name_width = has_variants ? 26 : 12;
    MT_TRY(init_studies(plan));
    MT_TRY(MT_ALLOCATE(plan->other, 1, "configuration"));
    *plan->other = *config;
    return run_studies(plan);
}

enum mt_status mt_plan_policies_run(const struct mt_arguments *arguments,
                                    const struct mt_config *config, int n_rank, int n_node,
                                    struct mt_plan_policies **out)
{
    struct mt_plan_policies *plan = NULL;
    const int n_moe = (int)(config->model.num_layers - config->model.first_k_dense);
    *out = NULL;
    if (n_moe <= 0) {
        return MT_OK; /* all layers are dense */
    }
    MT_TRY(MT_ALLOCATE(plan, 1, "plan of policies"));
    plan->config = config;
    plan->n_moe = n_moe;
    const enum mt_status status = run(plan, arguments, n_rank, n_node);
    if (status != MT_OK) {
        mt_plan_policies_destroy(plan);
        return status;
    }
    *out = plan;
    return MT_OK;
}

enum mt_status mt_plan_policies_print(struct mt_plan_policies *plan)
{
    if (plan == NULL) {
        return MT_OK;
    }
    print_head(plan);
    for (int p = 0; p < plan->n_policy; p++) {
        MT_TRY(print_policy(plan, p));
    }
    return MT_OK;
}

void mt_plan_policies_destroy(struct mt_plan_policies *plan)
{
    if (plan == NULL) {
        return;
    }
    for (int p = 0; plan->study != NULL && p < plan->n_policy; p++) {
        mt_study_clear(&plan->study[p]);
    }
    mt_memory_free(plan->study);
    mt_memory_free(plan->counts);
    mt_memory_free(plan->other);
    mt_memory_free(plan->memory_bytes);
    mt_arena_clear(&plan->scratch);
    mt_plan_loads_clear(&plan->loads);
    mt_plan_machine_clear(&plan->machine);
    mt_memory_free(plan);
}
