/* Ping-pong between partners: what one message takes, for costs.json and for `moetrain doctor`; and
 * what another rank's clock shows, for profiles.
 *
 *   one round trip    rank a   --ping-->   rank b        round 0
 *                     rank a   <--pong--   rank b        round 1
 *   both at once      rank a   <-------->  rank b        round 0
 */
#ifndef MT_COMM_PING_PONG_H
#define MT_COMM_PING_PONG_H

#include "comm/comm.h"

/* Rates come from messages of 256 KiB: beyond the sizes that MPI sends unasked, below those of
 * large experts, and 9 round trips of 8 ranks on 2 cores still take about 10 ms. Long ones are for
 * links that let the first part of what follows a pause pass sooner, as those of rehearsals do with
 * half a millisecond of their rate: what they take beyond a large one is what lasts. */
enum {
    MT_PING_SMALL_BYTES = 8,
    MT_PING_LARGE_BYTES = 256 << 10,
    MT_PING_LONG_BYTES = 1 << 20,
    MT_PING_MAX_TRIPS = 33,
};

struct mt_ping_pong {
    struct mt_comm *comm;
    struct mt_plan plan;
    struct mt_exec *exec;
    char *send, *recv; /* [MT_PING_LONG_BYTES] */
};

/* Clear it also after an error. */
enum mt_status mt_ping_pong_init(struct mt_ping_pong *p, struct mt_comm *comm);
void mt_ping_pong_clear(struct mt_ping_pong *p);

enum mt_ping_way { MT_PING_IN_TURN, MT_PING_BOTH_AT_ONCE };

/* Collective: all pairs at once. partner: mutual; -1: none, then the rank only takes part; itself:
 * a message goes one way. *message_ps: median of this rank's n_trip <= MT_PING_MAX_TRIPS round
 * trips or exchanges, for one message of n_bytes <= MT_PING_LONG_BYTES; a first one does not
 * count. */
enum mt_status mt_ping_pong_time(struct mt_ping_pong *p, int partner, enum mt_ping_way way,
                                 int64_t n_bytes, int n_trip, int64_t *message_ps);

/* A clock that is read; tests bring their own, with skew and drift. */
struct mt_ping_clock {
    int64_t (*read)(void *context); /* ns, never backwards */
    void *context;
};

/* When this rank's clock was local_ns the reference's was local_ns + offset_ns, give or take
 * error_ns: the reading was taken at some moment of a round trip of 2 * error_ns. */
struct mt_clock_meeting {
    int64_t local_ns, offset_ns, error_ns;
};

/* Collective: rank `other` asks `reference` n_trip >= 1 times what its clock shows, the other ranks
 * take part. *best of rank `other`: from the shortest round trip; elsewhere untouched. */
enum mt_status mt_ping_pong_clock(struct mt_ping_pong *p, int reference, int other, int n_trip,
                                  const struct mt_ping_clock *clock, struct mt_clock_meeting *best);

#endif
