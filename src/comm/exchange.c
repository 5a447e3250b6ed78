#include "comm/exchange.h"

int64_t mt_bytes_to(const struct mt_topology *topology, const int64_t *bytes, int target, int from,
                    int to)
{
    int64_t sum = 0;
    for (int source = from; source < to; ++source) {
        sum += bytes[(int64_t)source * topology->n_rank + target];
    }
    return sum;
}

int64_t mt_bytes_to_from_outside(const struct mt_topology *topology, const int64_t *bytes,
                                 int target, int node, int from, int to)
{
    int64_t sum = 0;
    for (int source = from; source < to; ++source) {
        sum +=
            topology->node[source] != node ? bytes[(int64_t)source * topology->n_rank + target] : 0;
    }
    return sum;
}

int64_t mt_bytes_from(const struct mt_topology *topology, const int64_t *bytes, int source,
                      int from, int to)
{
    int64_t sum = 0;
    for (int target = from; target < to; ++target) {
        sum += bytes[(int64_t)source * topology->n_rank + target];
    }
    return sum;
}

int64_t mt_bytes_leaving(const struct mt_topology *topology, const int64_t *bytes, int source,
                         int from, int to)
{
    const int64_t *row = bytes + (int64_t)source * topology->n_rank;
    int64_t sum = 0;
    for (int target = from; target < to; ++target) {
        sum += topology->node[target] != topology->node[source] ? row[target] : 0;
    }
    return sum;
}

int64_t mt_bytes_to_node(const struct mt_topology *topology, const int64_t *bytes, int source,
                         int node)
{
    int64_t sum = 0;
    for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
        sum += bytes[(int64_t)source * topology->n_rank + topology->member[i]];
    }
    return sum;
}

int64_t mt_bytes_of_members(const struct mt_topology *topology, const int64_t *bytes, int node,
                            int n_member, int target)
{
    const int *member = &topology->member[topology->node_start[node]];
    int64_t sum = 0;
    for (int i = 0; i < n_member; ++i) {
        sum += bytes[(int64_t)member[i] * topology->n_rank + target];
    }
    return sum;
}

int mt_member_run_end(const struct mt_topology *topology, int node, int first)
{
    const int *member = &topology->member[topology->node_start[node]];
    const int n_member = mt_topology_node_size(topology, node);
    int end = first + 1;
    while (end < n_member && member[end] == member[end - 1] + 1) {
        ++end;
    }
    return end;
}

int mt_outside_from(const struct mt_topology *topology, int node, int rank)
{
    int first = rank;
    while (first < topology->n_rank && topology->node[first] == node) {
        ++first;
    }
    return first;
}

int mt_outside_run_end(const struct mt_topology *topology, int node, int first)
{
    int end = first;
    while (end < topology->n_rank && topology->node[end] != node) {
        ++end;
    }
    return end;
}

void mt_plan_inside(struct mt_plan *plan, const struct mt_topology *topology, int rank, int round,
                    const int64_t *bytes)
{
    const int node = topology->node[rank];
    const int *member = &topology->member[topology->node_start[node]];
    const int n_member = mt_topology_node_size(topology, node);
    const int n_rank = topology->n_rank;
    for (int i = 1; i < n_member; ++i) {
        const int source = member[(topology->local[rank] - i + n_member) % n_member];
        mt_plan_recv(plan, round, source, MT_BUFFER_RECV,
                     mt_bytes_to(topology, bytes, rank, 0, source),
                     bytes[(int64_t)source * n_rank + rank]);
    }
    for (int i = 1; i < n_member; ++i) {
        const int target = member[(topology->local[rank] + i) % n_member];
        mt_plan_send(plan, round, target, MT_BUFFER_SEND,
                     mt_bytes_from(topology, bytes, rank, 0, target),
                     bytes[(int64_t)rank * n_rank + target]);
    }
    const struct mt_place to = {MT_BUFFER_RECV, mt_bytes_to(topology, bytes, rank, 0, rank)};
    const struct mt_place from = {MT_BUFFER_SEND, mt_bytes_from(topology, bytes, rank, 0, rank)};
    mt_plan_copy(plan, round, to, from, bytes[(int64_t)rank * n_rank + rank]);
}

void mt_run_end(struct mt_plan *plan, int round, struct mt_run *run)
{
    mt_plan_copy(plan, round, run->to, run->from, run->n_bytes);
    run->n_bytes = 0;
}

void mt_run_copy(struct mt_plan *plan, int round, struct mt_run *run, struct mt_place to,
                 struct mt_place from, int64_t n_bytes)
{
    const bool is_next = run->n_bytes > 0 && run->to.buffer == to.buffer &&
                         run->from.buffer == from.buffer &&
                         run->to.offset_bytes + run->n_bytes == to.offset_bytes &&
                         run->from.offset_bytes + run->n_bytes == from.offset_bytes;
    if (!is_next) {
        mt_run_end(plan, round, run);
        *run = (struct mt_run){.to = to, .from = from};
    }
    run->n_bytes += n_bytes;
}
