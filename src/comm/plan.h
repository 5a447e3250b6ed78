/* Plans are data: what one rank sends, receives, copies and adds, in rounds.
 *
 * An algorithm (collectives.h) is a pure integer function of counts and topology that fills a plan;
 * one executor (comm.h) runs it over a transport. A plan can be checked against the plans of all
 * other ranks, printed, hashed and priced. Storage is made once for the largest plan, refilled at
 * will.
 *
 * A round: receives and sends are posted; copies run while they travel; when all have completed,
 * adds run in their order. So copies may read neither what this round receives nor what it adds,
 * and what is sent may not be written in the same round.
 */
#ifndef MT_COMM_PLAN_H
#define MT_COMM_PLAN_H

#include "base/status.h"

#include <stdint.h>
#include <stdio.h>

enum mt_op_kind { MT_OP_SEND, MT_OP_RECV, MT_OP_COPY, MT_OP_ADD };
enum mt_element { MT_ELEMENT_BYTE, MT_ELEMENT_F32, MT_ELEMENT_F64, MT_ELEMENT_I64 };
int64_t mt_element_bytes(enum mt_element element); /* bytes of one: 1, 4, 8, 8 */

/* How soon what a plan brings is wanted: at once, as rows of tokens, or behind computation, as
 * copies of experts and gradients. A device keeps the two apart. */
enum mt_urgency { MT_AWAITED, MT_BACKGROUND, MT_N_URGENCY };

/* Buffers are named by small numbers; their meaning is the collective's (see collectives.h). */
enum { MT_BUFFER_SEND = 0, MT_BUFFER_RECV = 1, MT_BUFFER_STAGE = 2, MT_N_BUFFER = 3 };

struct mt_op {
    enum mt_op_kind kind;
    int round;
    int peer;             /* send, recv: the other rank; else -1 */
    int buffer;           /* send: read; recv, copy, add: written */
    int from_buffer;      /* copy, add: read; else -1 */
    int64_t offset_bytes; /* in buffer */
    int64_t from_offset_bytes;
    int64_t n_bytes; /* > 0: empty transfers are left out on both sides */
};

struct mt_plan {
    const char *name;        /* of the collective, e.g. "alltoallv"; a literal */
    enum mt_element element; /* what add adds */
    int n_round;
    int64_t n_op, max_op;
    struct mt_op *op; /* [max_op], rounds ascending */
};

enum mt_status mt_plan_init(struct mt_plan *plan, int64_t max_op);
void mt_plan_clear(struct mt_plan *plan);

/* For algorithms: empties the plan, appends ops (asserts the capacity). n_bytes = 0 is ignored. */
void mt_plan_reset(struct mt_plan *plan, const char *name, enum mt_element element);
void mt_plan_send(struct mt_plan *plan, int round, int peer, int buffer, int64_t offset_bytes,
                  int64_t n_bytes);
void mt_plan_recv(struct mt_plan *plan, int round, int peer, int buffer, int64_t offset_bytes,
                  int64_t n_bytes);
/* One local op: a place written from a place read. */
struct mt_place {
    int buffer;
    int64_t offset_bytes;
};
void mt_plan_copy(struct mt_plan *plan, int round, struct mt_place to, struct mt_place from,
                  int64_t n_bytes);
void mt_plan_add(struct mt_plan *plan, int round, struct mt_place to, struct mt_place from,
                 int64_t n_bytes);

/* Checks the plans of all ranks [n_rank] against each other: every send has one receive of the same
 * size in the same round and order, nothing written overlaps within a round, offsets lie within
 * buffer_bytes [n_rank][MT_N_BUFFER] (NULL: not checked). MT_ERR_INTERNAL naming rank and op.
 * Adds run last and one after another, so they may add to what the round received or copied, and
 * several may add to the very same place. Buffers of different numbers count as disjoint.
 * O(n log n) in the ops of all ranks. */
enum mt_status mt_plan_check(const struct mt_plan *plans, int n_rank,
                             const int64_t (*buffer_bytes)[MT_N_BUFFER]);
uint64_t mt_plan_hash(const struct mt_plan *plan);
void mt_plan_print(const struct mt_plan *plan, FILE *out);
int64_t mt_plan_sent_bytes(const struct mt_plan *plan);

#endif
