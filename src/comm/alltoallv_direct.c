/* All-to-all, every block straight to its target.
 *
 *     rank 0:  [00|01|02]          [00|10|20]
 *     rank 1:  [10|11|12]   ---->  [01|11|21]       block st: from source s to target t
 *     rank 2:  [20|21|22]          [02|12|22]
 *
 * Rounds: 1. Cost of a rank: alpha + (sent bytes) beta; every byte crosses one link once.
 * Wins where messages are large, or where R is small: with blocks of S/R bytes the alphas dominate
 * when S/R < alpha/beta, and a two-level exchange then sends fewer, larger messages between
 * nodes.
 *
 * Sends go to the next node first, then to the one after it, and in each from the own local index
 * on: where nodes are even, in every instant each rank is the target of one other. In the order of
 * ranks alone those of a node would begin with the same target, and where each has a link of its
 * own the exchange of 4 nodes of 4 takes 1.22 times as long (tests/comm/clockwork.h). */
#include "comm/blocks.h"
#include "comm/collectives.h"

/* A walk over blocks that lie one after another. */
struct walk {
    const int64_t *block_bytes;
    int rank;
    int64_t offset; /* of its block */
};

static void send_to(struct mt_plan *plan, struct walk *walk, int target)
{
    while (walk->rank < target) {
        walk->offset += walk->block_bytes[walk->rank++];
    }
    while (walk->rank > target) {
        walk->offset -= walk->block_bytes[--walk->rank];
    }
    mt_plan_send(plan, 0, target, MT_BUFFER_SEND, walk->offset, walk->block_bytes[target]);
}

/* To other nodes, then to the others of the own. */
static void plan_sends(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                       const int64_t *send_bytes)
{
    struct walk walk = {.block_bytes = send_bytes};
    for (int i = 1; i <= topology->n_node; ++i) {
        const int node = (topology->node[rank] + i) % topology->n_node;
        const int *member = &topology->member[topology->node_start[node]];
        const int n_member = mt_topology_node_size(topology, node);
        for (int at = i == topology->n_node ? 1 : 0; at < n_member; ++at) {
            send_to(plan, &walk, member[(topology->local[rank] + at) % n_member]);
        }
    }
}

void mt_plan_alltoallv_direct(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                              const int64_t *send_bytes, const int64_t *recv_bytes)
{
    const int n_rank = topology->n_rank;
    MT_ASSERT(send_bytes[rank] == recv_bytes[rank]);
    mt_plan_reset(plan, "alltoallv", MT_ELEMENT_BYTE);
    mt_plan_recv_blocks(plan, n_rank, rank, recv_bytes);
    plan_sends(plan, topology, rank, send_bytes);
    const struct mt_place to = {MT_BUFFER_RECV, mt_blocks_before(recv_bytes, rank)};
    const struct mt_place from = {MT_BUFFER_SEND, mt_blocks_before(send_bytes, rank)};
    mt_plan_copy(plan, 0, to, from, send_bytes[rank]);
}

int64_t mt_plan_alltoallv_direct_max_op(int n_rank)
{
    return 2 * (int64_t)(n_rank - 1) + 1;
}
