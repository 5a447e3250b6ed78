#include "profile/clocks.h"

#include "base/memory.h"
#include "base/size.h"

/* The first trips find a partner that is still busy with another; 16 more found the shortest to
 * within 10 % on 8 ranks of 2 cores (2026-11). */
enum { N_TRIP = 20, ITEM_LOCAL = 0, ITEM_OFFSET, ITEM_ERROR, N_ITEM };

enum mt_status mt_clocks_init(struct mt_clocks *clocks, struct mt_comm *comm, const int *machine,
                              const struct mt_ping_clock *clock)
{
    const int n_rank = comm->topology.n_rank;
    *clocks = (struct mt_clocks){.clock = *clock};
    MT_TRY(MT_ALLOCATE(clocks->leader, n_rank, "clocks"));
    MT_TRY(MT_ALLOCATE(clocks->all, (int64_t)n_rank * N_ITEM, "clocks"));
    for (int rank = 0; rank < n_rank; ++rank) {
        int first = 0;
        while (machine[first] != machine[rank]) {
            ++first;
        }
        clocks->leader[rank] = first;
    }
    return mt_ping_pong_init(&clocks->ping_pong, comm);
}

void mt_clocks_clear(struct mt_clocks *clocks)
{
    mt_ping_pong_clear(&clocks->ping_pong);
    mt_memory_free(clocks->all);
    mt_memory_free(clocks->leader);
    *clocks = (struct mt_clocks){0};
}

/* Of the first rank of each machine; others leave *mine as it is. */
static enum mt_status ask(struct mt_clocks *clocks, int rank, struct mt_clock_meeting *mine)
{
    if (clocks->leader[rank] != rank) {
        return MT_OK;
    }
    return mt_ping_pong_clock(&clocks->ping_pong, 0, rank, N_TRIP, &clocks->clock, mine);
}

enum mt_status mt_clocks_meet(struct mt_clocks *clocks, struct mt_profile_knot *knot,
                              int64_t *error_ns)
{
    struct mt_comm *comm = clocks->ping_pong.comm;
    struct mt_clock_meeting mine = {.local_ns = clocks->clock.read(clocks->clock.context)};
    for (int rank = 1; rank < comm->topology.n_rank; ++rank) {
        MT_TRY(ask(clocks, rank, &mine));
    }
    const int64_t item[N_ITEM] = {mine.local_ns, mine.offset_ns, mine.error_ns};
    MT_TRY(mt_comm_gather_i64(comm, item, N_ITEM, clocks->all));
    const int64_t *its = clocks->all + (int64_t)N_ITEM * clocks->leader[comm->rank];
    *knot = (struct mt_profile_knot){its[ITEM_LOCAL], its[ITEM_OFFSET], its[ITEM_ERROR]};
    *error_ns = 0;
    for (int rank = 0; rank < comm->topology.n_rank; ++rank) {
        *error_ns = mt_max_i64(*error_ns, clocks->all[(int64_t)N_ITEM * rank + ITEM_ERROR]);
    }
    return MT_OK;
}
