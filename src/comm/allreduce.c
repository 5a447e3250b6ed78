/* All-reduce of small vectors, two-level, one order of additions for everybody.
 *
 *     node 0: ranks 0 1 2    round 0   1,2 --> 0   RECV  = x0 + x1 + x2        (n0)
 *     node 1: ranks 3 4              4   --> 3   RECV  = x3 + x4             (n1)
 *                            round 1   0 <--> 3    STAGE = [n0 + n1 | n1]      on either leader
 *                            round 2   0 --> 1,2   RECV  = n0 + n1
 *                                      3 --> 4
 *
 * Rounds: 3, or 2 when there is one node. Cost at a leader, k ranks a node, M nodes, n bytes:
 * 2 (k-1) (alpha + n beta) inside the node, (M-1) (alpha + n beta) between nodes, (k-1) + (M-1)
 * additions. Every rank has the same bits, whatever arrives first: a node's sum is made once and
 * handed on, and every leader adds the same node sums in node order. Wins for counts, losses and
 * norms, where alpha decides: 2 (R-M) + M (M-1) messages in all instead of R. Large vectors
 * take reduce_scatter + allgatherv, which spread the additions over the ranks. */
#include "comm/collectives.h"

#include "base/size.h"

static int max_node_size(const struct mt_topology *topology)
{
    int size = 0;
    for (int node = 0; node < topology->n_node; ++node) {
        const int candidate = mt_topology_node_size(topology, node);
        size = candidate > size ? candidate : size;
    }
    return size;
}

/* Round 0: the node's sum arises in its leader's RECV, members in rank order. */
static void plan_node_sum(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                          int64_t n_bytes)
{
    const int node = topology->node[rank];
    const int *member = &topology->member[topology->node_start[node]];
    const int n_member = mt_topology_node_size(topology, node);
    const struct mt_place sum = {MT_BUFFER_RECV, 0};
    if (rank != member[0]) {
        mt_plan_send(plan, 0, member[0], MT_BUFFER_SEND, 0, n_bytes);
        return;
    }
    for (int i = 1; i < n_member; ++i) {
        mt_plan_recv(plan, 0, member[i], MT_BUFFER_STAGE, (i - 1) * n_bytes, n_bytes);
    }
    mt_plan_copy(plan, 0, sum, (struct mt_place){MT_BUFFER_SEND, 0}, n_bytes);
    for (int i = 1; i < n_member; ++i) {
        const struct mt_place staged = {MT_BUFFER_STAGE, (i - 1) * n_bytes};
        mt_plan_add(plan, 0, sum, staged, n_bytes);
    }
}

/* Round 1: STAGE of every leader holds the node sums in node order and adds them up in the
 * first. */
static void plan_leader_exchange(struct mt_plan *plan, const struct mt_topology *topology, int node,
                                 int64_t n_bytes)
{
    const int n_node = topology->n_node;
    const struct mt_place total = {MT_BUFFER_STAGE, 0};
    for (int i = 1; i < n_node; ++i) {
        const int source = (node - i + n_node) % n_node;
        mt_plan_recv(plan, 1, mt_topology_leader(topology, source), MT_BUFFER_STAGE,
                     source * n_bytes, n_bytes);
    }
    for (int i = 1; i < n_node; ++i) {
        mt_plan_send(plan, 1, mt_topology_leader(topology, (node + i) % n_node), MT_BUFFER_RECV, 0,
                     n_bytes);
    }
    mt_plan_copy(plan, 1, (struct mt_place){MT_BUFFER_STAGE, node * n_bytes},
                 (struct mt_place){MT_BUFFER_RECV, 0}, n_bytes);
    for (int other = 1; other < n_node; ++other) {
        mt_plan_add(plan, 1, total, (struct mt_place){MT_BUFFER_STAGE, other * n_bytes}, n_bytes);
    }
}

void mt_plan_allreduce(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                       int64_t n_bytes, enum mt_element element)
{
    const int node = topology->node[rank];
    const int leader = mt_topology_leader(topology, node);
    const bool is_two_level = topology->n_node > 1;
    const int last_round = is_two_level ? 2 : 1;
    mt_plan_reset(plan, "allreduce", element);
    plan_node_sum(plan, topology, rank, n_bytes);
    if (rank != leader) {
        mt_plan_recv(plan, last_round, leader, MT_BUFFER_RECV, 0, n_bytes);
        return;
    }
    if (is_two_level) {
        plan_leader_exchange(plan, topology, node, n_bytes);
    }
    const int total = is_two_level ? MT_BUFFER_STAGE : MT_BUFFER_RECV;
    for (int i = 1; i < mt_topology_node_size(topology, node); ++i) {
        mt_plan_send(plan, last_round, topology->member[topology->node_start[node] + i], total, 0,
                     n_bytes);
    }
    if (is_two_level) {
        mt_plan_copy(plan, last_round, (struct mt_place){MT_BUFFER_RECV, 0},
                     (struct mt_place){MT_BUFFER_STAGE, 0}, n_bytes);
    }
}

int64_t mt_plan_allreduce_max_op(const struct mt_topology *topology)
{
    /* A leader: receive, add, send for each member; send, receive, add for each node; 3 copies. */
    return 3 * (int64_t)(max_node_size(topology) - 1) + 3 * (int64_t)(topology->n_node - 1) + 3;
}

int64_t mt_plan_allreduce_stage_bytes(const struct mt_topology *topology, int64_t n_bytes)
{
    const int64_t n_slot_node = max_node_size(topology) - 1;
    const int64_t n_slot_leader = topology->n_node > 1 ? topology->n_node : 0;
    return mt_max_i64(n_slot_node, n_slot_leader) * n_bytes;
}
