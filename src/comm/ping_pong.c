#include "comm/ping_pong.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"

#include <string.h>

enum { MAX_OP = 2, PS_PER_NS = 1000 };

enum mt_status mt_ping_pong_init(struct mt_ping_pong *p, struct mt_comm *comm)
{
    *p = (struct mt_ping_pong){.comm = comm};
    MT_TRY(MT_ALLOCATE(p->send, MT_PING_LONG_BYTES, "measuring links"));
    MT_TRY(MT_ALLOCATE(p->recv, MT_PING_LONG_BYTES, "measuring links"));
    MT_TRY(mt_plan_init(&p->plan, MAX_OP));
    return mt_exec_create(comm, MAX_OP, &p->exec);
}

void mt_ping_pong_clear(struct mt_ping_pong *p)
{
    mt_exec_destroy(p->exec);
    mt_plan_clear(&p->plan);
    mt_memory_free(p->recv);
    mt_memory_free(p->send);
    *p = (struct mt_ping_pong){0};
}

/* One trip; a message to itself goes one way. Ranks without a partner take part: all begin the same
 * collectives. */
static void plan_trip(struct mt_ping_pong *p, int partner, enum mt_ping_way way, int64_t n_bytes)
{
    const int rank = p->comm->rank;
    const int second = way == MT_PING_IN_TURN && partner != rank ? 1 : 0;
    mt_plan_reset(&p->plan, "costs", MT_ELEMENT_BYTE);
    if (partner < 0) {
        return;
    }
    if (rank <= partner) {
        mt_plan_send(&p->plan, 0, partner, MT_BUFFER_SEND, 0, n_bytes);
        mt_plan_recv(&p->plan, second, partner, MT_BUFFER_RECV, 0, n_bytes);
    } else {
        mt_plan_recv(&p->plan, 0, partner, MT_BUFFER_RECV, 0, n_bytes);
        mt_plan_send(&p->plan, second, partner, MT_BUFFER_SEND, 0, n_bytes);
    }
}

enum mt_status mt_ping_pong_time(struct mt_ping_pong *p, int partner, enum mt_ping_way way,
                                 int64_t n_bytes, int n_trip, int64_t *message_ps)
{
    int64_t trip_ns[MT_PING_MAX_TRIPS];
    int64_t nothing = 0;
    void *const buffer[MT_N_BUFFER] = {p->send, p->recv, NULL};
    MT_ASSERT(n_trip <= MT_PING_MAX_TRIPS && n_bytes <= MT_PING_LONG_BYTES);
    plan_trip(p, partner, way, n_bytes);
    MT_TRY(mt_comm_sum_i64(p->comm, &nothing, 1));
    for (int i = -1; i < n_trip; ++i) {
        const int64_t start_ns = mt_clock_ns();
        MT_TRY(mt_exec_begin(p->exec, &p->plan, buffer));
        MT_TRY(mt_exec_end(p->exec));
        if (i >= 0) {
            trip_ns[i] = mt_clock_ns() - start_ns;
        }
    }
    const int n_message = partner == p->comm->rank || way == MT_PING_BOTH_AT_ONCE ? 1 : 2;
    *message_ps = mt_median_i64(trip_ns, n_trip) * PS_PER_NS / n_message;
    return MT_OK;
}

/* One message from `from` to `to`; the others only take part. */
static enum mt_status send_one(struct mt_ping_pong *p, int from, int to)
{
    const int rank = p->comm->rank;
    void *const buffer[MT_N_BUFFER] = {p->send, p->recv, NULL};
    mt_plan_reset(&p->plan, "clocks", MT_ELEMENT_BYTE);
    if (rank == from) {
        mt_plan_send(&p->plan, 0, to, MT_BUFFER_SEND, 0, MT_PING_SMALL_BYTES);
    } else if (rank == to) {
        mt_plan_recv(&p->plan, 0, from, MT_BUFFER_RECV, 0, MT_PING_SMALL_BYTES);
    }
    MT_TRY(mt_exec_begin(p->exec, &p->plan, buffer));
    return mt_exec_end(p->exec);
}

enum mt_status mt_ping_pong_clock(struct mt_ping_pong *p, int reference, int other, int n_trip,
                                  const struct mt_ping_clock *clock, struct mt_clock_meeting *best)
{
    _Static_assert(sizeof(int64_t) == (size_t)MT_PING_SMALL_BYTES, "a message is one reading");
    const int rank = p->comm->rank;
    for (int i = 0; i < n_trip; ++i) {
        const int64_t start_ns = clock->read(clock->context);
        MT_TRY(send_one(p, other, reference));
        if (rank == reference) {
            const int64_t reading_ns = clock->read(clock->context);
            memcpy(p->send, &reading_ns, sizeof(reading_ns));
        }
        MT_TRY(send_one(p, reference, other));
        const int64_t end_ns = clock->read(clock->context);
        if (rank == other && (i == 0 || end_ns - start_ns < 2 * best->error_ns)) {
            int64_t reading_ns = 0;
            memcpy(&reading_ns, p->recv, sizeof(reading_ns));
            best->local_ns = start_ns + (end_ns - start_ns) / 2;
            best->offset_ns = reading_ns - best->local_ns;
            best->error_ns = (end_ns - start_ns + 1) / 2;
        }
    }
    return MT_OK;
}
