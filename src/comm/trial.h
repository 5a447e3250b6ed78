/* Exchanges that are run to see what they take: the ways of the all-to-all that bring the same
 * bytes, there and back, as rows go to experts and home again. For `moetrain bench collectives` and
 * for the costs that plans are made from. */
#ifndef MT_COMM_TRIAL_H
#define MT_COMM_TRIAL_H

#include "comm/comm.h"

enum mt_trial_way { MT_TRIAL_DIRECT, MT_TRIAL_TWO_LEVEL, MT_TRIAL_LEADER, MT_N_TRIAL_WAY };

struct mt_trial {
    struct mt_comm *comm;
    int64_t *there, *back; /* [R,R] bytes by source and target */
    int64_t send_bytes, recv_bytes;
    char *send, *recv, *home; /* home: what has come back, send again */
    char *stage;
    struct mt_plan plan[2][MT_N_TRIAL_WAY]; /* there, back */
    struct mt_exec *exec;
};

/* Loads, into bytes [R,R]: equal blocks; blocks of four times the size for rank 0 (of R times where
 * there are fewer ranks), the others' smaller by so much that the mean remains. Multiples of 4
 * bytes where pair_bytes is one. */
enum { MT_TRIAL_HOT_FACTOR = 4 };
void mt_trial_fill_even(int n_rank, int64_t pair_bytes, int64_t *bytes);
void mt_trial_fill_hot(int n_rank, int64_t pair_bytes, int64_t *bytes);

/* Buffers and plans for these bytes, the same on every rank; send is zeros. Communicates nothing;
 * clear it also after an error. */
enum mt_status mt_trial_init(struct mt_trial *trial, struct mt_comm *comm, const int64_t *bytes);
void mt_trial_clear(struct mt_trial *trial);
/* Collective: one exchange there, and one back. */
enum mt_status mt_trial_run(struct mt_trial *trial, enum mt_trial_way way);

/* How many runs are timed in a row: of small blocks several. Where ranks outnumber cores they leave
 * the common start milliseconds after each other, which is not the exchange's time. */
int mt_trial_n_in_a_row(int64_t pair_bytes);
/* One run: the slowest rank's seconds, and processor time of all ranks together. */
struct mt_trial_sample {
    double slowest_s, busy_s;
};
/* Collective. From a common start after a millisecond of silence, in which links come to rest as
 * they do while ranks compute, so that no run finds what the one before has left: so many runs in a
 * row; *sample is one's, the same on every rank.
 * time_s [R]: scratch. */
enum mt_status mt_trial_time(struct mt_comm *comm, enum mt_status (*run)(void *context),
                             void *context, int n_run, double *time_s,
                             struct mt_trial_sample *sample);
/* Lower quartile, for other work on a machine only lengthens times. value [n]: sorted on return. */
double mt_trial_typical(double *value, int n);

#endif
