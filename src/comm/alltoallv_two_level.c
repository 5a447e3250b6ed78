/* All-to-all in two levels: inside the node to the rank that shares the target's local index, then
 * along the rail between ranks of that index.
 *
 *     node 0: ranks 0 1      round 1   0: [03] --> 1         1: [12] --> 0
 *     node 1: ranks 2 3                2: [21] --> 3         3: [30] --> 2
 *                            round 3   0: [02|12] --> 2      1: [03|13] --> 3
 *     block st: s to t                 2: [20|30] --> 0      3: [21|31] --> 1
 *                                      blocks inside a node: straight to their targets
 *
 * Rounds: 4; 0 packs and 2 sorts blocks by target, copies alone; 1 is inside nodes, 3 between them.
 * A target in another node gets one message from that node with the blocks of all its ranks (more
 * where the node's ranks are not consecutive: one a run, so that each lands where it belongs).
 * Where nodes are uneven, local index j of another node's rank is served by j modulo this node's
 * size.
 * Cost of a rank, k ranks a node, M nodes, n bytes sent to other nodes: (k-1) alpha + n beta inside
 * the node, (M-1) alpha + n beta between nodes, where direct takes (R-k) alpha + n beta between
 * nodes: as many bytes there, k times fewer and larger messages, every byte once more inside.
 * Wins where the alphas between nodes that are saved, (R-k) - (M-1), outweigh the way inside: with
 * b bytes a pair and links inside nodes much faster, where b < about alpha / beta.
 *
 * STAGE of a rank: pack (what it hands to others) or rail (what its node sends along its rail),
 * which do not live at the same time, then what the others of its node handed to it. */
#include "comm/collectives.h"
#include "comm/exchange.h"

#include "base/size.h"

enum { ROUND_PACK, ROUND_NODE, ROUND_SORT, ROUND_RAIL };

/* One rank's view. */
struct view {
    const struct mt_topology *topology;
    const int64_t *bytes; /* [R,R] */
    int rank, node, n_member;
    const int *member;
};

static struct view view_of(const struct mt_topology *topology, int rank, const int64_t *bytes)
{
    const int node = topology->node[rank];
    return (struct view){.topology = topology,
                         .bytes = bytes,
                         .rank = rank,
                         .node = node,
                         .n_member = mt_topology_node_size(topology, node),
                         .member = &topology->member[topology->node_start[node]]};
}

static int64_t block(const struct view *view, int source, int target)
{
    return view->bytes[(int64_t)source * view->topology->n_rank + target];
}

/* What `source` hands to `worker`, both of this node. */
static int64_t handed_bytes(const struct view *view, int source, int worker)
{
    int64_t sum = 0;
    for (int target = 0; target < view->topology->n_rank; ++target) {
        sum += mt_works_for(view->topology, worker, target) ? block(view, source, target) : 0;
    }
    return sum;
}

/* What the node sends to `target`. */
static int64_t rail_bytes(const struct view *view, int target)
{
    return mt_bytes_of_members(view->topology, view->bytes, view->node, view->n_member, target);
}

/* Other members in the order in which they are visited, i = 1 .. k - 1. */
static int member_after(const struct view *view, int i)
{
    return view->member[(view->topology->local[view->rank] + i) % view->n_member];
}

static int member_before(const struct view *view, int i)
{
    return view->member[(view->topology->local[view->rank] - i + view->n_member) % view->n_member];
}

static int64_t pack_bytes(const struct view *view)
{
    int64_t sum = 0;
    for (int i = 1; i < view->n_member; ++i) {
        sum += handed_bytes(view, view->rank, member_after(view, i));
    }
    return sum;
}

static int64_t all_rail_bytes(const struct view *view)
{
    int64_t sum = 0;
    for (int target = 0; target < view->topology->n_rank && view->n_member > 1; ++target) {
        sum += mt_works_for(view->topology, view->rank, target) ? rail_bytes(view, target) : 0;
    }
    return sum;
}

/* Where what others handed over begins in STAGE. */
static int64_t handed_offset(const struct view *view)
{
    return mt_max_i64(pack_bytes(view), all_rail_bytes(view));
}

static void plan_pack(struct mt_plan *plan, const struct view *view)
{
    struct mt_place to = {MT_BUFFER_STAGE, 0};
    for (int i = 1; i < view->n_member; ++i) {
        struct mt_place from = {MT_BUFFER_SEND, 0};
        for (int target = 0; target < view->topology->n_rank; ++target) {
            const int64_t n_bytes = block(view, view->rank, target);
            if (mt_works_for(view->topology, member_after(view, i), target)) {
                mt_plan_copy(plan, ROUND_PACK, to, from, n_bytes);
                to.offset_bytes += n_bytes;
            }
            from.offset_bytes += n_bytes;
        }
    }
}

static void plan_hand_over(struct mt_plan *plan, const struct view *view)
{
    int64_t offset = handed_offset(view);
    for (int i = 1; i < view->n_member; ++i) {
        const int64_t n_bytes = handed_bytes(view, member_before(view, i), view->rank);
        mt_plan_recv(plan, ROUND_NODE, member_before(view, i), MT_BUFFER_STAGE, offset, n_bytes);
        offset += n_bytes;
    }
    offset = 0;
    for (int i = 1; i < view->n_member; ++i) {
        const int64_t n_bytes = handed_bytes(view, view->rank, member_after(view, i));
        mt_plan_send(plan, ROUND_NODE, member_after(view, i), MT_BUFFER_STAGE, offset, n_bytes);
        offset += n_bytes;
    }
}

/* From (source, target) to (target, source): own blocks out of SEND, others' out of STAGE. */
static void plan_sort(struct mt_plan *plan, const struct view *view)
{
    int64_t handed = handed_offset(view);
    for (int i = 0; i < view->n_member && view->n_member > 1; ++i) {
        const int source = member_before(view, i);
        const int local = view->topology->local[source];
        int64_t rail = 0; /* of the target's blocks */
        int64_t sent = 0;
        for (int target = 0; target < view->topology->n_rank; ++target) {
            const int64_t n_bytes = block(view, source, target);
            if (mt_works_for(view->topology, view->rank, target)) {
                const struct mt_place to = {MT_BUFFER_STAGE,
                                            rail + mt_bytes_of_members(view->topology, view->bytes,
                                                                       view->node, local, target)};
                const struct mt_place own = {MT_BUFFER_SEND, sent};
                const struct mt_place other = {MT_BUFFER_STAGE, handed};
                mt_plan_copy(plan, ROUND_SORT, to, i == 0 ? own : other, n_bytes);
                rail += rail_bytes(view, target);
                handed += i == 0 ? 0 : n_bytes;
            }
            sent += n_bytes;
        }
    }
}

/* One message a run of members, from `offset` of the buffer. */
static void plan_rail_send(struct mt_plan *plan, const struct view *view, int target, int buffer,
                           int64_t offset)
{
    int end = 0;
    for (int first = 0; first < view->n_member; first = end) {
        int64_t n_bytes = 0;
        end = mt_member_run_end(view->topology, view->node, first);
        for (int i = first; i < end; ++i) {
            n_bytes += block(view, view->member[i], target);
        }
        mt_plan_send(plan, ROUND_RAIL, target, buffer, offset, n_bytes);
        offset += n_bytes;
    }
}

/* Targets in turn from the own rank on. */
static void plan_rail_sends(struct mt_plan *plan, const struct view *view)
{
    const int n_rank = view->topology->n_rank;
    int64_t rail = 0;
    for (int target = 0; target < view->rank; ++target) {
        rail += mt_works_for(view->topology, view->rank, target) ? rail_bytes(view, target) : 0;
    }
    for (int i = 1; i < n_rank; ++i) {
        const int target = (view->rank + i) % n_rank;
        rail = target == 0 ? 0 : rail;
        if (!mt_works_for(view->topology, view->rank, target)) {
            continue;
        }
        if (view->n_member == 1) {
            plan_rail_send(plan, view, target, MT_BUFFER_SEND,
                           mt_bytes_from(view->topology, view->bytes, view->rank, 0, target));
        } else {
            plan_rail_send(plan, view, target, MT_BUFFER_STAGE, rail);
        }
        rail += rail_bytes(view, target);
    }
}

static void plan_rail_recvs(struct mt_plan *plan, const struct view *view)
{
    const struct mt_topology *topology = view->topology;
    for (int i = 1; i < topology->n_node; ++i) {
        const int node = (view->node - i + topology->n_node) % topology->n_node;
        const int *member = &topology->member[topology->node_start[node]];
        int end = 0;
        for (int first = 0; first < mt_topology_node_size(topology, node); first = end) {
            end = mt_member_run_end(topology, node, first);
            mt_plan_recv(
                plan, ROUND_RAIL, mt_rail_rank(topology, view->rank, node), MT_BUFFER_RECV,
                mt_bytes_to(topology, view->bytes, view->rank, 0, member[first]),
                mt_bytes_to(topology, view->bytes, view->rank, member[first], member[end - 1] + 1));
        }
    }
}

void mt_plan_alltoallv_two_level(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                                 const int64_t *bytes)
{
    const struct view view = view_of(topology, rank, bytes);
    mt_plan_reset(plan, "alltoallv_two_level", MT_ELEMENT_BYTE);
    plan_pack(plan, &view);
    plan_hand_over(plan, &view);
    plan_sort(plan, &view);
    plan_rail_recvs(plan, &view);
    plan_rail_sends(plan, &view);
    mt_plan_inside(plan, topology, rank, ROUND_RAIL, bytes); /* beside what crosses nodes */
}

int64_t mt_plan_alltoallv_two_level_max_op(const struct mt_topology *topology, int rank)
{
    const int64_t n_member = mt_topology_node_size(topology, topology->node[rank]);
    const int64_t n_served = mt_rows_n_source(topology, rank);
    /* Packed blocks; handed over; sorted; sent in runs; received in runs; inside the node. */
    return 2 * (int64_t)topology->n_rank + 2 * n_member * n_served + 4 * (n_member - 1) + 1;
}

int64_t mt_plan_alltoallv_two_level_stage_bytes(const struct mt_topology *topology, int rank,
                                                const int64_t *bytes)
{
    const struct view view = view_of(topology, rank, bytes);
    int64_t n_bytes = handed_offset(&view);
    for (int i = 1; i < view.n_member; ++i) {
        n_bytes += handed_bytes(&view, member_before(&view, i), rank);
    }
    return n_bytes;
}

int64_t mt_plan_alltoallv_two_level_stage_bound(const struct mt_topology *topology, int rank,
                                                int64_t max_send_bytes, int64_t max_recv_bytes)
{
    const int64_t n_member = mt_topology_node_size(topology, topology->node[rank]);
    const int64_t arriving = mt_rows_n_source(topology, rank) * max_recv_bytes;
    const int64_t leaving = (topology->n_rank - n_member) * max_recv_bytes;
    if (n_member == 1) {
        return 0;
    }
    return mt_max_i64(mt_min_i64(max_send_bytes, leaving),
                      mt_min_i64(n_member * max_send_bytes, arriving)) +
           mt_min_i64((n_member - 1) * max_send_bytes, arriving);
}
