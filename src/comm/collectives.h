/* The collectives, as functions from counts to plans. One file an algorithm, with its picture, its
 * cost and when it wins. All counts are bytes. Every function needs only what every rank knows,
 * plus where things lie in this rank's own buffers, so no rank asks another. `max_op` functions
 * give the capacity that a plan needs at most. */
#ifndef MT_COMM_COLLECTIVES_H
#define MT_COMM_COLLECTIVES_H

#include "comm/chain.h"
#include "comm/plan.h"
#include "comm/relay.h"
#include "comm/rows.h"
#include "comm/topology.h"

/* All-to-all of ragged blocks. SEND holds one block per target in rank order, RECV one per source.
 * send_bytes, recv_bytes [R]: block sizes; offsets are their prefix sums. recv_bytes[s] here equals
 * send_bytes[rank] on s: both follow from the matrix of counts that every rank holds. */
void mt_plan_alltoallv_direct(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                              const int64_t *send_bytes, const int64_t *recv_bytes);
int64_t mt_plan_alltoallv_direct_max_op(int n_rank);

/* The same by way of others (docs/exchange.md): bytes [R,R], bytes[s * R + t] from source s to
 * target t, the same on every rank. What arrives in RECV is what direct brings, SEND is not
 * touched. STAGE: _stage_bytes for these bytes, _stage_bound for any by which no rank sends more
 * than max_send_bytes or receives more than max_recv_bytes. */
void mt_plan_alltoallv_two_level(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                                 const int64_t *bytes);
int64_t mt_plan_alltoallv_two_level_max_op(const struct mt_topology *topology, int rank);
int64_t mt_plan_alltoallv_two_level_stage_bytes(const struct mt_topology *topology, int rank,
                                                const int64_t *bytes);
int64_t mt_plan_alltoallv_two_level_stage_bound(const struct mt_topology *topology, int rank,
                                                int64_t max_send_bytes, int64_t max_recv_bytes);

void mt_plan_alltoallv_leader(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                              const int64_t *bytes);
int64_t mt_plan_alltoallv_leader_max_op(const struct mt_topology *topology, int rank);
int64_t mt_plan_alltoallv_leader_stage_bytes(const struct mt_topology *topology, int rank,
                                             const int64_t *bytes);
int64_t mt_plan_alltoallv_leader_stage_bound(const struct mt_topology *topology, int rank,
                                             int64_t max_send_bytes, int64_t max_recv_bytes);

/* Blocks of rows (comm/rows.h) to the experts, or back to the tokens (is_back: from target to
 * source, blocks by target). Back, a node's rows of one token are summed (float32) and arrive in
 * the place of the token's first row there, zeros in the places of its others. STAGE begins with
 * row_bytes of zeros, which the caller has written once. Bounds in rows of a source and to a
 * target, of either direction: a block's bytes a row. */
void mt_plan_alltoallv_deduplicated(struct mt_plan *plan, const struct mt_topology *topology,
                                    int rank, const struct mt_rows *rows, bool is_back);
int64_t mt_plan_alltoallv_deduplicated_max_op(const struct mt_topology *topology, int rank,
                                              int64_t max_sent, int64_t max_relayed);
int64_t mt_plan_alltoallv_deduplicated_stage_bytes(const struct mt_topology *topology, int rank,
                                                   const struct mt_rows *rows, bool is_back);
int64_t mt_plan_alltoallv_deduplicated_stage_rows(const struct mt_topology *topology, int rank,
                                                  int64_t max_send, int64_t max_recv);

/* Every rank's block to every rank: block_bytes [R]; RECV = the blocks in rank order; the own block
 * is read from SEND. */
void mt_plan_allgatherv(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                        const int64_t *block_bytes);
int64_t mt_plan_allgatherv_max_op(int n_rank);

/* RECV [block of this rank] = sum over ranks, in rank order, of their SEND's block for this rank.
 * SEND = the blocks in rank order, untouched. STAGE: mt_plan_reduce_scatter_stage_bytes. */
void mt_plan_reduce_scatter(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                            const int64_t *block_bytes, enum mt_element element);
int64_t mt_plan_reduce_scatter_max_op(int n_rank);
int64_t mt_plan_reduce_scatter_stage_bytes(int n_rank, int rank, const int64_t *block_bytes);

/* RECV = sum over ranks of SEND, one order for all ranks: within nodes by rank, then over nodes
 * (two-level; one level when there is one node). For small vectors: counts, losses, norms.
 * STAGE: mt_plan_allreduce_stage_bytes. */
void mt_plan_allreduce(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                       int64_t n_bytes, enum mt_element element);
int64_t mt_plan_allreduce_max_op(const struct mt_topology *topology);
int64_t mt_plan_allreduce_stage_bytes(const struct mt_topology *topology, int64_t n_bytes);

/* A sparse distribution: which chunk is at home where, and held where else.
 * Invariants: owner in [0,R); holders ascending. Without the owner, but for
 * mt_plan_sparse_allgather and _reduce_scatter_paced: there an owner that holds a copy as well
 * makes and adds it itself, and a rank may leave out the chunks that it neither owns nor holds, and
 * of those that it only holds the other holders. */
struct mt_sparse {
    int64_t n_chunk;
    const int64_t *chunk_bytes;  /* [C] */
    const int *owner;            /* [C] */
    const int64_t *holder_start; /* [C+1] into holder */
    const int *holder;           /* ranks other than the owner that hold a copy */
};
/* Index into holder of the chunk's first one that is not below `rank`. */
int64_t mt_sparse_holder_from(const struct mt_sparse *sparse, int64_t chunk, int rank);
bool mt_sparse_is_held(const struct mt_sparse *sparse, int64_t chunk, int rank);

/* SparseAllGather: every (chunk, holder) ends up holding the owner's values. SEND: this rank's home
 * memory, home_offset [C] bytes (read for own chunks only); RECV: its memory for copies,
 * copy_offset [C] bytes (read for chunks that it holds). SEND and RECV may be one buffer. */
void mt_plan_sparse_allgather(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                              const int64_t *home_offset, const int64_t *copy_offset);

/* The same in pieces along chains of nodes (comm/chain.h), for chunks that are large and wanted on
 * many nodes. Holders are without the owner, and every rank has the same distribution and `chain`
 * of the same topology. Ops: mt_chain_needs. */
void mt_plan_sparse_allgather_chain(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                    struct mt_chain *chain, int64_t piece_bytes,
                                    const int64_t *home_offset, const int64_t *copy_offset);

/* SparseReduceScatter, the mirror image: home += the copies of its holders in rank order. SEND:
 * memory of copies, RECV: home memory, STAGE: mt_plan_sparse_reduce_stage_bytes. */
void mt_plan_sparse_reduce_scatter(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                   const int64_t *home_offset, const int64_t *copy_offset,
                                   enum mt_element element);
int64_t mt_plan_sparse_reduce_stage_bytes(int rank, const struct mt_sparse *sparse);
/* The same from MT_PACED_PEERS ranks at a time, which bounds STAGE by what those send: home += its
 * own copy, then the others' in rounds of growing distance below the owner, in rank order within a
 * round. STAGE: mt_plan_sparse_paced_stage_bytes. */
enum { MT_PACED_PEERS = 16 };
void mt_plan_sparse_reduce_scatter_paced(struct mt_plan *plan, int rank, int n_rank,
                                         const struct mt_sparse *sparse, const int64_t *home_offset,
                                         const int64_t *copy_offset, enum mt_element element);
int64_t mt_plan_sparse_paced_stage_bytes(int rank, int n_rank, const struct mt_sparse *sparse);
/* Any of these plans, for this rank. */
int64_t mt_plan_sparse_max_op(int rank, const struct mt_sparse *sparse);

/* The same two with relays, which spread what owners of hot chunks send: holders pass on what they
 * have received. Buffers and offsets as above, but a relay's part of the reduction's SEND is
 * overwritten by partial sums, and sums have an order of their own, which depends on the
 * distribution and the topology alone. Every rank has `relay` of the same topology. */
void mt_plan_sparse_allgather_relay(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                    struct mt_relay *relay, const int64_t *home_offset,
                                    const int64_t *copy_offset);
void mt_plan_sparse_reduce_scatter_relay(struct mt_plan *plan, int rank,
                                         const struct mt_sparse *sparse, struct mt_relay *relay,
                                         const int64_t *home_offset, const int64_t *copy_offset,
                                         enum mt_element element);
/* STAGE of the reduction: MT_RELAY_PORTS of the largest chunk. */
int64_t mt_plan_sparse_relay_stage_bytes(const struct mt_sparse *sparse);
/* Either plan, for any distribution in which no rank holds more than max_held copies. */
int64_t mt_plan_sparse_relay_max_op(int n_rank, int64_t max_held);

/* The reduction along chains. offset [2]: home, copies. A head's part of SEND is overwritten by
 * partial sums; their order depends on the distribution and the topology, not on the pieces. Pieces
 * are of whole elements. STAGE: mt_chain_needs' arrivals, of piece_bytes each. */
void mt_plan_sparse_reduce_scatter_chain(struct mt_plan *plan, int rank,
                                         const struct mt_sparse *sparse, struct mt_chain *chain,
                                         int64_t piece_bytes, const int64_t *const offset[2],
                                         enum mt_element element);

#endif
