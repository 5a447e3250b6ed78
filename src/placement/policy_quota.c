/* Quota-driven replication from exact counts, per micro-batch and layer (UltraEP, arXiv
 * 2606.04101): the least largest load, to one percent, that replicas inside nodes reach, by
 * bisection; a replica is made together with the rows that it takes, at least 1024.
 *
 * All copies are late: the paper's system hides them where it can, but they are decided after the
 * gate. Rows are then split by settling, which is never worse than the quotas planned here. */
#include "placement/policy.h"

#include "base/size.h"
#include "placement/grow.h"
#include "placement/split.h"

/* Rows do not leave nodes: no plan is below the fullest node's mean. */
static int64_t node_bound(const struct mt_cluster *cluster, const struct mt_flow *flow)
{
    int64_t bound = 0;
    for (int node = 0; node < cluster->n_node; ++node) {
        const int start = cluster->node_start[node];
        const int end = cluster->node_start[node + 1];
        int64_t n_row = 0;
        for (int at = start; at < end; ++at) {
            n_row += flow->load[cluster->member[at]];
        }
        bound = mt_max_i64(bound, mt_ceil_div(n_row, end - start));
    }
    return bound;
}

void mt_policy_quota_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement)
{
    enum { MIN_ROW = 1024, TOLERANCE = 100 };
    const int64_t mark = mt_arena_mark(scratch);
    int64_t *total = mt_arena_cut(scratch, input->n_expert * (int64_t)sizeof(int64_t));
    int64_t *token = mt_arena_cut(scratch, placement->n_rank * (int64_t)sizeof(int64_t));
    struct mt_flow flow;
    struct mt_grow grow;
    mt_count_rows(placement->n_rank, placement->n_expert, input->count, total, token);
    mt_flow_init(&flow, placement, placement->max_instance, total, scratch);
    mt_flow_start(&flow);
    const int64_t largest = mt_flow_settle(&flow);
    const int64_t mean = mt_ceil_div(flow.n_row, flow.n_rank);
    const int64_t bound = node_bound(input->cluster, &flow);
    if (largest - bound > mean / TOLERANCE) {
        mt_grow_init(&grow, input->cluster, &flow, placement, scratch);
        grow.rules =
            (struct mt_grow_rules){.slots = input->slots,
                                   .min_row = mt_grow_min_row(MIN_ROW, flow.n_row, flow.n_rank),
                                   .tolerance_row = mean / TOLERANCE + 1,
                                   .is_node_only = true,
                                   .is_thorough = true,
                                   .port_ps = INT64_MAX};
        mt_grow_reset(&grow);
        const int n_early = flow.n_instance;
        (void)mt_grow_search(&grow, bound, largest);
        mt_grow_apply(&grow);
        mt_grow_write(&flow, n_early, placement);
    }
    mt_arena_release(scratch, mark);
}
