/* The check of all ranks' plans against each other. Three passes, each O(n log n):
 *   1. every op alone: round, peer, buffers, bounds, elements;
 *   2. every rank's rounds: what is written against what else is read and written there;
 *   3. all messages: sorted by (source, target), the k-th send must meet the k-th receive. */
#include "comm/plan.h"

#include "base/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What an op does to a stretch of a buffer, in the order in which a round does it. */
enum access_kind {
    SEND_READS,
    RECV_WRITES,
    COPY_READS,
    COPY_WRITES,
    ADD_READS,
    ADD_WRITES,
    N_ACCESS
};

static const char *const access_names[N_ACCESS] = {
    [SEND_READS] = "sent",           [RECV_WRITES] = "received",
    [COPY_READS] = "read by a copy", [COPY_WRITES] = "written by a copy",
    [ADD_READS] = "read by an add",  [ADD_WRITES] = "added to"};

/* Which two may not touch the same bytes in one round. An add comes after all receives and copies,
 * so it may read and change what they brought. Two adds to the same place are a sum in order. */
static const bool conflicts[N_ACCESS][N_ACCESS] = {
    [SEND_READS] = {[RECV_WRITES] = true, [COPY_WRITES] = true, [ADD_WRITES] = true},
    [RECV_WRITES] =
        {[SEND_READS] = true, [RECV_WRITES] = true, [COPY_READS] = true, [COPY_WRITES] = true},
    [COPY_READS] = {[RECV_WRITES] = true, [COPY_WRITES] = true, [ADD_WRITES] = true},
    [COPY_WRITES] =
        {[SEND_READS] = true, [RECV_WRITES] = true, [COPY_READS] = true, [COPY_WRITES] = true},
    [ADD_READS] = {[ADD_WRITES] = true},
    [ADD_WRITES] = {
        [SEND_READS] = true, [COPY_READS] = true, [ADD_READS] = true, [ADD_WRITES] = true}};

struct access {
    int64_t start, end, op;
    int buffer;
    enum access_kind kind;
};

struct message {
    int source, target;
    int64_t op; /* index in the plan of source (a send) or target (a receive) */
    int round;
    int64_t n_bytes;
};

static enum mt_status check_place(const struct mt_plan *plan, int rank, int64_t i, int buffer,
                                  int64_t offset, const int64_t *buffer_bytes)
{
    const int64_t n_bytes = plan->op[i].n_bytes;
    if (buffer < 0 || buffer >= MT_N_BUFFER) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "plan %s: rank %d op %" PRId64 " names buffer %d; buffers are 0 to %d; "
                       "correct the algorithm",
                       plan->name, rank, i, buffer, MT_N_BUFFER - 1);
    }
    if (offset < 0 || n_bytes > INT64_MAX - offset ||
        (buffer_bytes != NULL && offset + n_bytes > buffer_bytes[buffer])) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "plan %s: rank %d op %" PRId64 " touches %" PRId64 " bytes at %" PRId64
                       " of buffer %d; out of bounds, it has %" PRId64 "; correct the algorithm",
                       plan->name, rank, i, n_bytes, offset, buffer,
                       buffer_bytes != NULL ? buffer_bytes[buffer] : INT64_MAX);
    }
    const int64_t unit = plan->op[i].kind == MT_OP_ADD ? mt_element_bytes(plan->element) : 1;
    if (offset % unit != 0 || n_bytes % unit != 0) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "plan %s: rank %d op %" PRId64 " adds %" PRId64 " bytes at %" PRId64
                       "; elements of %" PRId64 " bytes are added whole; correct the algorithm",
                       plan->name, rank, i, n_bytes, offset, unit);
    }
    return MT_OK;
}

static enum mt_status check_op(const struct mt_plan *plan, int n_rank, int rank, int64_t i,
                               const int64_t *buffer_bytes)
{
    const struct mt_op *op = &plan->op[i];
    const bool is_message = op->kind == MT_OP_SEND || op->kind == MT_OP_RECV;
    if (op->n_bytes <= 0) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "plan %s: rank %d op %" PRId64 " has %" PRId64
                       " bytes; ops have at least one; leave it out",
                       plan->name, rank, i, op->n_bytes);
    }
    if (op->round < (i > 0 ? plan->op[i - 1].round : 0) || op->round >= plan->n_round) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "plan %s: rank %d op %" PRId64 " is out of order in round %d of %d; rounds "
                       "ascend; append it in its round",
                       plan->name, rank, i, op->round, plan->n_round);
    }
    if (is_message && (op->peer < 0 || op->peer >= n_rank || op->peer == rank)) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "plan %s: rank %d op %" PRId64
                       " names peer %d; peers are the other ranks of "
                       "%d; use a copy for the own block",
                       plan->name, rank, i, op->peer, n_rank);
    }
    if (op->kind == MT_OP_ADD && plan->element == MT_ELEMENT_BYTE) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "plan %s: rank %d op %" PRId64
                       " adds bytes; a sum needs f32, f64 or i64; name the element",
                       plan->name, rank, i);
    }
    MT_TRY(check_place(plan, rank, i, op->buffer, op->offset_bytes, buffer_bytes));
    if (!is_message) {
        MT_TRY(check_place(plan, rank, i, op->from_buffer, op->from_offset_bytes, buffer_bytes));
    }
    return MT_OK;
}

static int compare_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_access(const void *left, const void *right)
{
    const struct access *a = left;
    const struct access *b = right;
    int order = compare_i64(a->buffer, b->buffer);
    order = order != 0 ? order : compare_i64(a->start, b->start);
    order = order != 0 ? order : compare_i64(a->end, b->end);
    return order != 0 ? order : compare_i64(a->op, b->op);
}

static int compare_message(const void *left, const void *right)
{
    const struct message *a = left;
    const struct message *b = right;
    int order = compare_i64(a->source, b->source);
    order = order != 0 ? order : compare_i64(a->target, b->target);
    return order != 0 ? order : compare_i64(a->op, b->op);
}

/* What ops [first, end) touch: access [2 * (end - first)], returns how many. */
static int64_t collect_accesses(const struct mt_plan *plan, int64_t first, int64_t end,
                                struct access *access)
{
    static const enum access_kind touches[] = {[MT_OP_SEND] = SEND_READS,
                                               [MT_OP_RECV] = RECV_WRITES,
                                               [MT_OP_COPY] = COPY_WRITES,
                                               [MT_OP_ADD] = ADD_WRITES};
    int64_t n = 0;
    for (int64_t i = first; i < end; ++i) {
        const struct mt_op *op = &plan->op[i];
        access[n++] = (struct access){.start = op->offset_bytes,
                                      .end = op->offset_bytes + op->n_bytes,
                                      .op = i,
                                      .buffer = op->buffer,
                                      .kind = touches[op->kind]};
        if (op->kind == MT_OP_COPY || op->kind == MT_OP_ADD) {
            access[n++] = (struct access){.start = op->from_offset_bytes,
                                          .end = op->from_offset_bytes + op->n_bytes,
                                          .op = i,
                                          .buffer = op->from_buffer,
                                          .kind = op->kind == MT_OP_COPY ? COPY_READS : ADD_READS};
        }
    }
    return n;
}

static bool is_same_sum(const struct access *a, const struct access *b)
{
    return a->kind == ADD_WRITES && b->kind == ADD_WRITES && a->start == b->start &&
           a->end == b->end;
}

/* Sweep over starts: of each kind only the access that reaches furthest can touch the next one. */
static enum mt_status check_round(const struct mt_plan *plan, int rank, struct access *access,
                                  int64_t n_access)
{
    const struct access *furthest[N_ACCESS] = {NULL};
    qsort(access, (size_t)n_access, sizeof(*access), compare_access);
    for (int64_t i = 0; i < n_access; ++i) {
        const struct access *now = &access[i];
        if (i == 0 || now->buffer != access[i - 1].buffer) {
            memset(furthest, 0, sizeof(furthest));
        }
        for (int kind = 0; kind < N_ACCESS; ++kind) {
            const struct access *before = furthest[kind];
            if (before == NULL || !conflicts[kind][now->kind] || before->end <= now->start ||
                is_same_sum(before, now)) {
                continue;
            }
            return MT_FAIL(MT_ERR_INTERNAL,
                           "plan %s: rank %d round %d: byte %" PRId64
                           " of buffer %d is %s (op %" PRId64 ") and %s (op %" PRId64
                           "); a round must not depend on what comes first; use a later round",
                           plan->name, rank, plan->op[now->op].round, now->start, now->buffer,
                           access_names[kind], before->op, access_names[now->kind], now->op);
        }
        if (furthest[now->kind] == NULL || furthest[now->kind]->end < now->end) {
            furthest[now->kind] = now;
        }
    }
    return MT_OK;
}

static enum mt_status check_rounds(const struct mt_plan *plan, int rank, struct access *access)
{
    int64_t first = 0;
    while (first < plan->n_op) {
        int64_t end = first;
        while (end < plan->n_op && plan->op[end].round == plan->op[first].round) {
            ++end;
        }
        const int64_t n_access = collect_accesses(plan, first, end, access);
        MT_TRY(check_round(plan, rank, access, n_access));
        first = end;
    }
    return MT_OK;
}

static int64_t collect_messages(const struct mt_plan *plans, int n_rank, enum mt_op_kind kind,
                                struct message *message)
{
    int64_t n = 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        for (int64_t i = 0; i < plans[rank].n_op; ++i) {
            const struct mt_op *op = &plans[rank].op[i];
            if (op->kind == kind) {
                message[n++] = (struct message){.source = kind == MT_OP_SEND ? rank : op->peer,
                                                .target = kind == MT_OP_SEND ? op->peer : rank,
                                                .op = i,
                                                .round = op->round,
                                                .n_bytes = op->n_bytes};
            }
        }
    }
    qsort(message, (size_t)n, sizeof(*message), compare_message);
    return n;
}

/* < 0: the send has no receive; > 0: the receive has no send; 0: they belong together. */
static int compare_pair(const struct message *send, const struct message *recv)
{
    const int order = compare_i64(send->source, recv->source);
    return order != 0 ? order : compare_i64(send->target, recv->target);
}

static enum mt_status check_messages(const char *name, const struct message *send, int64_t n_send,
                                     const struct message *recv, int64_t n_recv)
{
    for (int64_t i = 0; i < n_send || i < n_recv; ++i) {
        const int order = i >= n_send ? 1 : i >= n_recv ? -1 : compare_pair(&send[i], &recv[i]);
        if (order < 0) {
            return MT_FAIL(MT_ERR_INTERNAL,
                           "plan %s: rank %d op %" PRId64 " sends %" PRId64
                           " bytes that rank %d does not receive; every send needs one receive; "
                           "correct the algorithm",
                           name, send[i].source, send[i].op, send[i].n_bytes, send[i].target);
        }
        if (order > 0) {
            return MT_FAIL(MT_ERR_INTERNAL,
                           "plan %s: rank %d op %" PRId64 " receives %" PRId64
                           " bytes that rank %d does not send; every receive needs one send; "
                           "correct the algorithm",
                           name, recv[i].target, recv[i].op, recv[i].n_bytes, recv[i].source);
        }
        if (send[i].n_bytes != recv[i].n_bytes || send[i].round != recv[i].round) {
            return MT_FAIL(MT_ERR_INTERNAL,
                           "plan %s: rank %d op %" PRId64 " sends %" PRId64
                           " bytes in round %d where rank %d op %" PRId64 " receives %" PRId64
                           " in round %d; both ends must agree in size, round and order; "
                           "correct the algorithm",
                           name, send[i].source, send[i].op, send[i].n_bytes, send[i].round,
                           recv[i].target, recv[i].op, recv[i].n_bytes, recv[i].round);
        }
    }
    return MT_OK;
}

static enum mt_status check_plan(const struct mt_plan *plans, int n_rank, int rank,
                                 const int64_t (*buffer_bytes)[MT_N_BUFFER], struct access *access)
{
    const struct mt_plan *plan = &plans[rank];
    if (strcmp(plan->name, plans[0].name) != 0 || plan->element != plans[0].element) {
        return MT_FAIL(
            MT_ERR_INTERNAL,
            "rank %d plans %s (element %d) where rank 0 plans %s (element %d); all ranks "
            "take part in the same collective; correct the order",
            rank, plan->name, (int)plan->element, plans[0].name, (int)plans[0].element);
    }
    for (int64_t i = 0; i < plan->n_op; ++i) {
        MT_TRY(check_op(plan, n_rank, rank, i, buffer_bytes != NULL ? buffer_bytes[rank] : NULL));
    }
    return check_rounds(plan, rank, access);
}

enum mt_status mt_plan_check(const struct mt_plan *plans, int n_rank,
                             const int64_t (*buffer_bytes)[MT_N_BUFFER])
{
    enum mt_status status = MT_OK;
    struct access *access = NULL;
    struct message *send = NULL;
    struct message *recv = NULL;
    int64_t n_op = 0;
    int64_t max_op = 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        n_op += plans[rank].n_op;
        max_op = plans[rank].n_op > max_op ? plans[rank].n_op : max_op;
    }
    MT_TRY_GOTO(MT_ALLOCATE(access, 2 * max_op, "plan check"));
    MT_TRY_GOTO(MT_ALLOCATE(send, n_op, "plan check"));
    MT_TRY_GOTO(MT_ALLOCATE(recv, n_op, "plan check"));
    for (int rank = 0; rank < n_rank; ++rank) {
        MT_TRY_GOTO(check_plan(plans, n_rank, rank, buffer_bytes, access));
    }
    const int64_t n_send = collect_messages(plans, n_rank, MT_OP_SEND, send);
    const int64_t n_recv = collect_messages(plans, n_rank, MT_OP_RECV, recv);
    MT_TRY_GOTO(check_messages(plans[0].name, send, n_send, recv, n_recv));
cleanup:
    mt_memory_free(recv);
    mt_memory_free(send);
    mt_memory_free(access);
    return status;
}
