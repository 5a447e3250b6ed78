/* Routing: the decision who sends, and the lists that both ways of routing start from.
 *
 * Direct or relayed? A copy is received once, whatever the plan, so the busiest receiver is a floor
 * under any plan's time. Owners send everything themselves when the busiest of them sends at most
 * twice that floor (relays would gain less than they cost in rounds) and no chunk goes to a node
 * twice, or when there is little to send; else holders pass on. Numbers of messages decide, not
 * measured costs: chunks of a layer are equal, and the decision must be the same on all ranks.
 *
 * Greedy or in fixed order? Greedy is better, and its time grows with the square of the copies:
 * 3 ms for 4032 on 64 ranks, against 0.1 (2026-11-22). Above GREEDY_COPIES and four a rank the
 * order is fixed: most chunks go almost everywhere then, and owners are about equally busy anyway.
 */
#include "base/memory.h"
#include "base/size.h"
#include "comm/relay_internal.h"

#include <string.h>

enum { GREEDY_COPIES = 2048 };

enum mt_status mt_relay_create(const struct mt_topology *topology, int64_t max_chunk,
                               int64_t max_copy, int64_t worth_bytes, struct mt_relay **out)
{
    struct mt_relay *relay = NULL;
    enum mt_status status = MT_OK;
    const int64_t n_rank = topology->n_rank;
    *out = NULL;
    MT_TRY_GOTO(MT_ALLOCATE(relay, 1, "relays"));
    relay->topology = topology;
    relay->max_chunk = max_chunk;
    relay->max_copy = max_copy;
    relay->worth_bytes = worth_bytes;
    MT_TRY_GOTO(MT_ALLOCATE(relay->hop, max_copy, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->sorted, max_copy, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->round_start, max_copy + 1, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->wanting, max_copy, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->group, max_copy + max_chunk, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->group_start, max_chunk + 1, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->n_unreached, max_chunk, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->n_having, max_chunk, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->stock, max_copy + max_chunk, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->first_stock, n_rank, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->n_sent, n_rank, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->n_received, n_rank, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->n_got, n_rank, "relays"));
    MT_TRY_GOTO(MT_ALLOCATE(relay->node_count, topology->n_node, "relays"));
    *out = relay;
    return MT_OK;
cleanup:
    mt_relay_destroy(relay);
    return status;
}

void mt_relay_destroy(struct mt_relay *relay)
{
    if (relay == NULL) {
        return;
    }
    void *const blocks[] = {relay->sorted,     relay->round_start, relay->hop,
                            relay->wanting,    relay->group,       relay->group_start,
                            relay->stock,      relay->first_stock, relay->n_unreached,
                            relay->n_having,   relay->n_sent,      relay->n_received,
                            relay->node_count, relay->n_got};
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); ++i) {
        mt_memory_free(blocks[i]);
    }
    mt_memory_free(relay);
}

void mt_relay_zero_ports(struct mt_relay *relay)
{
    const size_t n_rank = (size_t)relay->topology->n_rank;
    memset(relay->n_sent, 0, n_rank * sizeof(*relay->n_sent));
    memset(relay->n_received, 0, n_rank * sizeof(*relay->n_received));
}

/* node_count [M] = ranks of each node that want the chunk; true when owners alone would send it to
 * some other node twice. */
static bool count_nodes(struct mt_relay *relay, const struct mt_sparse *sparse, int64_t chunk)
{
    const int *node = relay->topology->node;
    const int home = node[sparse->owner[chunk]];
    bool is_twice = false;
    for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
        relay->node_count[node[sparse->holder[i]]] = 0;
    }
    relay->node_count[home] = 0;
    for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
        const int at = node[sparse->holder[i]];
        is_twice = ++relay->node_count[at] > 1 && at != home ? true : is_twice;
    }
    return is_twice;
}

static bool is_direct_enough(struct mt_relay *relay, const struct mt_sparse *sparse)
{
    bool is_twice = false;
    int64_t largest = 0;
    int most_sent = 0;
    int most_received = 0;
    mt_relay_zero_ports(relay);
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->chunk_bytes[chunk] == 0) {
            continue;
        }
        largest = mt_max_i64(largest, sparse->chunk_bytes[chunk]);
        is_twice = count_nodes(relay, sparse, chunk) || is_twice;
        for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
            const int n_sent = ++relay->n_sent[sparse->owner[chunk]];
            const int n_received = ++relay->n_received[sparse->holder[i]];
            most_sent = n_sent > most_sent ? n_sent : most_sent;
            most_received = n_received > most_received ? n_received : most_received;
        }
    }
    return most_sent * largest < relay->worth_bytes ||
           (!is_twice && most_sent <= 2 * most_received);
}

void mt_relay_add_stock(struct mt_relay *relay, int rank, int chunk, int64_t group)
{
    relay->stock[relay->n_stock] =
        (struct stock){.chunk = chunk, .group = group, .next = relay->first_stock[rank]};
    relay->first_stock[rank] = relay->n_stock++;
}

/* Groups of a chunk: the owner's node first, then the others by their first rank. Afterwards
 * node_count [M] has each node's group. */
static void group_holders(struct mt_relay *relay, const struct mt_sparse *sparse, int64_t chunk,
                          int64_t *n_group, int64_t *n_wanting)
{
    const int *node = relay->topology->node;
    const int home = node[sparse->owner[chunk]];
    const int64_t end = sparse->holder_start[chunk + 1];
    (void)count_nodes(relay, sparse, chunk);
    relay->group[*n_group] =
        (struct group){.node = home, .is_reached = true, .start = *n_wanting, .n_wants = 0};
    *n_wanting += relay->is_direct ? end - sparse->holder_start[chunk] : relay->node_count[home];
    relay->node_count[home] = -1 - *n_group; /* below zero: has its group */
    ++*n_group;
    for (int64_t i = sparse->holder_start[chunk]; i < end; ++i) {
        const int at = relay->is_direct ? home : node[sparse->holder[i]];
        if (relay->node_count[at] >= 0) {
            relay->group[*n_group] = (struct group){.node = at, .start = *n_wanting};
            *n_wanting += relay->node_count[at];
            relay->node_count[at] = -1 - *n_group;
            ++*n_group;
        }
        struct group *group = &relay->group[-1 - relay->node_count[at]];
        relay->wanting[group->start + group->n_wants++] = sparse->holder[i];
    }
}

/* Returns the number of copies to route. */
static int64_t prepare(struct mt_relay *relay, const struct mt_sparse *sparse)
{
    int64_t n_group = 0;
    int64_t n_wanting = 0;
    MT_ASSERT(sparse->n_chunk <= relay->max_chunk);
    MT_ASSERT(sparse->holder_start[sparse->n_chunk] <= relay->max_copy);
    relay->n_hop = 0;
    relay->n_stock = 0;
    for (int rank = 0; rank < relay->topology->n_rank; ++rank) {
        relay->first_stock[rank] = -1;
        relay->n_got[rank] = 0;
    }
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        relay->group_start[chunk] = n_group;
        const int64_t n_holder = sparse->holder_start[chunk + 1] - sparse->holder_start[chunk];
        if (sparse->chunk_bytes[chunk] > 0 && n_holder > 0) {
            mt_relay_add_stock(relay, sparse->owner[chunk], (int)chunk, n_group);
            group_holders(relay, sparse, chunk, &n_group, &n_wanting);
        }
        relay->group_start[chunk + 1] = n_group;
        relay->n_unreached[chunk] = mt_max_i64(0, n_group - relay->group_start[chunk] - 1);
        relay->n_having[chunk] = 1;
    }
    return n_wanting;
}

struct mt_route_list mt_relay_route(struct mt_relay *relay, const struct mt_sparse *sparse)
{
    relay->is_direct = is_direct_enough(relay, sparse);
    const int64_t n_copy = prepare(relay, sparse);
    const int64_t n_rank = relay->topology->n_rank;
    const bool is_greedy = n_copy <= mt_max_i64(GREEDY_COPIES, 4 * n_rank);
    const int n_round =
        is_greedy ? mt_relay_route_greedy(relay, n_copy) : mt_relay_route_fixed(relay, sparse);
    MT_ASSERT(relay->n_hop == n_copy);
    return (struct mt_route_list){.is_direct = relay->is_direct,
                                  .is_deep = is_greedy && !relay->is_direct,
                                  .n_round = n_round,
                                  .n_hop = relay->n_hop,
                                  .hop = relay->hop};
}
