#include "comm/rows.h"

#include "base/size.h"
#include "comm/exchange.h"

#include <string.h>

static int64_t rows(const struct mt_topology *topology, const int64_t *n_row, int source,
                    int target)
{
    return n_row[(int64_t)source * topology->n_rank + target];
}

int64_t mt_rows_n_sent(const struct mt_topology *topology, int rank, const int64_t *n_row)
{
    return mt_bytes_leaving(topology, n_row, rank, 0, topology->n_rank);
}

int64_t mt_rows_n_relayed(const struct mt_topology *topology, int rank, const int64_t *n_row)
{
    int64_t n = 0;
    for (int source = 0; source < topology->n_rank; ++source) {
        n += mt_works_for(topology, rank, source)
                 ? mt_bytes_to_node(topology, n_row, source, topology->node[rank])
                 : 0;
    }
    return n;
}

int mt_rows_n_source(const struct mt_topology *topology, int rank)
{
    int n = 0;
    for (int source = 0; source < topology->n_rank; ++source) {
        n += mt_works_for(topology, rank, source) ? 1 : 0;
    }
    return n;
}

/* Numbers of the rows for one node; seen: 0, or (node + 1, number) of the token's last row. */
static int64_t number_node(const struct mt_topology *topology, int rank, const int64_t *n_row,
                           int node, const int32_t *token, int64_t *seen, int32_t *sent)
{
    const int64_t stamp = (int64_t)(node + 1) << 32;
    int64_t n_unique = 0;
    int64_t n = 0;
    for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
        const int target = topology->member[i];
        const int32_t *own = token + mt_bytes_from(topology, n_row, rank, 0, target);
        for (int64_t row = 0; row < rows(topology, n_row, rank, target); ++row) {
            int64_t *last = &seen[own[row]];
            if (*last < stamp) {
                *last = stamp | n_unique;
                ++n_unique;
            }
            sent[n++] = (int32_t)(*last - stamp);
        }
    }
    return n;
}

void mt_rows_number(const struct mt_topology *topology, int rank, const int64_t *n_row,
                    const int32_t *token, int64_t n_token, int64_t *seen, int32_t *sent)
{
    int64_t n = 0;
    memset(seen, 0, (size_t)n_token * sizeof(*seen));
    for (int node = 0; node < topology->n_node; ++node) {
        if (node != topology->node[rank]) {
            n += number_node(topology, rank, n_row, node, token, seen, sent + n);
        }
    }
}

void mt_plan_row_numbers(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                         const int64_t *n_row, int64_t sent_bytes, int64_t relayed_bytes)
{
    const int64_t word = (int64_t)sizeof(int32_t);
    for (int source = 0; source < topology->n_rank; ++source) {
        if (mt_works_for(topology, rank, source)) {
            const int64_t n_bytes =
                word * mt_bytes_to_node(topology, n_row, source, topology->node[rank]);
            mt_plan_recv(plan, 0, source, MT_BUFFER_RECV, relayed_bytes, n_bytes);
            relayed_bytes += n_bytes;
        }
    }
    for (int node = 0; node < topology->n_node; ++node) {
        if (node != topology->node[rank]) {
            const int64_t n_bytes = word * mt_bytes_to_node(topology, n_row, rank, node);
            mt_plan_send(plan, 0, mt_rail_rank(topology, rank, node), MT_BUFFER_SEND, sent_bytes,
                         n_bytes);
            sent_bytes += n_bytes;
        }
    }
}

int64_t mt_plan_row_numbers_max_op(const struct mt_topology *topology, int rank)
{
    return mt_rows_n_source(topology, rank) + topology->n_node - 1;
}

int64_t mt_rows_n_unique(const int32_t *number, int64_t n)
{
    int64_t n_unique = 0;
    for (int64_t i = 0; i < n; ++i) {
        n_unique = mt_max_i64(n_unique, number[i] + 1);
    }
    return n_unique;
}

int64_t mt_rows_relayed_bound(const struct mt_topology *topology, int rank, int64_t max_send,
                              int64_t max_recv)
{
    const int64_t n_member = mt_topology_node_size(topology, topology->node[rank]);
    return mt_min_i64(mt_rows_n_source(topology, rank) * max_send, n_member * max_recv);
}
