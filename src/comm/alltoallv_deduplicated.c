/* All-to-all of rows where a token's row goes once to a node, however many of its experts live
 * there; it is fanned out inside, and on the way back its rows are summed inside, so that per node
 * one partial sum crosses.
 *
 *     rank 0 has token a for experts on ranks 2, 3 and 3, token b for rank 3; nodes {0 1} {2 3}
 *
 *     to experts   round 1   0: [a b | 4 tails] ------------> 2          (rank 2 works for 0)
 *                  round 3                    2: [a a b] ---> 3          and keeps [a]
 *     to tokens    round 1                    3: [a' a'' b'] -> 2
 *                  round 3   0 <--- 2: [a+a'+a'' b' | 4 tails]           the sums of node {2 3}
 *                  round 4   0: RECV = [a+a'+a''] [0 0 b']               in the places of the rows
 *
 * What comes to the experts is what direct brings, to the bit. What comes back has a node's sum in
 * the place of the token's first row there and zeros in the places of the others: added up over a
 * token's rows it is what direct gives, in another order of additions (member, position).
 *
 * Rounds: 5, of which 0, 2 and 4 move rows within a rank. Cost of a rank, k ranks a node, M nodes,
 * n bytes to other nodes of which a share u is left (unique): (M-1) alpha + u n beta between nodes,
 * (k-1) alpha + n beta inside. u from M nodes and K choices of E experts, spread evenly, is
 *     (M-1) (1 - C(E - E/M, K) / C(E, K)) / (K (M-1) / M)       8 of 64 on 4 nodes: .46
 * Wins where beta between nodes counts and K is larger than the nodes a token can reach; the worse,
 * the more nodes there are, for then few of a token's experts share one. Ranks of other nodes must
 * know the rows' numbers first: one small message a pair of rails (rows.h).
 *
 * STAGE: a row of zeros, which the caller writes once; then two areas, each used twice:
 *     to experts   packed for nodes (0, 1), then fanned out (2, 3)  | from nodes (1, 2), from
 *                                                                     members (3, 4)
 *     to tokens    packed for members (0, 1), then sums (2, 3)      | from members (1, 2), from
 *                                                                     nodes (3, 4) */
#include "comm/collectives.h"
#include "comm/exchange.h"

#include "base/size.h"

enum { ROUND_PACK, ROUND_FIRST, ROUND_ROWS, ROUND_SECOND, ROUND_PLACE };

/* One rank's view. In either direction a block is named by (source, target) = (tokens, experts). */
struct view {
    const struct mt_topology *topology;
    const struct mt_rows *rows;
    int rank, node, n_member;
    const int *member;
    int64_t block_bytes; /* of one row, with its tail */
    bool is_back;        /* to tokens */
};

/* The rows of one source for one node, and their numbers. In STAGE: its unique rows, then the tails
 * of all. */
struct section {
    int source, node;
    const int32_t *number; /* [n_row] */
    int64_t n_row, n_unique;
    int64_t offset;        /* in STAGE */
    int64_t n_done, n_met; /* rows, and unique ones, of the blocks planned so far */
};

static struct view view_of(const struct mt_topology *topology, int rank, const struct mt_rows *rows,
                           bool is_back)
{
    const int node = topology->node[rank];
    return (struct view){.topology = topology,
                         .rows = rows,
                         .rank = rank,
                         .node = node,
                         .n_member = mt_topology_node_size(topology, node),
                         .member = &topology->member[topology->node_start[node]],
                         .block_bytes = rows->row_bytes + rows->tail_bytes,
                         .is_back = is_back};
}

static int64_t n_row(const struct view *view, int source, int target)
{
    return view->rows->n_row[(int64_t)source * view->topology->n_rank + target];
}

static int64_t n_row_of_node(const struct view *view, int source, int node)
{
    return mt_bytes_to_node(view->topology, view->rows->n_row, source, node);
}

static bool works_for(const struct view *view, int worker, int source)
{
    return mt_works_for(view->topology, worker, source);
}

/* This rank's rows for another node. */
static struct section section_to(const struct view *view, int node)
{
    int64_t before = 0;
    for (int other = 0; other < node; ++other) {
        before += other != view->node ? n_row_of_node(view, view->rank, other) : 0;
    }
    const int32_t *number = view->rows->sent + before;
    const int64_t n = n_row_of_node(view, view->rank, node);
    return (struct section){.source = view->rank,
                            .node = node,
                            .number = number,
                            .n_row = n,
                            .n_unique = mt_rows_n_unique(number, n)};
}

/* The first source from `from` on that this rank works for, or R; its rows follow those of the
 * section before. */
static struct section section_from(const struct view *view, const struct section *previous)
{
    struct section section = {.source = previous != NULL ? previous->source + 1 : 0,
                              .node = view->node,
                              .number = previous != NULL ? previous->number + previous->n_row
                                                         : view->rows->relayed};
    while (section.source < view->topology->n_rank &&
           !works_for(view, view->rank, section.source)) {
        ++section.source;
    }
    if (section.source < view->topology->n_rank) {
        section.n_row = n_row_of_node(view, section.source, view->node);
        section.n_unique = mt_rows_n_unique(section.number, section.n_row);
    }
    return section;
}

static int64_t section_bytes(const struct view *view, const struct section *section)
{
    return section->n_unique * view->rows->row_bytes + section->n_row * view->rows->tail_bytes;
}

/* The block of (source, target) in this rank's own buffer: SEND or RECV by direction. */
static struct mt_place own_block(const struct view *view, int source, int target)
{
    const struct mt_topology *topology = view->topology;
    const bool is_source = source == view->rank;
    const int64_t before = is_source ? mt_bytes_from(topology, view->rows->n_row, source, 0, target)
                                     : mt_bytes_to(topology, view->rows->n_row, target, 0, source);
    const int buffer = is_source != view->is_back ? MT_BUFFER_SEND : MT_BUFFER_RECV;
    return (struct mt_place){buffer, before * view->block_bytes};
}

/* The rank's rows for its own experts. */
static void plan_own(struct mt_plan *plan, const struct view *view)
{
    const struct mt_topology *topology = view->topology;
    const int64_t sent = mt_bytes_from(topology, view->rows->n_row, view->rank, 0, view->rank);
    const int64_t got = mt_bytes_to(topology, view->rows->n_row, view->rank, 0, view->rank);
    const struct mt_place send = {MT_BUFFER_SEND, (view->is_back ? got : sent) * view->block_bytes};
    const struct mt_place recv = {MT_BUFFER_RECV, (view->is_back ? sent : got) * view->block_bytes};
    mt_plan_copy(plan, ROUND_SECOND, recv, send,
                 n_row(view, view->rank, view->rank) * view->block_bytes);
}

/* Blocks inside the node go straight to their targets, beside what crosses nodes or is fanned
 * out. */
static void plan_inside(struct mt_plan *plan, const struct view *view)
{
    const int local = view->topology->local[view->rank];
    for (int i = 1; i < view->n_member; ++i) {
        const int peer = view->member[(local - i + view->n_member) % view->n_member];
        const int source = view->is_back ? view->rank : peer;
        const int target = view->is_back ? peer : view->rank;
        mt_plan_recv(plan, ROUND_SECOND, peer, MT_BUFFER_RECV,
                     own_block(view, source, target).offset_bytes,
                     n_row(view, source, target) * view->block_bytes);
    }
    for (int i = 1; i < view->n_member; ++i) {
        const int peer = view->member[(local + i) % view->n_member];
        const int source = view->is_back ? peer : view->rank;
        const int target = view->is_back ? view->rank : peer;
        mt_plan_send(plan, ROUND_SECOND, peer, MT_BUFFER_SEND,
                     own_block(view, source, target).offset_bytes,
                     n_row(view, source, target) * view->block_bytes);
    }
    plan_own(plan, view);
}

/* ---- areas of STAGE ---- */

/* Sections of this rank's own rows (out of the node), and of those that it works for. */
static int64_t packed_bytes(const struct view *view)
{
    int64_t n_bytes = 0;
    for (int node = 0; node < view->topology->n_node; ++node) {
        if (node != view->node) {
            const struct section section = section_to(view, node);
            n_bytes += section_bytes(view, &section);
        }
    }
    return n_bytes;
}

static int64_t relayed_bytes(const struct view *view)
{
    int64_t n_bytes = 0;
    for (struct section section = section_from(view, NULL); section.source < view->topology->n_rank;
         section = section_from(view, &section)) {
        n_bytes += section_bytes(view, &section);
    }
    return n_bytes;
}

/* Blocks between `worker`, for the sources that it works for, and the member `target`. */
static int64_t fan_bytes(const struct view *view, int worker, int target)
{
    int64_t n = 0;
    for (int source = 0; source < view->topology->n_rank; ++source) {
        n += works_for(view, worker, source) ? n_row(view, source, target) : 0;
    }
    return n * view->block_bytes;
}

/* Of this rank as a worker with its node, and as a member with the node's workers. */
static int64_t all_fan_bytes(const struct view *view, bool is_worker)
{
    int64_t n_bytes = 0;
    for (int i = 0; i < view->n_member; ++i) {
        const int other = view->member[i];
        if (other != view->rank) {
            n_bytes +=
                is_worker ? fan_bytes(view, view->rank, other) : fan_bytes(view, other, view->rank);
        }
    }
    return n_bytes;
}

/* Where the two areas begin. The second one holds what arrives. */
static int64_t first_area(const struct view *view)
{
    return view->rows->row_bytes;
}

static int64_t second_area(const struct view *view)
{
    return first_area(view) + (view->is_back
                                   ? mt_max_i64(all_fan_bytes(view, false), relayed_bytes(view))
                                   : mt_max_i64(packed_bytes(view), all_fan_bytes(view, true)));
}

static int64_t end_of_areas(const struct view *view)
{
    return second_area(view) + (view->is_back
                                    ? mt_max_i64(all_fan_bytes(view, true), packed_bytes(view))
                                    : mt_max_i64(relayed_bytes(view), all_fan_bytes(view, false)));
}

static struct mt_place behind(struct mt_place place, int64_t n_bytes)
{
    place.offset_bytes += n_bytes;
    return place;
}

/* What a block has to do with its section: the section's unique rows are taken out of the block
 * (PICK) or written to it (FAN), or the block's rows are summed into them (SUM), or they are placed
 * in the block, zeros where the same row comes again (PLACE). Tails follow, row by row. */
enum row_move { PICK, FAN, SUM, PLACE };

static const int round_of[] = {
    [PICK] = ROUND_PACK, [FAN] = ROUND_ROWS, [SUM] = ROUND_ROWS, [PLACE] = ROUND_PLACE};

/* The section's next block, of n rows, that stands at `block`. */
static void plan_rows(struct mt_plan *plan, const struct view *view, enum row_move move,
                      struct section *section, struct mt_place block, int64_t n)
{
    const int64_t row_bytes = view->rows->row_bytes;
    const int32_t *number = section->number + section->n_done;
    const struct mt_place zeros = {MT_BUFFER_STAGE, 0};
    struct mt_run run = {.n_bytes = 0};
    for (int64_t i = 0; i < n; ++i) {
        const bool is_first = number[i] == section->n_met;
        const struct mt_place shared = {MT_BUFFER_STAGE, section->offset + number[i] * row_bytes};
        const struct mt_place own = behind(block, i * row_bytes);
        section->n_met += is_first ? 1 : 0;
        if (move == FAN || (move == PLACE && is_first)) {
            mt_run_copy(plan, round_of[move], &run, own, shared, row_bytes);
        } else if (move == PLACE) {
            mt_run_copy(plan, round_of[move], &run, own, zeros, row_bytes);
        } else if (is_first) {
            mt_run_copy(plan, round_of[move], &run, shared, own, row_bytes);
        } else if (move == SUM) {
            mt_plan_add(plan, round_of[move], shared, own, row_bytes);
        }
    }
    mt_run_end(plan, round_of[move], &run);
}

static void plan_block(struct mt_plan *plan, const struct view *view, enum row_move move,
                       struct section *section, struct mt_place block, int64_t n)
{
    const int64_t tail_bytes = view->rows->tail_bytes;
    const struct mt_place shared = {MT_BUFFER_STAGE, section->offset +
                                                         section->n_unique * view->rows->row_bytes +
                                                         section->n_done * tail_bytes};
    const struct mt_place own = behind(block, n * view->rows->row_bytes);
    const bool is_to_block = move == FAN || move == PLACE;
    plan_rows(plan, view, move, section, block, n);
    mt_plan_copy(plan, round_of[move], is_to_block ? own : shared, is_to_block ? shared : own,
                 n * tail_bytes);
    section->n_done += n;
}

/* ---- this rank as a source: its sections, from `offset` of STAGE on ---- */

static void plan_source_rows(struct mt_plan *plan, const struct view *view, int64_t offset)
{
    const struct mt_topology *topology = view->topology;
    for (int node = 0; node < topology->n_node; ++node) {
        if (node == view->node) {
            continue;
        }
        struct section section = section_to(view, node);
        section.offset = offset;
        for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
            const int target = topology->member[i];
            plan_block(plan, view, view->is_back ? PLACE : PICK, &section,
                       own_block(view, view->rank, target), n_row(view, view->rank, target));
        }
        offset += section_bytes(view, &section);
    }
}

static void plan_source_messages(struct mt_plan *plan, const struct view *view, int64_t offset)
{
    for (int node = 0; node < view->topology->n_node; ++node) {
        if (node == view->node) {
            continue;
        }
        const struct section section = section_to(view, node);
        const int worker = mt_rail_rank(view->topology, view->rank, node);
        const int64_t n_bytes = section_bytes(view, &section);
        if (view->is_back) {
            mt_plan_recv(plan, ROUND_SECOND, worker, MT_BUFFER_STAGE, offset, n_bytes);
        } else {
            mt_plan_send(plan, ROUND_FIRST, worker, MT_BUFFER_STAGE, offset, n_bytes);
        }
        offset += n_bytes;
    }
}

/* ---- this rank as a worker: sections, and blocks of its node's other members ---- */

/* Block (source, target) among those that this worker has for (or from) its node: by member, then
 * by source. */
static int64_t fan_offset(const struct view *view, int source, int target)
{
    int64_t n_bytes = 0;
    for (int i = 0; view->member[i] != target; ++i) {
        n_bytes += view->member[i] != view->rank ? fan_bytes(view, view->rank, view->member[i]) : 0;
    }
    for (int other = 0; other < source; ++other) {
        n_bytes +=
            works_for(view, view->rank, other) ? n_row(view, other, target) * view->block_bytes : 0;
    }
    return n_bytes;
}

static void plan_worker_rows(struct mt_plan *plan, const struct view *view, int64_t offset,
                             int64_t fan)
{
    for (struct section section = section_from(view, NULL); section.source < view->topology->n_rank;
         section = section_from(view, &section)) {
        section.offset = offset;
        for (int i = 0; i < view->n_member; ++i) {
            const int target = view->member[i];
            const struct mt_place other = {MT_BUFFER_STAGE,
                                           fan + fan_offset(view, section.source, target)};
            plan_block(plan, view, view->is_back ? SUM : FAN, &section,
                       target == view->rank ? own_block(view, section.source, target) : other,
                       n_row(view, section.source, target));
        }
        offset += section_bytes(view, &section);
    }
}

static void plan_worker_messages(struct mt_plan *plan, const struct view *view, int64_t offset)
{
    for (struct section section = section_from(view, NULL); section.source < view->topology->n_rank;
         section = section_from(view, &section)) {
        const int64_t n_bytes = section_bytes(view, &section);
        if (view->is_back) {
            mt_plan_send(plan, ROUND_SECOND, section.source, MT_BUFFER_STAGE, offset, n_bytes);
        } else {
            mt_plan_recv(plan, ROUND_FIRST, section.source, MT_BUFFER_STAGE, offset, n_bytes);
        }
        offset += n_bytes;
    }
}

/* Between workers and the other members of their node; is_worker: this rank's end as a worker. */
static void plan_fan_messages(struct mt_plan *plan, const struct view *view, bool is_worker,
                              int64_t offset)
{
    const bool is_sent = is_worker != view->is_back;
    const int round = view->is_back ? ROUND_FIRST : ROUND_SECOND;
    for (int i = 0; i < view->n_member; ++i) {
        const int other = view->member[i];
        const int64_t n_bytes = other == view->rank ? 0
                                : is_worker         ? fan_bytes(view, view->rank, other)
                                                    : fan_bytes(view, other, view->rank);
        if (is_sent) {
            mt_plan_send(plan, round, other, MT_BUFFER_STAGE, offset, n_bytes);
        } else {
            mt_plan_recv(plan, round, other, MT_BUFFER_STAGE, offset, n_bytes);
        }
        offset += n_bytes;
    }
}

/* ---- this rank as a target: blocks that other members work for ---- */

static void plan_target_blocks(struct mt_plan *plan, const struct view *view, int64_t offset)
{
    for (int i = 0; i < view->n_member; ++i) {
        for (int source = 0; source < view->topology->n_rank; ++source) {
            if (view->member[i] == view->rank || !works_for(view, view->member[i], source)) {
                continue;
            }
            const struct mt_place staged = {MT_BUFFER_STAGE, offset};
            const struct mt_place own = own_block(view, source, view->rank);
            const int64_t n_bytes = n_row(view, source, view->rank) * view->block_bytes;
            if (view->is_back) {
                mt_plan_copy(plan, ROUND_PACK, staged, own, n_bytes);
            } else {
                mt_plan_copy(plan, ROUND_PLACE, own, staged, n_bytes);
            }
            offset += n_bytes;
        }
    }
}

static void plan_to_experts(struct mt_plan *plan, const struct view *view)
{
    const int64_t first = first_area(view);
    const int64_t second = second_area(view);
    plan_source_rows(plan, view, first);
    plan_worker_messages(plan, view, second);
    plan_source_messages(plan, view, first);
    plan_worker_rows(plan, view, second, first);
    plan_fan_messages(plan, view, false, second);
    plan_fan_messages(plan, view, true, first);
    plan_inside(plan, view);
    plan_target_blocks(plan, view, second);
}

static void plan_to_tokens(struct mt_plan *plan, const struct view *view)
{
    const int64_t first = first_area(view);
    const int64_t second = second_area(view);
    plan_target_blocks(plan, view, first);
    plan_fan_messages(plan, view, true, second);
    plan_fan_messages(plan, view, false, first);
    plan_worker_rows(plan, view, first, second);
    plan_source_messages(plan, view, second);
    plan_worker_messages(plan, view, first);
    plan_inside(plan, view);
    plan_source_rows(plan, view, second);
}

void mt_plan_alltoallv_deduplicated(struct mt_plan *plan, const struct mt_topology *topology,
                                    int rank, const struct mt_rows *rows, bool is_back)
{
    const struct view view = view_of(topology, rank, rows, is_back);
    MT_ASSERT(rows->row_bytes % mt_element_bytes(MT_ELEMENT_F32) == 0);
    mt_plan_reset(plan, "alltoallv_deduplicated", MT_ELEMENT_F32);
    if (is_back) {
        plan_to_tokens(plan, &view);
    } else {
        plan_to_experts(plan, &view);
    }
}

int64_t mt_plan_alltoallv_deduplicated_max_op(const struct mt_topology *topology, int rank,
                                              int64_t max_sent, int64_t max_relayed)
{
    const int64_t n_source = mt_rows_n_source(topology, rank);
    const int64_t n_member = mt_topology_node_size(topology, topology->node[rank]);
    /* Rows one by one and tails by block, on this rank's way and where it works for others; blocks
     * that others work for; sections; messages inside the node. */
    return max_sent + topology->n_rank + max_relayed + n_source * n_member + topology->n_rank +
           topology->n_node + n_source + 4 * n_member + 1;
}

int64_t mt_plan_alltoallv_deduplicated_stage_bytes(const struct mt_topology *topology, int rank,
                                                   const struct mt_rows *rows, bool is_back)
{
    const struct view view = view_of(topology, rank, rows, is_back);
    return end_of_areas(&view);
}

int64_t mt_plan_alltoallv_deduplicated_stage_rows(const struct mt_topology *topology, int rank,
                                                  int64_t max_send, int64_t max_recv)
{
    const int64_t relayed = mt_rows_relayed_bound(topology, rank, max_send, max_recv);
    return 1 + mt_max_i64(max_send, relayed) + mt_max_i64(relayed, max_recv);
}
