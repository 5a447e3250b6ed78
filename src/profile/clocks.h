/* Clocks of all ranks on the clock of rank 0.
 *
 *   rank r of machine m:   first rank of m  --what is your clock?-->  rank 0      n times,
 *                                           <------ reading --------              the shortest trip
 *
 * The reading was taken somewhere inside the round trip, so half of it bounds the error. Ranks of
 * one machine read the same clock, so only its first rank asks. Knots are taken at the start, at
 * intervals and at the end; between two of them drift is linear (mt_profile_align). */
#ifndef MT_PROFILE_CLOCKS_H
#define MT_PROFILE_CLOCKS_H

#include "comm/ping_pong.h"
#include "profile/profile.h"

struct mt_clocks {
    struct mt_ping_pong ping_pong;
    struct mt_ping_clock clock;
    int *leader;  /* [R] first rank of each rank's machine */
    int64_t *all; /* [R, 3] */
};

/* machine [R]: ranks with the same number read one clock. Collective measuring needs
 * mt_comm_reserve_small's default only. Clear it also after an error. */
enum mt_status mt_clocks_init(struct mt_clocks *clocks, struct mt_comm *comm, const int *machine,
                              const struct mt_ping_clock *clock);
void mt_clocks_clear(struct mt_clocks *clocks);

/* Collective. *knot: this rank's; *error_ns: the largest of all ranks'. */
enum mt_status mt_clocks_meet(struct mt_clocks *clocks, struct mt_profile_knot *knot,
                              int64_t *error_ns);

#endif
