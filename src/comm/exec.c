/* The executor: a state machine over a plan's rounds that never blocks.
 *
 *     begin --> [ post receives, sends ] --> [ copies ] --> test ... --> [ adds ] --> next round
 *                      ^                                    |
 *                      +--- a next slice of messages -------+
 *                           larger than slice_bytes
 *
 * A device's transport takes the plan whole, at begin, and orders the device's work at end.
 *
 * Large messages are cut into waves: wave w moves bytes [w, w + 1) * slice_bytes of every message
 * of the round that is that long. Both ends know the size, so both cut alike, and the messages of a
 * pair keep the order of their ops in every wave. One request per op is always enough. */
#include "comm/comm.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/record.h"
#include "base/size.h"
#include "device/timeline.h"

#include <sched.h>
#include <string.h>

/* Every MPI allows tags up to 32767. A tag returns after TAG_BOUND collectives; that those before
 * are long over is asserted in begin. */
enum { TAG_BOUND = 16384 };

struct mt_exec {
    struct mt_comm *comm;
    struct mt_transport *device; /* takes the plans whole; NULL: of host memory */
    enum mt_urgency urgency;     /* there */
    int ticket;                  /* of the plan under way there */
    int64_t max_op;
    union mt_request *request;  /* [max_op] */
    int *peer;                  /* [max_op] of each request */
    int64_t n_request;          /* of the wave under way */
    const struct mt_plan *plan; /* NULL: nothing begun */
    char *buffer[MT_N_BUFFER];
    int64_t number;           /* of the collective, in the order of begins */
    int64_t first_op, end_op; /* of the round under way; first_op = n_op: done */
    int64_t wave_offset;      /* bytes of each message that earlier waves moved */
    int64_t largest_bytes;    /* largest message of the round */
    int64_t record;           /* of the recorder; -1: not recorded */
    int timed;                /* of the device's timeline; -1: the host tells the times */
};

enum mt_status mt_exec_create(struct mt_comm *comm, int64_t max_op, struct mt_exec **out)
{
    enum mt_status status = MT_OK;
    struct mt_exec *exec = NULL;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(exec, 1, "executor"));
    exec->comm = comm;
    exec->max_op = max_op;
    MT_TRY_GOTO(MT_ALLOCATE(exec->request, max_op, "requests of an executor"));
    MT_TRY_GOTO(MT_ALLOCATE(exec->peer, max_op, "requests of an executor"));
    *out = exec;
    return MT_OK;
cleanup:
    mt_exec_destroy(exec);
    return status;
}

enum mt_status mt_exec_create_device(struct mt_comm *comm, enum mt_urgency urgency, int64_t max_op,
                                     struct mt_exec **out)
{
    MT_TRY(mt_exec_create(comm, max_op, out));
    (*out)->device = comm->device;
    (*out)->urgency = urgency;
    return MT_OK;
}

static void remove_active(struct mt_comm *comm, const struct mt_exec *exec)
{
    int at = 0;
    while (at < comm->n_active && comm->active[at] != exec) {
        ++at;
    }
    MT_ASSERT(at < comm->n_active);
    --comm->n_active;
    for (; at < comm->n_active; ++at) {
        comm->active[at] = comm->active[at + 1]; /* the oldest stays first */
    }
}

void mt_exec_destroy(struct mt_exec *exec)
{
    if (exec == NULL) {
        return;
    }
    if (exec->plan != NULL) {
        remove_active(exec->comm, exec); /* after a failure only: nobody polls it any more */
    }
    mt_memory_free(exec->peer);
    mt_memory_free(exec->request);
    mt_memory_free(exec);
}

bool mt_exec_is_active(const struct mt_exec *exec)
{
    return exec->plan != NULL;
}

static bool is_complete(const struct mt_exec *exec)
{
    return exec->first_op == exec->plan->n_op;
}

static char *address(const struct mt_exec *exec, int buffer, int64_t offset)
{
    MT_ASSERT(exec->buffer[buffer] != NULL);
    return exec->buffer[buffer] + offset;
}

/* This wave's part of one message. */
static enum mt_status post_op(struct mt_exec *exec, const struct mt_op *op)
{
    struct mt_transport *transport = exec->comm->transport;
    const int tag = (int)(exec->number % TAG_BOUND);
    const int64_t n_bytes = mt_min_i64(op->n_bytes - exec->wave_offset, exec->comm->slice_bytes);
    char *data = address(exec, op->buffer, op->offset_bytes + exec->wave_offset);
    union mt_request *request = &exec->request[exec->n_request];
    exec->peer[exec->n_request++] = op->peer;
    exec->largest_bytes = mt_max_i64(exec->largest_bytes, op->n_bytes);
    if (op->kind == MT_OP_SEND) {
        return transport->verbs->post_send(transport, op->peer, tag, data, n_bytes, request);
    }
    return transport->verbs->post_recv(transport, op->peer, tag, data, n_bytes, request);
}

static enum mt_status post_kind(struct mt_exec *exec, enum mt_op_kind kind)
{
    enum mt_status status = MT_OK;
    for (int64_t i = exec->first_op; i < exec->end_op && status == MT_OK; ++i) {
        const struct mt_op *op = &exec->plan->op[i];
        if (op->kind == kind && op->n_bytes > exec->wave_offset) {
            status = post_op(exec, op);
        }
    }
    return status;
}

/* Receives first: what finds its place ready is copied once. */
static enum mt_status post_wave(struct mt_exec *exec)
{
    struct mt_transport *transport = exec->comm->transport;
    exec->n_request = 0;
    transport->verbs->group_begin(transport);
    MT_TRY(post_kind(exec, MT_OP_RECV));
    MT_TRY(post_kind(exec, MT_OP_SEND));
    return transport->verbs->group_end(transport);
}

static void add_f32(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; ++i) {
        to[i] += from[i];
    }
}

static void add_f64(double *restrict to, const double *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; ++i) {
        to[i] += from[i];
    }
}

static void add_i64(int64_t *restrict to, const int64_t *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; ++i) {
        to[i] += from[i];
    }
}

static void run_add(const struct mt_exec *exec, const struct mt_op *op)
{
    void *to = address(exec, op->buffer, op->offset_bytes);
    const void *from = address(exec, op->from_buffer, op->from_offset_bytes);
    const int64_t n = op->n_bytes / mt_element_bytes(exec->plan->element);
    switch (exec->plan->element) {
    case MT_ELEMENT_F32:
        add_f32(to, from, n);
        break;
    case MT_ELEMENT_F64:
        add_f64(to, from, n);
        break;
    case MT_ELEMENT_I64:
        add_i64(to, from, n);
        break;
    case MT_ELEMENT_BYTE:
    default:
        MT_ASSERT(exec->plan->element != MT_ELEMENT_BYTE);
    }
}

static void run_local(const struct mt_exec *exec, enum mt_op_kind kind)
{
    for (int64_t i = exec->first_op; i < exec->end_op; ++i) {
        const struct mt_op *op = &exec->plan->op[i];
        if (op->kind != kind) {
            continue;
        }
        if (kind == MT_OP_ADD) {
            run_add(exec, op);
        } else {
            memcpy(address(exec, op->buffer, op->offset_bytes),
                   address(exec, op->from_buffer, op->from_offset_bytes), (size_t)op->n_bytes);
        }
    }
}

/* From the op where the last round ended: posts the next round, runs its copies. */
static enum mt_status start_round(struct mt_exec *exec)
{
    const struct mt_plan *plan = exec->plan;
    if (is_complete(exec)) {
        mt_record_done(exec->record);
        return MT_OK;
    }
    while (exec->end_op < plan->n_op &&
           plan->op[exec->end_op].round == plan->op[exec->first_op].round) {
        ++exec->end_op;
    }
    exec->wave_offset = 0;
    exec->largest_bytes = 0;
    MT_TRY(post_wave(exec));
    run_local(exec, MT_OP_COPY);
    return MT_OK;
}

/* After a wave's messages have all completed. */
static enum mt_status finish_wave(struct mt_exec *exec)
{
    exec->wave_offset += exec->comm->slice_bytes;
    if (exec->largest_bytes > exec->wave_offset) {
        return post_wave(exec);
    }
    run_local(exec, MT_OP_ADD);
    exec->first_op = exec->end_op;
    return start_round(exec);
}

static void count_traffic(struct mt_comm *comm, const char *name, int64_t sent_bytes)
{
    int at = 0;
    while (at < comm->n_traffic && strcmp(comm->traffic[at].name, name) != 0) {
        ++at;
    }
    if (at == comm->n_traffic) {
        MT_ASSERT(comm->n_traffic < MT_MAX_TRAFFIC);
        comm->traffic[at] = (struct mt_traffic){.name = name};
        ++comm->n_traffic;
    }
    comm->traffic[at].sent_bytes += sent_bytes;
}

/* What the account and the recorder want to know of a plan, in one look at its ops. */
static struct mt_collective_facts facts_of(const struct mt_exec *exec, int n_rank)
{
    enum { MASK_BITS = 64 };
    struct mt_collective_facts facts = {.name = exec->plan->name, .number = exec->number};
    for (int64_t i = 0; i < exec->plan->n_op; ++i) {
        const struct mt_op *op = &exec->plan->op[i];
        if (op->kind == MT_OP_SEND) {
            facts.n_bytes += op->n_bytes;
        } else if (op->kind == MT_OP_RECV && n_rank <= MASK_BITS) {
            facts.sources |= UINT64_C(1) << op->peer;
        } else if (op->kind == MT_OP_RECV) {
            ++facts.n_source;
        }
    }
    if (n_rank <= MASK_BITS) {
        facts.n_source = __builtin_popcountll(facts.sources);
    }
    facts.n_source = (int)mt_min_i64(facts.n_source, n_rank - 1);
    return facts;
}

/* The oldest that is under way is too young to have the same. Complete ones may be older: who needs
 * nothing of a collective soon may end it much later. */
static bool is_next_tag_free(const struct mt_comm *comm)
{
    int oldest = 0;
    while (oldest < comm->n_active && is_complete(comm->active[oldest])) {
        ++oldest;
    }
    return oldest == comm->n_active || comm->sequence - comm->active[oldest]->number < TAG_BOUND;
}

static enum mt_status begin_whole(struct mt_exec *exec, void *const buffer[MT_N_BUFFER])
{
    struct mt_device *timed = exec->comm->timed;
    void *over = NULL;
    exec->timed = timed != NULL ? mt_timeline_plan_begin(timed, exec->record, &over) : -1;
    return exec->device->verbs->plan->begin(exec->device, exec->urgency, exec->plan, buffer,
                                            exec->number, over, &exec->ticket);
}

/* What follows needs the plan. Where the device tells the times, nothing of it is waited for. */
static void need_whole(struct mt_exec *exec)
{
    if (exec->timed >= 0) {
        mt_timeline_plan_end(exec->comm->timed, exec->timed);
    } else {
        mt_record_need(exec->record, mt_clock_ns());
    }
}

static enum mt_status end_whole(struct mt_exec *exec)
{
    need_whole(exec);
    return exec->device->verbs->plan->end(exec->device, exec->ticket);
}

/* The rounds are the device's: done, or not. */
static enum mt_status poll_whole(struct mt_exec *exec, bool *done)
{
    MT_TRY(exec->device->verbs->plan->poll(exec->device, exec->ticket, done));
    if (*done) {
        exec->first_op = exec->plan->n_op;
        if (exec->timed < 0) {
            mt_record_done(exec->record);
        }
    }
    return MT_OK;
}

enum mt_status mt_exec_begin(struct mt_exec *exec, const struct mt_plan *plan,
                             void *const buffer[MT_N_BUFFER])
{
    struct mt_comm *comm = exec->comm;
    MT_ASSERT(exec->plan == NULL);
    MT_ASSERT(plan->n_op <= exec->max_op);
    MT_ASSERT(comm->n_active < MT_MAX_ACTIVE);
    MT_ASSERT(is_next_tag_free(comm));
    exec->plan = plan;
    for (int i = 0; i < MT_N_BUFFER; ++i) {
        exec->buffer[i] = buffer[i];
    }
    exec->number = comm->sequence++;
    exec->first_op = 0;
    exec->end_op = 0;
    comm->active[comm->n_active++] = exec;
    struct mt_collective_facts facts = facts_of(exec, comm->topology.n_rank);
    facts.is_of_device = exec->device != NULL && comm->timed != NULL;
    count_traffic(comm, facts.name, facts.n_bytes);
    exec->record = mt_record_arrive(&facts);
    return exec->device != NULL ? begin_whole(exec, buffer) : start_round(exec);
}

static enum mt_status test_wave(struct mt_exec *exec, bool *is_arrived)
{
    struct mt_transport *transport = exec->comm->transport;
    *is_arrived = true;
    if (exec->n_request == 0) {
        return MT_OK;
    }
    int64_t n_done = 0;
    MT_TRY(transport->verbs->test(transport, exec->request, exec->n_request, &n_done));
    *is_arrived = n_done == exec->n_request;
    if (!*is_arrived) {
        mt_record_last(exec->record, exec->peer[n_done]);
    }
    return MT_OK;
}

enum mt_status mt_exec_poll(struct mt_exec *exec, bool *done)
{
    bool is_arrived = true;
    *done = exec->plan == NULL || is_complete(exec);
    if (!*done && exec->device != NULL) {
        return poll_whole(exec, done);
    }
    while (!*done) {
        MT_TRY(test_wave(exec, &is_arrived));
        if (!is_arrived) {
            return MT_OK;
        }
        MT_TRY(finish_wave(exec));
        *done = is_complete(exec);
    }
    return MT_OK;
}

/* Ranks may outnumber cores: whoever waits soon gives its core away, and after about .1 ms sleeps.
 * Between ranks on their own cores a message takes about 1 us, so polls follow each other at once;
 * and as no other rank wants such a core, who yields it to a program of lower priority gets it back
 * at the next tick only, 4 ms later at 250 Hz, while a layer's exchange waits. Nor do they sleep in
 * the first 5 to 10 ms: .1 ms too late each time was 1 ms of a step of 16 exchanges and 312 ms. */
static void back_off(const struct mt_comm *comm, int64_t n_poll)
{
    enum { SPIN_POLLS = 16, YIELD_POLLS = 2000, OWN_CORE_POLLS = 200000, SLEEP_NS = 50000 };
    if (n_poll >= (comm->has_own_cores ? OWN_CORE_POLLS : YIELD_POLLS)) {
        mt_clock_sleep_until_ns(mt_clock_ns() + SLEEP_NS);
    } else if (n_poll >= SPIN_POLLS && !comm->has_own_cores) {
        (void)sched_yield();
    }
}

static enum mt_status wait_for(struct mt_exec *exec)
{
    for (int64_t n_poll = 0; !is_complete(exec); ++n_poll) {
        back_off(exec->comm, n_poll);
        MT_TRY(mt_comm_poll(exec->comm)); /* the others too: their peers may be waiting for us */
    }
    return MT_OK;
}

static enum mt_status wait_watched(struct mt_exec *exec)
{
    const int64_t start_ns = mt_clock_ns();
    mt_record_need(exec->record, start_ns);
    mt_job_watch_begin(exec->plan->name, exec->number);
    const enum mt_status status = wait_for(exec);
    mt_job_watch_end();
    mt_span_add_wait_ns(mt_clock_ns() - start_ns);
    return status;
}

enum mt_status mt_exec_end(struct mt_exec *exec)
{
    if (exec->plan == NULL) {
        return MT_OK;
    }
    MT_TRY(exec->device != NULL ? end_whole(exec) : wait_watched(exec));
    remove_active(exec->comm, exec);
    exec->plan = NULL;
    return MT_OK;
}

enum mt_status mt_exec_end_fetched(struct mt_exec *exec)
{
    if (exec->plan == NULL || exec->device == NULL) {
        return mt_exec_end(exec);
    }
    need_whole(exec); /* the host has nothing more for the device until it knows */
    MT_TRY(exec->device->verbs->plan->end_fetched(exec->device, exec->ticket));
    remove_active(exec->comm, exec);
    exec->plan = NULL;
    return MT_OK;
}

static enum mt_status check_device(struct mt_comm *comm)
{
    struct mt_transport *device = comm->device;
    return device != NULL ? device->verbs->plan->check(device) : MT_OK;
}

bool mt_comm_progress(void *comm)
{
    struct mt_comm *c = comm;
    bool is_under_way = false;
    for (int i = 0; i < c->n_active && c->failure == MT_OK; ++i) {
        bool done = false;
        c->failure = mt_exec_poll(c->active[i], &done);
        is_under_way = is_under_way || !done;
    }
    if (c->failure == MT_OK) {
        c->failure = check_device(c);
    }
    return is_under_way && c->failure == MT_OK;
}

enum mt_status mt_comm_poll(struct mt_comm *comm)
{
    MT_TRY(comm->failure);
    for (int i = 0; i < comm->n_active; ++i) {
        bool done = false;
        MT_TRY(mt_exec_poll(comm->active[i], &done));
    }
    return check_device(comm);
}
