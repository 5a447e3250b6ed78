#include "train/ping_pong.h"

#include "base/clock.h"
#include "base/memory.h"
#include "train/costs.h"

enum { MAX_OP = 2, PS_PER_NS = 1000 };

enum mt_status mt_ping_pong_init(struct mt_ping_pong *p, struct mt_comm *comm)
{
    *p = (struct mt_ping_pong){.comm = comm};
    MT_TRY(MT_ALLOCATE(p->send, MT_PING_LARGE_BYTES, "measuring links"));
    MT_TRY(MT_ALLOCATE(p->recv, MT_PING_LARGE_BYTES, "measuring links"));
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

/* One round trip; a message to itself goes one way. Ranks without a partner take part: all begin
 * the same collectives. */
static void plan_trip(struct mt_ping_pong *p, int partner, int64_t n_bytes)
{
    const int rank = p->comm->rank;
    mt_plan_reset(&p->plan, "costs", MT_ELEMENT_BYTE);
    if (partner < 0) {
        return;
    }
    if (rank <= partner) {
        mt_plan_send(&p->plan, 0, partner, MT_BUFFER_SEND, 0, n_bytes);
    }
    if (rank >= partner) {
        mt_plan_recv(&p->plan, 0, partner, MT_BUFFER_RECV, 0, n_bytes);
    }
    if (rank < partner) {
        mt_plan_recv(&p->plan, 1, partner, MT_BUFFER_RECV, 0, n_bytes);
    }
    if (rank > partner) {
        mt_plan_send(&p->plan, 1, partner, MT_BUFFER_SEND, 0, n_bytes);
    }
}

enum mt_status mt_ping_pong_time(struct mt_ping_pong *p, int partner, int64_t n_bytes, int n_trip,
                                 int64_t *message_ps)
{
    int64_t trip_ns[MT_PING_MAX_TRIPS];
    int64_t nothing = 0;
    void *const buffer[MT_N_BUFFER] = {p->send, p->recv, NULL};
    MT_ASSERT(n_trip <= MT_PING_MAX_TRIPS && n_bytes <= MT_PING_LARGE_BYTES);
    plan_trip(p, partner, n_bytes);
    MT_TRY(mt_comm_sum_i64(p->comm, &nothing, 1));
    for (int i = -1; i < n_trip; ++i) {
        const int64_t start_ns = mt_clock_ns();
        MT_TRY(mt_exec_begin(p->exec, &p->plan, buffer));
        MT_TRY(mt_exec_end(p->exec));
        if (i >= 0) {
            trip_ns[i] = mt_clock_ns() - start_ns;
        }
    }
    const int n_message = partner == p->comm->rank ? 1 : 2;
    *message_ps = mt_costs_median(trip_ns, n_trip) * PS_PER_NS / n_message;
    return MT_OK;
}
