/* All-to-all through leaders: gathered at the node's leader, exchanged between leaders, scattered.
 *
 *     node 0: ranks 0 1      round 0   1: [12|13] --> 0             3: [30|31] --> 2
 *     node 1: ranks 2 3      round 2   0: [02 12|03 13] --> 2       2: [20 30|21 31] --> 0
 *     block st: s to t       round 4   0: [21|31] --> 1             2: [03|13] --> 3
 *                                      blocks inside a node: straight to their targets, round 2
 *
 * Rounds: 5; 1 and 3 sort blocks by target, copies alone; 2 is between nodes, 0 and 4 inside.
 * Messages are cut where ranks are not consecutive, so that each lands where it belongs.
 * Cost of a leader, k ranks a node, M nodes, n bytes that a rank sends to other nodes: 2 (k-1)
 * (alpha + n beta) inside the node, (M-1) alpha + k n beta between nodes. Fewest messages between
 * nodes of all, M (M-1), but a node's bytes leave and enter through one rank. Wins where blocks are
 * tiny and a node's ranks share one port, so that k (M-1) messages of the two-level exchange wait
 * for each other there; never by bytes.
 *
 * STAGE of a leader: what arrived last (from its node, then from the other leaders), then what it
 * sorted (for the other leaders, then for its node). Other ranks need none. */
#include "comm/collectives.h"
#include "comm/exchange.h"

#include "base/size.h"

enum { ROUND_GATHER, ROUND_SORT_OUT, ROUND_LEADERS, ROUND_SORT_IN, ROUND_SCATTER };

/* One node's view. */
struct view {
    const struct mt_topology *topology;
    const int64_t *bytes; /* [R,R] */
    int rank, node, n_member;
    const int *member; /* the leader first */
    int64_t sorted;    /* where sorted blocks begin in STAGE, on the leader */
};

static int64_t leaving(const struct view *view, int source)
{
    return mt_bytes_leaving(view->topology, view->bytes, source, 0, view->topology->n_rank);
}

static int64_t entering(const struct view *view, int target, int from, int to)
{
    return mt_bytes_to_from_outside(view->topology, view->bytes, target, view->node, from, to);
}

/* What the leader holds at most: arrived, and sorted. */
static int64_t arrived_bytes(const struct view *view)
{
    int64_t gathered = 0;
    int64_t exchanged = 0;
    for (int i = 0; i < view->n_member; ++i) {
        gathered += i > 0 ? leaving(view, view->member[i]) : 0;
        exchanged += entering(view, view->member[i], 0, view->topology->n_rank);
    }
    return mt_max_i64(gathered, exchanged);
}

static int64_t sorted_bytes(const struct view *view)
{
    int64_t out = 0;
    int64_t in = 0;
    for (int i = 0; i < view->n_member; ++i) {
        out += leaving(view, view->member[i]);
        in += i > 0 ? entering(view, view->member[i], 0, view->topology->n_rank) : 0;
    }
    return mt_max_i64(out, in);
}

static struct view view_of(const struct mt_topology *topology, int rank, const int64_t *bytes)
{
    const int node = topology->node[rank];
    struct view view = {.topology = topology,
                        .bytes = bytes,
                        .rank = rank,
                        .node = node,
                        .n_member = mt_topology_node_size(topology, node),
                        .member = &topology->member[topology->node_start[node]]};
    view.sorted = bytes != NULL && rank == view.member[0] ? arrived_bytes(&view) : 0;
    return view;
}

static int64_t block(const struct view *view, int source, int target)
{
    return view->bytes[(int64_t)source * view->topology->n_rank + target];
}

/* A member's blocks for other nodes, a message a run of targets: sent from SEND, where the blocks
 * inside the node lie between the runs, or received one after another from `offset` of STAGE on. */
static void plan_gather(struct mt_plan *plan, const struct view *view, int source, int64_t offset)
{
    const struct mt_topology *topology = view->topology;
    int end = 0;
    for (int first = mt_outside_from(topology, view->node, 0); first < topology->n_rank;
         first = mt_outside_from(topology, view->node, end)) {
        end = mt_outside_run_end(topology, view->node, first);
        const int64_t n_bytes = mt_bytes_from(topology, view->bytes, source, first, end);
        if (source == view->rank) {
            mt_plan_send(plan, ROUND_GATHER, view->member[0], MT_BUFFER_SEND,
                         mt_bytes_from(topology, view->bytes, source, 0, first), n_bytes);
        } else {
            mt_plan_recv(plan, ROUND_GATHER, source, MT_BUFFER_STAGE, offset, n_bytes);
        }
        offset += n_bytes;
    }
}

/* From (source, target) to (target, source): own blocks out of SEND, others' out of STAGE. */
static void plan_sort_out(struct mt_plan *plan, const struct view *view)
{
    const struct mt_topology *topology = view->topology;
    int64_t gathered = 0;
    for (int i = 0; i < view->n_member; ++i) {
        int64_t to = view->sorted;
        int64_t sent = 0;
        for (int target = 0; target < topology->n_rank; ++target) {
            const int64_t n_bytes = block(view, view->member[i], target);
            if (topology->node[target] != view->node) {
                const int64_t before =
                    mt_bytes_of_members(topology, view->bytes, view->node, i, target);
                mt_plan_copy(plan, ROUND_SORT_OUT, (struct mt_place){MT_BUFFER_STAGE, to + before},
                             i == 0 ? (struct mt_place){MT_BUFFER_SEND, sent}
                                    : (struct mt_place){MT_BUFFER_STAGE, gathered},
                             n_bytes);
                to +=
                    mt_bytes_of_members(topology, view->bytes, view->node, view->n_member, target);
                gathered += i > 0 ? n_bytes : 0;
            }
            sent += n_bytes;
        }
    }
}

/* What this node has for ranks [first, end) of others. */
static int64_t node_bytes(const struct view *view, int first, int end)
{
    int64_t sum = 0;
    for (int target = first; target < end; ++target) {
        sum += view->topology->node[target] == view->node
                   ? 0
                   : mt_bytes_of_members(view->topology, view->bytes, view->node, view->n_member,
                                         target);
    }
    return sum;
}

/* Sorted blocks lie by target: a message a run of the other node's ranks. */
static void plan_leader_sends(struct mt_plan *plan, const struct view *view, int node)
{
    const struct mt_topology *topology = view->topology;
    const int *member = &topology->member[topology->node_start[node]];
    int end = 0;
    for (int first = 0; first < mt_topology_node_size(topology, node); first = end) {
        end = mt_member_run_end(topology, node, first);
        mt_plan_send(plan, ROUND_LEADERS, member[0], MT_BUFFER_STAGE,
                     view->sorted + node_bytes(view, 0, member[first]),
                     node_bytes(view, member[first], member[end - 1] + 1));
    }
}

/* What the ranks of `node` have for members [first, end) of this one. */
static int64_t bytes_from_node(const struct view *view, int node, int first, int end)
{
    int64_t sum = 0;
    for (int i = first; i < end; ++i) {
        sum += mt_bytes_of_members(view->topology, view->bytes, node,
                                   mt_topology_node_size(view->topology, node), view->member[i]);
    }
    return sum;
}

static void plan_leader_recvs(struct mt_plan *plan, const struct view *view)
{
    const struct mt_topology *topology = view->topology;
    int64_t offset = 0;
    for (int node = 0; node < topology->n_node; ++node) {
        int end = 0;
        for (int first = 0; first < view->n_member && node != view->node; first = end) {
            end = mt_member_run_end(topology, view->node, first);
            const int64_t n_bytes = bytes_from_node(view, node, first, end);
            mt_plan_recv(plan, ROUND_LEADERS, mt_topology_leader(topology, node), MT_BUFFER_STAGE,
                         offset, n_bytes);
            offset += n_bytes;
        }
    }
}

/* The blocks of one other node for one member, which lie by source from `from` on, to their places
 * among the member's other blocks: its RECV on the leader, else what is scattered. */
static void plan_sort_node(struct mt_plan *plan, const struct view *view, int node, int target,
                           int64_t from, int64_t to)
{
    const struct mt_topology *topology = view->topology;
    const bool is_own = target == view->rank;
    int previous = 0;
    for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
        const int source = topology->member[i];
        const int64_t n_bytes = block(view, source, target);
        to += is_own ? mt_bytes_to(topology, view->bytes, target, previous, source)
                     : entering(view, target, previous, source);
        mt_plan_copy(plan, ROUND_SORT_IN,
                     (struct mt_place){is_own ? MT_BUFFER_RECV : MT_BUFFER_STAGE, to},
                     (struct mt_place){MT_BUFFER_STAGE, from}, n_bytes);
        from += n_bytes;
        previous = source;
    }
}

static void plan_sort_in(struct mt_plan *plan, const struct view *view)
{
    const struct mt_topology *topology = view->topology;
    int64_t from = 0;
    for (int node = 0; node < topology->n_node; ++node) {
        int64_t to = view->sorted;
        for (int i = 0; i < view->n_member && node != view->node; ++i) {
            const int target = view->member[i];
            plan_sort_node(plan, view, node, target, from, target == view->rank ? 0 : to);
            from += bytes_from_node(view, node, i, i + 1);
            to += target == view->rank ? 0 : entering(view, target, 0, topology->n_rank);
        }
    }
}

/* The mirror image of gather. */
static void plan_scatter(struct mt_plan *plan, const struct view *view, int target, int64_t offset)
{
    const struct mt_topology *topology = view->topology;
    int end = 0;
    for (int first = mt_outside_from(topology, view->node, 0); first < topology->n_rank;
         first = mt_outside_from(topology, view->node, end)) {
        end = mt_outside_run_end(topology, view->node, first);
        const int64_t n_bytes = mt_bytes_to(topology, view->bytes, target, first, end);
        if (target == view->rank) {
            mt_plan_recv(plan, ROUND_SCATTER, view->member[0], MT_BUFFER_RECV,
                         mt_bytes_to(topology, view->bytes, target, 0, first), n_bytes);
        } else {
            mt_plan_send(plan, ROUND_SCATTER, target, MT_BUFFER_STAGE, offset, n_bytes);
        }
        offset += n_bytes;
    }
}

static void plan_of_leader(struct mt_plan *plan, const struct view *view)
{
    const struct mt_topology *topology = view->topology;
    int64_t offset = 0;
    for (int i = 1; i < view->n_member; ++i) {
        plan_gather(plan, view, view->member[i], offset);
        offset += leaving(view, view->member[i]);
    }
    plan_sort_out(plan, view);
    plan_leader_recvs(plan, view);
    for (int i = 1; i < topology->n_node; ++i) {
        plan_leader_sends(plan, view, (view->node + i) % topology->n_node);
    }
    mt_plan_inside(plan, topology, view->rank, ROUND_LEADERS, view->bytes);
    plan_sort_in(plan, view);
    offset = view->sorted;
    for (int i = 1; i < view->n_member; ++i) {
        plan_scatter(plan, view, view->member[i], offset);
        offset += entering(view, view->member[i], 0, topology->n_rank);
    }
}

void mt_plan_alltoallv_leader(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                              const int64_t *bytes)
{
    const struct view view = view_of(topology, rank, bytes);
    mt_plan_reset(plan, "alltoallv_leader", MT_ELEMENT_BYTE);
    if (rank == view.member[0]) {
        plan_of_leader(plan, &view);
        return;
    }
    plan_gather(plan, &view, rank, 0);
    mt_plan_inside(plan, topology, rank, ROUND_LEADERS, bytes);
    plan_scatter(plan, &view, rank, 0);
}

int64_t mt_plan_alltoallv_leader_max_op(const struct mt_topology *topology, int rank)
{
    const struct view view = view_of(topology, rank, NULL);
    const int64_t n_outside = topology->n_rank - view.n_member;
    const int64_t inside = 2 * (int64_t)(view.n_member - 1) + 1;
    if (rank != view.member[0]) {
        return 2 * n_outside + inside;
    }
    /* Gathered and scattered in runs; sorted twice; runs to and from the other leaders. */
    return n_outside * 4 * view.n_member + n_outside + (int64_t)topology->n_node * view.n_member +
           inside;
}

int64_t mt_plan_alltoallv_leader_stage_bytes(const struct mt_topology *topology, int rank,
                                             const int64_t *bytes)
{
    const struct view view = view_of(topology, rank, bytes);
    return rank == view.member[0] ? view.sorted + sorted_bytes(&view) : 0;
}

int64_t mt_plan_alltoallv_leader_stage_bound(const struct mt_topology *topology, int rank,
                                             int64_t max_send_bytes, int64_t max_recv_bytes)
{
    const struct view view = view_of(topology, rank, NULL);
    const int64_t n = view.n_member;
    const int64_t outside = topology->n_rank - n;
    /* What leaves a node is what others receive, what enters it what others send. */
    const int64_t out = mt_min_i64(n * max_send_bytes, outside * max_recv_bytes);
    const int64_t in = mt_min_i64(n * max_recv_bytes, outside * max_send_bytes);
    if (rank != view.member[0]) {
        return 0;
    }
    return mt_max_i64(mt_min_i64((n - 1) * max_send_bytes, out), in) +
           mt_max_i64(out, mt_min_i64((n - 1) * max_recv_bytes, in));
}
