/* What would have been: the recorded steps played again with something changed.
 *
 * The graph. On each rank the records are a chain of pieces of work (phase, layer, duration)
 * between moments of communication: a collective is posted, later waited for.
 *
 *   rank a   --attention--post--gate--wait ========> experts--post--
 *   rank b   --attention--gate--post--wait ==> experts------post----
 *                                \__________/
 *                       last needed arrival + transfer
 *
 * A wait is over when the rank has come to it and the last arrival that it needs is a transfer ago.
 * Needed are the sources of its messages, their sources in the same collective (relays), those who
 * receive from it (large messages leave when there is room for them), and of all these who had
 * arrived when it was over.
 *
 * Played unchanged the graph gives back what was measured, which proves little. So the model is
 * also played with every transfer from other steps, the median of the three before:
 * MT_CHANGE_OTHER_TRANSFERS. Nothing that decides how long a step waits is then copied from that
 * step, and what it is off by is the model's own error.
 *
 * A change scales pieces of work or shortens transfers; everything else follows. What it would do
 * to transfers itself (fewer bytes, a freer network) is not modelled. Pure functions. */
#ifndef MT_PROFILE_REPLAY_H
#define MT_PROFILE_REPLAY_H

#include "profile/profile.h"

enum mt_change_kind {
    MT_CHANGE_NOTHING,
    MT_CHANGE_OTHER_TRANSFERS, /* only to tell how far the model is off */
    MT_CHANGE_RANK,       /* `rank` as fast as the median of all, phase by phase, at its own work */
    MT_CHANGE_ALL_RANKS,  /* every rank that is slower than the median as fast as it */
    MT_CHANGE_EXPERTS,    /* every rank's experts compute the mean number of rows, layer by layer */
    MT_CHANGE_ROWS,       /* the experts of `rank` compute the mean number of rows at most */
    MT_CHANGE_LINKS,      /* messages of `rank` take no longer than the median of the others' */
    MT_CHANGE_NODE_LINKS, /* messages to and from `node` are there when all others are; with
                             `to_node` only those between the two */
    MT_CHANGE_PHASE,      /* `phase` costs nothing: no work, no transfer */
    MT_CHANGE_COPIES,     /* copies of experts and their gradients travel in no time */
    MT_CHANGE_TRANSFERS   /* all messages travel in no time */
};

struct mt_change {
    enum mt_change_kind kind;
    int rank, phase;
    int node, to_node; /* -1: all others */
};

/* A stretch of one rank's time. */
enum mt_stretch_kind {
    MT_STRETCH_WORK,
    MT_STRETCH_WAIT,    /* somebody who is needed had not arrived */
    MT_STRETCH_TRANSFER /* all had arrived */
};
struct mt_stretch {
    enum mt_stretch_kind kind;
    int rank;
    int phase; /* of the work or of what was waited for; MT_N_PHASE: unknown */
    int64_t begin_ns, end_ns;
};

struct mt_replay;

/* Steps of the profile that are replayed: at most max_step of those recorded in detail by every
 * rank, the last ones. With one rank: the last ones. MT_OK also when there are none. */
enum mt_status mt_replay_create(const struct mt_profile *profile, int max_step,
                                struct mt_replay **out);
/* The same of steps [first, first + n) only. */
enum mt_status mt_replay_create_of(const struct mt_profile *profile, int first, int n, int max_step,
                                   struct mt_replay **out);
void mt_replay_destroy(struct mt_replay *replay);

int mt_replay_n_step(const struct mt_replay *replay); /* 0: nothing was recorded in detail */
int mt_replay_step(const struct mt_replay *replay, int index); /* ascending, into profile->step */
/* Measured, a step, from its begin until the next one's on the last rank: mean over the steps. */
double mt_replay_measured_ns(const struct mt_replay *replay);
/* The same with the change made. */
double mt_replay_run(struct mt_replay *replay, const struct mt_change *change);
/* With all of them made. */
double mt_replay_run_all(struct mt_replay *replay, const struct mt_change *change, int n);

/* Of the latest run. Times count from the moment when the first rank began the last replayed step;
 * at most max stretches are stored, and the functions return how many there are.
 * timeline: all of that step on one rank, by time.
 * critical: the path through that step which decided how long it took: work and transfers without a
 * gap from its begin to the end of the last rank, the latest first. */
int64_t mt_replay_timeline(const struct mt_replay *replay, int rank, struct mt_stretch *out,
                           int64_t max);
int64_t mt_replay_critical(const struct mt_replay *replay, struct mt_stretch *out, int64_t max);
/* What lies on critical paths over all replayed steps; sums to their time.
 * work_ns, transfer_ns [R, MT_N_PHASE + 1], last phase: unknown. */
void mt_replay_critical_sums(const struct mt_replay *replay, int64_t *work_ns,
                             int64_t *transfer_ns);

/* How much longer than the median rank this one takes for the same work of a phase; 1 where nothing
 * is known. */
double mt_replay_slowness(const struct mt_replay *replay, int rank, int phase);

#endif
