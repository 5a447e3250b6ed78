/* The loads that `moetrain plan` studies: of a trace, or of a named workload. */
#include "base/size.h"
#include "cli/plan.h"
#include "placement/workload.h"

#include <string.h>

static const char ASSUMED_WORKLOAD[] = "hot_rank";
static const double ASSUMED_SKEW = 2.0;
/* Of a workload, which has no end: what a million steps do not tell, more will not. */
enum { MOST_STEPS = 1 << 20 };

static int n_moe_layer(const struct mt_config *config)
{
    return (int)(config->model.num_layers - config->model.first_k_dense);
}

static enum mt_status open_trace(struct mt_plan_loads *loads, const char *path)
{
    MT_TRY(mt_trace_open(path, &loads->trace));
    MT_TRY(mt_trace_check_shape(loads->trace, n_moe_layer(loads->config), loads->n_expert));
    const struct mt_trace_shape *shape = mt_trace_get_shape(loads->trace);
    const bool by_source = shape->n_source == loads->n_rank;
    MT_TRY(MT_ALLOCATE(loads->step, mt_trace_shape_n_value(shape), "step of a trace"));
    (void)snprintf(loads->about, sizeof(loads->about),
                   "trace of %lld steps, %d micro-batches and %d source ranks, %s; its rows scaled "
                   "to this batch",
                   (long long)mt_trace_n_step(loads->trace), shape->n_micro, shape->n_source,
                   by_source ? "each source as recorded" : "spread evenly over the ranks");
    return MT_OK;
}

static enum mt_status list_workloads(const char *name)
{
    char names[512] = "";
    for (int i = 0; i < mt_n_workload; i++) {
        const size_t used = strlen(names);
        (void)snprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? ", " : "",
                       mt_workloads[i].name);
    }
    return MT_FAIL(MT_ERR_CONFIG, "--workload %s is not known; expected one of %s", name, names);
}

static enum mt_status choose_workload(struct mt_plan_loads *loads,
                                      const struct mt_arguments *arguments)
{
    const struct mt_config *config = loads->config;
    const bool has_own = config->moe.workload[0] != '\0';
    const char *given = mt_argument(arguments, "--workload");
    const bool is_assumed = given == NULL && !has_own;
    const char *name = given != NULL ? given : has_own ? config->moe.workload : ASSUMED_WORKLOAD;
    MT_TRY(mt_argument_real(arguments, "--skew", has_own ? config->moe.skew : ASSUMED_SKEW, 1,
                            &loads->skew));
    loads->workload = mt_workload_find(name);
    if (loads->workload < 0) {
        return list_workloads(name);
    }
    if (loads->skew > 1e6) {
        return MT_FAIL(MT_ERR_CONFIG, "--skew %g is out of range; expected 1 to 1e6", loads->skew);
    }
    (void)snprintf(loads->about, sizeof(loads->about), "%sworkload %s at skew %.3g (%s)",
                   is_assumed ? "no trace and no workload given: assumed " : "", name, loads->skew,
                   mt_workloads[loads->workload].description);
    return MT_OK;
}

static enum mt_status init_workload(struct mt_plan_loads *loads,
                                    const struct mt_arguments *arguments)
{
    MT_TRY(choose_workload(loads, arguments));
    MT_TRY(mt_placement_init(&loads->owners, loads->n_rank, loads->n_expert, loads->n_expert));
    MT_TRY(MT_ALLOCATE(loads->weight, (int64_t)loads->n_rank * loads->n_expert, "loads of a plan"));
    return mt_arena_init(&loads->scratch, mt_workload_scratch_bytes(loads->n_rank, loads->n_expert),
                         "loads of a plan");
}

enum mt_status mt_plan_loads_init(struct mt_plan_loads *loads, const struct mt_arguments *arguments,
                                  const struct mt_config *config,
                                  const struct mt_plan_machine *machine)
{
    const char *path = mt_argument(arguments, "--trace");
    *loads = (struct mt_plan_loads){.config = config,
                                    .cluster = &machine->cluster,
                                    .n_rank = machine->cluster.n_rank,
                                    .n_expert = (int)config->moe.num_experts,
                                    .top_k = (int)config->moe.top_k,
                                    .n_micro = machine->n_micro,
                                    .n_layer = n_moe_layer(config),
                                    .index = -1};
    if (path != NULL && (mt_argument(arguments, "--workload") != NULL ||
                         mt_argument(arguments, "--skew") != NULL)) {
        return MT_FAIL(MT_ERR_CONFIG, "--trace and --workload or --skew both say the loads; "
                                      "expected one; leave out the other");
    }
    MT_TRY(MT_ALLOCATE(loads->total, loads->n_expert, "loads of a plan"));
    return path != NULL ? open_trace(loads, path) : init_workload(loads, arguments);
}

void mt_plan_loads_clear(struct mt_plan_loads *loads)
{
    mt_trace_close(loads->trace);
    mt_placement_clear(&loads->owners);
    mt_arena_clear(&loads->scratch);
    mt_memory_free(loads->step);
    mt_memory_free(loads->weight);
    mt_memory_free(loads->total);
    *loads = (struct mt_plan_loads){0};
}

int64_t mt_plan_loads_n_step(const struct mt_plan_loads *loads)
{
    return loads->trace != NULL ? mt_trace_n_step(loads->trace) : MOST_STEPS;
}

/* Rows that all ranks together send in a layer of the micro-batch. */
static int64_t rows_of(const struct mt_plan_loads *loads, int64_t micro)
{
    int64_t n_token = 0;
    for (int rank = 0; rank < loads->n_rank; rank++) {
        n_token += mt_plan_n_token(loads->config, loads->n_rank, rank, micro);
    }
    return n_token * loads->top_k;
}

/* count [n] in proportion, but `wanted` in sum. */
static void scale(int64_t *count, int64_t n, int64_t wanted)
{
    double total = 0;
    double before = 0;
    int64_t given = 0;
    for (int64_t i = 0; i < n; i++) {
        total += (double)count[i];
    }
    for (int64_t i = 0; i < n && total > 0; i++) {
        before += (double)count[i];
        const int64_t end = before >= total ? wanted : (int64_t)((double)wanted * (before / total));
        count[i] = end - given;
        given = end;
    }
}

/* The recorded micro-batches that make one of the plan's: the same one, or all of them together.
 * sum [n_sum]: [R,E], or [E] over all sources. */
static void sum_recorded(const struct mt_plan_loads *loads, int64_t micro, int layer, int64_t n_sum,
                         int64_t *sum)
{
    const struct mt_trace_shape *shape = mt_trace_get_shape(loads->trace);
    const bool alike = shape->n_micro == loads->n_micro;
    const int64_t n = mt_max_i64(shape->n_source, 1) * loads->n_expert;
    memset(sum, 0, (size_t)n_sum * sizeof(*sum));
    for (int64_t m = 0; m < shape->n_micro; m++) {
        const int64_t *from = &loads->step[(m * shape->n_layer + layer) * n];
        for (int64_t i = 0; i < n && (!alike || m == micro); i++) {
            sum[i % n_sum] += mt_min_i64(from[i], INT64_MAX - sum[i % n_sum]);
        }
    }
}

static enum mt_status get_recorded(struct mt_plan_loads *loads, int64_t step, int64_t micro,
                                   int layer, int64_t *counts)
{
    const struct mt_trace_shape *shape = mt_trace_get_shape(loads->trace);
    const int64_t n_pair = (int64_t)loads->n_rank * loads->n_expert;
    const int recorded = (int)((int64_t)layer * shape->n_layer / loads->n_layer);
    const int64_t n_row = rows_of(loads, micro);
    if (loads->index != step) {
        MT_TRY(mt_trace_read(loads->trace, step, loads->step));
        loads->index = step;
    }
    if (shape->n_source == loads->n_rank) {
        sum_recorded(loads, micro, recorded, n_pair, counts);
        scale(counts, n_pair, n_row);
        return MT_OK;
    }
    sum_recorded(loads, micro, recorded, loads->n_expert, loads->total);
    scale(loads->total, loads->n_expert, n_row);
    mt_study_spread(loads->total, loads->n_rank, loads->n_expert, counts);
    return MT_OK;
}

static void make_counts(struct mt_plan_loads *loads, int64_t step, int64_t micro, int layer,
                        int64_t *counts)
{
    const int64_t n_expert = loads->n_expert;
    mt_placement_default_owners(&loads->owners, layer);
    const struct mt_workload_input input = {.workload = loads->workload,
                                            .n_rank = loads->n_rank,
                                            .n_expert = loads->n_expert,
                                            .top_k = loads->top_k,
                                            .owner = loads->owners.owner,
                                            .skew = loads->skew,
                                            .seed = (uint64_t)loads->config->run.seed,
                                            .step = step + 1,
                                            .micro = (int)micro,
                                            .layer = layer};
    mt_workload_weights(&input, &loads->scratch, loads->weight);
    for (int rank = 0; rank < loads->n_rank; rank++) {
        mt_workload_counts(&loads->weight[rank * n_expert], loads->n_expert, loads->top_k,
                           mt_plan_n_token(loads->config, loads->n_rank, rank, micro),
                           &loads->scratch, &counts[rank * n_expert]);
    }
}

enum mt_status mt_plan_loads_get(struct mt_plan_loads *loads, int64_t step, int64_t micro,
                                 int layer, int64_t *counts)
{
    if (loads->trace != NULL) {
        return get_recorded(loads, step, micro, layer, counts);
    }
    make_counts(loads, step, micro, layer, counts);
    return MT_OK;
}
