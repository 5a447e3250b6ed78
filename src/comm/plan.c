#include "comm/plan.h"

#include "base/memory.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

static const char *const kind_names[] = {
    [MT_OP_SEND] = "send", [MT_OP_RECV] = "recv", [MT_OP_COPY] = "copy", [MT_OP_ADD] = "add"};
static const char *const element_names[] = {[MT_ELEMENT_BYTE] = "byte",
                                            [MT_ELEMENT_F32] = "f32",
                                            [MT_ELEMENT_F64] = "f64",
                                            [MT_ELEMENT_I64] = "i64"};
static const char *const buffer_names[MT_N_BUFFER] = {
    [MT_BUFFER_SEND] = "SEND", [MT_BUFFER_RECV] = "RECV", [MT_BUFFER_STAGE] = "STAGE"};

int64_t mt_element_bytes(enum mt_element element)
{
    static const int64_t bytes[] = {
        [MT_ELEMENT_BYTE] = 1, [MT_ELEMENT_F32] = 4, [MT_ELEMENT_F64] = 8, [MT_ELEMENT_I64] = 8};
    MT_ASSERT(element >= MT_ELEMENT_BYTE && element <= MT_ELEMENT_I64);
    return bytes[element];
}

enum mt_status mt_plan_init(struct mt_plan *plan, int64_t max_op)
{
    MT_ASSERT(max_op >= 0);
    *plan = (struct mt_plan){.name = "empty", .element = MT_ELEMENT_BYTE, .max_op = max_op};
    return MT_ALLOCATE(plan->op, max_op, "communication plan");
}

void mt_plan_clear(struct mt_plan *plan)
{
    mt_memory_free(plan->op);
    *plan = (struct mt_plan){0};
}

void mt_plan_reset(struct mt_plan *plan, const char *name, enum mt_element element)
{
    MT_ASSERT(name != NULL);
    plan->name = name;
    plan->element = element;
    plan->n_round = 0;
    plan->n_op = 0;
}

static void append(struct mt_plan *plan, struct mt_op op)
{
    MT_ASSERT(op.n_bytes >= 0);
    if (op.n_bytes == 0) {
        return;
    }
    MT_ASSERT(plan->n_op < plan->max_op);
    MT_ASSERT(op.round >= 0 && op.round + 1 >= plan->n_round); /* rounds ascend */
    plan->op[plan->n_op] = op;
    ++plan->n_op;
    plan->n_round = op.round + 1;
}

static void append_message(struct mt_plan *plan, enum mt_op_kind kind, int round, int peer,
                           struct mt_place at, int64_t n_bytes)
{
    append(plan, (struct mt_op){.kind = kind,
                                .round = round,
                                .peer = peer,
                                .buffer = at.buffer,
                                .from_buffer = -1,
                                .offset_bytes = at.offset_bytes,
                                .n_bytes = n_bytes});
}

void mt_plan_send(struct mt_plan *plan, int round, int peer, int buffer, int64_t offset_bytes,
                  int64_t n_bytes)
{
    const struct mt_place from = {buffer, offset_bytes};
    append_message(plan, MT_OP_SEND, round, peer, from, n_bytes);
}

void mt_plan_recv(struct mt_plan *plan, int round, int peer, int buffer, int64_t offset_bytes,
                  int64_t n_bytes)
{
    const struct mt_place to = {buffer, offset_bytes};
    append_message(plan, MT_OP_RECV, round, peer, to, n_bytes);
}

static void append_local(struct mt_plan *plan, enum mt_op_kind kind, int round, struct mt_place to,
                         struct mt_place from, int64_t n_bytes)
{
    append(plan, (struct mt_op){.kind = kind,
                                .round = round,
                                .peer = -1,
                                .buffer = to.buffer,
                                .from_buffer = from.buffer,
                                .offset_bytes = to.offset_bytes,
                                .from_offset_bytes = from.offset_bytes,
                                .n_bytes = n_bytes});
}

void mt_plan_copy(struct mt_plan *plan, int round, struct mt_place to, struct mt_place from,
                  int64_t n_bytes)
{
    append_local(plan, MT_OP_COPY, round, to, from, n_bytes);
}

void mt_plan_add(struct mt_plan *plan, int round, struct mt_place to, struct mt_place from,
                 int64_t n_bytes)
{
    MT_ASSERT(plan->element != MT_ELEMENT_BYTE);
    append_local(plan, MT_OP_ADD, round, to, from, n_bytes);
}

uint64_t mt_plan_hash(const struct mt_plan *plan)
{
    /* Field by field: the padding inside struct mt_op has no defined value. */
    XXH64_hash_t hash = XXH3_64bits(plan->name, strlen(plan->name));
    for (int64_t i = 0; i < plan->n_op; ++i) {
        const struct mt_op *op = &plan->op[i];
        const int64_t words[] = {(int64_t)plan->element,
                                 (int64_t)op->kind,
                                 op->round,
                                 op->peer,
                                 op->buffer,
                                 op->from_buffer,
                                 op->offset_bytes,
                                 op->from_offset_bytes,
                                 op->n_bytes};
        hash = XXH3_64bits_withSeed(words, sizeof(words), hash);
    }
    return hash;
}

void mt_plan_print(const struct mt_plan *plan, FILE *out)
{
    (void)fprintf(out,
                  "plan %s: %" PRId64 " ops in %d rounds, element %s, sends %" PRId64 " bytes\n",
                  plan->name, plan->n_op, plan->n_round, element_names[plan->element],
                  mt_plan_sent_bytes(plan));
    for (int64_t i = 0; i < plan->n_op; ++i) {
        const struct mt_op *op = &plan->op[i];
        (void)fprintf(out, "  %4" PRId64 " round %d %s %" PRId64 " bytes ", i, op->round,
                      kind_names[op->kind], op->n_bytes);
        if (op->from_buffer >= 0) {
            (void)fprintf(out, "%s+%" PRId64 " <- %s+%" PRId64 "\n", buffer_names[op->buffer],
                          op->offset_bytes, buffer_names[op->from_buffer], op->from_offset_bytes);
        } else {
            (void)fprintf(out, "%s+%" PRId64 " %s rank %d\n", buffer_names[op->buffer],
                          op->offset_bytes, op->kind == MT_OP_SEND ? "to" : "from", op->peer);
        }
    }
}

int64_t mt_plan_sent_bytes(const struct mt_plan *plan)
{
    int64_t sent_bytes = 0;
    for (int64_t i = 0; i < plan->n_op; ++i) {
        if (plan->op[i].kind == MT_OP_SEND) {
            sent_bytes += plan->op[i].n_bytes;
        }
    }
    return sent_bytes;
}
