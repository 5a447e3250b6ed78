#include "placement/bench.h"

#include "base/size.h"
#include "placement/policy.h"
#include "placement/settle.h"
#include "placement/workload.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Every plan is made REPEAT times and the fastest counts: on a shared machine the slowest of some
 * hundred single runs says more about its other users. */
enum { MAX_PLAN = 512, WINDOW = 5, REPEAT = 3 };

enum moment { BEFORE_GATE, AFTER_GATE, SETTLE, SPLIT, N_MOMENT };

struct bench {
    const struct mt_policy *policy;
    int n_rank, n_expert, n_load; /* loads, used in turn */
    int n_plan;
    struct mt_cluster cluster;
    struct mt_placement placement, last; /* last: planned before the gate, for the next */
    struct mt_arena scratch;
    struct mt_policy_input input;
    int64_t *counts, *total; /* [n_load, R, E], [n_load + WINDOW, E] */
    int64_t *settled;        /* [n_instance] */
    int64_t *quota;          /* [R, n_instance] */
    int64_t time_ns[N_MOMENT][MAX_PLAN];
    int64_t single_ns[N_MOMENT][MAX_PLAN]; /* of first runs */
    int64_t n_allocated, n_early, n_late;
    double excess; /* sum over plans of largest load over the mean */
};

/* An H100 cluster: 400 GB/s inside a node, 40 GB/s a rank between nodes; experts of 8 MiB. */
static void set_costs(struct mt_cluster *cluster)
{
    cluster->costs = (struct mt_costs){.row_ps = 47000,
                                       .instance_ps = 5000000,
                                       .attention_ps = 1500000000,
                                       .alpha_ps = {0, 2000000, 5000000},
                                       .kib_ps = {0, 2560, 25600}};
    cluster->row_bytes = 8192;
    cluster->expert_bytes = 8 << 20;
}

static enum mt_status init_cluster(struct bench *bench)
{
    enum { PER_NODE = 8 };
    enum mt_status status = MT_OK;
    int *node = NULL;
    MT_TRY(MT_ALLOCATE(node, bench->n_rank, "nodes"));
    for (int rank = 0; rank < bench->n_rank; ++rank) {
        node[rank] = rank / PER_NODE;
    }
    status = mt_cluster_init(&bench->cluster, bench->n_rank, node);
    mt_memory_free(node);
    set_costs(&bench->cluster);
    return status;
}

/* counts [R,E] and total [E] of a step: every source chooses as tokens do on average. */
static void make_load(const struct mt_workload_input *workload, struct mt_arena *scratch,
                      double *weight, int64_t *counts, int64_t *total)
{
    enum { N_TOKEN = 8192 };
    const int64_t n_expert = workload->n_expert;
    mt_workload_weights(workload, scratch, weight);
    mt_workload_counts(weight, workload->n_expert, workload->top_k, N_TOKEN, scratch, counts);
    for (int source = 1; source < workload->n_rank; ++source) {
        memcpy(&counts[source * n_expert], counts, (size_t)n_expert * sizeof(counts[0]));
    }
    for (int64_t expert = 0; expert < n_expert; ++expert) {
        total[expert] = counts[expert] * workload->n_rank;
    }
}

/* A hot rank that drifts; skew 3 among the ranks that own experts. The last WINDOW loads come first
 * as well, so that every load has a past. */
static enum mt_status make_loads(struct bench *bench)
{
    enum mt_status status = MT_OK;
    struct mt_arena scratch = {0};
    double *weight = NULL;
    struct mt_workload_input workload = {
        .workload = mt_workload_find("hot_rank"),
        .n_rank = bench->n_rank,
        .n_expert = bench->n_expert,
        .top_k = 8,
        .owner = bench->placement.owner,
        .skew = 3.0 * (double)mt_max_i64(1, bench->n_rank / bench->n_expert),
        .seed = 1};
    const int64_t n_pair = (int64_t)bench->n_rank * bench->n_expert;
    MT_TRY_GOTO(MT_ALLOCATE(weight, n_pair, "loads"));
    MT_TRY_GOTO(mt_arena_init(&scratch, mt_workload_scratch_bytes(bench->n_rank, bench->n_expert),
                              "loads"));
    for (int load = 0; load < bench->n_load; ++load) {
        workload.step = load + 1;
        make_load(&workload, &scratch, weight, &bench->counts[load * n_pair],
                  &bench->total[(int64_t)(WINDOW + load) * bench->n_expert]);
    }
    for (int load = 0; load < WINDOW; ++load) {
        const int from = WINDOW + (bench->n_load - WINDOW + load) % bench->n_load;
        memcpy(&bench->total[(int64_t)load * bench->n_expert],
               &bench->total[(int64_t)from * bench->n_expert],
               (size_t)bench->n_expert * sizeof(bench->total[0]));
    }
cleanup:
    mt_arena_clear(&scratch);
    mt_memory_free(weight);
    return status;
}

static enum mt_status init(struct bench *bench)
{
    const int slots = mt_policy_slot_count(bench->policy, bench->n_rank, bench->n_expert, 0);
    const int max_instance = bench->n_expert + bench->n_rank * slots;
    const int64_t n_pair = (int64_t)bench->n_rank * bench->n_expert;
    int64_t scratch_bytes = 0;
    MT_TRY(init_cluster(bench));
    MT_TRY(mt_placement_init(&bench->placement, bench->n_rank, bench->n_expert, max_instance));
    MT_TRY(mt_placement_init(&bench->last, bench->n_rank, bench->n_expert, max_instance));
    mt_placement_default_owners(&bench->placement, 0);
    MT_ASSERT(
        mt_policy_scratch_bytes(bench->n_rank, bench->n_expert, 1, max_instance, &scratch_bytes));
    MT_TRY(mt_arena_init(&bench->scratch, scratch_bytes, "planning"));
    MT_TRY(MT_ALLOCATE(bench->counts, bench->n_load * n_pair, "loads"));
    MT_TRY(MT_ALLOCATE(bench->total, (int64_t)(WINDOW + bench->n_load) * bench->n_expert, "loads"));
    MT_TRY(MT_ALLOCATE(bench->settled, max_instance, "quotas"));
    MT_TRY(MT_ALLOCATE(bench->quota, (int64_t)bench->n_rank * max_instance, "quotas"));
    MT_TRY(make_loads(bench));
    bench->input = (struct mt_policy_input){.cluster = &bench->cluster,
                                            .n_expert = bench->n_expert,
                                            .n_micro = 4,
                                            .slots = slots,
                                            .overlap = -1,
                                            .calibrate = true,
                                            .n_recent = WINDOW};
    return MT_OK;
}

static void clear(struct bench *bench)
{
    mt_memory_free(bench->counts);
    mt_memory_free(bench->total);
    mt_memory_free(bench->settled);
    mt_memory_free(bench->quota);
    mt_arena_clear(&bench->scratch);
    mt_placement_clear(&bench->placement);
    mt_placement_clear(&bench->last);
    mt_cluster_clear(&bench->cluster);
}

static void count_copies(struct bench *bench, int64_t largest, const int64_t *total)
{
    int64_t n_row = 0;
    for (int expert = 0; expert < bench->n_expert; ++expert) {
        n_row += total[expert];
    }
    bench->excess += (double)largest * bench->n_rank / (double)n_row;
    for (int i = 0; i < mt_placement_n_instance(&bench->placement); ++i) {
        bench->n_late += bench->placement.is_late[i] ? 1 : 0;
    }
    bench->n_early += mt_placement_n_instance(&bench->placement) - bench->n_expert;
}

/* Of this thread's processor, so that a machine's other processes do not count: wall time would say
 * more about them at the 99th percentile. */
static int64_t processor_ns(void)
{
    static const int64_t NS_PER_S = 1000000000;
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Everything that a micro-batch and layer needs, once: time_ns [N_MOMENT]. Returns the largest
 * load. */
static int64_t plan_once(struct bench *bench, int64_t load, int64_t *time_ns)
{
    const struct mt_policy *policy = bench->policy;
    const int64_t n_expert = bench->n_expert;
    const int64_t *counts = &bench->counts[load * bench->n_rank * n_expert];
    const int64_t *total = &bench->total[(WINDOW + load) * n_expert];
    int64_t clock_ns[N_MOMENT + 1];
    bench->input.recent = &bench->total[load * n_expert];
    bench->input.count = NULL;
    const int64_t n_allocated = mt_memory_n_allocated();
    clock_ns[BEFORE_GATE] = processor_ns();
    policy->before_gate(&bench->input, &bench->scratch, &bench->placement);
    clock_ns[AFTER_GATE] = processor_ns();
    bench->input.count = counts;
    policy->after_gate(&bench->input, &bench->scratch, &bench->placement);
    clock_ns[SETTLE] = processor_ns();
    const int64_t largest = mt_settle(&bench->placement, total, &bench->scratch, bench->settled);
    clock_ns[SPLIT] = processor_ns();
    mt_split(policy->split, &bench->cluster, &bench->placement, counts, &bench->scratch,
             bench->quota);
    clock_ns[N_MOMENT] = processor_ns();
    bench->n_allocated += mt_memory_n_allocated() - n_allocated;
    for (int moment = 0; moment < N_MOMENT; ++moment) {
        time_ns[moment] = clock_ns[moment + 1] - clock_ns[moment];
    }
    return largest;
}

static void plan(struct bench *bench, int at)
{
    const int64_t load = at % bench->n_load;
    bench->input.step = at + 1;
    mt_placement_copy(&bench->last, &bench->placement);
    for (int repeat = 0; repeat < REPEAT; ++repeat) {
        int64_t time_ns[N_MOMENT];
        mt_placement_copy(&bench->placement, &bench->last);
        const int64_t largest = plan_once(bench, load, time_ns);
        for (int moment = 0; moment < N_MOMENT; ++moment) {
            int64_t *least_ns = &bench->time_ns[moment][at];
            *least_ns = repeat == 0 ? time_ns[moment] : mt_min_i64(*least_ns, time_ns[moment]);
            if (repeat == 0) {
                bench->single_ns[moment][at] = time_ns[moment];
            }
        }
        if (repeat == 0) {
            count_copies(bench, largest, &bench->total[(WINDOW + load) * bench->n_expert]);
        }
    }
}

static int compare(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print(struct bench *bench, FILE *out)
{
    static const char *const name[N_MOMENT] = {"before gate", "after gate", "settle",
                                               "split of tokens"};
    static const double NS_PER_US = 1000.0;
    const int n = bench->n_plan;
    const int middle = n / 2;
    const int last = n - 1 - n / 100; /* but one percent */
    for (int moment = 0; moment < N_MOMENT; ++moment) {
        int64_t *time_ns = bench->time_ns[moment];
        int64_t *single_ns = bench->single_ns[moment];
        qsort(time_ns, (size_t)n, sizeof(time_ns[0]), compare);
        qsort(single_ns, (size_t)n, sizeof(single_ns[0]), compare);
        (void)fprintf(out, "%5d x %-4d %-9s %-16s %10.1f %10.1f %14.1f\n", bench->n_rank,
                      bench->n_expert, bench->policy->name, name[moment],
                      (double)time_ns[middle] / NS_PER_US, (double)time_ns[last] / NS_PER_US,
                      (double)single_ns[last] / NS_PER_US);
    }
    (void)fprintf(out,
                  "             largest load over mean %.3f, copies %.1f of which late %.1f, "
                  "allocations %lld\n",
                  bench->excess / n, (double)bench->n_early / n, (double)bench->n_late / n,
                  (long long)bench->n_allocated);
}

static enum mt_status run(struct bench *bench, FILE *out)
{
    enum { N_WARM = 2 };
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(init(bench));
    for (int at = 0; at < N_WARM; ++at) {
        plan(bench, at);
    }
    bench->n_allocated = bench->n_early = bench->n_late = 0;
    bench->excess = 0.0;
    for (int at = 0; at < bench->n_plan; ++at) {
        plan(bench, at);
    }
    print(bench, out);
    if (bench->n_allocated != 0) {
        status =
            MT_FAIL(MT_ERR_INTERNAL, "planning with %s allocated memory %lld times; expected none",
                    bench->policy->name, (long long)bench->n_allocated);
    }
cleanup:
    clear(bench);
    return status;
}

static enum mt_status bench_policy(const char *policy, int n_rank, int n_expert, int n_load,
                                   int n_plan, FILE *out)
{
    struct bench *bench = NULL;
    MT_TRY(MT_ALLOCATE(bench, 1, "benchmark"));
    bench->policy = mt_policy_find(policy);
    bench->n_rank = n_rank;
    bench->n_expert = n_expert;
    bench->n_load = n_load;
    bench->n_plan = n_plan;
    const enum mt_status status = run(bench, out);
    mt_memory_free(bench);
    return status;
}

enum mt_status mt_bench_planner(FILE *out)
{
    static const struct {
        int n_rank, n_expert, n_load, n_plan;
    } size[] = {{64, 256, 32, MAX_PLAN}, {1024, 256, 8, 128}, {4096, 512, 5, 20}};
    (void)fprintf(
        out,
        "processor time of one plan of one layer, drifting hot rank of skew 3, nodes of "
        "8; the fastest of %d\n"
        "ranks x experts                         median us     99 %% us  single 99 %% us\n",
        REPEAT);
    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); ++i) {
        MT_TRY(bench_policy("quota", size[i].n_rank, size[i].n_expert, size[i].n_load,
                            size[i].n_plan, out));
        MT_TRY(bench_policy("adaptive", size[i].n_rank, size[i].n_expert, size[i].n_load,
                            size[i].n_plan, out));
    }
    return MT_OK;
}
