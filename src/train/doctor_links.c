/* Carries out the rounds in which pairs of ranks measure their links. */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "comm/ping_pong.h"
#include "train/doctor.h"

/* Trips of a round; medians of them. Links that come out odd are measured four times more, and the
 * best counts: on a machine that does other things too, one median in some is late, and a link that
 * is really slow is so every time. */
enum { N_SMALL = 9, N_LARGE = 5, N_AGAIN = 4 };

static bool is_better(int64_t now_ps, int64_t before_ps)
{
    return before_ps == 0 || now_ps < before_ps;
}

/* mine [n_round, 2] */
static enum mt_status measure_round(struct mt_ping_pong *p, const struct mt_doctor_links *links,
                                    int round, int64_t *mine)
{
    static const int64_t n_bytes[2] = {MT_PING_SMALL_BYTES, MT_PING_LARGE_BYTES};
    static const int n_trip[2] = {N_SMALL, N_LARGE};
    const int partner = mt_doctor_partner(&p->comm->topology, &links->round[round], p->comm->rank);
    MT_ASSERT(mine != NULL);
    for (int i = 0; i < 2; i++) {
        int64_t time_ps = 0;
        MT_TRY(mt_ping_pong_time(p, partner, MT_PING_IN_TURN, n_bytes[i], n_trip[i], &time_ps));
        if (partner >= 0 && is_better(time_ps, mine[2 * round + i])) {
            mine[2 * round + i] = time_ps;
        }
    }
    return MT_OK;
}

/* The same on every rank: whether any is past the deadline. */
static enum mt_status agree_on_time(struct mt_comm *comm, int64_t deadline_ns, bool *is_over)
{
    int64_t n_late = mt_clock_ns() >= deadline_ns ? 1 : 0;
    MT_TRY(mt_comm_sum_i64(comm, &n_late, 1));
    *is_over = n_late > 0;
    return MT_OK;
}

/* Rounds with a link that is odd by what all ranks know; all when `everything`. */
static enum mt_status measure_rounds(struct mt_ping_pong *p, const struct mt_doctor_exam *exam,
                                     bool everything, int64_t deadline_ns, int64_t *mine)
{
    struct mt_doctor_level level[MT_LEVEL_NETWORK + 1];
    for (int which = MT_LEVEL_NODE; which <= MT_LEVEL_NETWORK && !everything; which++) {
        mt_doctor_level(exam, (enum mt_level)which, &level[which]);
    }
    for (int round = 0; round < exam->links->n_round; round++) {
        bool is_over = false;
        if (!everything && !mt_doctor_round_is_odd(exam, level, round)) {
            continue;
        }
        MT_TRY(agree_on_time(p->comm, deadline_ns, &is_over));
        if (is_over) {
            break;
        }
        MT_TRY(measure_round(p, exam->links, round, mine));
    }
    return mt_comm_gather_i64(p->comm, mine, 2 * (int64_t)exam->links->n_round,
                              exam->links->time_ps);
}

enum mt_status mt_doctor_measure_links(struct mt_comm *comm, const struct mt_doctor_exam *exam,
                                       int64_t deadline_ns)
{
    struct mt_ping_pong p;
    int64_t *mine = NULL;
    enum mt_status status = mt_ping_pong_init(&p, comm);
    if (status == MT_OK) {
        status = MT_ALLOCATE(mine, 2 * (int64_t)exam->links->n_round, "links");
    }
    MT_TRY_GOTO(mt_job_agree(status));
    for (int i = 0; i <= N_AGAIN; i++) {
        MT_TRY_GOTO(measure_rounds(&p, exam, i == 0, deadline_ns, mine));
    }
cleanup:
    mt_memory_free(mine);
    mt_ping_pong_clear(&p);
    return status;
}
